//! Statements about people: users, namespaces, groups, grants, tokens.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{size_column, uuid};
use crate::error::Result;
use crate::names::{RepoName, UserName};
use crate::registry::grants::{Grant, GroupRow, Holder, Level, OrgRow};
use crate::registry::people::{User, UserRow};
use crate::registry::tokens::{TokenRow, TokenScope};

// user ------------------------------------------------------------------------

fn user_row(row: &Row) -> rusqlite::Result<UserRow> {
    Ok(UserRow {
        user: User {
            id: row.get(0)?,
            name: row.get(1)?,
            admin: row.get(2)?,
            active: row.get(3)?,
            generation: row.get(4)?,
        },
        password: row.get(5)?,
        created_us: row.get(6)?,
        emails: Vec::new(),
    })
}

pub fn user_by_login(tx: &Connection, login: &str) -> Result<Option<UserRow>> {
    Ok(tx
        .prepare_cached(
            "SELECT id, name, admin, active, generation, password, created_us FROM user
             WHERE name = ?1 OR id = (SELECT user FROM email WHERE address = ?1)
             ORDER BY name = ?1 DESC LIMIT 1",
        )?
        .query_row([login], user_row)
        .optional()?)
}

pub fn user_by_id(tx: &Connection, id: i64) -> Result<Option<User>> {
    Ok(tx
        .prepare_cached(
            "SELECT id, name, admin, active, generation, password, created_us FROM user WHERE id = ?1",
        )?
        .query_row([id], user_row)
        .optional()?
        .map(|row| row.user))
}

