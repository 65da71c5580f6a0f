//! `outport service …`: programs that log in to ML Space's API.

use clap::Subcommand;

use super::Common;
use crate::error::{Kind, Result, Thing};
use crate::names::UserName;
use crate::registry::ServiceRow;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum Service {
    /// Make a service client: it acts for USER, in one workspace
    Add {
        user: String,
        /// The namespace it is confined to [default: the user's own]
        #[arg(long, value_name = "NAMESPACE")]
        workspace: Option<String>,
    },
    /// Show what service clients there are
    List,
    /// End a service client, with the tokens it was given
    Remove {
        #[arg(value_name = "CLIENT_ID")]
        id: String,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl Service {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        match self {
            Service::Add { user, workspace } => {
                let made = registry.service_add(&UserName::parse(&user)?, workspace.as_deref())?;
                common.say(&made, || {
                    let ServiceRow { id, user, workspace, workspace_id, .. } = &made.row;
                    format!(
                        "client_id       {id}\nclient_secret   {}\nx-api-key       {}\nx-workspace-id  {workspace_id}\n\
                         It acts for {user} in {workspace}/… The secret and the key are not shown again.",
                        made.secret, made.api_key
                    )
                });
            }
            Service::List => {
                let rows = registry.services()?;
                common.say(&rows, || {
                    let line = |row: &ServiceRow| format!("{}  {:<20} {}", row.id, row.user, row.workspace);
                    rows.iter().map(line).collect::<Vec<_>>().join("\n")
                });
            }
            Service::Remove { id, dry_run } => {
                if !dry_run {
                    registry.service_remove(&id)?;
                } else if !registry.services()?.iter().any(|row| row.id == id) {
                    return Err(Kind::NotFound(Thing::User).because(format!(
                        "there is no service client {id}; `outport service list` shows them"
                    )));
                }
                common.say(&json!({"removed": id, "dry_run": dry_run}), || match dry_run {
                    true => format!("The service client {id} would be void."),
                    false => format!("The service client {id} is void."),
                });
            }
        }
        Ok(())
    }
}
