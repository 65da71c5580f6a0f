//! Statements of Docker's v1 index: tokens, announced images, what is searched for.

use rusqlite::{Connection, OptionalExtension, params};

use super::{digest_column, digest_or_null, size_column};
use crate::error::Result;
use crate::names::RepoName;
use crate::registry::index_v1::{Found, V1Image};

// v1_token ----------------------------------------------------------------------

pub fn v1_token_insert(
    tx: &Connection,
    hash: &[u8],
    user: i64,
    repo: &RepoName,
    access: &str,
    expires_secs: i64,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO v1_token (hash, user, repo, access, expires_secs) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![hash, user, repo.full(), access, expires_secs])?;
    Ok(())
}

/// Drops what has expired, and a user's oldest beyond so many.
pub fn v1_tokens_trim(tx: &Connection, user: i64, keep: u32, now_secs: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM v1_token WHERE expires_secs <= ?1")?.execute([now_secs])?;
    tx.prepare_cached(
        "DELETE FROM v1_token WHERE hash IN (SELECT hash FROM v1_token WHERE user = ?1
           ORDER BY expires_secs DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute(params![user, keep])?;
    Ok(())
}

/// A token's user, repository and access, while it is good.
pub fn v1_token(tx: &Connection, hash: &[u8], now_secs: i64) -> Result<Option<(i64, String, String)>> {
    Ok(tx
        .prepare_cached(
            "SELECT user, repo, access FROM v1_token
             WHERE hash = ?1 AND expires_secs > ?2 AND user IS NOT NULL",
        )?
        .query_row(params![hash, now_secs], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?)
}

/// True if it was there.
pub fn v1_token_delete(tx: &Connection, hash: &[u8]) -> Result<bool> {
    Ok(tx.prepare_cached("DELETE FROM v1_token WHERE hash = ?1")?.execute([hash])? > 0)
}

/// Takes a user's tokens away.
pub fn v1_tokens_void(tx: &Connection, user: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM v1_token WHERE user = ?1")?.execute([user])?;
    Ok(())
}

/// Whether a repository of this name was deleted a while ago: a delete leaves a row.
pub fn v1_is_buried(tx: &Connection, repo: &RepoName, now_secs: i64) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM v1_token
               WHERE repo = ?1 AND access = 'delete' AND expires_secs > ?2)",
        )?
        .query_row(params![repo.full(), now_secs], |row| row.get(0))?)
}

// v1_image ----------------------------------------------------------------------

/// How many images were announced, and the position after the last of them.
pub fn v1_images_end(tx: &Connection, repo: i64) -> Result<(u64, i64)> {
    Ok(tx
        .prepare_cached("SELECT count(*), coalesce(max(position), 0) + 1 FROM v1_image WHERE repo = ?1")?
        .query_row([repo], |row| Ok((size_column(row, 0)?, row.get(1)?)))?)
}

/// Notes an image. One that is there keeps its place, and its checksum if it has one.
pub fn v1_image_set(tx: &Connection, repo: i64, image: &V1Image, position: i64) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO v1_image (repo, image, position, checksum) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (repo, image) DO UPDATE SET checksum = coalesce(checksum, excluded.checksum)",
    )?
    .execute(params![repo, image.id, position, image.checksum])?;
    Ok(())
}

/// Announced images, in the order they came.
pub fn v1_images(tx: &Connection, repo: i64) -> Result<Vec<V1Image>> {
    let mut statement =
        tx.prepare_cached("SELECT image, checksum FROM v1_image WHERE repo = ?1 ORDER BY position, image")?;
    let rows = statement.query_map([repo], |row| Ok(V1Image { id: row.get(0)?, checksum: row.get(1)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn id_and_checksum(row: &rusqlite::Row, config: usize, manifest: usize) -> rusqlite::Result<V1Image> {
    let manifest = digest_column(row, manifest)?;
    let config = digest_or_null(row, config)?;
    let id = config.as_ref().unwrap_or(&manifest).hex().to_owned();
    Ok(V1Image { id, checksum: Some(manifest.as_str().to_owned()) })
}

/// Pushed images as the index shows them, in the order they came.
pub fn v1_images_pushed(tx: &Connection, repo: i64, limit: u32) -> Result<Vec<V1Image>> {
    let mut statement = tx.prepare_cached(
        "SELECT config, digest FROM manifest WHERE repo = ?1 AND live ORDER BY pushed_us, id LIMIT ?2",
    )?;
    let rows = statement.query_map(params![repo, limit], |row| id_and_checksum(row, 0, 1))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Tags, each with the id of its image. All of them, or the one that is named.
pub fn v1_tags(tx: &Connection, repo: i64, tag: Option<&str>, limit: u32) -> Result<Vec<(String, String)>> {
    let mut statement = tx.prepare_cached(
        "SELECT t.name, m.config, m.digest FROM tag AS t JOIN manifest AS m ON m.id = t.manifest
         WHERE t.repo = ?1 AND (?2 IS NULL OR t.name = ?2) AND m.live ORDER BY t.name LIMIT ?3",
    )?;
    let rows = statement
        .query_map(params![repo, tag, limit], |row| Ok((row.get(0)?, id_and_checksum(row, 1, 2)?.id)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

// search --------------------------------------------------------------------------

/// Whether anything is public.
pub fn any_public(tx: &Connection) -> Result<bool> {
    Ok(tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM repo WHERE private = 0)")?
        .query_row([], |row| row.get(0))?)
}

/// What a search shows of repositories, by their full names and in this order.
pub fn found(tx: &Connection, names: &[String]) -> Result<Vec<Found>> {
    let mut statement = tx.prepare_cached(
        "SELECT r.name, r.description, s.stars FROM repo AS r JOIN repo_sums AS s ON s.repo = r.id
         WHERE r.name = ?1",
    )?;
    let row = |name| {
        Ok(statement.query_row([name], |row| {
            Ok(Found { name: row.get(0)?, description: row.get(1)?, stars: size_column(row, 2)? })
        })?)
    };
    names.iter().map(row).collect()
}
