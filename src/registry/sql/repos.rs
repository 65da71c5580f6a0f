//! Statements about repositories and tags as people see them, and about stars.

use rusqlite::{Connection, OptionalExtension, Row, ToSql, named_params, params};

use super::sight::{PATTERNS_READ, Within};
use super::{digest_column, digest_or_null, size_column, size_value};
use crate::error::Result;
use crate::names::Digest;
use crate::registry::pages::{Order, Step, Walk};
use crate::registry::repos::{Pusher, Repo, RepoChange, TagRow};

/// A namespace: its id, and whether it belongs to somebody.
pub fn namespace(tx: &Connection, name: &str) -> Result<Option<(i64, bool)>> {
    Ok(tx
        .prepare_cached("SELECT id, kind <> 'plain' FROM namespace WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

// repo ------------------------------------------------------------------------

const REPO: &str = "SELECT r.id, r.uuid, n.name, substr(r.name, length(n.name) + 2), r.private, r.pushed,
    r.description, r.labels, r.pulls, r.created_us, r.updated_us, r.pushed_us, s.stars,
    EXISTS (SELECT 1 FROM star WHERE repo = r.id AND user = ?2),
    (SELECT name FROM user WHERE id = r.created_by), s.tags, s.manifests - s.hidden, s.blob_bytes
  FROM repo AS r JOIN namespace AS n ON n.id = r.namespace JOIN repo_sums AS s ON s.repo = r.id";

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
        full_description: String::new(),
        labels: labels_column(row, 7)?,
        pulls: size_column(row, 8)?,
        created_us: row.get(9)?,
        updated_us: row.get(10)?,
        pushed_us: row.get(11)?,
        stars: size_column(row, 12)?,
        starred: row.get(13)?,
        created_by: row.get(14)?,
        tags: size_column(row, 15)?,
        images: size_column(row, 16)?,
        blob_bytes: size_column(row, 17)?,
        media_types: Vec::new(),
    })
}

/// Repositories by their ids, in this order, as lists show them to `user`.
pub fn repos_by_id(tx: &Connection, ids: &[i64], user: i64) -> Result<Vec<Repo>> {
    let mut statement = tx.prepare_cached(&format!("{REPO} WHERE r.id = ?1"))?;
    ids.iter().map(|id| Ok(statement.query_row(params![id, user], to_repo)?)).collect()
}

/// The same by their full names.
pub fn repos_by_name(tx: &Connection, names: &[String], user: i64) -> Result<Vec<Repo>> {
    let mut statement = tx.prepare_cached(&format!("{REPO} WHERE r.name = ?1"))?;
    names.iter().map(|name| Ok(statement.query_row(params![name, user], to_repo)?)).collect()
}

