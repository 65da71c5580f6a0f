//! Statements about content: repositories, blobs, manifests, tags.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{digest_column, size_column, size_value, uuid};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::names::{Digest, RepoName, Tag};
use crate::registry::catalog::{Referrer, RepoRow};

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
    created_by: Option<i64>,
    now_us: i64,
) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO repo (uuid, namespace, name, private, created_us, updated_us, created_by)
         VALUES (?5, ?1, ?2, ?3, ?4, ?4, (SELECT id FROM user WHERE id = ?6))",
    )?
    .execute(params![namespace, name.full(), private, now_us, uuid()?, created_by])?;
    Ok(tx.last_insert_rowid())
}

/// Notes that something was pushed.
pub fn repo_set_pushed(tx: &Connection, id: i64, now_us: i64) -> Result<()> {
    tx.prepare_cached("UPDATE repo SET pushed = 1, pushed_us = ?2, updated_us = ?2 WHERE id = ?1")?
        .execute(params![id, now_us])?;
    Ok(())
}

/// The bytes of blobs that are in no other repository.
pub fn repo_frees(tx: &Connection, id: i64) -> Result<u64> {
    Ok(tx
        .prepare_cached(
            "SELECT coalesce(sum(b.bytes), 0) FROM repo_blob AS rb JOIN blob AS b ON b.id = rb.blob
             WHERE rb.repo = ?1
               AND NOT EXISTS (SELECT 1 FROM repo_blob AS o WHERE o.blob = rb.blob AND o.repo <> ?1)",
        )?
        .query_row([id], |row| size_column(row, 0))?)
}

pub fn repo_delete(tx: &Connection, id: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM repo WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Namespaces a user (?2) may read all of: owned, owned through `owners`, or granted whole.
pub(super) const NAMESPACES_READ: &str = "SELECT id FROM namespace WHERE owner = ?2
   UNION SELECT g.namespace FROM group_member AS m JOIN org_group AS g ON g.id = m.org_group
     WHERE m.user = ?2 AND g.name = 'owners'
   UNION SELECT n.id FROM access_grant AS a JOIN namespace AS n ON n.name || '/*' = a.pattern
     WHERE a.user = ?2 OR a.org_group IN (SELECT org_group FROM group_member WHERE user = ?2)";

/// Patterns that are granted to a user (?2), also through groups.
pub(super) const PATTERNS_READ: &str = "SELECT pattern FROM access_grant
   WHERE user = ?2 OR org_group IN (SELECT org_group FROM group_member WHERE user = ?2)";

/// Whether a user reads everything: an administrator, or granted `*`.
pub fn reads_all(tx: &Connection, user: i64) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM user WHERE id = ?1 AND admin)
               OR EXISTS (SELECT 1 FROM access_grant WHERE pattern = '*' AND
                 (user = ?1 OR org_group IN (SELECT org_group FROM group_member WHERE user = ?1)))",
        )?
        .query_row([user], |row| row.get(0))?)
}

