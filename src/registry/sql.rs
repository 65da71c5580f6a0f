//! Every SQL statement, grouped by table, each a function of a transaction and names.
//!
//! A row that does not parse is an error, never a default.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::catalog::{Referrer, RepoRow};
use super::people::{User, UserRow};
use super::random;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::names::{Digest, RepoName, Tag, UserName, Uuid};

fn digest_column(row: &Row, index: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(index)?;
    Digest::parse(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, error.into())
    })
}

fn size_column(row: &Row, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index)?.try_into().map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, -1))
}

/// Bytes as SQLite stores them. Nothing that is stored reaches 8 EiB; what a manifest
/// claims may, and is cut there.
fn size_value(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A new UUID's text.
fn uuid() -> Result<String> {
    let mut bytes = [0; 16];
    random(&mut bytes)?;
    Ok(Uuid::from_random(bytes).as_str().to_owned())
}

// meta ------------------------------------------------------------------------

pub fn meta_get(tx: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    Ok(tx
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?)
}

pub fn meta_set(tx: &Connection, key: &str, value: &[u8]) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![key, value])?;
    Ok(())
}

// user ------------------------------------------------------------------------

fn user_row(row: &Row) -> rusqlite::Result<UserRow> {
    Ok(UserRow {
        user: User { id: row.get(0)?, name: row.get(1)?, admin: row.get(2)?, generation: row.get(3)? },
        password: row.get(4)?,
        created_us: row.get(5)?,
        emails: Vec::new(),
    })
}

pub fn user_by_login(tx: &Connection, login: &str) -> Result<Option<UserRow>> {
    Ok(tx
        .prepare_cached(
            "SELECT id, name, admin, generation, password, created_us FROM user
             WHERE name = ?1 OR id = (SELECT user FROM email WHERE address = ?1)
             ORDER BY name = ?1 DESC LIMIT 1",
        )?
        .query_row([login], user_row)
        .optional()?)
}

pub fn user_by_id(tx: &Connection, id: i64) -> Result<Option<User>> {
    Ok(tx
        .prepare_cached("SELECT id, name, admin, generation, password, created_us FROM user WHERE id = ?1")?
        .query_row([id], user_row)
        .optional()?
        .map(|row| row.user))
}

/// Every user by name, with e-mail addresses. For the administrator; there are few.
pub fn users(tx: &Connection) -> Result<Vec<UserRow>> {
    let mut statement = tx
        .prepare_cached("SELECT id, name, admin, generation, password, created_us FROM user ORDER BY name")?;
    let mut rows = statement.query_map([], user_row)?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut emails =
        tx.prepare_cached("SELECT address FROM email WHERE user = ?1 ORDER BY created_us, address")?;
    for row in &mut rows {
        row.emails = emails.query_map([row.user.id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    }
    Ok(rows)
}

pub fn user_count(tx: &Connection) -> Result<u64> {
    Ok(tx.prepare_cached("SELECT count(*) FROM user")?.query_row([], |row| size_column(row, 0))?)
}

pub fn user_insert(
    tx: &Connection,
    name: &UserName,
    password: &str,
    admin: bool,
    now_us: i64,
) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO user (uuid, name, password, admin, created_us) VALUES (?5, ?1, ?2, ?3, ?4)",
    )?
    .execute(params![name.as_str(), password, admin, now_us, uuid()?])?;
    Ok(tx.last_insert_rowid())
}

pub fn user_set_password(tx: &Connection, id: i64, password: &str) -> Result<()> {
    tx.prepare_cached("UPDATE user SET password = ?2, generation = generation + 1 WHERE id = ?1")?
        .execute(params![id, password])?;
    Ok(())
}

/// The same password under a new hash: nothing that was remembered becomes void.
pub fn user_renew_password(tx: &Connection, id: i64, old: &str, new: &str) -> Result<()> {
    tx.prepare_cached("UPDATE user SET password = ?3 WHERE id = ?1 AND password = ?2")?
        .execute(params![id, old, new])?;
    Ok(())
}

