//! Statements about manifests and tags as the administrator sees them.

use rusqlite::{Connection, Row, ToSql, params};

use super::content::CONTENT_SUM;
use super::{digest_column, digest_or_null, size_column};
use crate::error::Result;
use crate::names::{Digest, Reference};
use crate::registry::images::{ImageRow, TagLine};

fn to_image_row(row: &Row) -> rusqlite::Result<ImageRow> {
    Ok(ImageRow {
        id: row.get(0)?,
        digest: digest_column(row, 1)?,
        media_type: row.get(2)?,
        artifact_type: row.get(3)?,
        bytes: size_column(row, 4)?,
        content_bytes: size_column(row, 5)?,
        config: digest_or_null(row, 6)?,
        subject: digest_or_null(row, 7)?,
        pushed_us: row.get(8)?,
        pushed_by: row.get(9)?,
        live: row.get(10)?,
        tags: Vec::new(),
        tag_count: size_column(row, 11)?,
    })
}

/// Manifests with their first so many tags.
fn image_rows_where(
    tx: &Connection,
    rest: &str,
    values: &[&dyn ToSql],
    tags_max: u32,
) -> Result<Vec<ImageRow>> {
    let mut rows = tx
        .prepare_cached(&format!(
            "SELECT m.id, m.digest, m.media_type, m.artifact_type, m.bytes, {CONTENT_SUM}, m.config, m.subject,
               m.pushed_us, u.name, m.live, (SELECT count(*) FROM tag WHERE manifest = m.id)
             FROM manifest AS m LEFT JOIN user AS u ON u.id = m.pushed_by WHERE {rest}"
        ))?
        .query_map(values, to_image_row)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut tags = tx.prepare_cached("SELECT name FROM tag WHERE manifest = ?1 ORDER BY name LIMIT ?2")?;
    for row in &mut rows {
        let names = tags.query_map(params![row.id, tags_max], |row| row.get(0))?;
        row.tags = names.collect::<rusqlite::Result<_>>()?;
    }
    Ok(rows)
}

/// A repository's manifests, the newest first: those after a time and an id.
pub fn image_rows(
    tx: &Connection,
    repo: i64,
    after: (i64, i64),
    tags_max: u32,
    limit: u32,
) -> Result<Vec<ImageRow>> {
    let rest = "m.repo = ?1 AND (m.pushed_us, m.id) < (?2, ?3) ORDER BY m.pushed_us DESC, m.id DESC LIMIT ?4";
    image_rows_where(tx, rest, params![repo, after.0, after.1, limit], tags_max)
}

/// One manifest, whether it is in service or not.
pub fn image_row(
    tx: &Connection,
    repo: i64,
    reference: &Reference,
    tags_max: u32,
) -> Result<Option<ImageRow>> {
    let rest = match reference {
        Reference::Digest(_) => "m.repo = ?1 AND m.digest = ?2",
        Reference::Tag(_) => "m.id = (SELECT manifest FROM tag WHERE repo = ?1 AND name = ?2)",
    };
    Ok(image_rows_where(tx, rest, params![repo, reference.to_string()], tags_max)?.pop())
}

/// The bytes of blobs that no other manifest relies on.
pub fn image_frees(tx: &Connection, manifest: i64) -> Result<u64> {
    Ok(tx
        .prepare_cached(
            "SELECT coalesce(sum(b.bytes), 0) FROM edge AS e JOIN blob AS b ON b.id = e.blob
             WHERE e.manifest = ?1
               AND NOT EXISTS (SELECT 1 FROM edge AS o WHERE o.blob = e.blob AND o.manifest <> ?1)",
        )?
        .query_row([manifest], |row| size_column(row, 0))?)
}

/// What an index lists and its repository does not hold, or not in service.
pub fn children_missing(tx: &Connection, repo: i64, manifest: i64) -> Result<Vec<Digest>> {
    let mut statement = tx.prepare_cached(
        "SELECT c.digest FROM child AS c WHERE c.manifest = ?2
           AND NOT EXISTS (SELECT 1 FROM manifest AS m WHERE m.repo = ?1 AND m.digest = c.digest AND m.live)",
    )?;
    let rows = statement.query_map([repo, manifest], |row| digest_column(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Indexes of a repository that list a manifest.
pub fn manifests_listing(tx: &Connection, repo: i64, digest: &Digest, limit: u32) -> Result<Vec<Digest>> {
    // A cross join is walked in its order: few indexes list a digest, a repository may be large.
    let mut statement = tx.prepare_cached(
        "SELECT m.digest FROM child AS c CROSS JOIN manifest AS m ON m.id = c.manifest
         WHERE c.digest = ?2 AND m.repo = ?1 ORDER BY m.digest LIMIT ?3",
    )?;
    let rows = statement.query_map(params![repo, digest.as_str(), limit], |row| digest_column(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

// tag ---------------------------------------------------------------------------

/// Tags after `last`, in ASCII order.
pub fn tags_after(tx: &Connection, repo: i64, last: &str, limit: u32) -> Result<Vec<TagLine>> {
    let mut statement = tx.prepare_cached(
        "SELECT t.name, m.digest, m.media_type, t.color, t.pushed_us, u.name, m.live FROM tag AS t
         JOIN manifest AS m ON m.id = t.manifest LEFT JOIN user AS u ON u.id = t.pushed_by
         WHERE t.repo = ?1 AND t.name > ?2 ORDER BY t.name LIMIT ?3",
    )?;
    let rows = statement.query_map(params![repo, last, limit], |row| {
        Ok(TagLine {
            name: row.get(0)?,
            digest: digest_column(row, 1)?,
            media_type: row.get(2)?,
            color: row.get(3)?,
            pushed_us: row.get(4)?,
            pushed_by: row.get(5)?,
            live: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
