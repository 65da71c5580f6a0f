//! What a scrub reads, and what is out of service.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{digest_column, size_column};
use crate::error::Result;
use crate::names::Digest;

fn id_digest_bytes(row: &Row) -> rusqlite::Result<(i64, Digest, u64)> {
    Ok((row.get(0)?, digest_column(row, 1)?, size_column(row, 2)?))
}

/// Live blobs after `last`, by id: id, digest, bytes.
pub fn blobs_after(tx: &Connection, last: i64, limit: u32) -> Result<Vec<(i64, Digest, u64)>> {
    let mut statement =
        tx.prepare_cached("SELECT id, digest, bytes FROM blob WHERE id > ?1 AND live ORDER BY id LIMIT ?2")?;
    let rows = statement.query_map(params![last, limit], id_digest_bytes)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Ids of live manifests after `last`.
pub fn manifests_after(tx: &Connection, last: i64, limit: u32) -> Result<Vec<i64>> {
    let mut statement =
        tx.prepare_cached("SELECT id FROM manifest WHERE id > ?1 AND live ORDER BY id LIMIT ?2")?;
    let rows = statement.query_map(params![last, limit], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A manifest's digest and body.
pub fn manifest_by_id(tx: &Connection, id: i64) -> Result<Option<(Digest, Vec<u8>)>> {
    Ok(tx
        .prepare_cached("SELECT digest, body FROM manifest WHERE id = ?1")?
        .query_row([id], |row| Ok((digest_column(row, 0)?, row.get(1)?)))
        .optional()?)
}

/// What SQLite itself finds wrong, a line each: a few of them.
pub fn wrong_rows(tx: &Connection) -> Result<Vec<String>> {
    const LINES: usize = 5;
    let mut statement = tx.prepare(&format!("PRAGMA integrity_check({LINES})"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut wrong: Vec<String> = lines.collect::<rusqlite::Result<_>>()?;
    wrong.retain(|line| line != "ok");
    let mut statement = tx.prepare("PRAGMA foreign_key_check")?;
    let rows = statement.query_map([], |row| {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        Ok(format!("a row of {table} names a row of {parent} that is not there"))
    })?;
    for row in rows.take(LINES) {
        wrong.push(row?);
    }
    Ok(wrong)
}

/// Bytes of all blobs and manifests.
pub fn stored_bytes(tx: &Connection) -> Result<u64> {
    Ok(tx
        .prepare_cached(
            "SELECT coalesce((SELECT sum(bytes) FROM blob), 0) + coalesce((SELECT sum(bytes) FROM manifest), 0)",
        )?
        .query_row([], |row| size_column(row, 0))?)
}

/// Live blobs: how many, and their bytes.
pub fn blobs_sum(tx: &Connection) -> Result<(u64, u64)> {
    Ok(tx
        .prepare_cached("SELECT count(*), coalesce(sum(bytes), 0) FROM blob WHERE live")?
        .query_row([], |row| Ok((size_column(row, 0)?, size_column(row, 1)?)))?)
}

/// Blobs out of service: id, digest, bytes.
pub fn blobs_bad(tx: &Connection, limit: u32) -> Result<Vec<(i64, Digest, u64)>> {
    let mut statement =
        tx.prepare_cached("SELECT id, digest, bytes FROM blob WHERE live = 0 ORDER BY digest LIMIT ?1")?;
    let rows = statement.query_map([limit], id_digest_bytes)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn manifests_bad(tx: &Connection, limit: u32) -> Result<Vec<(i64, Digest, u64)>> {
    let mut statement =
        tx.prepare_cached("SELECT id, digest, bytes FROM manifest WHERE live = 0 ORDER BY digest LIMIT ?1")?;
    let rows = statement.query_map([limit], id_digest_bytes)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Names of images that rely on a blob, at most ten.
pub fn images_of_blob(tx: &Connection, blob: i64) -> Result<Vec<String>> {
    let mut statement = tx.prepare_cached("SELECT manifest FROM edge WHERE blob = ?1 LIMIT 10")?;
    let manifests = statement.query_map([blob], |row| row.get(0))?;
    let mut names = Vec::new();
    for manifest in manifests {
        names.extend(names_of_manifest(tx, manifest?)?);
    }
    names.truncate(10);
    Ok(names)
}

/// `REPOSITORY:TAG` for each of a manifest's tags, at most ten, or `REPOSITORY@DIGEST`.
pub fn names_of_manifest(tx: &Connection, manifest: i64) -> Result<Vec<String>> {
    let mut statement = tx.prepare_cached(
        "SELECT r.name || coalesce(':' || t.name, '@' || m.digest)
         FROM manifest AS m JOIN repo AS r ON r.id = m.repo LEFT JOIN tag AS t ON t.manifest = m.id
         WHERE m.id = ?1 LIMIT 10",
    )?;
    let rows = statement.query_map([manifest], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Blobs pushed or mounted at this service time or later: digest and bytes.
pub fn blobs_recent(tx: &Connection, since_secs: i64, limit: u32) -> Result<Vec<(Digest, u64)>> {
    let mut statement = tx.prepare_cached(
        "SELECT DISTINCT b.digest, b.bytes FROM gc_candidate AS c JOIN blob AS b ON b.id = c.blob
         WHERE c.since_secs >= ?1 AND b.live LIMIT ?2",
    )?;
    let rows = statement
        .query_map(params![since_secs, limit], |row| Ok((digest_column(row, 0)?, size_column(row, 1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_contradict_each_other_are_told_of_a_few_at_a_time() {
        let tx = Connection::open_in_memory().expect("opens");
        let make = "PRAGMA foreign_keys = OFF; CREATE TABLE repo (id INTEGER PRIMARY KEY);
             CREATE TABLE tag (repo INTEGER REFERENCES repo (id)); INSERT INTO repo VALUES (1);
             INSERT INTO tag VALUES (1);";
        tx.execute_batch(make).expect("is made");
        assert_eq!(wrong_rows(&tx).expect("looks"), Vec::<String>::new());
        for orphan in 2..20 {
            tx.execute("INSERT INTO tag VALUES (?1)", [orphan]).expect("is inserted");
        }
        let wrong = wrong_rows(&tx).expect("looks");
        assert_eq!(wrong.len(), 5);
        assert_eq!(wrong[0], "a row of tag names a row of repo that is not there");
    }
}
