//! Statements about repositories and tags as people see them, and about stars.

use rusqlite::{Connection, OptionalExtension, Row, ToSql, named_params, params};

use super::content::{NAMESPACES_READ, PATTERNS_READ, reads_all};
use super::{digest_column, digest_or_null, size_column, size_value};
use crate::error::Result;
use crate::names::Digest;
use crate::registry::repos::{Order, Pusher, Repo, RepoChange, Slice, TagRow};

/// A namespace: its id, and whether it belongs to somebody.
pub fn namespace(tx: &Connection, name: &str) -> Result<Option<(i64, bool)>> {
    Ok(tx
        .prepare_cached("SELECT id, kind <> 'plain' FROM namespace WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

/// Whether a user reads everything in a namespace.
pub fn namespace_reads(tx: &Connection, namespace: i64, user: i64) -> Result<bool> {
    Ok(reads_all(tx, user)?
        || tx
            .prepare_cached(&format!("SELECT ?1 IN ({NAMESPACES_READ})"))?
            .query_row(params![namespace, user], |row| row.get(0))?)
}

// repo ------------------------------------------------------------------------

const REPO: &str = "SELECT r.id, r.uuid, n.name, substr(r.name, length(n.name) + 2), r.private, r.pushed,
    r.description, r.full_description, r.labels, r.pulls, r.created_us, r.updated_us, r.pushed_us,
    (SELECT count(*) FROM star WHERE repo = r.id),
    EXISTS (SELECT 1 FROM star WHERE repo = r.id AND user = ?2),
    (SELECT name FROM user WHERE id = r.created_by), (SELECT count(*) FROM tag WHERE repo = r.id), (SELECT count(*) FROM manifest WHERE repo = r.id),
    (SELECT coalesce(sum(b.bytes), 0) FROM repo_blob AS rb JOIN blob AS b ON b.id = rb.blob
     WHERE rb.repo = r.id)
  FROM repo AS r JOIN namespace AS n ON n.id = r.namespace";

pub(super) fn labels_column(row: &Row, index: usize) -> rusqlite::Result<Vec<String>> {
    let labels: String = row.get(index)?;
    serde_json::from_str(&labels).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, error.into())
    })
}

fn to_repo(row: &Row) -> rusqlite::Result<Repo> {
    Ok(Repo {
        id: row.get(0)?,
        uuid: row.get(1)?,
        namespace: row.get(2)?,
        name: row.get(3)?,
        private: row.get(4)?,
        pushed: row.get(5)?,
        description: row.get(6)?,
        full_description: row.get(7)?,
        labels: labels_column(row, 8)?,
        pulls: size_column(row, 9)?,
        created_us: row.get(10)?,
        updated_us: row.get(11)?,
        pushed_us: row.get(12)?,
        stars: size_column(row, 13)?,
        starred: row.get(14)?,
        created_by: row.get(15)?,
        tags: size_column(row, 16)?,
        images: size_column(row, 17)?,
        blob_bytes: size_column(row, 18)?,
        media_types: Vec::new(),
    })
}

