//! Statements that find things by their UUIDs, and those about generated passwords and
//! service clients.

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::content::PATTERNS_READ;
use super::repos::{labels_column, namespace_reads};
use super::{digest_column, size_column, size_value, uuid};
use crate::error::Result;
use crate::names::{RepoName, Tag};
use crate::registry::mlspace::{About, Image, ImageTag, Workspace};
use crate::registry::people::User;
use crate::registry::repos::Slice;
use crate::registry::services::ServiceRow;

// namespace ---------------------------------------------------------------------

const WORKSPACE: &str = "SELECT n.id, n.uuid, n.name, n.created_us, n.kind <> 'plain' FROM namespace AS n";

fn to_workspace(row: &Row) -> rusqlite::Result<Workspace> {
    Ok(Workspace { id: row.get(0)?, uuid: row.get(1)?, name: row.get(2)?, created_us: row.get(3)? })
}

/// A namespace, and whether it belongs to somebody.
pub fn workspace(tx: &Connection, uuid: &str) -> Result<Option<(Workspace, bool)>> {
    let mut statement = tx.prepare_cached(&format!("{WORKSPACE} WHERE n.uuid = ?1"))?;
    Ok(statement.query_row([uuid], |row| Ok((to_workspace(row)?, row.get(4)?))).optional()?)
}

pub fn workspace_named(tx: &Connection, name: &str) -> Result<Option<Workspace>> {
    let mut statement = tx.prepare_cached(&format!("{WORKSPACE} WHERE n.name = ?1"))?;
    Ok(statement.query_row([name], to_workspace).optional()?)
}

/// Whether a user may read anything that is, or will be, in a namespace.
pub fn workspace_shows(tx: &Connection, namespace: i64, user: i64) -> Result<bool> {
    Ok(namespace_reads(tx, namespace, user)?
        || tx
            .prepare_cached(&format!(
                "SELECT EXISTS (SELECT 1 FROM repo WHERE namespace = ?1
                   AND (private = 0 OR name IN ({PATTERNS_READ})))"
            ))?
            .query_row(params![namespace, user], |row| row.get(0))?)
}

/// How many repositories of a namespace a user may read, and when the last of them changed.
/// One walk over the namespace: an index by time would be written with every push.
pub fn workspace_sums(tx: &Connection, namespace: i64, user: i64) -> Result<(u64, Option<i64>)> {
    let whole = namespace_reads(tx, namespace, user)?;
    Ok(tx
        .prepare_cached(&format!(
            "SELECT count(*), max(updated_us) FROM repo
             WHERE namespace = ?1 AND (?3 OR private = 0 OR name IN ({PATTERNS_READ}))"
        ))?
        .query_row(params![namespace, user, whole], |row| Ok((size_column(row, 0)?, row.get(1)?)))?)
}

// repo --------------------------------------------------------------------------

