//! `outport repo …`

use clap::{ArgGroup, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

use super::Common;
use super::print::{PAGE, card, comes_back, found, when, when_by, whole};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::RepoName;
use crate::registry::{Registry, Repo as RepoSeen, RepoChange, RepoRow};

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
            Repo::List => {
                let page =
                    |last: Option<&RepoRow>| registry.repo_rows(last.map_or("", |row| &row.name), PAGE);
                common.each(page, whole, line)?;
            }
            Repo::Show { name } => {
                let (name, repo, frees_bytes) = look(&registry, &name)?;
                common.say(&shown(&name, &repo, frees_bytes), || {
                    let told = told(&name, &repo, frees_bytes);
                    match repo.full_description.trim_end() {
                        "" => told,
                        text => format!("{told}\n\n{text}"),
                    }
                });
            }
            Repo::Set { name, public, private, description, full_description, labels } => {
                let change = RepoChange {
                    private: (public || private).then_some(private),
                    description,
                    full_description: full_description.as_deref().map(read_text).transpose()?,
                    labels: labels
                        .map(|labels| labels.into_iter().filter(|label| !label.is_empty()).collect()),
                };
                registry.repo_set(&RepoName::parse(&name)?, change)?;
                let (name, repo, frees_bytes) = look(&registry, &name)?;
                common.say(&shown(&name, &repo, frees_bytes), || told(&name, &repo, frees_bytes));
            }
            Repo::Remove { name, dry_run } => {
                let (name, repo, frees_bytes) = look(&registry, &name)?;
                if !dry_run {
                    found(registry.repo_remove(&name), &name)?;
                }
                let json = json!({"removed": shown(&name, &repo, frees_bytes), "dry_run": dry_run});
                common.say(&json, || {
                    let done = if dry_run { "Would remove" } else { "Removed" };
                    let (full, RepoSeen { tags, images, .. }) = (name.full(), &repo);
                    let back = comes_back(frees_bytes, &registry);
                    format!("{done} {full} with {tags} tags and {images} images. {back}")
                });
            }
        }
        Ok(())
    }
}

/// A repository, and the bytes that no other one has.
fn look(registry: &Registry, name: &str) -> Result<(RepoName, RepoSeen, u64)> {
    let name = RepoName::parse(name)?;
    let repo = found(registry.repo_seen(None, &name), &name)?;
    let frees_bytes = found(registry.repo_frees(&name), &name)?;
    Ok((name, repo, frees_bytes))
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

/// What `repo list` shows of each.
fn line(row: &RepoRow) -> String {
    let word = if row.private { "private" } else { "public" };
    format!(
        "{:<40} {word:<8} {:>6} tags {:>6} images {:>14} bytes",
        row.name, row.tags, row.images, row.blob_bytes
    )
}

/// What --json shows of one repository.
fn shown(name: &RepoName, repo: &RepoSeen, frees_bytes: u64) -> Value {
    json!({
        "name": name.full(), "uuid": repo.uuid, "private": repo.private, "pushed": repo.pushed,
        "description": repo.description, "full_description": repo.full_description, "labels": repo.labels,
        "tags": repo.tags, "images": repo.images, "blob_bytes": repo.blob_bytes, "frees_bytes": frees_bytes,
        "stars": repo.stars, "pulls": repo.pulls, "created_us": repo.created_us,
        "created_by": repo.created_by, "updated_us": repo.updated_us, "pushed_us": repo.pushed_us,
    })
}

fn told(name: &RepoName, repo: &RepoSeen, frees_bytes: u64) -> String {
    let word = if repo.private { "private" } else { "public" };
    let rows = [
        ("about", repo.description.replace('\n', " ")),
        ("labels", repo.labels.join(", ").replace('\n', " ")),
        ("content", format!("{} tags, {} images", repo.tags, repo.images)),
        ("size", format!("{} bytes; {frees_bytes} of them no other repository has", repo.blob_bytes)),
        ("interest", format!("{} pulls, {} stars", repo.pulls, repo.stars)),
        ("created", when_by(repo.created_us, repo.created_by.as_deref())),
        ("pushed", repo.pushed_us.map_or_else(|| "not yet".into(), when)),
    ];
    card(&format!("{} ({word})", name.full()), &rows)
}