pub fn user_set_admin(tx: &Connection, id: i64, admin: bool) -> Result<()> {
    tx.prepare_cached("UPDATE user SET admin = ?2, generation = generation + 1 WHERE id = ?1")?
        .execute(params![id, admin])?;
    Ok(())
}

pub fn user_delete(tx: &Connection, id: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM user WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub fn admin_count(tx: &Connection) -> Result<u64> {
    Ok(tx
        .prepare_cached("SELECT count(*) FROM user WHERE admin")?
        .query_row([], |row| size_column(row, 0))?)
}

pub fn email_owner(tx: &Connection, address: &str) -> Result<Option<i64>> {
    Ok(tx
        .prepare_cached("SELECT user FROM email WHERE address = ?1")?
        .query_row([address], |row| row.get(0))
        .optional()?)
}

pub fn email_insert(tx: &Connection, address: &str, user: i64, now_us: i64) -> Result<()> {
    tx.prepare_cached("INSERT INTO email (address, user, created_us) VALUES (?1, ?2, ?3)")?
        .execute(params![address, user, now_us])?;
    Ok(())
}

// namespace -------------------------------------------------------------------

/// A namespace's id, made without an owner if it is new.
pub fn namespace_make(tx: &Connection, name: &str, now_us: i64) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO namespace (uuid, name, created_us) VALUES (?3, ?1, ?2) ON CONFLICT (name) DO NOTHING",
    )?
    .execute(params![name, now_us, uuid()?])?;
    Ok(tx.prepare_cached("SELECT id FROM namespace WHERE name = ?1")?.query_row([name], |row| row.get(0))?)
}

pub fn namespace_set_owner(tx: &Connection, id: i64, owner: i64) -> Result<()> {
    tx.prepare_cached("UPDATE namespace SET owner = ?2, kind = 'user' WHERE id = ?1")?
        .execute(params![id, owner])?;
    Ok(())
}

pub fn namespace_owner(tx: &Connection, name: &str) -> Result<Option<i64>> {
    let row: Option<Option<i64>> = tx
        .prepare_cached("SELECT owner FROM namespace WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(row.flatten())
}

// repo ------------------------------------------------------------------------

#[derive(Clone, Copy)]
pub struct RepoKey {
    pub id: i64,
    pub private: bool,
}

pub fn repo(tx: &Connection, name: &RepoName) -> Result<Option<RepoKey>> {
    Ok(tx
        .prepare_cached("SELECT id, private FROM repo WHERE name = ?1")?
        .query_row([name.full()], |row| Ok(RepoKey { id: row.get(0)?, private: row.get(1)? }))
        .optional()?)
}

pub fn repo_insert(
    tx: &Connection,
    namespace: i64,
    name: &RepoName,
    private: bool,
    now_us: i64,
) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO repo (uuid, namespace, name, private, created_us, updated_us)
         VALUES (?5, ?1, ?2, ?3, ?4, ?4)",
    )?
    .execute(params![namespace, name.full(), private, now_us, uuid()?])?;
    Ok(tx.last_insert_rowid())
}

/// Notes that something was pushed.
pub fn repo_set_pushed(tx: &Connection, id: i64, now_us: i64) -> Result<()> {
    tx.prepare_cached("UPDATE repo SET pushed = 1, pushed_us = ?2, updated_us = ?2 WHERE id = ?1")?
        .execute(params![id, now_us])?;
    Ok(())
}

pub fn repo_set_private(tx: &Connection, id: i64, private: bool) -> Result<()> {
    tx.prepare_cached("UPDATE repo SET private = ?2 WHERE id = ?1")?.execute(params![id, private])?;
    Ok(())
}

