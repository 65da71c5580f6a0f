//! `outport user …`

use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;

use super::{Common, password};
use crate::error::{Kind, Result, Thing};
use crate::names::UserName;
use crate::registry::UserAdd;

/// Longest htpasswd file, in bytes.
const HTPASSWD_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Subcommand)]
pub enum User {
    /// Add a user, who then owns NAME/…
    Add {
        name: String,
        /// May do everything
        #[arg(long)]
        admin: bool,
        /// An e-mail address, to log in with as well
        #[arg(long)]
        email: Option<String>,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Set a user's password
    Passwd {
        name: String,
        #[arg(long)]
        password_stdin: bool,
    },
    /// Make a user an administrator, or no longer one
    Admin {
        name: String,
        /// Take the right away
        #[arg(long)]
        revoke: bool,
    },
    /// Let somebody in who signed up and waits
    Activate {
        name: String,
        /// Shut the user out instead
        #[arg(long)]
        revoke: bool,
    },
    /// Show who there is
    List,
    /// Remove a user; repositories stay
    Remove {
        name: String,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Take the users of an htpasswd file with bcrypt hashes (htpasswd -B)
    ImportHtpasswd { file: PathBuf },
}

impl User {
    pub fn run(self, common: &Common) -> Result<()> {
        match self {
            User::Add { name, admin, email, password_stdin } => {
                let name = UserName::parse(&name)?;
                let registry = common.open()?;
                let password = password(password_stdin)?;
                registry.user_add(&UserAdd {
                    name: &name,
                    password: &password,
                    admin,
                    email: email.as_deref(),
                })?;
                common.say(&json!({"added": name.as_str(), "admin": admin}), || {
                    let rank = if admin { "administrator" } else { "user" };
                    format!("Added {rank} {name}, who owns {name}/…")
                });
            }
            User::Passwd { name, password_stdin } => {
                let name = UserName::parse(&name)?;
                let registry = common.open()?;
                registry.user_set_password(&name, &password(password_stdin)?)?;
                common.say(&json!({"changed": name.as_str()}), || {
                    format!("Changed the password of {name}. The old one and its tokens are void.")
                });
            }
            User::Admin { name, revoke } => {
                let name = UserName::parse(&name)?;
                common.open()?.user_set_admin(&name, !revoke)?;
                common.say(&json!({"changed": name.as_str(), "admin": !revoke}), || {
                    format!("{name} is {} administrator.", if revoke { "no longer an" } else { "now an" })
                });
            }
            User::Activate { name, revoke } => {
                let name = UserName::parse(&name)?;
                common.open()?.user_set_active(&name, !revoke)?;
                common.say(&json!({"changed": name.as_str(), "active": !revoke}), || {
                    format!("{name} is {} active.", if revoke { "no longer" } else { "now" })
                });
            }
            User::List => {
                let rows = common.open()?.users()?;
                let list: Vec<_> = rows
                    .iter()
                    .map(|row| {
                        let (user, emails) = (&row.user, &row.emails);
                        json!({"name": user.name, "admin": user.admin, "active": user.active, "emails": emails})
                    })
                    .collect();
                common.say(&list, || {
                    let lines: Vec<String> = rows
                        .iter()
                        .map(|row| {
                            let rank = match (row.user.active, row.user.admin) {
                                (false, _) => "not active",
                                (true, true) => "administrator",
                                (true, false) => "user",
                            };
                            format!("{:<24} {rank:<14} {}", row.user.name, row.emails.join(" "))
                                .trim_end()
                                .to_owned()
                        })
                        .collect();
                    lines.join("\n")
                });
            }
            User::Remove { name, dry_run } => {
                let name = UserName::parse(&name)?;
                let registry = common.open()?;
                if dry_run {
                    let there = registry.users()?.iter().any(|row| row.user.name == name.as_str());
                    if !there {
                        return Err(Kind::NotFound(Thing::User).because(format!("there is no user {name}")));
                    }
                } else {
                    registry.user_remove(&name)?;
                }
                common.say(&json!({"removed": name.as_str(), "dry_run": dry_run}), || match dry_run {
                    true => format!(
                        "Would remove {name}; repositories below {name}/ would stay, for administrators."
                    ),
                    false => format!(
                        "Removed {name}. Repositories below {name}/ stay; administrators look after them."
                    ),
                });
            }
            User::ImportHtpasswd { file } => {
                use std::io::Read;
                let unreadable = |error: std::io::Error| {
                    Kind::Invalid(Thing::User).because(format!("{} cannot be read: {error}", file.display()))
                };
                let mut text = String::new();
                let open = std::fs::File::open(&file).map_err(unreadable)?;
                open.take(HTPASSWD_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
                let imported = common.open()?.users_import(&text)?;
                common.say(&imported, || {
                    format!(
                        "Added {} users, changed the passwords of {}.",
                        imported.added.len(),
                        imported.changed.len()
                    )
                });
            }
        }
        Ok(())
    }
}