/// A repository as `user` sees it, with what lists leave out: its long description, and the
/// types of what was pushed to it lately.
pub fn repo_seen(tx: &Connection, id: i64, user: i64) -> Result<Repo> {
    let mut repo =
        tx.prepare_cached(&format!("{REPO} WHERE r.id = ?1"))?.query_row(params![id, user], to_repo)?;
    repo.full_description = tx
        .prepare_cached("SELECT full_description FROM repo WHERE id = ?1")?
        .query_row([id], |row| row.get(0))?;
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

/// How a walk along columns of times and names goes: what comes after a mark (?4, ?5), and the
/// order of what it finds as `us` and `name`. An order by name needs no time, and so no index
/// but that of names.
fn course(walk: &Walk, us: &str, name: &str) -> (String, String, &'static str) {
    let (after, order) = match walk.order {
        Order::Newest => (format!("({us}, {name}) < (?4, ?5)"), "us DESC, name DESC"),
        Order::Oldest => (format!("({us}, {name}) > (?4, ?5)"), "us, name"),
        Order::Name => (format!("{name} > ?5"), "name"),
        Order::NameDown => (format!("{name} < ?5"), "name DESC"),
    };
    let us = if matches!(walk.order, Order::Name | Order::NameDown) { "0" } else { us };
    let after = if walk.after.is_some() { format!("AND {after}") } else { String::new() };
    (format!("{us} AS us, {name} AS name"), after, order)
}

/// Takes the steps of a walk while the callback wants more. The statement's ?4 to ?7 are the
/// walk's: the mark, how many, and how many to skip.
pub(super) fn step_through(
    tx: &Connection,
    sql: &str,
    values: (i64, i64, &str),
    walk: &Walk,
    each: &mut dyn FnMut(Step) -> bool,
) -> Result<()> {
    let (us, name) = walk.after.map_or((0, ""), |mark| (mark.us, mark.name.as_str()));
    let (first, second, third) = values;
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query(params![
        first,
        second,
        third,
        us,
        name,
        size_value(walk.take),
        size_value(walk.skip)
    ])?;
    while let Some(row) = rows.next()? {
        let name = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        if !each(Step { id: row.get(0)?, us: row.get(1)?, name }) {
            break;
        }
    }
    Ok(())
}

/// What was granted to a user (?2) one by one in a namespace (by its name, ?3).
fn granted_within() -> String {
    format!("{PATTERNS_READ} AND pattern > ?3 || '/' AND pattern < ?3 || '0'")
}

/// Walks through the repositories of a namespace, given by id and name, that are seen.
pub fn repos_walk(
    tx: &Connection,
    (namespace, name): (i64, &str),
    within: Within,
    walk: &Walk,
    each: &mut dyn FnMut(Step) -> bool,
) -> Result<()> {
    let (columns, after, order) = course(walk, "r.updated_us", "r.name");
    let of =
        |which: &str| format!("SELECT r.id, {columns} FROM repo AS r {which} AND r.namespace = ?1 {after}");
    let public = of("WHERE r.private = 0");
    let (private, user) = match within {
        Within::Whole => (of("WHERE r.private = 1"), 0),
        // Looked up one by one: they are few beside what there is.
        Within::Some(user) => {
            let granted = granted_within();
            (of(&format!("INDEXED BY repo_namespace WHERE r.private = 1 AND r.name IN ({granted})")), user)
        }
    };
    let sql = format!("{public} UNION ALL {private} ORDER BY {order} LIMIT ?6 OFFSET ?7");
    step_through(tx, &sql, (namespace, user, name), walk, each)
}

/// How many repositories such a walk passes.
pub fn repos_count(tx: &Connection, (namespace, name): (i64, &str), within: Within) -> Result<u64> {
    let count = match within {
        Within::Whole => tx
            .prepare_cached("SELECT repos FROM namespace WHERE id = ?1")?
            .query_row([namespace], |row| size_column(row, 0))?,
        Within::Some(user) => tx
            .prepare_cached(&format!(
                "SELECT repos_public + (SELECT count(*) FROM repo INDEXED BY repo_namespace
                   WHERE namespace = ?1 AND private = 1 AND name IN ({}))
                 FROM namespace WHERE id = ?1",
                granted_within()
            ))?
            .query_row(params![namespace, user, name], |row| size_column(row, 0))?,
    };
    Ok(count)
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

/// Tags by their ids, in this order.
pub fn tags_by_id(tx: &Connection, ids: &[i64]) -> Result<Vec<TagRow>> {
    let mut statement = tx.prepare_cached(&format!("{TAG} WHERE t.id = ?1"))?;
    ids.iter().map(|id| Ok(statement.query_row([id], to_tag)?)).collect()
}

/// Walks through a repository's tags.
pub fn tags_walk(tx: &Connection, repo: i64, walk: &Walk, each: &mut dyn FnMut(Step) -> bool) -> Result<()> {
    let (columns, after, order) = course(walk, "t.pushed_us", "t.name");
    let sql = format!(
        "SELECT t.id, {columns} FROM tag AS t WHERE t.repo = ?1 {after} ORDER BY {order} LIMIT ?6 OFFSET ?7"
    );
    step_through(tx, &sql, (repo, 0, ""), walk, each)
}

/// How many tags a repository has.
pub fn tags_count(tx: &Connection, repo: i64) -> Result<u64> {
    Ok(tx
        .prepare_cached("SELECT tags FROM repo_sums WHERE repo = ?1")?
        .query_row([repo], |row| size_column(row, 0))?)
}

/// The bytes a manifest of this repository names.
pub fn content_bytes(tx: &Connection, repo: i64, digest: &Digest) -> Result<Option<u64>> {
    Ok(tx
        .prepare_cached("SELECT content_bytes FROM manifest WHERE repo = ?1 AND digest = ?2 AND live")?
        .query_row(params![repo, digest.as_str()], |row| size_column(row, 0))
        .optional()?)
}
