//! Organisations, their groups, and grants: who may what beside owners.

use serde::Serialize;

use super::people::user_id;
use super::{Registry, sql};
use crate::error::{Kind, Result, Thing};
use crate::names::{RepoName, UserName};

/// The group whose members own an organisation. Made with it, and never empty.
pub const OWNERS: &str = "owners";
const GROUP_NAME_MAX: usize = 64;
const DESCRIPTION_MAX: usize = 1_000;

/// How much somebody may in a repository; each holds the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Level {
    /// Pull.
    Read = 1,
    /// Push.
    Write = 2,
    /// Delete, and settings.
    Admin = 3,
}

impl Level {
    pub const ALL: [Level; 3] = [Level::Read, Level::Write, Level::Admin];

    pub fn parse(text: &str) -> Result<Level> {
        Level::ALL
            .into_iter()
            .find(|level| level.word() == text)
            .ok_or_else(|| Kind::Invalid(Thing::Request).because("a permission is read, write or admin"))
    }

    pub fn word(self) -> &'static str {
        match self {
            Level::Read => "read",
            Level::Write => "write",
            Level::Admin => "admin",
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Level> {
        Level::ALL.into_iter().find(|level| *level as u8 == number)
    }
}

/// Where a grant holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Repo(RepoName),
    /// Every repository of a namespace, also those to come.
    Namespace(String),
    All,
}

impl Pattern {
    /// A repository's name, `namespace/*`, or `*`.
    pub fn parse(text: &str) -> Result<Pattern> {
        match text.strip_suffix("/*") {
            _ if text == "*" => Ok(Pattern::All),
            Some(namespace) => {
                // Any repository of it would do to see whether the name can be one.
                let name = RepoName::parse(&format!("{namespace}/x"))?;
                if name.namespace() != namespace {
                    return Err(Kind::Invalid(Thing::Repo).because("a grant is for REPO, NAMESPACE/* or *"));
                }
                Ok(Pattern::Namespace(namespace.to_owned()))
            }
            None => Ok(Pattern::Repo(RepoName::parse(text)?)),
        }
    }

    /// As it is stored and shown: a repository by its full name.
    pub fn text(&self) -> String {
        match self {
            Pattern::Repo(name) => name.full().to_owned(),
            Pattern::Namespace(namespace) => format!("{namespace}/*"),
            Pattern::All => "*".to_owned(),
        }
    }

    pub fn covers(&self, repo: &RepoName) -> bool {
        match self {
            Pattern::Repo(name) => name == repo,
            Pattern::Namespace(namespace) => repo.namespace() == namespace,
            Pattern::All => true,
        }
    }
}

/// An organisation's group, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupName {
    pub org: UserName,
    pub group: String,
}

impl GroupName {
    /// `ORG/GROUP`.
    pub fn parse(text: &str) -> Result<GroupName> {
        let wrong = || {
            Kind::Invalid(Thing::Request)
                .because("a group is ORG/GROUP, the group of letters, digits, '-' and '_'")
        };
        let (org, group) = text.split_once('/').ok_or_else(wrong)?;
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !(1..=GROUP_NAME_MAX).contains(&group.len()) || !group.bytes().all(letter) {
            return Err(wrong());
        }
        Ok(GroupName { org: UserName::parse(org)?, group: group.to_owned() })
    }
}

/// To whom something is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grantee {
    User(UserName),
    Group(GroupName),
}

impl Grantee {
    /// `USER` or `@ORG/GROUP`.
    pub fn parse(text: &str) -> Result<Grantee> {
        match text.strip_prefix('@') {
            Some(group) => Ok(Grantee::Group(GroupName::parse(group)?)),
            None => Ok(Grantee::User(UserName::parse(text)?)),
        }
    }
}

/// The same, found in the database.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder {
    User(i64),
    Group(i64),
}

#[derive(Debug, Serialize)]
pub struct OrgRow {
    pub name: String,
    pub full_name: String,
    pub groups: u64,
    pub members: u64,
}

#[derive(Debug, Serialize)]
pub struct GroupRow {
    pub id: i64,
    pub name: String,
    pub description: String,
    pub members: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Grant {
    /// A repository's full name, `namespace/*`, or `*`.
    pub repo: String,
    /// A user, or `@org/group`.
    pub to: String,
    pub level: Level,
}

impl Registry {
    /// Makes an organisation with its group `owners`, and this user the first of them.
    /// A namespace that administrators pushed to before becomes it.
    pub fn org_add(&self, name: &UserName, full_name: &str, owner: &UserName) -> Result<()> {
        check_text(full_name)?;
        let (name, full_name, owner) = (name.clone(), full_name.to_owned(), owner.clone());
        self.db.write(move |write| {
            let tx = write.tx;
            let owner = user_id(tx, &owner)?;
            let namespace = sql::namespace_make(tx, name.as_str(), write.now_us)?;
            if !sql::org_set(tx, namespace, &full_name)? {
                return Err(
                    Kind::Exists(Thing::User).because(format!("{name} is a user or an organisation already"))
                );
            }
            let owners = sql::group_insert(tx, namespace, OWNERS, "own the organisation")?;
            sql::group_join(tx, owners, owner)
        })
    }