pub fn repo_delete(tx: &Connection, id: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM repo WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Names of repositories that hold a manifest, after `last`, in ASCII order: the public
/// ones and those in namespaces of `owner`; all of them for an administrator.
pub fn catalog(tx: &Connection, admin: bool, owner: i64, last: &str, limit: u32) -> Result<Vec<String>> {
    // Each branch walks its own index in name order, so a page costs the same in any store.
    let sql = if admin {
        "SELECT name FROM repo AS r WHERE name > ?1
           AND EXISTS (SELECT 1 FROM manifest WHERE repo = r.id) AND ?2 = ?2
         ORDER BY name LIMIT ?3"
    } else {
        "SELECT name FROM repo AS r WHERE private = 0 AND name > ?1
           AND EXISTS (SELECT 1 FROM manifest WHERE repo = r.id)
         UNION
         SELECT r.name FROM namespace AS n JOIN repo AS r ON r.namespace = n.id
           WHERE n.owner = ?2 AND r.name > ?1
           AND EXISTS (SELECT 1 FROM manifest WHERE repo = r.id)
         ORDER BY name LIMIT ?3"
    };
    let mut statement = tx.prepare_cached(sql)?;
    let rows = statement.query_map(params![last, owner, limit], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A repository with its sums, for the administrator's eyes.
const REPO_ROW: &str = "SELECT r.name, r.private, r.created_us,
    (SELECT count(*) FROM tag WHERE repo = r.id),
    (SELECT count(*) FROM manifest WHERE repo = r.id),
    (SELECT coalesce(sum(b.bytes), 0) FROM repo_blob AS rb JOIN blob AS b ON b.id = rb.blob
     WHERE rb.repo = r.id)
  FROM repo AS r";

fn to_repo_row(row: &Row) -> rusqlite::Result<RepoRow> {
    Ok(RepoRow {
        name: row.get(0)?,
        private: row.get(1)?,
        created_us: row.get(2)?,
        tags: size_column(row, 3)?,
        images: size_column(row, 4)?,
        blob_bytes: size_column(row, 5)?,
    })
}

/// Repositories after `last`, in ASCII order.
pub fn repo_rows(tx: &Connection, last: &str, limit: u32) -> Result<Vec<RepoRow>> {
    let mut statement =
        tx.prepare_cached(&format!("{REPO_ROW} WHERE r.name > ?1 ORDER BY r.name LIMIT ?2"))?;
    let rows = statement.query_map(params![last, limit], to_repo_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn repo_row(tx: &Connection, name: &RepoName) -> Result<Option<RepoRow>> {
    Ok(tx
        .prepare_cached(&format!("{REPO_ROW} WHERE r.name = ?1"))?
        .query_row([name.full()], to_repo_row)
        .optional()?)
}

// blob ------------------------------------------------------------------------

#[derive(Clone, Copy)]
pub struct BlobKey {
    pub id: i64,
    pub bytes: u64,
    pub live: bool,
}

fn blob_key(row: &Row) -> rusqlite::Result<BlobKey> {
    Ok(BlobKey { id: row.get(0)?, bytes: size_column(row, 1)?, live: row.get(2)? })
}

pub fn blob(tx: &Connection, digest: &Digest) -> Result<Option<BlobKey>> {
    Ok(tx
        .prepare_cached("SELECT id, bytes, live FROM blob WHERE digest = ?1")?
        .query_row([digest.as_str()], blob_key)
        .optional()?)
}

/// A live blob that this repository holds.
pub fn blob_in_repo(tx: &Connection, repo: &RepoName, digest: &Digest) -> Result<Option<BlobKey>> {
    Ok(tx
        .prepare_cached(
            "SELECT b.id, b.bytes, b.live FROM blob AS b
             JOIN repo_blob AS rb ON rb.blob = b.id
             JOIN repo AS r ON r.id = rb.repo
             WHERE b.digest = ?2 AND r.name = ?1 AND b.live",
        )?
        .query_row(params![repo.full(), digest.as_str()], blob_key)
        .optional()?)
}

/// Whether some repository this user may read holds a blob.
pub fn blob_readable(tx: &Connection, blob: i64, admin: bool, owner: i64) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM repo_blob AS rb
               JOIN repo AS r ON r.id = rb.repo JOIN namespace AS n ON n.id = r.namespace
               WHERE rb.blob = ?1 AND (?2 OR r.private = 0 OR n.owner = ?3))",
        )?
        .query_row(params![blob, admin, owner], |row| row.get(0))?)
}

pub fn blob_crcs(tx: &Connection, blob: i64) -> Result<Vec<u8>> {
    Ok(tx.prepare_cached("SELECT crcs FROM blob WHERE id = ?1")?.query_row([blob], |row| row.get(0))?)
}

/// A row for a file that has just been placed; heals a row that was found bad.
pub fn blob_upsert(tx: &Connection, digest: &Digest, bytes: u64, crcs: &[u8]) -> Result<i64> {
    Ok(tx
        .prepare_cached(
            "INSERT INTO blob (digest, bytes, crcs) VALUES (?1, ?2, ?3)
             ON CONFLICT (digest) DO UPDATE
               SET bytes = excluded.bytes, crcs = excluded.crcs, live = 1
             RETURNING id",
        )?
        .query_row(params![digest.as_str(), size_value(bytes), crcs], |row| row.get(0))?)
}

pub fn blob_set_bad(tx: &Connection, digest: &Digest) -> Result<()> {
    tx.prepare_cached("UPDATE blob SET live = 0 WHERE digest = ?1")?.execute([digest.as_str()])?;
    Ok(())
}

pub fn repo_blob_set(tx: &Connection, repo: i64, blob: i64, service_secs: i64) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO repo_blob (repo, blob, seen_secs) VALUES (?1, ?2, ?3)
         ON CONFLICT (repo, blob) DO UPDATE SET seen_secs = excluded.seen_secs",
    )?
    .execute(params![repo, blob, service_secs])?;
    Ok(())
}