/// Names of repositories that hold a manifest, after `last`, in ASCII order: the public
/// ones and those that `user` may read.
pub fn catalog(tx: &Connection, user: i64, last: &str, limit: u32) -> Result<Vec<String>> {
    // Each branch walks an index in name order. Who reads everything needs one branch,
    // and so a page costs the same in any store.
    let sql = if reads_all(tx, user)? {
        "SELECT name FROM repo AS r WHERE name > ?1
           AND EXISTS (SELECT 1 FROM manifest WHERE repo = r.id) AND ?2 = ?2
         ORDER BY name LIMIT ?3"
            .to_owned()
    } else {
        format!(
            "SELECT name FROM repo AS r WHERE private = 0 AND name > ?1
               AND EXISTS (SELECT 1 FROM manifest WHERE repo = r.id)
             UNION
             SELECT name FROM repo AS r WHERE namespace IN ({NAMESPACES_READ}) AND name > ?1
               AND EXISTS (SELECT 1 FROM manifest WHERE repo = r.id)
             UNION
             SELECT name FROM repo AS r WHERE name IN ({PATTERNS_READ}) AND name > ?1
               AND EXISTS (SELECT 1 FROM manifest WHERE repo = r.id)
             ORDER BY name LIMIT ?3"
        )
    };
    let mut statement = tx.prepare_cached(&sql)?;
    let rows = statement.query_map(params![last, user, limit], |row| row.get(0))?;
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

/// Names of repositories after `last`, in ASCII order.
pub fn repo_names(tx: &Connection, last: &str, limit: u32) -> Result<Vec<String>> {
    let mut statement = tx.prepare_cached("SELECT name FROM repo WHERE name > ?1 ORDER BY name LIMIT ?2")?;
    let rows = statement.query_map(params![last, limit], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
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
pub fn blob_readable(tx: &Connection, blob: i64, user: i64) -> Result<bool> {
    if reads_all(tx, user)? {
        return Ok(true);
    }
    Ok(tx
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM repo_blob AS rb JOIN repo AS r ON r.id = rb.repo
               WHERE rb.blob = ?1 AND (r.private = 0
                 OR r.namespace IN ({NAMESPACES_READ}) OR r.name IN ({PATTERNS_READ})))"
        ))?
        .query_row(params![blob, user], |row| row.get(0))?)
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
    super::candidate_insert(tx, super::Candidate { since_secs: service_secs, blob })
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

/// What a manifest (m) names, in bytes; for an index what its images name, as far as they are
/// here. What manifests claim may be anything, and `sum` fails where it goes too far.
pub(super) const CONTENT_SUM: &str = "CAST(min(9e18, m.content_bytes +
    (SELECT total(k.content_bytes) FROM child AS c JOIN manifest AS k
      ON k.repo = m.repo AND k.digest = c.digest AND k.live WHERE c.manifest = m.id)) AS INTEGER)";

/// Who pushed, and when by both clocks.
#[derive(Clone, Copy)]
pub struct Stamp {
    /// A user's id; none at the command line.
    pub by: Option<i64>,
    /// Wall clock, microseconds since 1970.
    pub us: i64,
    /// Service time, seconds.
    pub secs: i64,
}

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

/// A manifest's bytes, its repository's UUID, and whether it is an image rather than an index.
pub fn manifest_content(tx: &Connection, id: i64) -> Result<(Vec<u8>, String, bool)> {
    Ok(tx
        .prepare_cached(
            "SELECT m.body, r.uuid, m.config IS NOT NULL FROM manifest AS m JOIN repo AS r ON r.id = m.repo
             WHERE m.id = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
}

/// A manifest's row, in service or not.
pub fn manifest_id(tx: &Connection, repo: &RepoName, digest: &Digest) -> Result<Option<i64>> {
    Ok(tx
        .prepare_cached(
            "SELECT m.id FROM manifest AS m JOIN repo AS r ON r.id = m.repo
             WHERE r.name = ?1 AND m.digest = ?2",
        )?
        .query_row(params![repo.full(), digest.as_str()], |row| row.get(0))
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
    stamp: Stamp,
) -> Result<i64> {
    Ok(tx
        .prepare_cached(
            "INSERT INTO manifest
               (uuid, repo, digest, media_type, bytes, config, content_bytes, subject,
                artifact_type, annotations, pushed_us, pushed_by, body, pushed_secs)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             ON CONFLICT (repo, digest) DO UPDATE
               SET media_type = excluded.media_type, bytes = excluded.bytes,
                   config = excluded.config, content_bytes = excluded.content_bytes,
                   subject = excluded.subject, artifact_type = excluded.artifact_type,
                   annotations = excluded.annotations,
                   pushed_us = excluded.pushed_us, pushed_by = excluded.pushed_by,
                   pushed_secs = excluded.pushed_secs, body = excluded.body, live = 1
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
                stamp.us,
                stamp.by,
                body,
                stamp.secs,
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
pub fn tag_set(tx: &Connection, repo: i64, tag: &Tag, manifest: i64, stamp: Stamp) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO tag (uuid, repo, name, manifest, pushed_by, pushed_us, pushed_secs)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (repo, name) DO UPDATE
           SET manifest = excluded.manifest, pushed_by = excluded.pushed_by,
               pushed_us = excluded.pushed_us, pushed_secs = excluded.pushed_secs",
    )?
    .execute(params![uuid()?, repo, tag.as_str(), manifest, stamp.by, stamp.us, stamp.secs])?;
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
