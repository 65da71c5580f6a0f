//! Statements that find things by their UUIDs, and those about generated passwords.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::repos::tags_where;
use super::{digest_column, size_column};
use crate::error::Result;
use crate::registry::mlspace::{Image, Workspace};
use crate::registry::repos::TagRow;

const WORKSPACE: &str = "SELECT n.uuid, n.name, n.created_us FROM namespace AS n";

fn to_workspace(row: &Row) -> rusqlite::Result<Workspace> {
    Ok(Workspace { uuid: row.get(0)?, name: row.get(1)?, created_us: row.get(2)? })
}

pub fn workspace(tx: &Connection, uuid: &str) -> Result<Option<Workspace>> {
    let mut statement = tx.prepare_cached(&format!("{WORKSPACE} WHERE n.uuid = ?1"))?;
    Ok(statement.query_row([uuid], to_workspace).optional()?)
}

pub fn workspace_named(tx: &Connection, name: &str) -> Result<Option<Workspace>> {
    let mut statement = tx.prepare_cached(&format!("{WORKSPACE} WHERE n.name = ?1"))?;
    Ok(statement.query_row([name], to_workspace).optional()?)
}

/// A repository's full name.
pub fn repo_name_by_uuid(tx: &Connection, uuid: &str) -> Result<Option<String>> {
    Ok(tx
        .prepare_cached("SELECT name FROM repo WHERE uuid = ?1")?
        .query_row([uuid], |row| row.get(0))
        .optional()?)
}

// image -------------------------------------------------------------------------

/// Signed: cosign's tag beside it, or a signature of cosign or notation that refers to it.
const IMAGE: &str = "SELECT m.id, m.uuid, r.name, r.uuid, m.digest, m.content_bytes, m.pushed_us, m.config,
    EXISTS (SELECT 1 FROM tag WHERE repo = m.repo AND name = replace(m.digest, ':', '-') || '.sig')
      OR EXISTS (SELECT 1 FROM manifest AS s WHERE s.repo = m.repo AND s.subject = m.digest
           AND (s.artifact_type LIKE 'application/vnd.cncf.notary.%'
             OR s.artifact_type LIKE 'application/vnd.dev.cosign.%'
             OR s.artifact_type LIKE 'application/vnd.dev.sigstore.%'))
  FROM manifest AS m JOIN repo AS r ON r.id = m.repo";

fn to_image(row: &Row) -> rusqlite::Result<(i64, Image)> {
    let config: Option<String> = row.get(7)?;
    let image = Image {
        uuid: row.get(1)?,
        repo: row.get(2)?,
        repo_uuid: row.get(3)?,
        digest: digest_column(row, 4)?,
        content_bytes: size_column(row, 5)?,
        pushed_us: row.get(6)?,
        config: config.map(|_| digest_column(row, 7)).transpose()?,
        signed: row.get(8)?,
        tags: Vec::new(),
    };
    Ok((row.get(0)?, image))
}

fn with_tags(tx: &Connection, (id, mut image): (i64, Image)) -> Result<Image> {
    image.tags = tags_where(tx, "t.manifest = ?1 ORDER BY t.name", params![id])?;
    Ok(image)
}

pub fn image(tx: &Connection, uuid: &str) -> Result<Option<Image>> {
    let found = tx
        .prepare_cached(&format!("{IMAGE} WHERE m.uuid = ?1 AND m.live"))?
        .query_row([uuid], to_image)
        .optional()?;
    found.map(|found| with_tags(tx, found)).transpose()
}

/// A repository's images, the newest first, without those that only an index names.
pub fn images(tx: &Connection, repo: i64, most: u32) -> Result<Vec<Image>> {
    let found = tx
        .prepare_cached(&format!(
            "{IMAGE} WHERE m.repo = ?1 AND m.live AND (EXISTS (SELECT 1 FROM tag WHERE manifest = m.id)
               OR NOT EXISTS (SELECT 1 FROM child AS c JOIN manifest AS p ON p.id = c.manifest
                    WHERE c.digest = m.digest AND p.repo = m.repo))
             ORDER BY m.pushed_us DESC, m.id DESC LIMIT ?2"
        ))?
        .query_map(params![repo, most], to_image)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    found.into_iter().map(|found| with_tags(tx, found)).collect()
}

// tag ---------------------------------------------------------------------------

pub fn tag_by_uuid(tx: &Connection, uuid: &str) -> Result<Option<TagRow>> {
    Ok(tags_where(tx, "t.uuid = ?1", params![uuid])?.pop())
}

pub fn tag_set_color(tx: &Connection, uuid: &str, color: Option<&str>) -> Result<()> {
    tx.prepare_cached("UPDATE tag SET color = ?2 WHERE uuid = ?1")?.execute(params![uuid, color])?;
    Ok(())
}

// generated_password ------------------------------------------------------------

/// Replaces a user's. Its time also tells it from the one before, so it only grows.
pub fn generated_password_set(tx: &Connection, user: i64, hash: &[u8; 32], now_us: i64) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO generated_password (user, hash, created_us) VALUES (?1, ?2, ?3)
         ON CONFLICT (user) DO UPDATE
           SET hash = excluded.hash, created_us = max(excluded.created_us, created_us + 1)",
    )?
    .execute(params![user, hash, now_us])?;
    Ok(())
}

/// Whose it is, and since when.
pub fn generated_password(tx: &Connection, hash: &[u8; 32]) -> Result<Option<(i64, i64)>> {
    Ok(tx
        .prepare_cached("SELECT user, created_us FROM generated_password WHERE hash = ?1")?
        .query_row([hash], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

pub fn generated_password_since(tx: &Connection, user: i64) -> Result<Option<i64>> {
    Ok(tx
        .prepare_cached("SELECT created_us FROM generated_password WHERE user = ?1")?
        .query_row([user], |row| row.get(0))
        .optional()?)
}
