//! Statements about organisations, groups and members as they are shown, and about what a
//! group was granted in a repository.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{size_column, size_value};
use crate::error::Result;
use crate::registry::grants::Level;
use crate::registry::orgs::{GroupGrant, GroupInfo, Member, OrgInfo, Person};
use crate::registry::pages::Slice;
use crate::registry::tokens::TokenRow;

// user ------------------------------------------------------------------------

fn to_person(row: &Row) -> rusqlite::Result<Person> {
    Ok(Person {
        id: row.get(0)?,
        uuid: row.get(1)?,
        name: row.get(2)?,
        admin: row.get(3)?,
        created_us: row.get(4)?,
    })
}

pub fn person(tx: &Connection, id: i64) -> Result<Option<Person>> {
    Ok(tx
        .prepare_cached("SELECT id, uuid, name, admin, created_us FROM user WHERE id = ?1")?
        .query_row([id], to_person)
        .optional()?)
}

// org -------------------------------------------------------------------------

fn to_org(row: &Row) -> rusqlite::Result<OrgInfo> {
    Ok(OrgInfo {
        id: row.get(0)?,
        uuid: row.get(1)?,
        name: row.get(2)?,
        full_name: row.get(3)?,
        created_us: row.get(4)?,
    })
}

pub fn org_info(tx: &Connection, id: i64) -> Result<OrgInfo> {
    Ok(tx
        .prepare_cached("SELECT id, uuid, name, full_name, created_us FROM namespace WHERE id = ?1")?
        .query_row([id], to_org)?)
}

/// Organisations that a user is a member of, by name.
pub fn orgs_of(tx: &Connection, user: i64, slice: Slice) -> Result<(Vec<OrgInfo>, u64)> {
    const MINE: &str = "kind = 'org' AND id IN (SELECT g.namespace FROM group_member AS m
        JOIN org_group AS g ON g.id = m.org_group WHERE m.user = ?1)";
    let count = tx
        .prepare_cached(&format!("SELECT count(*) FROM namespace WHERE {MINE}"))?
        .query_row([user], |row| size_column(row, 0))?;
    let rows = tx
        .prepare_cached(&format!(
            "SELECT id, uuid, name, full_name, created_us FROM namespace WHERE {MINE}
             ORDER BY name LIMIT ?2 OFFSET ?3"
        ))?
        .query_map(params![user, slice.take, size_value(slice.skip)], to_org)?
        .collect::<rusqlite::Result<_>>()?;
    Ok((rows, count))
}