    /// Ends an organisation. Repositories stay, for administrators.
    pub fn org_remove(&self, name: &UserName) -> Result<()> {
        let name = name.clone();
        self.db.write(move |write| {
            let org = org_id(write.tx, &name)?;
            sql::org_unset(write.tx, org)
        })
    }

    pub fn orgs(&self) -> Result<Vec<OrgRow>> {
        self.db.read(sql::orgs)
    }

    pub fn group_add(&self, group: &GroupName, description: &str) -> Result<()> {
        check_text(description)?;
        let (group, description) = (group.clone(), description.to_owned());
        self.db.write(move |write| {
            let org = org_id(write.tx, &group.org)?;
            if sql::group(write.tx, org, &group.group)?.is_some() {
                return Err(Kind::Exists(Thing::User).because("the organisation has a group of that name"));
            }
            sql::group_insert(write.tx, org, &group.group, &description)?;
            Ok(())
        })
    }

    /// Removes a group, and what was granted to it.
    pub fn group_remove(&self, group: &GroupName) -> Result<()> {
        let group = group.clone();
        self.db.write(move |write| {
            if group.group == OWNERS {
                return Err(Kind::InUse(Thing::User).because("an organisation keeps its owners"));
            }
            let id = group_id(write.tx, &group)?;
            sql::group_delete(write.tx, id)
        })
    }

    pub fn groups(&self, org: &UserName) -> Result<Vec<GroupRow>> {
        self.db.read(|tx| sql::groups(tx, org_id(tx, org)?))
    }

    pub fn group_join(&self, group: &GroupName, user: &UserName) -> Result<()> {
        let (group, user) = (group.clone(), user.clone());
        self.db.write(move |write| {
            let group = group_id(write.tx, &group)?;
            let user = user_id(write.tx, &user)?;
            sql::group_join(write.tx, group, user)
        })
    }

    /// Takes a user out of a group; what the group may, they may not from then on.
    pub fn group_leave(&self, group: &GroupName, user: &UserName) -> Result<()> {
        let (group, user) = (group.clone(), user.clone());
        self.db.write(move |write| {
            let id = group_id(write.tx, &group)?;
            let member = user_id(write.tx, &user)?;
            if !sql::group_leave(write.tx, id, member)? {
                return Err(Kind::NotFound(Thing::User).because(format!("{user} is not in that group")));
            }
            let org = org_id(write.tx, &group.org)?;
            let groups = sql::groups(write.tx, org)?;
            if groups.iter().any(|group| group.name == OWNERS && group.members.is_empty()) {
                return Err(Kind::InUse(Thing::User)
                    .because("this is the organisation's last owner; let another one join first"));
            }
            Ok(())
        })
    }

    /// Grants a permission, in place of the one that was granted there before.
    pub fn grant(&self, pattern: &Pattern, to: &Grantee, level: Level) -> Result<()> {
        let (pattern, to) = (pattern.text(), to.clone());
        self.db.write(move |write| {
            let holder = holder(write.tx, &to)?;
            sql::grant_set(write.tx, &pattern, holder, Some(level)).map(|_| ())
        })
    }

    /// Takes a grant back. `NotFound` if there was none.
    pub fn revoke(&self, pattern: &Pattern, from: &Grantee) -> Result<()> {
        let (pattern, from) = (pattern.text(), from.clone());
        self.db.write(move |write| {
            let holder = holder(write.tx, &from)?;
            if !sql::grant_set(write.tx, &pattern, holder, None)? {
                return Err(Kind::NotFound(Thing::User).because("nothing was granted there to them"));
            }
            Ok(())
        })
    }

    pub fn grants(&self) -> Result<Vec<Grant>> {
        self.db.read(sql::grants)
    }
}

pub(super) fn check_text(text: &str) -> Result<()> {
    if text.len() > DESCRIPTION_MAX || text.chars().any(char::is_control) {
        return Err(Kind::Invalid(Thing::Request)
            .because("a description has at most 1000 bytes and no control characters"));
    }
    Ok(())
}

pub(super) fn org_id(tx: &rusqlite::Connection, name: &UserName) -> Result<i64> {
    sql::org(tx, name.as_str())?
        .ok_or_else(|| Kind::NotFound(Thing::User).because(format!("there is no organisation {name}")))
}

pub(super) fn group_id(tx: &rusqlite::Connection, group: &GroupName) -> Result<i64> {
    let org = org_id(tx, &group.org)?;
    sql::group(tx, org, &group.group)?.ok_or_else(|| {
        Kind::NotFound(Thing::User).because(format!("{} has no group {}", group.org, group.group))
    })
}

fn holder(tx: &rusqlite::Connection, grantee: &Grantee) -> Result<Holder> {
    match grantee {
        Grantee::User(name) => Ok(Holder::User(user_id(tx, name)?)),
        Grantee::Group(group) => Ok(Holder::Group(group_id(tx, group)?)),
    }
}
