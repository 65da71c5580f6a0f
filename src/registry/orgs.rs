//! Organisations, groups and members as they are shown, and changes that name a group or a
//! user by what a client saw.

use super::grants::{GroupName, Holder, Level, OWNERS, check_text, group_id, org_id};
use super::pages::{Listed, Slice};
use super::people::{User, user_id};
use super::{Registry, sql};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::{RepoName, UserName};

/// What a user is to an organisation; each holds the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Stranger,
    /// In one of its groups.
    Member,
    /// In `owners`, or an administrator.
    Owner,
}

#[derive(Debug, Clone)]
pub struct Person {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub admin: bool,
    pub created_us: i64,
}

#[derive(Debug, Clone)]
pub struct OrgInfo {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub full_name: String,
    pub created_us: i64,
}

#[derive(Debug, Clone)]
pub struct GroupInfo {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub description: String,
    pub members: u64,
}

#[derive(Debug, Clone)]
pub struct Member {
    pub person: Person,
    /// The organisation's groups they are in.
    pub groups: Vec<String>,
}

impl Member {
    pub fn is_owner(&self) -> bool {
        self.groups.iter().any(|group| group == OWNERS)
    }
}

/// What a group may in one repository.
#[derive(Debug, Clone)]
pub struct GroupGrant {
    pub group: i64,
    pub name: String,
    pub level: Level,
}

impl Registry {
    pub fn person(&self, user: &User) -> Result<Person> {
        self.db.read(|tx| Ok(sql::person(tx, user.id)?.ok_or(Kind::Unauthorized)?))
    }

    /// What a user is to an organisation. `NotFound` if there is none of that name.
    pub fn org_standing(&self, user: &User, org: &UserName) -> Result<Standing> {
        self.db.read(|tx| {
            let (member, owner) = sql::standing(tx, org_id(tx, org)?, user.id)?;
            Ok(match (member, owner || user.admin) {
                (_, true) => Standing::Owner,
                (true, _) => Standing::Member,
                _ => Standing::Stranger,
            })
        })
    }

    pub fn org_info(&self, org: &UserName) -> Result<OrgInfo> {
        self.db.read(|tx| sql::org_info(tx, org_id(tx, org)?))
    }

    /// Organisations that a user is a member of.
    pub fn orgs_of(&self, user: &User, slice: Slice) -> Result<Listed<OrgInfo>> {
        let (rows, count) = self.db.read(|tx| sql::orgs_of(tx, user.id, slice))?;
        Ok(Listed::of(rows, count, slice))
    }

    /// An organisation's groups whose names hold `needle`, and that `with` is in.
    pub fn groups_of(
        &self,
        org: &UserName,
        needle: &str,
        with: Option<&str>,
        slice: Slice,
    ) -> Result<Listed<GroupInfo>> {
        let needle = needle.to_lowercase();
        let (rows, count) = self.db.read(|tx| sql::groups_of(tx, org_id(tx, org)?, &needle, with, slice))?;
        Ok(Listed::of(rows, count, slice))
    }

    pub fn group_info(&self, group: &GroupName) -> Result<GroupInfo> {
        self.db.read(|tx| sql::group_info(tx, group_id(tx, group)?))
    }

    /// Gives a group another name, another description, or both.
    pub fn group_change(
        &self,
        group: &GroupName,
        name: Option<GroupName>,
        description: Option<String>,
    ) -> Result<GroupInfo> {
        check_text(description.as_deref().unwrap_or_default())?;
        let group = group.clone();
        self.db.write(move |write| {
            let id = group_id(write.tx, &group)?;
            let name = name.map(|name| name.group).filter(|name| *name != group.group);
            if let Some(name) = &name {
                if group.group == OWNERS {
                    return Err(Kind::InUse(Thing::User).because("an organisation keeps its owners"));
                }
                let org = org_id(write.tx, &group.org)?;
                if sql::group(write.tx, org, name)?.is_some() {
                    return Err(
                        Kind::Exists(Thing::User).because("the organisation has a group of that name")
                    );
                }
            }
            sql::group_change(write.tx, id, name.as_deref(), description.as_deref())?;
            sql::group_info(write.tx, id)
        })
    }