/// Whether a user is in one of an organisation's groups, and whether in `owners`.
pub fn standing(tx: &Connection, org: i64, user: i64) -> Result<(bool, bool)> {
    Ok(tx
        .prepare_cached(
            "SELECT count(*) > 0, coalesce(max(g.name = 'owners'), 0) FROM group_member AS m
             JOIN org_group AS g ON g.id = m.org_group WHERE m.user = ?2 AND g.namespace = ?1",
        )?
        .query_row([org, user], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

// group -----------------------------------------------------------------------

fn to_group(row: &Row) -> rusqlite::Result<GroupInfo> {
    Ok(GroupInfo {
        id: row.get(0)?,
        uuid: row.get(1)?,
        name: row.get(2)?,
        description: row.get(3)?,
        members: size_column(row, 4)?,
    })
}

const GROUP: &str = "SELECT g.id, g.uuid, g.name, g.description,
    (SELECT count(*) FROM group_member WHERE org_group = g.id) FROM org_group AS g";

pub fn group_info(tx: &Connection, id: i64) -> Result<GroupInfo> {
    Ok(tx.prepare_cached(&format!("{GROUP} WHERE g.id = ?1"))?.query_row([id], to_group)?)
}

/// An organisation's groups by name: those whose names hold `needle`, in lower case, and
/// that a user is in, if one is given.
pub fn groups_of(
    tx: &Connection,
    org: i64,
    needle: &str,
    with: Option<&str>,
    slice: Slice,
) -> Result<(Vec<GroupInfo>, u64)> {
    const SEEN: &str = "g.namespace = ?1 AND (?2 = '' OR instr(lower(g.name), ?2)) AND (?3 IS NULL OR EXISTS
        (SELECT 1 FROM group_member AS m JOIN user AS u ON u.id = m.user
         WHERE m.org_group = g.id AND u.name = ?3))";
    let count = tx
        .prepare_cached(&format!("SELECT count(*) FROM org_group AS g WHERE {SEEN}"))?
        .query_row(params![org, needle, with], |row| size_column(row, 0))?;
    let rows = tx
        .prepare_cached(&format!("{GROUP} WHERE {SEEN} ORDER BY g.name LIMIT ?4 OFFSET ?5"))?
        .query_map(params![org, needle, with, slice.take, size_value(slice.skip)], to_group)?
        .collect::<rusqlite::Result<_>>()?;
    Ok((rows, count))
}

pub fn group_change(tx: &Connection, id: i64, name: Option<&str>, description: Option<&str>) -> Result<()> {
    tx.prepare_cached(
        "UPDATE org_group SET name = coalesce(?2, name), description = coalesce(?3, description)
         WHERE id = ?1",
    )?
    .execute(params![id, name, description])?;
    Ok(())
}

/// Members by name: of one group, or of all of an organisation's.
pub fn members(tx: &Connection, org: i64, group: Option<i64>, slice: Slice) -> Result<(Vec<Member>, u64)> {
    const SEEN: &str = "FROM user AS u WHERE u.id IN (SELECT m.user FROM org_group AS g
        JOIN group_member AS m ON m.org_group = g.id
        WHERE g.namespace = ?1 AND (?2 IS NULL OR g.id = ?2))";
    let count = tx
        .prepare_cached(&format!("SELECT count(*) {SEEN}"))?
        .query_row(params![org, group], |row| size_column(row, 0))?;
    let people = tx
        .prepare_cached(&format!(
            "SELECT u.id, u.uuid, u.name, u.admin, u.created_us {SEEN} ORDER BY u.name LIMIT ?3 OFFSET ?4"
        ))?
        .query_map(params![org, group, slice.take, size_value(slice.skip)], to_person)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // From the user on: an organisation may have many groups.
    let mut groups = tx.prepare_cached(
        "SELECT g.name FROM group_member AS m CROSS JOIN org_group AS g ON g.id = m.org_group
         WHERE g.namespace = ?1 AND m.user = ?2 ORDER BY g.name",
    )?;
    let mut members = Vec::with_capacity(people.len());
    for person in people {
        let groups =
            groups.query_map([org, person.id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        members.push(Member { person, groups });
    }
    Ok((members, count))
}

/// Takes a user out of all of an organisation's groups. True if they were in one.
pub fn org_leave(tx: &Connection, org: i64, user: i64) -> Result<bool> {
    let left = tx
        .prepare_cached(
            "DELETE FROM group_member WHERE user = ?2
               AND org_group IN (SELECT id FROM org_group WHERE namespace = ?1)",
        )?
        .execute([org, user])?;
    Ok(left > 0)
}

/// Whether somebody is in an organisation's `owners`.
pub fn has_owner(tx: &Connection, org: i64) -> Result<bool> {
    Ok(tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM org_group AS g JOIN group_member AS m ON m.org_group = g.id
             WHERE g.namespace = ?1 AND g.name = 'owners')",
        )?
        .query_row([org], |row| row.get(0))?)
}

// access_grant ------------------------------------------------------------------

/// A group by its id: its organisation's name and its own.
pub fn group_names(tx: &Connection, id: i64) -> Result<Option<(String, String)>> {
    Ok(tx
        .prepare_cached(
            "SELECT n.name, g.name FROM org_group AS g JOIN namespace AS n ON n.id = g.namespace
             WHERE g.id = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

fn to_grant(row: &Row) -> rusqlite::Result<GroupGrant> {
    let level = Level::from_number(row.get(2)?).ok_or(rusqlite::Error::IntegralValueOutOfRange(2, 0))?;
    Ok(GroupGrant { group: row.get(0)?, name: row.get(1)?, level })
}

const GRANT: &str = "FROM access_grant AS a JOIN org_group AS g ON g.id = a.org_group WHERE a.pattern = ?1";

/// What groups were granted in just this repository, by their names.
pub fn group_grants(tx: &Connection, pattern: &str, slice: Slice) -> Result<(Vec<GroupGrant>, u64)> {
    let count = tx
        .prepare_cached(&format!("SELECT count(*) {GRANT}"))?
        .query_row([pattern], |row| size_column(row, 0))?;
    let rows = tx
        .prepare_cached(&format!("SELECT g.id, g.name, a.level {GRANT} ORDER BY g.name LIMIT ?2 OFFSET ?3"))?
        .query_map(params![pattern, slice.take, size_value(slice.skip)], to_grant)?
        .collect::<rusqlite::Result<_>>()?;
    Ok((rows, count))
}

pub fn group_grant(tx: &Connection, pattern: &str, group: i64) -> Result<Option<GroupGrant>> {
    Ok(tx
        .prepare_cached(&format!("SELECT g.id, g.name, a.level {GRANT} AND g.id = ?2"))?
        .query_row(params![pattern, group], to_grant)
        .optional()?)
}

// token -------------------------------------------------------------------------

/// A user's tokens, the newest first.
pub fn tokens_of(tx: &Connection, user: i64, slice: Slice) -> Result<(Vec<TokenRow>, u64)> {
    let count = tx
        .prepare_cached("SELECT count(*) FROM token WHERE user = ?1")?
        .query_row([user], |row| size_column(row, 0))?;
    let rows = tx
        .prepare_cached(&format!(
            "{} WHERE t.user = ?1 ORDER BY t.id DESC LIMIT ?2 OFFSET ?3",
            super::people::TOKEN_ROW
        ))?
        .query_map(params![user, slice.take, size_value(slice.skip)], super::people::token_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok((rows, count))
}

pub fn token_of(tx: &Connection, user: i64, uuid: &str) -> Result<Option<TokenRow>> {
    Ok(tx
        .prepare_cached(&format!("{} WHERE t.user = ?1 AND t.uuid = ?2", super::people::TOKEN_ROW))?
        .query_row(params![user, uuid], super::people::token_row)
        .optional()?)
}

pub fn token_change(tx: &Connection, id: i64, label: Option<&str>, active: Option<bool>) -> Result<()> {
    tx.prepare_cached(
        "UPDATE token SET label = coalesce(?2, label), active = coalesce(?3, active) WHERE id = ?1",
    )?
    .execute(params![id, label, active])?;
    Ok(())
}
