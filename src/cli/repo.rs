//! `outport repo …`

use clap::{ArgGroup, Subcommand};
use serde_json::json;

use super::Common;
use crate::error::{Kind, Result, Thing};
use crate::names::RepoName;
use crate::registry::{PAGE_MAX, Registry, RepoRow};

#[derive(Debug, Subcommand)]
pub enum Repo {
    /// Show what there is
    List,
    /// Show one repository
    Show { name: String },
    /// Make a repository public or private; makes it, if it is new
    #[command(group(ArgGroup::new("who").required(true)))]
    Set {
        name: String,
        /// Everyone who is known may pull it, and nobody too with auth.anonymous_pull
        #[arg(long, group = "who")]
        public: bool,
        /// Only its owner and administrators may pull it
        #[arg(long, group = "who")]
        private: bool,
    },
    /// Delete a repository with its tags and images
    Remove {
        name: String,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl Repo {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        match self {
            Repo::List => list(&registry, common)?,
            Repo::Show { name } => {
                let row = find(&registry, &RepoName::parse(&name)?)?;
                common.say(&row, || sentence(&row));
            }
            Repo::Set { name, public, .. } => {
                let name = RepoName::parse(&name)?;
                registry.repo_set_private(&name, !public)?;
                let word = if public { "public" } else { "private" };
                common.say(&json!({"name": name.full(), "private": !public}), || {
                    format!("{} is {word}.", name.full())
                });
            }
            Repo::Remove { name, dry_run } => {
                let name = RepoName::parse(&name)?;
                let row = find(&registry, &name)?;
                if !dry_run {
                    registry.repo_remove(&name)?;
                }
                common.say(&json!({"removed": row, "dry_run": dry_run}), || {
                    let done = if dry_run { "Would remove" } else { "Removed" };
                    format!("{done} {} with {} tags and {} images.", row.name, row.tags, row.images)
                });
            }
        }
        Ok(())
    }
}

/// All of them, a page at a time.
fn list(registry: &Registry, common: &Common) -> Result<()> {
    let mut last = String::new();
    loop {
        let rows = registry.repo_rows(&last, PAGE_MAX)?;
        let Some(end) = rows.last() else { return Ok(()) };
        last.clone_from(&end.name);
        for row in &rows {
            // One JSON object a line, so that no list is too long.
            common.say(row, || sentence(row));
        }
    }
}

fn find(registry: &Registry, name: &RepoName) -> Result<RepoRow> {
    registry.repo_row(name)?.ok_or_else(|| {
        Kind::NotFound(Thing::Repo).because(format!(
            "there is no repository {}; `outport repo list` shows what there is",
            name.full()
        ))
    })
}

fn sentence(row: &RepoRow) -> String {
    let word = if row.private { "private" } else { "public" };
    format!(
        "{:<40} {word:<8} {:>6} tags {:>6} images {:>14} bytes",
        row.name, row.tags, row.images, row.blob_bytes
    )
}
