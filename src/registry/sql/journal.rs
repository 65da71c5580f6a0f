//! Rows for the log of manifests: the state of one, and the ids of all.

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::Result;

/// A repository: its name, and whether it is private.
pub fn journal_repo(tx: &Connection, id: i64) -> Result<Option<(String, bool)>> {
    Ok(tx
        .prepare_cached("SELECT name, private FROM repo WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

/// A manifest, to be written down.
pub struct JournalManifest {
    pub repo: i64,
    pub digest: String,
    pub media_type: String,
    pub body: Vec<u8>,
}

pub fn journal_manifest(tx: &Connection, id: i64) -> Result<Option<JournalManifest>> {
    Ok(tx
        .prepare_cached("SELECT repo, digest, media_type, body FROM manifest WHERE id = ?1 AND live")?
        .query_row([id], |row| {
            Ok(JournalManifest {
                repo: row.get(0)?,
                digest: row.get(1)?,
                media_type: row.get(2)?,
                body: row.get(3)?,
            })
        })
        .optional()?)
}

/// A tag: its repository, name and manifest.
pub fn journal_tag(tx: &Connection, id: i64) -> Result<Option<(i64, String, i64)>> {
    Ok(tx
        .prepare_cached("SELECT repo, name, manifest FROM tag WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?)
}

fn ids(tx: &Connection, sql: &str, last: i64, limit: u32) -> Result<Vec<i64>> {
    let mut statement = tx.prepare_cached(sql)?;
    let rows = statement.query_map(params![last, limit], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn journal_repos(tx: &Connection, last: i64, limit: u32) -> Result<Vec<i64>> {
    ids(tx, "SELECT id FROM repo WHERE id > ?1 ORDER BY id LIMIT ?2", last, limit)
}

pub fn journal_manifests(tx: &Connection, last: i64, limit: u32) -> Result<Vec<i64>> {
    ids(tx, "SELECT id FROM manifest WHERE id > ?1 AND live ORDER BY id LIMIT ?2", last, limit)
}

pub fn journal_tags(tx: &Connection, last: i64, limit: u32) -> Result<Vec<i64>> {
    ids(tx, "SELECT id FROM tag WHERE id > ?1 ORDER BY id LIMIT ?2", last, limit)
}
