//! Candidates, what nobody holds any more, and what retention lets go.

use rusqlite::{Connection, OptionalExtension, params};

use super::{digest_column, size_column};
use crate::error::Result;
use crate::names::Digest;

/// A blob that may have lost its last user, and since when: service seconds, 0 for
/// "whenever it was pushed".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub since_secs: i64,
    pub blob: i64,
}

pub fn candidate_insert(tx: &Connection, candidate: Candidate) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO gc_candidate (since_secs, blob) VALUES (?1, ?2)")?
        .execute(params![candidate.since_secs, candidate.blob])?;
    Ok(())
}

/// The service time of the last push that is still a candidate; 0 if there is none.
pub fn candidate_newest(tx: &Connection) -> Result<i64> {
    Ok(tx
        .prepare_cached("SELECT coalesce(max(since_secs), 0) FROM gc_candidate")?
        .query_row([], |row| row.get(0))?)
}

pub fn candidate_delete(tx: &Connection, candidate: Candidate) -> Result<()> {
    tx.prepare_cached("DELETE FROM gc_candidate WHERE since_secs IN (0, ?1) AND blob = ?2")?
        .execute(params![candidate.since_secs, candidate.blob])?;
    Ok(())
}

/// Candidates after `last`, since `cut_secs` or longer, oldest first.
pub fn candidates(tx: &Connection, last: Candidate, cut_secs: i64, limit: u32) -> Result<Vec<Candidate>> {
    let mut statement = tx.prepare_cached(
        "SELECT since_secs, blob FROM gc_candidate
         WHERE (since_secs, blob) > (?1, ?2) AND since_secs <= ?3
         ORDER BY since_secs, blob LIMIT ?4",
    )?;
    let rows = statement.query_map(params![last.since_secs, last.blob, cut_secs, limit], |row| {
        Ok(Candidate { since_secs: row.get(0)?, blob: row.get(1)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The repositories that hold a blob which no manifest of theirs relies on, and that
/// nobody pushed there after `cut_secs`: id and name.
pub fn blob_holders_unused(tx: &Connection, blob: i64, cut_secs: i64) -> Result<Vec<(i64, String)>> {
    let mut statement = tx.prepare_cached(
        "SELECT r.id, r.name FROM repo_blob AS rb JOIN repo AS r ON r.id = rb.repo
         WHERE rb.blob = ?1 AND rb.seen_secs <= ?2 AND NOT EXISTS
           (SELECT 1 FROM edge AS e JOIN manifest AS m ON m.id = e.manifest
            WHERE e.blob = ?1 AND m.repo = rb.repo)",
    )?;
    let rows = statement.query_map(params![blob, cut_secs], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A blob's digest and size.
pub fn blob_by_id(tx: &Connection, blob: i64) -> Result<Option<(Digest, u64)>> {
    Ok(tx
        .prepare_cached("SELECT digest, bytes FROM blob WHERE id = ?1")?
        .query_row([blob], |row| Ok((digest_column(row, 0)?, size_column(row, 1)?)))
        .optional()?)
}

/// The blobs a manifest relies on.
pub fn edges(tx: &Connection, manifest: i64) -> Result<Vec<i64>> {
    let mut statement = tx.prepare_cached("SELECT blob FROM edge WHERE manifest = ?1")?;
    let rows = statement.query_map([manifest], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// When the first of the repositories that hold a blob for no manifest was pushed it.
pub fn repo_blob_unused_since(tx: &Connection, blob: i64) -> Result<Option<i64>> {
    Ok(tx
        .prepare_cached(
            "SELECT min(seen_secs) FROM repo_blob AS rb WHERE blob = ?1 AND NOT EXISTS
               (SELECT 1 FROM edge AS e JOIN manifest AS m ON m.id = e.manifest
                WHERE e.blob = ?1 AND m.repo = rb.repo)",
        )?
        .query_row([blob], |row| row.get(0))?)
}

/// Deletes a blob that no repository holds; false if one does.
pub fn blob_delete_unheld(tx: &Connection, blob: i64) -> Result<bool> {
    let gone = tx
        .prepare_cached(
            "DELETE FROM blob WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM repo_blob WHERE blob = ?1)",
        )?
        .execute([blob])?;
    Ok(gone > 0)
}

// retention -------------------------------------------------------------------

/// A repository's id and name, and a tag of it or a manifest.
pub struct Tagged {
    pub id: i64,
    pub name: String,
    pub manifest: i64,
}

/// Repositories whose names fit a GLOB, after `last`, in ASCII order.
pub fn repos_like(tx: &Connection, glob: &str, last: &str, limit: u32) -> Result<Vec<(i64, String)>> {
    let mut statement = tx.prepare_cached(
        "SELECT id, name FROM repo WHERE name > ?2 AND name GLOB ?1 ORDER BY name LIMIT ?3",
    )?;
    let rows = statement.query_map(params![glob, last, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Tags that fit a GLOB and were pushed in `cut_secs` or before, but for the `keep` newest.
pub fn tags_beyond(
    tx: &Connection,
    repo: i64,
    glob: &str,
    keep: u32,
    cut_secs: i64,
    limit: u32,
) -> Result<Vec<Tagged>> {
    let mut statement = tx.prepare_cached(
        "SELECT id, name, manifest FROM tag WHERE repo = ?1 AND name GLOB ?2 AND pushed_secs <= ?4
         ORDER BY pushed_secs DESC, pushed_us DESC, id DESC LIMIT ?5 OFFSET ?3",
    )?;
    let rows = statement.query_map(params![repo, glob, keep, cut_secs, limit], |row| {
        Ok(Tagged { id: row.get(0)?, name: row.get(1)?, manifest: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn tag_delete_by_id(tx: &Connection, tag: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM tag WHERE id = ?1")?.execute([tag])?;
    Ok(())
}

/// Whether a manifest is tagged, or a parent or subject of it is, or one of all these was
/// pushed after `cut_secs`.
pub fn manifest_reached(tx: &Connection, manifest: i64, cut_secs: i64) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "WITH RECURSIVE up (id) AS (
               SELECT ?1
               UNION
               SELECT p.id FROM up JOIN manifest AS m ON m.id = up.id
                 JOIN child AS c ON c.digest = m.digest
                 JOIN manifest AS p ON p.id = c.manifest AND p.repo = m.repo
               UNION
               SELECT s.id FROM up JOIN manifest AS m ON m.id = up.id
                 JOIN manifest AS s ON s.repo = m.repo AND s.digest = m.subject
             )
             SELECT EXISTS (SELECT 1 FROM up JOIN manifest AS m ON m.id = up.id
               WHERE m.pushed_secs > ?2 OR EXISTS (SELECT 1 FROM tag WHERE manifest = m.id))",
        )?
        .query_row(params![manifest, cut_secs], |row| row.get(0))?)
}

/// A manifest, what it lists, and what is about any of them, as far as it is here.
pub fn manifests_below(tx: &Connection, manifest: i64, limit: u32) -> Result<Vec<(i64, Digest)>> {
    let mut statement = tx.prepare_cached(
        "WITH RECURSIVE down (id) AS (
           SELECT ?1
           UNION
           SELECT k.id FROM down JOIN manifest AS m ON m.id = down.id
             JOIN child AS c ON c.manifest = m.id
             JOIN manifest AS k ON k.repo = m.repo AND k.digest = c.digest
           UNION
           SELECT r.id FROM down JOIN manifest AS m ON m.id = down.id
             JOIN manifest AS r ON r.repo = m.repo AND r.subject = m.digest
         )
         SELECT m.id, m.digest FROM down JOIN manifest AS m ON m.id = down.id LIMIT ?2",
    )?;
    let rows =
        statement.query_map(params![manifest, limit], |row| Ok((row.get(0)?, digest_column(row, 1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A repository's manifests pushed in `cut_secs` or before, after the digest `last`.
pub fn manifests_aged(
    tx: &Connection,
    repo: i64,
    last: &str,
    cut_secs: i64,
    limit: u32,
) -> Result<Vec<(i64, Digest)>> {
    let mut statement = tx.prepare_cached(
        "SELECT id, digest FROM manifest WHERE repo = ?1 AND digest > ?2 AND pushed_secs <= ?3
         ORDER BY digest LIMIT ?4",
    )?;
    let rows = statement
        .query_map(params![repo, last, cut_secs, limit], |row| Ok((row.get(0)?, digest_column(row, 1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