/// A repository as `user` sees it, with the types of what was pushed to it lately.
pub fn repo_seen(tx: &Connection, id: i64, user: i64) -> Result<Repo> {
    let mut repo =
        tx.prepare_cached(&format!("{REPO} WHERE r.id = ?1"))?.query_row(params![id, user], to_repo)?;
    // Of so many that a look at a large repository costs what one at a small one does.
    repo.media_types = tx
        .prepare_cached(
            "SELECT DISTINCT media_type FROM
               (SELECT media_type FROM manifest WHERE repo = ?1 ORDER BY pushed_us DESC LIMIT 100)
             ORDER BY media_type",
        )?
        .query_map([id], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(repo)
}

fn order(by: Order, time: &str, name: &str) -> String {
    match by {
        Order::Newest => format!("{time} DESC, {name}"),
        Order::Oldest => format!("{time}, {name}"),
        Order::Name => name.to_owned(),
        Order::NameDown => format!("{name} DESC"),
    }
}

/// A namespace's repositories that `user` may read and whose names hold `needle`. Those of
/// the page are chosen first, so that sums are made for them alone.
pub fn repos_of(
    tx: &Connection,
    namespace: i64,
    user: i64,
    needle: &str,
    by: Order,
    slice: Slice,
) -> Result<(Vec<Repo>, u64)> {
    let whole = namespace_reads(tx, namespace, user)?;
    let seen = format!(
        "r.namespace = ?1 AND (?3 OR r.private = 0 OR r.name IN ({PATTERNS_READ}))
           AND (?4 = '' OR instr(r.name, ?4))"
    );
    let count = tx
        .prepare_cached(&format!("SELECT count(*) FROM repo AS r WHERE ?2 = ?2 AND {seen}"))?
        .query_row(params![namespace, user, whole, needle], |row| size_column(row, 0))?;
    let order = order(by, "coalesce(r.pushed_us, r.created_us)", "r.name");
    let rows = tx
        .prepare_cached(&format!(
            "{REPO} WHERE r.id IN (SELECT r.id FROM repo AS r WHERE {seen} ORDER BY {order}
               LIMIT ?5 OFFSET ?6) ORDER BY {order}"
        ))?
        .query_map(params![namespace, user, whole, needle, slice.take, size_value(slice.skip)], to_repo)?
        .collect::<rusqlite::Result<_>>()?;
    Ok((rows, count))
}

/// Repositories that `user` may read whose names or descriptions hold `needle`, by name.
/// Walks names until it has `most`, so that is also what it counts up to.
pub fn repos_found(
    tx: &Connection,
    user: i64,
    needle: &str,
    most: u32,
    slice: Slice,
) -> Result<(Vec<Repo>, u64)> {
    let whole = user != 0 && reads_all(tx, user)?;
    let seen = format!(
        "(?3 OR r.private = 0 OR r.namespace IN ({NAMESPACES_READ}) OR r.name IN ({PATTERNS_READ}))
           AND (?1 = '' OR instr(r.name, ?1) OR instr(lower(r.description), ?1))"
    );
    let count = tx
        .prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM repo AS r WHERE ?2 = ?2 AND {seen} LIMIT ?4)"
        ))?
        .query_row(params![needle, user, whole, most], |row| size_column(row, 0))?;
    let rows = tx
        .prepare_cached(&format!(
            "{REPO} WHERE r.id IN (SELECT r.id FROM repo AS r WHERE {seen} ORDER BY r.name
               LIMIT ?4 OFFSET ?5) ORDER BY r.name"
        ))?
        .query_map(params![needle, user, whole, slice.take, size_value(slice.skip)], to_repo)?
        .collect::<rusqlite::Result<_>>()?;
    Ok((rows, count))
}

/// Counts pulls of a repository, if it is still there.
pub fn repo_add_pulls(tx: &Connection, uuid: &str, pulls: u64) -> Result<()> {
    tx.prepare_cached("UPDATE repo SET pulls = pulls + ?2 WHERE uuid = ?1")?
        .execute(params![uuid, size_value(pulls)])?;
    Ok(())
}

/// Changes what is given, and leaves the rest.
pub fn repo_change(tx: &Connection, id: i64, change: &RepoChange, now_us: i64) -> Result<()> {
    let labels = match &change.labels {
        None => None,
        Some(labels) => {
            Some(serde_json::to_string(labels).map_err(|e| crate::error::Kind::Internal.from_cause(e))?)
        }
    };
    tx.prepare_cached(
        "UPDATE repo SET description = coalesce(:description, description),
           full_description = coalesce(:full_description, full_description),
           private = coalesce(:private, private), labels = coalesce(:labels, labels),
           updated_us = :now
         WHERE id = :id",
    )?
    .execute(named_params! {
        ":id": id,
        ":description": change.description,
        ":full_description": change.full_description,
        ":private": change.private,
        ":labels": labels,
        ":now": now_us,
    })?;
    Ok(())
}

