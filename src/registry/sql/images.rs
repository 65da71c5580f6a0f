//! Images with what they are made of, for the command line.

use rusqlite::{Connection, Row, params};

use super::{digest_column, size_column};
use crate::error::Result;
use crate::names::Digest;
use crate::registry::images::{BlobPart, ImageRow, TagLine};

const IMAGE_ROW: &str = "SELECT m.digest, m.media_type, m.artifact_type, m.subject, m.bytes, m.content_bytes,
    m.pushed_us, u.name, m.live, (SELECT json_group_array(name) FROM
      (SELECT name FROM tag WHERE manifest = m.id ORDER BY name LIMIT 1000))
  FROM manifest AS m LEFT JOIN user AS u ON u.id = m.pushed_by";

fn to_image_row(row: &Row) -> rusqlite::Result<ImageRow> {
    let tags: String = row.get(9)?;
    let tags = serde_json::from_str(&tags).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(9, rusqlite::types::Type::Text, error.into())
    })?;
    Ok(ImageRow {
        digest: row.get(0)?,
        media_type: row.get(1)?,
        artifact_type: row.get(2)?,
        subject: row.get(3)?,
        bytes: size_column(row, 4)?,
        content_bytes: size_column(row, 5)?,
        pushed_us: row.get(6)?,
        pushed_by: row.get(7)?,
        live: row.get(8)?,
        tags,
    })
}

/// A repository's images after a digest, by digest, at most a thousand tags each.
pub fn image_rows(tx: &Connection, repo: i64, last: &str, limit: u32) -> Result<Vec<ImageRow>> {
    let mut statement = tx.prepare_cached(&format!(
        "{IMAGE_ROW} WHERE m.repo = ?1 AND m.digest > ?2 ORDER BY m.digest LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![repo, last, limit], to_image_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn image_row(tx: &Connection, manifest: i64) -> Result<ImageRow> {
    Ok(tx.prepare_cached(&format!("{IMAGE_ROW} WHERE m.id = ?1"))?.query_row([manifest], to_image_row)?)
}

/// The blobs a manifest relies on, the largest first.
pub fn image_blobs(tx: &Connection, manifest: i64) -> Result<Vec<BlobPart>> {
    let mut statement = tx.prepare_cached(
        "SELECT b.digest, b.bytes, b.live FROM edge AS e JOIN blob AS b ON b.id = e.blob
         WHERE e.manifest = ?1 ORDER BY b.bytes DESC, b.digest",
    )?;
    let rows = statement.query_map([manifest], |row| {
        Ok(BlobPart { digest: row.get(0)?, bytes: size_column(row, 1)?, live: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Digests of the manifests an index lists.
pub fn image_children(tx: &Connection, manifest: i64) -> Result<Vec<String>> {
    let mut statement = tx.prepare_cached("SELECT digest FROM child WHERE manifest = ?1 ORDER BY digest")?;
    let rows = statement.query_map([manifest], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The digest of an image's config; None for an index.
pub fn image_config(tx: &Connection, manifest: i64) -> Result<Option<Digest>> {
    Ok(tx.prepare_cached("SELECT config FROM manifest WHERE id = ?1")?.query_row([manifest], |row| {
        let config: Option<String> = row.get(0)?;
        config.map(|_| digest_column(row, 0)).transpose()
    })?)
}

/// A repository's tags after a name, by name.
pub fn tags_after(tx: &Connection, repo: i64, last: &str, limit: u32) -> Result<Vec<TagLine>> {
    let mut statement = tx.prepare_cached(
        "SELECT t.name, m.digest, t.color, t.pushed_us, u.name FROM tag AS t
         JOIN manifest AS m ON m.id = t.manifest LEFT JOIN user AS u ON u.id = t.pushed_by
         WHERE t.repo = ?1 AND t.name > ?2 ORDER BY t.name LIMIT ?3",
    )?;
    let rows = statement.query_map(params![repo, last, limit], |row| {
        Ok(TagLine {
            name: row.get(0)?,
            digest: row.get(1)?,
            color: row.get(2)?,
            pushed_us: row.get(3)?,
            pushed_by: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