    /// Everybody who is in one of an organisation's groups.
    pub fn org_members(&self, org: &UserName, slice: Slice) -> Result<Listed<Member>> {
        let (rows, count) = self.db.read(|tx| sql::members(tx, org_id(tx, org)?, None, slice))?;
        Ok(Listed::of(rows, count, slice))
    }

    pub fn group_members(&self, group: &GroupName, slice: Slice) -> Result<Listed<Member>> {
        let (rows, count) = self.db.read(|tx| {
            let id = group_id(tx, group)?;
            sql::members(tx, org_id(tx, &group.org)?, Some(id), slice)
        })?;
        Ok(Listed::of(rows, count, slice))
    }

    /// Takes a user out of all of an organisation's groups. The last owner stays.
    pub fn org_leave(&self, org: &UserName, user: &UserName) -> Result<()> {
        let (org, user) = (org.clone(), user.clone());
        self.db.write(move |write| {
            let (org, user) = (org_id(write.tx, &org)?, user_id(write.tx, &user)?);
            if !sql::org_leave(write.tx, org, user)? {
                return Err(not_in());
            }
            keep_one_owner(write.tx, org)
        })
    }

    /// Takes a user out of `owners`, if they are there. The last owner stays.
    pub fn org_demote(&self, org: &UserName, user: &UserName) -> Result<()> {
        let (org, user) = (org.clone(), user.clone());
        self.db.write(move |write| {
            let (org, user) = (org_id(write.tx, &org)?, user_id(write.tx, &user)?);
            let (member, _) = sql::standing(write.tx, org, user)?;
            if !member {
                return Err(not_in());
            }
            if let Some(owners) = sql::group(write.tx, org, OWNERS)? {
                sql::group_leave(write.tx, owners, user)?;
            }
            keep_one_owner(write.tx, org)
        })
    }

    /// What groups were granted in just this repository.
    pub fn group_grants(&self, repo: &RepoName, slice: Slice) -> Result<Listed<GroupGrant>> {
        let (rows, count) = self.db.read(|tx| {
            sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::group_grants(tx, repo.full(), slice)
        })?;
        Ok(Listed::of(rows, count, slice))
    }

    pub fn group_grant(&self, repo: &RepoName, group: i64) -> Result<GroupGrant> {
        self.db.read(|tx| {
            sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            Ok(sql::group_grant(tx, repo.full(), group)?.ok_or(Kind::NotFound(Thing::User))?)
        })
    }

    /// Grants a group a permission in a repository of its organisation, in place of the one
    /// it had. `Invalid(User)` for another organisation's group.
    pub fn group_grant_set(&self, repo: &RepoName, group: i64, level: Level) -> Result<GroupGrant> {
        let repo = repo.clone();
        self.db.write(move |write| {
            sql::repo(write.tx, &repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let (org, name) = sql::group_names(write.tx, group)?.ok_or(Kind::NotFound(Thing::User))?;
            if org != repo.namespace() {
                return Err(Kind::Invalid(Thing::User).because("this group is another organisation's"));
            }
            sql::grant_set(write.tx, repo.full(), Holder::Group(group), Some(level))?;
            Ok(GroupGrant { group, name, level })
        })
    }

    pub fn group_grant_remove(&self, repo: &RepoName, group: i64) -> Result<()> {
        let repo = repo.clone();
        self.db.write(move |write| {
            sql::repo(write.tx, &repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            if !sql::grant_set(write.tx, repo.full(), Holder::Group(group), None)? {
                return Err(Kind::NotFound(Thing::User).into());
            }
            Ok(())
        })
    }
}

fn not_in() -> Error {
    Kind::NotFound(Thing::User).because("they are not in that organisation")
}

fn keep_one_owner(tx: &rusqlite::Connection, org: i64) -> Result<()> {
    if !sql::has_owner(tx, org)? {
        return Err(Kind::InUse(Thing::User)
            .because("this is the organisation's last owner; let another one join first"));
    }
    Ok(())
}
