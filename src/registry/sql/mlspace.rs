//! Statements that find things by their UUIDs, and those about generated passwords and
//! service clients.

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::content::CONTENT_SUM;
use super::repos::{labels_column, step_through};
use super::sight::{PATTERNS_READ, namespace_reads};
use super::{digest_column, digest_or_null, size_column, uuid};
use crate::error::Result;
use crate::names::{RepoName, Tag};
use crate::registry::mlspace::{About, Image, ImageTag, Workspace};
use crate::registry::pages::{Step, Walk};
use crate::registry::people::User;
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

/// Images where the rest of the statement says.
fn image_where(rest: &str) -> String {
    format!(
        "SELECT m.id, r.id, m.uuid, r.name, r.uuid, m.digest, m.bytes, {CONTENT_SUM}, m.pushed_us, m.config
         FROM manifest AS m JOIN repo AS r ON r.id = m.repo WHERE {rest}"
    )
}

fn to_image(row: &Row) -> rusqlite::Result<Image> {
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
        config: digest_or_null(row, 9)?,
        tags: Vec::new(),
        about: About::Platforms(Vec::new()),
    })
}

/// An image that is in service, without its tags.
pub fn image(tx: &Connection, uuid: &str) -> Result<Option<Image>> {
    Ok(tx.prepare_cached(&image_where("m.uuid = ?1 AND m.live"))?.query_row([uuid], to_image).optional()?)
}

/// Images by their ids, in this order, without their tags.
pub fn images_by_id(tx: &Connection, ids: &[i64]) -> Result<Vec<Image>> {
    let mut statement = tx.prepare_cached(&image_where("m.id = ?1"))?;
    ids.iter().map(|id| Ok(statement.query_row([id], to_image)?)).collect()
}

/// Walks through a repository's images, the newest first, without those that only an index
/// lists. Damaged ones are among them. A step's name is its id.
pub fn images_walk(
    tx: &Connection,
    repo: i64,
    walk: &Walk,
    each: &mut dyn FnMut(Step) -> bool,
) -> Result<()> {
    let after = if walk.after.is_some() { "AND (m.pushed_us, m.id) < (?4, CAST(?5 AS INTEGER))" } else { "" };
    let sql = format!(
        "SELECT m.id, m.pushed_us, CAST(m.id AS TEXT) FROM manifest AS m
         WHERE m.repo = ?1 AND NOT EXISTS (SELECT 1 FROM hidden WHERE manifest = m.id) {after}
         ORDER BY m.pushed_us DESC, m.id DESC LIMIT ?6 OFFSET ?7"
    );
    step_through(tx, &sql, (repo, 0, ""), walk, each)
}

/// How many images such a walk passes.
pub fn images_count(tx: &Connection, repo: i64) -> Result<u64> {
    Ok(tx
        .prepare_cached("SELECT manifests - hidden FROM repo_sums WHERE repo = ?1")?
        .query_row([repo], |row| size_column(row, 0))?)
}

// tag ---------------------------------------------------------------------------

/// Whether an image (m) is signed: cosign's tag beside it, or a manifest that refers to it and is a
/// signature by its type: cosign's, notation's, or a Sigstore bundle, unless that says it
/// attests something else.
const SIGNED: &str =
    "(EXISTS (SELECT 1 FROM tag AS s WHERE s.repo = m.repo AND s.name = replace(m.digest, ':', '-') || '.sig')
      OR EXISTS (SELECT 1 FROM manifest AS s WHERE s.repo = m.repo AND s.subject = m.digest AND s.live
           AND (s.artifact_type LIKE 'application/vnd.dev.cosign.artifact.sig.%'
             OR s.artifact_type LIKE 'application/vnd.cncf.notary.%signature'
             OR s.artifact_type LIKE 'application/vnd.dev.sigstore.bundle%'
               AND coalesce(s.annotations ->> '$.\"dev.sigstore.bundle.predicateType\"', '')
                 IN ('', 'https://sigstore.dev/cosign/sign/v1'))))";

/// Whether a repository may hold anything signed: most hold nothing of the kind, and then no tag
/// need be asked for it.
fn signs(tx: &Connection, repo: i64) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM manifest WHERE repo = ?1 AND subject IS NOT NULL)
               OR EXISTS (SELECT 1 FROM tag WHERE repo = ?1 AND name >= 'sha' AND name < 'shb')",
        )?
        .query_row([repo], |row| row.get(0))?)
}

fn image_tags_where(
    tx: &Connection,
    signs: bool,
    rest: &str,
    values: &[&dyn ToSql],
) -> Result<Vec<ImageTag>> {
    let signed = if signs { SIGNED } else { "0" };
    let mut statement = tx.prepare_cached(&format!(
        "SELECT t.uuid, t.name, t.color, t.pushed_us, m.uuid, r.uuid, r.name, {signed}
         FROM tag AS t JOIN manifest AS m ON m.id = t.manifest AND m.live JOIN repo AS r ON r.id = t.repo
         WHERE {rest}"
    ))?;
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

/// The first of an image's tags by name.
pub fn tags_of_image(tx: &Connection, repo: i64, image: i64, most: u32) -> Result<Vec<ImageTag>> {
    image_tags_where(tx, signs(tx, repo)?, "t.manifest = ?1 ORDER BY t.name LIMIT ?2", params![image, most])
}

/// The first of a repository's tags by name.
pub fn tags_of_repo(tx: &Connection, repo: i64, most: u32) -> Result<Vec<ImageTag>> {
    image_tags_where(tx, signs(tx, repo)?, "t.repo = ?1 ORDER BY t.name LIMIT ?2", params![repo, most])
}

/// Walks through an image's tags, by name.
pub fn image_tags_walk(
    tx: &Connection,
    image: i64,
    walk: &Walk,
    each: &mut dyn FnMut(Step) -> bool,
) -> Result<()> {
    let sql = "SELECT id, 0, name FROM tag WHERE manifest = ?1 AND name > ?5
         ORDER BY name LIMIT ?6 OFFSET ?7";
    step_through(tx, sql, (image, 0, ""), walk, each)
}

/// Tags by their ids, in this order, if their images are in service.
pub fn image_tags_by_id(tx: &Connection, ids: &[i64]) -> Result<Vec<ImageTag>> {
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        rows.extend(image_tags_where(tx, true, "t.id = ?1", params![id])?);
    }
    Ok(rows)
}

pub fn image_tag(tx: &Connection, uuid: &str) -> Result<Option<ImageTag>> {
    Ok(image_tags_where(tx, true, "t.uuid = ?1", params![uuid])?.pop())
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