// star ------------------------------------------------------------------------

pub fn star_set(tx: &Connection, repo: i64, user: i64, now_us: i64) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO star (repo, user, created_us) VALUES (?1, ?2, ?3)")?
        .execute(params![repo, user, now_us])?;
    Ok(())
}

pub fn star_unset(tx: &Connection, repo: i64, user: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM star WHERE repo = ?1 AND user = ?2")?.execute(params![repo, user])?;
    Ok(())
}

// tag -------------------------------------------------------------------------

const TAG: &str = "SELECT t.id, t.uuid, t.name, t.color, t.repo, t.pushed_us, u.id, u.name,
    m.id, m.uuid, m.digest, m.media_type, m.bytes, m.content_bytes, m.config, m.live
  FROM tag AS t JOIN manifest AS m ON m.id = t.manifest LEFT JOIN user AS u ON u.id = t.pushed_by";

fn to_tag(row: &Row) -> rusqlite::Result<TagRow> {
    let pusher: Option<i64> = row.get(6)?;
    let pushed_by = match pusher {
        Some(id) => Some(Pusher { id, name: row.get(7)? }),
        None => None,
    };
    Ok(TagRow {
        id: row.get(0)?,
        uuid: row.get(1)?,
        name: row.get(2)?,
        color: row.get(3)?,
        repo: row.get(4)?,
        pushed_us: row.get(5)?,
        pushed_by,
        manifest: row.get(8)?,
        image_uuid: row.get(9)?,
        digest: digest_column(row, 10)?,
        media_type: row.get(11)?,
        bytes: size_column(row, 12)?,
        content_bytes: size_column(row, 13)?,
        config: digest_or_null(row, 14)?,
        live: row.get(15)?,
        platforms: Vec::new(),
    })
}

pub(super) fn tags_where(tx: &Connection, rest: &str, values: &[&dyn ToSql]) -> Result<Vec<TagRow>> {
    let mut statement = tx.prepare_cached(&format!("{TAG} WHERE {rest}"))?;
    let rows = statement.query_map(values, to_tag)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn tag_row(tx: &Connection, repo: i64, name: &str) -> Result<Option<TagRow>> {
    Ok(tags_where(tx, "t.repo = ?1 AND t.name = ?2", params![repo, name])?.pop())
}

/// A repository's tags whose names hold `needle`, in lower case.
pub fn tag_rows(
    tx: &Connection,
    repo: i64,
    needle: &str,
    by: Order,
    slice: Slice,
) -> Result<(Vec<TagRow>, u64)> {
    let seen = "t.repo = ?1 AND (?2 = '' OR instr(lower(t.name), ?2))";
    let count = tx
        .prepare_cached(&format!("SELECT count(*) FROM tag AS t WHERE {seen}"))?
        .query_row(params![repo, needle], |row| size_column(row, 0))?;
    let order = order(by, "t.pushed_us", "t.name");
    let rest = format!(
        "t.id IN (SELECT t.id FROM tag AS t WHERE {seen} ORDER BY {order} LIMIT ?3 OFFSET ?4) ORDER BY {order}"
    );
    let rows = tags_where(tx, &rest, params![repo, needle, slice.take, size_value(slice.skip)])?;
    Ok((rows, count))
}

/// The bytes a manifest of this repository names.
pub fn content_bytes(tx: &Connection, repo: i64, digest: &Digest) -> Result<Option<u64>> {
    Ok(tx
        .prepare_cached("SELECT content_bytes FROM manifest WHERE repo = ?1 AND digest = ?2 AND live")?
        .query_row(params![repo, digest.as_str()], |row| size_column(row, 0))
        .optional()?)
}