/// Every user by name, with e-mail addresses. For the administrator; there are few.
pub fn users(tx: &Connection) -> Result<Vec<UserRow>> {
    let mut statement = tx.prepare_cached(
        "SELECT id, name, admin, active, generation, password, created_us FROM user ORDER BY name",
    )?;
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

pub fn user_set_active(tx: &Connection, id: i64, active: bool) -> Result<()> {
    tx.prepare_cached("UPDATE user SET active = ?2, generation = generation + 1 WHERE id = ?1")?
        .execute(params![id, active])?;
    Ok(())
}

pub fn user_delete(tx: &Connection, id: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM user WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub fn admin_count(tx: &Connection) -> Result<u64> {
    Ok(tx
        .prepare_cached("SELECT count(*) FROM user WHERE admin AND active")?
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

pub fn email_count(tx: &Connection, user: i64) -> Result<u64> {
    Ok(tx
        .prepare_cached("SELECT count(*) FROM email WHERE user = ?1")?
        .query_row([user], |row| size_column(row, 0))?)
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

/// Whether whoever came to own this namespace would own something: it is somebody's, or an
/// organisation, or there are repositories or grants below it.
pub fn namespace_is_taken(tx: &Connection, name: &str) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM namespace AS n WHERE n.name = ?1
                 AND (n.owner IS NOT NULL OR n.kind = 'org'
                   OR EXISTS (SELECT 1 FROM repo WHERE namespace = n.id)))
               OR EXISTS (SELECT 1 FROM access_grant WHERE pattern >= ?1 || '/' AND pattern < ?1 || '0')",
        )?
        .query_row([name], |row| row.get(0))?)
}

pub fn namespace_set_owner(tx: &Connection, id: i64, owner: i64) -> Result<()> {
    tx.prepare_cached("UPDATE namespace SET owner = ?2, kind = 'user' WHERE id = ?1")?
        .execute(params![id, owner])?;
    Ok(())
}

// org and group -----------------------------------------------------------------

/// Makes a namespace an organisation. False if it is one, or a user's, already.
pub fn org_set(tx: &Connection, namespace: i64, full_name: &str) -> Result<bool> {
    let made = tx
        .prepare_cached("UPDATE namespace SET kind = 'org', full_name = ?2 WHERE id = ?1 AND kind = 'plain'")?
        .execute(params![namespace, full_name])?;
    Ok(made > 0)
}

/// An organisation no longer: its groups go, its repositories stay.
pub fn org_unset(tx: &Connection, namespace: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM org_group WHERE namespace = ?1")?.execute([namespace])?;
    tx.prepare_cached("UPDATE namespace SET kind = 'plain', full_name = '' WHERE id = ?1")?
        .execute([namespace])?;
    Ok(())
}

pub fn org(tx: &Connection, name: &str) -> Result<Option<i64>> {
    Ok(tx
        .prepare_cached("SELECT id FROM namespace WHERE name = ?1 AND kind = 'org'")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

pub fn orgs(tx: &Connection) -> Result<Vec<OrgRow>> {
    let mut statement = tx.prepare_cached(
        "SELECT n.name, n.full_name, (SELECT count(*) FROM org_group WHERE namespace = n.id),
                (SELECT count(DISTINCT m.user) FROM org_group AS g JOIN group_member AS m ON m.org_group = g.id
                 WHERE g.namespace = n.id)
         FROM namespace AS n WHERE n.kind = 'org' ORDER BY n.name",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(OrgRow {
            name: row.get(0)?,
            full_name: row.get(1)?,
            groups: size_column(row, 2)?,
            members: size_column(row, 3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn group_insert(tx: &Connection, namespace: i64, name: &str, description: &str) -> Result<i64> {
    tx.prepare_cached("INSERT INTO org_group (uuid, namespace, name, description) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![uuid()?, namespace, name, description])?;
    Ok(tx.last_insert_rowid())
}

pub fn group(tx: &Connection, org: i64, name: &str) -> Result<Option<i64>> {
    Ok(tx
        .prepare_cached("SELECT id FROM org_group WHERE namespace = ?1 AND name = ?2")?
        .query_row(params![org, name], |row| row.get(0))
        .optional()?)
}

pub fn group_delete(tx: &Connection, group: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM org_group WHERE id = ?1")?.execute([group])?;
    Ok(())
}

/// An organisation's groups by name, with their members.
pub fn groups(tx: &Connection, org: i64) -> Result<Vec<GroupRow>> {
    let mut statement =
        tx.prepare_cached("SELECT id, name, description FROM org_group WHERE namespace = ?1 ORDER BY name")?;
    let rows = statement.query_map([org], |row| {
        Ok(GroupRow { id: row.get(0)?, name: row.get(1)?, description: row.get(2)?, members: Vec::new() })
    })?;
    let mut rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut members = tx.prepare_cached(
        "SELECT u.name FROM group_member AS m JOIN user AS u ON u.id = m.user
         WHERE m.org_group = ?1 ORDER BY u.name",
    )?;
    for row in &mut rows {
        row.members = members.query_map([row.id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    }
    Ok(rows)
}

pub fn group_join(tx: &Connection, group: i64, user: i64) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO group_member (user, org_group) VALUES (?1, ?2)")?
        .execute(params![user, group])?;
    Ok(())
}

/// True if the user was in it.
pub fn group_leave(tx: &Connection, group: i64, user: i64) -> Result<bool> {
    let left = tx
        .prepare_cached("DELETE FROM group_member WHERE user = ?1 AND org_group = ?2")?
        .execute(params![user, group])?;
    Ok(left > 0)
}

// access_grant --------------------------------------------------------------------

/// The most a user may in a repository by ownership, groups and grants; 0 for nothing.
pub fn level(tx: &Connection, user: i64, repo: &RepoName) -> Result<u8> {
    let any_in_namespace = format!("{}/*", repo.namespace());
    Ok(tx
        .prepare_cached(
            "SELECT coalesce(max(level), 0) FROM (
               SELECT 3 AS level FROM namespace WHERE name = ?2 AND owner = ?1
               UNION ALL
               SELECT 3 FROM namespace AS n
                 JOIN org_group AS g ON g.namespace = n.id AND g.name = 'owners'
                 JOIN group_member AS m ON m.org_group = g.id AND m.user = ?1
                 WHERE n.name = ?2
               UNION ALL
               SELECT level FROM access_grant WHERE user = ?1 AND pattern IN (?3, ?4, '*')
               UNION ALL
               SELECT a.level FROM group_member AS m JOIN access_grant AS a ON a.org_group = m.org_group
                 WHERE m.user = ?1 AND a.pattern IN (?3, ?4, '*'))",
        )?
        .query_row(params![user, repo.namespace(), repo.full(), any_in_namespace], |row| row.get(0))?)
}

/// Sets what a user or a group may where; None takes it away. True if something changed.
pub fn grant_set(tx: &Connection, pattern: &str, holder: Holder, level: Option<Level>) -> Result<bool> {
    let (user, group) = match holder {
        Holder::User(id) => (Some(id), None),
        Holder::Group(id) => (None, Some(id)),
    };
    let gone = tx
        .prepare_cached("DELETE FROM access_grant WHERE pattern = ?1 AND user IS ?2 AND org_group IS ?3")?
        .execute(params![pattern, user, group])?;
    let Some(level) = level else { return Ok(gone > 0) };
    tx.prepare_cached("INSERT INTO access_grant (pattern, user, org_group, level) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![pattern, user, group, level as u8])?;
    Ok(true)
}

/// Grants that name a repository that is gone; one of the same name starts without them.
pub fn grants_delete(tx: &Connection, repo: &RepoName) -> Result<()> {
    tx.prepare_cached("DELETE FROM access_grant WHERE pattern = ?1")?.execute([repo.full()])?;
    Ok(())
}

pub fn grants(tx: &Connection) -> Result<Vec<Grant>> {
    let mut statement = tx.prepare_cached(
        "SELECT a.pattern, coalesce(u.name, '@' || n.name || '/' || g.name), a.level
         FROM access_grant AS a LEFT JOIN user AS u ON u.id = a.user
         LEFT JOIN org_group AS g ON g.id = a.org_group LEFT JOIN namespace AS n ON n.id = g.namespace
         ORDER BY 1, 2",
    )?;
    let rows = statement.query_map([], |row| {
        let level = Level::from_number(row.get(2)?).ok_or(rusqlite::Error::IntegralValueOutOfRange(2, 0))?;
        Ok(Grant { repo: row.get(0)?, to: row.get(1)?, level })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

// token ---------------------------------------------------------------------------

pub fn token_insert(
    tx: &Connection,
    user: i64,
    hash: &[u8],
    label: &str,
    scope: &TokenScope,
    expires_us: Option<i64>,
    now_us: i64,
) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO token (uuid, user, hash, label, access, pattern, expires_us, created_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        uuid()?,
        user,
        hash,
        label,
        scope.access.word(),
        scope.pattern,
        expires_us,
        now_us
    ])?;
    Ok(tx.last_insert_rowid())
}

pub(super) fn token_row(row: &Row) -> rusqlite::Result<TokenRow> {
    let access: String = row.get(4)?;
    let access = crate::registry::Access::from_word(&access).ok_or(rusqlite::Error::InvalidQuery)?;
    Ok(TokenRow {
        id: row.get(0)?,
        user: row.get(1)?,
        owner: row.get(2)?,
        label: row.get(3)?,
        scope: TokenScope { access, pattern: row.get(5)? },
        active: row.get(6)?,
        created_us: row.get(7)?,
        expires_us: row.get(8)?,
        uuid: row.get(9)?,
    })
}

pub(super) const TOKEN_ROW: &str =
    "SELECT t.id, t.user, u.name, t.label, t.access, t.pattern, t.active, t.created_us, t.expires_us, t.uuid
  FROM token AS t JOIN user AS u ON u.id = t.user";

pub fn token_by_hash(tx: &Connection, hash: &[u8]) -> Result<Option<TokenRow>> {
    Ok(tx
        .prepare_cached(&format!("{TOKEN_ROW} WHERE t.hash = ?1"))?
        .query_row([hash], token_row)
        .optional()?)
}

pub fn token_by_id(tx: &Connection, id: i64) -> Result<Option<TokenRow>> {
    Ok(tx.prepare_cached(&format!("{TOKEN_ROW} WHERE t.id = ?1"))?.query_row([id], token_row).optional()?)
}

pub fn tokens(tx: &Connection) -> Result<Vec<TokenRow>> {
    let mut statement = tx.prepare_cached(&format!("{TOKEN_ROW} ORDER BY u.name, t.id"))?;
    let rows = statement.query_map([], token_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// True if it was there.
pub fn token_delete(tx: &Connection, id: i64) -> Result<bool> {
    Ok(tx.prepare_cached("DELETE FROM token WHERE id = ?1")?.execute([id])? > 0)
}
