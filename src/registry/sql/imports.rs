//! Imports, the tags they moved, and the keys that are trusted.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::import::{ImportRow, Sender, TagMoved};
use super::super::trust::TrustedKey;
use super::{digest_column, digest_or_null};
use crate::bundle::{KeyName, PublicKey};
use crate::error::Result;
use crate::names::Digest;

const COLUMNS: &str = "id, source, sender, sequence, imported_us, rolled_back_us,
    (SELECT count(*) FROM import_tag WHERE import = import.id)";

fn import_row(row: &Row) -> rusqlite::Result<ImportRow> {
    Ok(ImportRow {
        id: row.get(0)?,
        source: row.get(1)?,
        sender: row.get(2)?,
        sequence: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
        imported_us: row.get(4)?,
        rolled_back_us: row.get(5)?,
        tags: super::size_column(row, 6)?,
    })
}

/// The newest imports.
pub fn imports(tx: &Connection, limit: u32) -> Result<Vec<ImportRow>> {
    let mut statement =
        tx.prepare_cached(&format!("SELECT {COLUMNS} FROM import ORDER BY id DESC LIMIT ?1"))?;
    let rows = statement.query_map([limit], import_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn import(tx: &Connection, id: i64) -> Result<Option<ImportRow>> {
    let mut statement = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM import WHERE id = ?1"))?;
    Ok(statement.query_row([id], import_row).optional()?)
}

pub fn import_insert(
    tx: &Connection,
    source: &str,
    sender: &Sender,
    by: Option<i64>,
    now_us: i64,
) -> Result<i64> {
    Ok(tx
        .prepare_cached(
            "INSERT INTO import (source, sender, sequence, imported_by, imported_us)
             VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id",
        )?
        .query_row(
            params![
                source,
                sender.name.as_ref().map(KeyName::as_str),
                sender.sequence.map(u64::cast_signed),
                by,
                now_us
            ],
            |row| row.get(0),
        )?)
}

/// Forgets all but the newest.
pub fn imports_forget(tx: &Connection, keep: u32) -> Result<()> {
    tx.prepare_cached(
        "DELETE FROM import WHERE id <= (SELECT id FROM import ORDER BY id DESC LIMIT 1 OFFSET ?1)",
    )?
    .execute([keep])?;
    Ok(())
}

pub fn import_set_rolled_back(tx: &Connection, id: i64, now_us: i64) -> Result<()> {
    tx.prepare_cached("UPDATE import SET rolled_back_us = ?2 WHERE id = ?1")?.execute(params![id, now_us])?;
    Ok(())
}

pub fn import_tag_insert(tx: &Connection, import: i64, moved: &TagMoved) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO import_tag (import, repo, tag, before, after) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        import,
        moved.repo,
        moved.tag,
        moved.before.as_ref().map(Digest::as_str),
        moved.digest.as_str()
    ])?;
    Ok(())
}

/// The tags an import moved, by name.
pub fn import_tags(tx: &Connection, import: i64) -> Result<Vec<TagMoved>> {
    let mut statement = tx.prepare_cached(
        "SELECT repo, tag, before, after FROM import_tag WHERE import = ?1 ORDER BY repo, tag",
    )?;
    let rows = statement.query_map([import], |row| {
        Ok(TagMoved {
            repo: row.get(0)?,
            tag: row.get(1)?,
            before: digest_or_null(row, 2)?,
            digest: digest_column(row, 3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A live manifest in whatever repository has one: a probe for each.
pub fn manifest_anywhere(tx: &Connection, digest: &Digest) -> Result<Option<i64>> {
    Ok(tx
        .prepare_cached(
            "SELECT m.id FROM repo AS r CROSS JOIN manifest AS m ON m.repo = r.id AND m.digest = ?1
             WHERE m.live LIMIT 1",
        )?
        .query_row([digest.as_str()], |row| row.get(0))
        .optional()?)
}

// trusted_key -----------------------------------------------------------------

const KEY_COLUMNS: &str = "name, public, sequence, trusted_us";

fn key_row(row: &Row) -> rusqlite::Result<TrustedKey> {
    let text: String = row.get(0)?;
    let name = KeyName::parse(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })?;
    Ok(TrustedKey {
        name,
        public: PublicKey::of_bytes(row.get(1)?),
        sequence: super::size_column(row, 2)?,
        trusted_us: row.get(3)?,
    })
}

pub fn trusted_keys(tx: &Connection) -> Result<Vec<TrustedKey>> {
    let mut statement = tx.prepare_cached(&format!("SELECT {KEY_COLUMNS} FROM trusted_key ORDER BY name"))?;
    let rows = statement.query_map([], key_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn trusted_key(tx: &Connection, name: &str) -> Result<Option<TrustedKey>> {
    let mut statement =
        tx.prepare_cached(&format!("SELECT {KEY_COLUMNS} FROM trusted_key WHERE name = ?1"))?;
    Ok(statement.query_row([name], key_row).optional()?)
}

pub fn trusted_key_insert(tx: &Connection, name: &str, public: &PublicKey, now_us: i64) -> Result<()> {
    tx.prepare_cached("INSERT INTO trusted_key (name, public, trusted_us) VALUES (?1, ?2, ?3)")?
        .execute(params![name, public.bytes(), now_us])?;
    Ok(())
}

pub fn trusted_key_delete(tx: &Connection, name: &str) -> Result<bool> {
    Ok(tx.prepare_cached("DELETE FROM trusted_key WHERE name = ?1")?.execute([name])? > 0)
}

pub fn trusted_key_set_sequence(tx: &Connection, name: &str, sequence: u64) -> Result<()> {
    tx.prepare_cached("UPDATE trusted_key SET sequence = ?2 WHERE name = ?1")?
        .execute(params![name, super::size_value(sequence)])?;
    Ok(())
}
