//! `outport repo …`

use clap::{ArgGroup, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

use super::{Common, each_page};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::RepoName;
use crate::registry::{PAGE_MAX, Registry, Repo as RepoSeen, RepoChange, RepoRow};

#[derive(Debug, Subcommand)]
pub enum Repo {
    /// Show what there is
    List,
    /// Show one repository
    Show { name: String },
    /// Change a repository; makes it, if it is new
    #[command(group(ArgGroup::new("what").required(true).multiple(true)))]
    Set {
        name: String,
        /// Everyone who is known may pull it, and nobody too with auth.anonymous_pull
        #[arg(long, group = "what", conflicts_with = "private")]
        public: bool,
        /// Only its owner and administrators may pull it
        #[arg(long, group = "what")]
        private: bool,
        /// One line, at most 1,000 bytes
        #[arg(long, group = "what")]
        description: Option<String>,
        /// A file with the long description, as Markdown; at most 100,000 bytes
        #[arg(long, group = "what", value_name = "FILE")]
        full_description: Option<PathBuf>,
        /// A label instead of those there are; may be given more than once, and "" for none
        #[arg(long = "label", group = "what", value_name = "LABEL")]
        labels: Option<Vec<String>>,
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
            Repo::List => each_page(
                |last| registry.repo_rows(last, PAGE_MAX),
                |row| row.name.clone(),
                // One JSON object a line, so that no list is too long.
                |row| common.say(row, || sentence(row)),
            )?,
            Repo::Show { name } => {
                let name = RepoName::parse(&name)?;
                find(&registry, &name)?;
                let repo = registry.repo_seen(None, &name)?;
                common.say(&shown(&name, &repo), || describe(&name, &repo));
            }
            Repo::Set { name, public, private, description, full_description, labels } => {
                let name = RepoName::parse(&name)?;
                let change = RepoChange {
                    private: (public || private).then_some(private),
                    description,
                    full_description: full_description.as_deref().map(read_text).transpose()?,
                    labels: labels
                        .map(|labels| labels.into_iter().filter(|label| !label.is_empty()).collect()),
                };
                registry.repo_set(&name, change)?;
                let repo = registry.repo_seen(None, &name)?;
                common.say(&shown(&name, &repo), || {
                    let word = if repo.private { "private" } else { "public" };
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

/// A file's text, as long as a description may be and a byte more.
fn read_text(path: &Path) -> Result<String> {
    use std::io::Read;
    const TEXT_MAX: u64 = 100_001;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    file.take(TEXT_MAX).read_to_string(&mut text).map_err(|error| unreadable(path, &error))?;
    Ok(text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Kind::Invalid(Thing::Request).because(format!("{} cannot be read: {error}", path.display()))
}

/// What --json shows of one repository.
fn shown(name: &RepoName, repo: &RepoSeen) -> Value {
    json!({
        "name": name.full(), "uuid": repo.uuid, "private": repo.private,
        "description": repo.description, "full_description": repo.full_description, "labels": repo.labels,
        "tags": repo.tags, "images": repo.images, "blob_bytes": repo.blob_bytes,
        "stars": repo.stars, "pulls": repo.pulls,
        "created_us": repo.created_us, "updated_us": repo.updated_us, "pushed_us": repo.pushed_us,
    })
}

fn describe(name: &RepoName, repo: &RepoSeen) -> String {
    let word = if repo.private { "private" } else { "public" };
    let mut lines = vec![
        format!(
            "{} is {word}: {} tags, {} images, {} bytes",
            name.full(),
            repo.tags,
            repo.images,
            repo.blob_bytes
        ),
        format!("pulled {} times, starred by {}", repo.pulls, repo.stars),
    ];
    if !repo.description.is_empty() {
        lines.push(repo.description.clone());
    }
    if !repo.labels.is_empty() {
        lines.push(format!("labels: {}", repo.labels.join(", ")));
    }
    lines.join("\n")
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