pub fn repo_blob_delete(tx: &Connection, repo: i64, blob: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM repo_blob WHERE repo = ?1 AND blob = ?2")?.execute(params![repo, blob])?;
    Ok(())
}

/// A manifest of this repository that relies on a blob.
pub fn blob_user(tx: &Connection, repo: i64, blob: i64) -> Result<Option<Digest>> {
    Ok(tx
        .prepare_cached(
            "SELECT m.digest FROM edge AS e JOIN manifest AS m ON m.id = e.manifest
             WHERE e.blob = ?2 AND m.repo = ?1 LIMIT 1",
        )?
        .query_row(params![repo, blob], |row| digest_column(row, 0))
        .optional()?)
}

// manifest --------------------------------------------------------------------

pub struct ManifestKey {
    pub id: i64,
    pub digest: Digest,
    pub media_type: String,
    pub bytes: u64,
}

fn manifest_key(row: &Row) -> rusqlite::Result<ManifestKey> {
    Ok(ManifestKey {
        id: row.get(0)?,
        digest: digest_column(row, 1)?,
        media_type: row.get(2)?,
        bytes: size_column(row, 3)?,
    })
}

pub fn manifest_by_digest(tx: &Connection, repo: &RepoName, digest: &Digest) -> Result<Option<ManifestKey>> {
    Ok(tx
        .prepare_cached(
            "SELECT m.id, m.digest, m.media_type, m.bytes FROM manifest AS m
             JOIN repo AS r ON r.id = m.repo
             WHERE r.name = ?1 AND m.digest = ?2 AND m.live",
        )?
        .query_row(params![repo.full(), digest.as_str()], manifest_key)
        .optional()?)
}

pub fn manifest_by_tag(tx: &Connection, repo: &RepoName, tag: &Tag) -> Result<Option<ManifestKey>> {
    Ok(tx
        .prepare_cached(
            "SELECT m.id, m.digest, m.media_type, m.bytes FROM manifest AS m
             JOIN tag AS t ON t.manifest = m.id
             JOIN repo AS r ON r.id = t.repo
             WHERE r.name = ?1 AND t.name = ?2 AND m.live",
        )?
        .query_row(params![repo.full(), tag.as_str()], manifest_key)
        .optional()?)
}

pub fn manifest_body(tx: &Connection, id: i64) -> Result<Vec<u8>> {
    Ok(tx.prepare_cached("SELECT body FROM manifest WHERE id = ?1")?.query_row([id], |row| row.get(0))?)
}