/// A repository's id and name.
pub fn repo_by_uuid(tx: &Connection, uuid: &str) -> Result<Option<(i64, RepoName)>> {
    let found: Option<(i64, String)> = tx
        .prepare_cached("SELECT id, name FROM repo WHERE uuid = ?1")?
        .query_row([uuid], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    found.map(|(id, name)| Ok((id, RepoName::parse(&name)?))).transpose()
}

/// A repository's id, its description and its labels.
pub fn repo_texts(tx: &Connection, uuid: &str) -> Result<Option<(i64, String, Vec<String>)>> {
    Ok(tx
        .prepare_cached("SELECT id, description, labels FROM repo WHERE uuid = ?1")?
        .query_row([uuid], |row| Ok((row.get(0)?, row.get(1)?, labels_column(row, 2)?)))
        .optional()?)
}

// image -------------------------------------------------------------------------

/// Where an image is that is in service: its id, its repository's, and that one's name.
pub fn image_place(tx: &Connection, uuid: &str) -> Result<Option<(i64, i64, RepoName)>> {
    let found: Option<(i64, i64, String)> = tx
        .prepare_cached(
            "SELECT m.id, r.id, r.name FROM manifest AS m JOIN repo AS r ON r.id = m.repo
             WHERE m.uuid = ?1 AND m.live",
        )?
        .query_row([uuid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    found.map(|(id, repo, name)| Ok((id, repo, RepoName::parse(&name)?))).transpose()
}

/// An image with its sum: of an index, what its images name as far as they are here.
const IMAGE: &str = "SELECT m.id, r.id, m.uuid, r.name, r.uuid, m.digest, m.bytes,
    m.content_bytes + (SELECT coalesce(sum(k.content_bytes), 0) FROM child AS c
      JOIN manifest AS k ON k.repo = m.repo AND k.digest = c.digest AND k.live WHERE c.manifest = m.id),
    m.pushed_us, m.config
  FROM manifest AS m JOIN repo AS r ON r.id = m.repo";

/// Manifests (m) that are listed: those with a tag, and those that no index beside them names.
/// A cross join is walked in its order: few indexes name a digest, a repository may be large.
const LISTED: &str = "m.live AND (EXISTS (SELECT 1 FROM tag WHERE manifest = m.id)
    OR NOT EXISTS (SELECT 1 FROM child AS c CROSS JOIN manifest AS p ON p.id = c.manifest
      WHERE c.digest = m.digest AND p.repo = m.repo))";

fn to_image(row: &Row) -> rusqlite::Result<Image> {
    let config: Option<String> = row.get(9)?;
    Ok(Image {
        id: row.get(0)?,
        repo_id: row.get(1)?,
        uuid: row.get(2)?,
        repo: row.get(3)?,
        repo_uuid: row.get(4)?,
        digest: digest_column(row, 5)?,
        bytes: size_column(row, 6)?,
        content_bytes: size_column(row, 7)?,
        pushed_us: row.get(8)?,
        config: config.map(|_| digest_column(row, 9)).transpose()?,
        tags: Vec::new(),
        about: About::Platforms(Vec::new()),
    })
}

/// An image that is in service, without its tags.
pub fn image(tx: &Connection, uuid: &str) -> Result<Option<Image>> {
    Ok(tx
        .prepare_cached(&format!("{IMAGE} WHERE m.uuid = ?1 AND m.live"))?
        .query_row([uuid], to_image)
        .optional()?)
}

/// A repository's images, the newest first, without their tags.
pub fn images(tx: &Connection, repo: i64, slice: Slice) -> Result<Vec<Image>> {
    let mut statement = tx.prepare_cached(&format!(
        "{IMAGE} WHERE m.repo = ?1 AND {LISTED} ORDER BY m.pushed_us DESC, m.id DESC LIMIT ?2 OFFSET ?3"
    ))?;
    let rows = statement.query_map(params![repo, slice.take, size_value(slice.skip)], to_image)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn images_count(tx: &Connection, repo: i64) -> Result<u64> {
    Ok(tx
        .prepare_cached(&format!("SELECT count(*) FROM manifest AS m WHERE m.repo = ?1 AND {LISTED}"))?
        .query_row([repo], |row| size_column(row, 0))?)
}

// tag ---------------------------------------------------------------------------

/// Signed: cosign's tag beside the image, or a manifest that refers to it and is a signature
/// by its type: cosign's, notation's, or a Sigstore bundle, unless that says it attests
/// something else.
const IMAGE_TAG: &str = "SELECT t.uuid, t.name, t.color, t.pushed_us, m.uuid, r.uuid, r.name,
    EXISTS (SELECT 1 FROM tag AS s WHERE s.repo = m.repo AND s.name = replace(m.digest, ':', '-') || '.sig')
      OR EXISTS (SELECT 1 FROM manifest AS s WHERE s.repo = m.repo AND s.subject = m.digest AND s.live
           AND (s.artifact_type LIKE 'application/vnd.dev.cosign.artifact.sig.%'
             OR s.artifact_type LIKE 'application/vnd.cncf.notary.%signature'
             OR s.artifact_type LIKE 'application/vnd.dev.sigstore.bundle%'
               AND coalesce(s.annotations ->> '$.\"dev.sigstore.bundle.predicateType\"', '')
                 IN ('', 'https://sigstore.dev/cosign/sign/v1')))
  FROM tag AS t JOIN manifest AS m ON m.id = t.manifest AND m.live JOIN repo AS r ON r.id = t.repo";

fn image_tags_where(tx: &Connection, rest: &str, values: &[&dyn ToSql]) -> Result<Vec<ImageTag>> {
    let mut statement = tx.prepare_cached(&format!("{IMAGE_TAG} WHERE {rest}"))?;
    let rows = statement.query_map(values, |row| {
        Ok(ImageTag {
            uuid: row.get(0)?,
            name: row.get(1)?,
            color: row.get(2)?,
            pushed_us: row.get(3)?,
            image_uuid: row.get(4)?,
            repo_uuid: row.get(5)?,
            repo: row.get(6)?,
            signed: row.get(7)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn tags_of_image(tx: &Connection, image: i64, slice: Slice) -> Result<Vec<ImageTag>> {
    let page = params![image, slice.take, size_value(slice.skip)];
    image_tags_where(tx, "t.manifest = ?1 ORDER BY t.name LIMIT ?2 OFFSET ?3", page)
}

pub fn tags_of_repo(tx: &Connection, repo: i64, slice: Slice) -> Result<Vec<ImageTag>> {
    let page = params![repo, slice.take, size_value(slice.skip)];
    image_tags_where(tx, "t.repo = ?1 ORDER BY t.name LIMIT ?2 OFFSET ?3", page)
}

pub fn image_tag(tx: &Connection, uuid: &str) -> Result<Option<ImageTag>> {
    Ok(image_tags_where(tx, "t.uuid = ?1", params![uuid])?.pop())
}

/// A tag's id, its repository and its name, whatever it points at.
pub fn tag_place(tx: &Connection, uuid: &str) -> Result<Option<(i64, RepoName, Tag)>> {
    let found: Option<(i64, String, String)> = tx
        .prepare_cached(
            "SELECT t.id, r.name, t.name FROM tag AS t JOIN repo AS r ON r.id = t.repo WHERE t.uuid = ?1",
        )?
        .query_row([uuid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    found.map(|(id, repo, tag)| Ok((id, RepoName::parse(&repo)?, Tag::parse(&tag)?))).transpose()
}

pub fn tag_set_color(tx: &Connection, id: i64, color: Option<&str>) -> Result<()> {
    tx.prepare_cached("UPDATE tag SET color = ?2 WHERE id = ?1")?.execute(params![id, color])?;
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

pub fn generated_password_delete(tx: &Connection, user: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM generated_password WHERE user = ?1")?.execute([user])?;
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

// service_client ----------------------------------------------------------------

/// A new client's id.
pub fn service_insert(
    tx: &Connection,
    user: i64,
    namespace: i64,
    secret: &[u8; 32],
    api_key: &[u8; 32],
    now_us: i64,
) -> Result<String> {
    let id = uuid()?;
    tx.prepare_cached(
        "INSERT INTO service_client (id, secret, api_key, user, namespace, created_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![id, secret, api_key, user, namespace, now_us])?;
    Ok(id)
}

/// True if it was there.
pub fn service_delete(tx: &Connection, id: &str) -> Result<bool> {
    Ok(tx.prepare_cached("DELETE FROM service_client WHERE id = ?1")?.execute([id])? > 0)
}

const SERVICE_ROW: &str = "SELECT s.id, u.name, n.name, n.uuid, s.created_us FROM service_client AS s
  JOIN user AS u ON u.id = s.user JOIN namespace AS n ON n.id = s.namespace";

fn to_service(row: &Row) -> rusqlite::Result<ServiceRow> {
    Ok(ServiceRow {
        id: row.get(0)?,
        user: row.get(1)?,
        workspace: row.get(2)?,
        workspace_id: row.get(3)?,
        created_us: row.get(4)?,
    })
}

/// Every client. For the administrator; there are few.
pub fn services(tx: &Connection) -> Result<Vec<ServiceRow>> {
    let mut statement = tx.prepare_cached(&format!("{SERVICE_ROW} ORDER BY u.name, s.created_us, s.id"))?;
    let rows = statement.query_map([], to_service)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn service(tx: &Connection, id: &str) -> Result<Option<ServiceRow>> {
    Ok(tx
        .prepare_cached(&format!("{SERVICE_ROW} WHERE s.id = ?1"))?
        .query_row([id], to_service)
        .optional()?)
}

/// Whom a client acts for, and where; with a secret, only if it is that client's.
pub fn service_holder(
    tx: &Connection,
    id: &str,
    secret: Option<&[u8; 32]>,
) -> Result<Option<(User, Workspace)>> {
    let found: Option<(i64, Workspace)> = tx
        .prepare_cached(
            "SELECT n.id, n.uuid, n.name, n.created_us, s.user FROM service_client AS s
             JOIN namespace AS n ON n.id = s.namespace WHERE s.id = ?1 AND (?2 IS NULL OR s.secret = ?2)",
        )?
        .query_row(params![id, secret], |row| Ok((row.get(4)?, to_workspace(row)?)))
        .optional()?;
    let Some((user, workspace)) = found else { return Ok(None) };
    Ok(super::user_by_id(tx, user)?.map(|user| (user, workspace)))
}

/// Whether a key is one of a namespace's clients'.
pub fn service_key_fits(tx: &Connection, namespace: i64, api_key: &[u8; 32]) -> Result<bool> {
    Ok(tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM service_client WHERE namespace = ?1 AND api_key = ?2)")?
        .query_row(params![namespace, api_key], |row| row.get(0))?)
}
