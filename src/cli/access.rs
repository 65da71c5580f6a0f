//! `outport org …`, `group …`, `grant`, `revoke`, `token …`: who may what.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Common;
use super::print::when;
use crate::error::{Kind, Result, Thing};
use crate::names::UserName;
use crate::registry::{Access, Grantee, GroupName, Level, Pattern};

#[derive(Debug, Subcommand)]
pub enum Org {
    /// Make an organisation; its owners may everything in NAME/…
    Add {
        name: String,
        /// Its first owner
        #[arg(long, default_value = "admin")]
        owner: String,
        /// A name for people
        #[arg(long, default_value = "")]
        full_name: String,
    },
    /// Show the organisations
    List,
    /// End an organisation with its groups; repositories stay, for administrators
    Remove {
        name: String,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl Org {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        match self {
            Org::Add { name, owner, full_name } => {
                let (name, owner) = (UserName::parse(&name)?, UserName::parse(&owner)?);
                registry.org_add(&name, &full_name, &owner)?;
                common.say(&json!({"added": name.as_str(), "owner": owner.as_str()}), || {
                    format!("Added the organisation {name}; {owner} owns it.")
                });
            }
            Org::List => {
                let rows = registry.orgs()?;
                common.say(&rows, || {
                    let line = |row: &crate::registry::OrgRow| {
                        format!(
                            "{:<24} {:>4} groups {:>4} members  {}",
                            row.name, row.groups, row.members, row.full_name
                        )
                        .trim_end()
                        .to_owned()
                    };
                    rows.iter().map(line).collect::<Vec<_>>().join("\n")
                });
            }
            Org::Remove { name, dry_run } => {
                let name = UserName::parse(&name)?;
                let groups = registry.groups(&name)?.len();
                if !dry_run {
                    registry.org_remove(&name)?;
                }
                common.say(&json!({"removed": name.as_str(), "groups": groups, "dry_run": dry_run}), || {
                    let done = if dry_run { "Would remove" } else { "Removed" };
                    format!("{done} the organisation {name} with {groups} groups. Repositories stay.")
                });
            }
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub enum Group {
    /// Make a group
    Add {
        #[arg(value_name = "ORG/GROUP")]
        group: String,
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Show an organisation's groups and who is in them
    List { org: String },
    /// Remove a group and what was granted to it
    Remove {
        #[arg(value_name = "ORG/GROUP")]
        group: String,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Put a user into a group
    Join {
        #[arg(value_name = "ORG/GROUP")]
        group: String,
        user: String,
    },
    /// Take a user out of a group
    Leave {
        #[arg(value_name = "ORG/GROUP")]
        group: String,
        user: String,
    },
}

impl Group {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        match self {
            Group::Add { group, description } => {
                registry.group_add(&GroupName::parse(&group)?, &description)?;
                common.say(&json!({"added": group}), || format!("Added the group {group}."));
            }
            Group::List { org } => {
                let rows = registry.groups(&UserName::parse(&org)?)?;
                common.say(&rows, || {
                    let line = |row: &crate::registry::GroupRow| {
                        format!("{:<24} {}", row.name, row.members.join(" ")).trim_end().to_owned()
                    };
                    rows.iter().map(line).collect::<Vec<_>>().join("\n")
                });
            }
            Group::Remove { group, dry_run } => {
                let name = GroupName::parse(&group)?;
                let rows = registry.groups(&name.org)?;
                let row = rows.iter().find(|row| row.name == name.group).ok_or_else(|| {
                    Kind::NotFound(Thing::User).because(format!("there is no group {group}"))
                })?;
                if !dry_run {
                    registry.group_remove(&name)?;
                }
                common.say(&json!({"removed": group, "members": row.members, "dry_run": dry_run}), || {
                    let done = if dry_run { "Would remove" } else { "Removed" };
                    format!("{done} the group {group} with {} members.", row.members.len())
                });
            }
            Group::Join { group, user } => {
                registry.group_join(&GroupName::parse(&group)?, &UserName::parse(&user)?)?;
                common.say(&json!({"joined": group, "user": user}), || format!("{user} is in {group}."));
            }
            Group::Leave { group, user } => {
                registry.group_leave(&GroupName::parse(&group)?, &UserName::parse(&user)?)?;
                common.say(&json!({"left": group, "user": user}), || {
                    format!("{user} is no longer in {group}.")
                });
            }
        }
        Ok(())
    }
}

/// Let somebody pull, push or administer
#[derive(Debug, Args)]
pub struct GrantVerb {
    /// A repository, NAMESPACE/* or *; without anything, what is granted is shown
    #[arg(requires_all = ["level", "to"])]
    repo: Option<String>,
    /// read, write or admin
    level: Option<String>,
    /// USER or @ORG/GROUP
    #[arg(long)]
    to: Option<String>,
}

impl GrantVerb {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        let (Some(repo), Some(level), Some(to)) = (self.repo, self.level, self.to) else {
            let rows = registry.grants()?;
            common.say(&rows, || {
                let line = |row: &crate::registry::Grant| {
                    format!("{:<40} {:<6} {}", row.repo, row.level.word(), row.to)
                };
                rows.iter().map(line).collect::<Vec<_>>().join("\n")
            });
            return Ok(());
        };
        let (pattern, level) = (Pattern::parse(&repo)?, Level::parse(&level)?);
        registry.grant(&pattern, &Grantee::parse(&to)?, level)?;
        common.say(&json!({"repo": pattern.text(), "level": level, "to": to}), || {
            format!("{to} may {} {}.", level.word(), pattern.text())
        });
        Ok(())
    }
}

/// Take a grant back
#[derive(Debug, Args)]
pub struct Revoke {
    /// As it was granted: a repository, NAMESPACE/* or *
    repo: String,
    /// USER or @ORG/GROUP
    #[arg(long)]
    from: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Revoke {
    pub fn run(self, common: &Common) -> Result<()> {
        let Revoke { repo, from, dry_run } = self;
        let (pattern, grantee, registry) = (Pattern::parse(&repo)?, Grantee::parse(&from)?, common.open()?);
        let text = pattern.text();
        if !dry_run {
            registry.revoke(&pattern, &grantee)?;
        } else if !registry.grants()?.iter().any(|grant| grant.repo == text && grant.to == from) {
            return Err(Kind::NotFound(Thing::User).because("nothing was granted there to them"));
        }
        common.say(&json!({"revoked": text, "from": from, "dry_run": dry_run}), || {
            let done = if dry_run { "Would take" } else { "Took" };
            format!("{done} back from {from} what was granted in {text}.")
        });
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token: a password for USER that may less, and ends
    New {
        user: String,
        /// The most it may: pull, push or delete
        #[arg(long, default_value = "pull")]
        access: String,
        /// Where: a repository, NAMESPACE/* or *
        #[arg(long, default_value = "*")]
        repo: String,
        /// What it is for
        #[arg(long, default_value = "")]
        label: String,
        /// Days until it ends; without it, it ends when it is revoked
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
    },
    /// Show what tokens there are
    List,
    /// End a token
    Revoke {
        id: i64,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl Token {
    pub fn run(self, common: &Common) -> Result<()> {
        const DAY_US: i64 = 24 * 3600 * 1_000_000;
        let registry = common.open()?;
        match self {
            Token::New { user, access, repo, label, days } => {
                let access = Access::from_word(&access).ok_or_else(|| {
                    Kind::Invalid(Thing::Request).because("the access of a token is pull, push or delete")
                })?;
                let pattern = Pattern::parse(&repo)?;
                let now_us = (registry.clock().wall_us)();
                let expires_us = days.map(|days| now_us + i64::from(days) * DAY_US);
                let (id, token) =
                    registry.token_new(&UserName::parse(&user)?, &label, access, &pattern, expires_us)?;
                common.say(&json!({"id": id, "token": token}), || {
                    format!(
                        "{token}\nToken {id} may {} {} for {user}. It is not shown again.",
                        access.word(),
                        pattern.text()
                    )
                });
            }
            Token::List => {
                let rows = registry.tokens()?;
                common.say(&rows, || {
                    let line = |row: &crate::registry::TokenRow| {
                        let ends =
                            row.expires_us.map_or_else(String::new, |us| format!("until {}", when(us)));
                        let scope = &row.scope;
                        format!(
                            "{:>4} {:<20} {:<6} {:<30} {ends:<26} {}",
                            row.id,
                            row.owner,
                            scope.access.word(),
                            scope.pattern,
                            row.label
                        )
                        .trim_end()
                        .to_owned()
                    };
                    rows.iter().map(line).collect::<Vec<_>>().join("\n")
                });
            }
            Token::Revoke { id, dry_run } => {
                if !dry_run {
                    registry.token_revoke(id)?;
                } else if !registry.tokens()?.iter().any(|row| row.id == id) {
                    return Err(Kind::NotFound(Thing::User)
                        .because(format!("there is no token {id}; `outport token list` shows them")));
                }
                common.say(&json!({"revoked": id, "dry_run": dry_run}), || match dry_run {
                    true => format!("Token {id} would be void."),
                    false => format!("Token {id} is void."),
                });
            }
        }
        Ok(())
    }
}