/// A manifest's row; pushing it again keeps the row and heals its body.
pub fn manifest_upsert(
    tx: &Connection,
    repo: i64,
    digest: &Digest,
    manifest: &Manifest,
    body: &[u8],
    pushed_by: i64,
    now_us: i64,
) -> Result<i64> {
    Ok(tx
        .prepare_cached(
            "INSERT INTO manifest
               (uuid, repo, digest, media_type, bytes, config, content_bytes, subject,
                artifact_type, annotations, pushed_us, pushed_by, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (repo, digest) DO UPDATE
               SET media_type = excluded.media_type, bytes = excluded.bytes,
                   pushed_us = excluded.pushed_us, pushed_by = excluded.pushed_by,
                   body = excluded.body, live = 1
             RETURNING id",
        )?
        .query_row(
            params![
                uuid()?,
                repo,
                digest.as_str(),
                manifest.media_type,
                size_value(body.len() as u64),
                manifest.config.as_ref().map(Digest::as_str),
                size_value(manifest.content_bytes),
                manifest.subject.as_ref().map(Digest::as_str),
                manifest.artifact_type,
                manifest.annotations,
                now_us,
                pushed_by,
                body,
            ],
            |row| row.get(0),
        )?)
}

pub fn manifest_set_bad(tx: &Connection, id: i64) -> Result<()> {
    tx.prepare_cached("UPDATE manifest SET live = 0 WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub fn manifest_delete(tx: &Connection, id: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM manifest WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub fn edge_insert(tx: &Connection, manifest: i64, blob: i64) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO edge (manifest, blob) VALUES (?1, ?2)")?
        .execute(params![manifest, blob])?;
    Ok(())
}

pub fn child_insert(tx: &Connection, manifest: i64, digest: &Digest) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO child (manifest, digest) VALUES (?1, ?2)")?
        .execute(params![manifest, digest.as_str()])?;
    Ok(())
}

/// Manifests about `subject`, after the digest `last`, in ASCII order; through the
/// callback until it has had enough, so that a page is bounded by bytes as well.
pub fn referrers(
    tx: &Connection,
    repo: &RepoName,
    subject: &Digest,
    artifact_type: Option<&str>,
    last: &str,
    mut more: impl FnMut(Referrer) -> bool,
) -> Result<()> {
    let mut statement = tx.prepare_cached(
        "SELECT m.digest, m.media_type, m.bytes, m.artifact_type, m.annotations
         FROM repo AS r JOIN manifest AS m ON m.repo = r.id
         WHERE r.name = ?1 AND m.subject = ?2 AND m.digest > ?3 AND m.live
           AND (?4 IS NULL OR m.artifact_type = ?4)
         ORDER BY m.digest",
    )?;
    let mut rows = statement.query(params![repo.full(), subject.as_str(), last, artifact_type])?;
    while let Some(row) = rows.next()? {
        let referrer = Referrer {
            digest: digest_column(row, 0)?,
            media_type: row.get(1)?,
            bytes: size_column(row, 2)?,
            artifact_type: row.get(3)?,
            annotations: row.get(4)?,
        };
        if !more(referrer) {
            break;
        }
    }
    Ok(())
}

// tag -------------------------------------------------------------------------

/// Points a tag at a manifest. One that is there keeps its UUID and its colour.
pub fn tag_set(
    tx: &Connection,
    repo: i64,
    tag: &Tag,
    manifest: i64,
    pushed_by: i64,
    now_us: i64,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO tag (uuid, repo, name, manifest, pushed_by, pushed_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (repo, name) DO UPDATE
           SET manifest = excluded.manifest, pushed_by = excluded.pushed_by, pushed_us = excluded.pushed_us",
    )?
    .execute(params![uuid()?, repo, tag.as_str(), manifest, pushed_by, now_us])?;
    Ok(())
}

/// True if the tag was there.
pub fn tag_delete(tx: &Connection, repo: i64, tag: &Tag) -> Result<bool> {
    let gone = tx
        .prepare_cached("DELETE FROM tag WHERE repo = ?1 AND name = ?2")?
        .execute(params![repo, tag.as_str()])?;
    Ok(gone > 0)
}

pub fn tags(tx: &Connection, repo: i64, last: &str, limit: u32) -> Result<Vec<String>> {
    let mut statement =
        tx.prepare_cached("SELECT name FROM tag WHERE repo = ?1 AND name > ?2 ORDER BY name LIMIT ?3")?;
    let rows = statement.query_map(params![repo, last, limit], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
