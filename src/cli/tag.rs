//! `outport tag …`

use clap::Subcommand;
use serde_json::json;

use super::print::{PAGE, found, short, when, whole};
use super::{Common, image_name};
use crate::error::{Kind, Result, Thing};
use crate::names::{Reference, RepoName, Tag as TagName};
use crate::registry::TagLine;

#[derive(Debug, Subcommand)]
pub enum Tag {
    /// Show a repository's tags
    List { repository: String },
    /// Point a tag at an image of its repository, give it a colour, or both
    Set {
        #[arg(value_name = "REPOSITORY:TAG")]
        tag: String,
        /// A digest or another tag of the repository
        #[arg(value_name = "DIGEST|TAG", required_unless_present = "color")]
        target: Option<String>,
        /// A colour, for those who show tags; "" takes it away
        #[arg(long)]
        color: Option<String>,
    },
    /// Remove a tag; its image stays
    Remove {
        #[arg(value_name = "REPOSITORY:TAG")]
        tag: String,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl Tag {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        match self {
            Tag::List { repository } => {
                let repo = RepoName::parse(&repository)?;
                let page = |last: Option<&TagLine>| {
                    let last = last.map_or("", |row| &row.name);
                    found(registry.tags_after(&repo, last, PAGE), &repo)
                };
                common.each(page, whole, line)?;
            }
            Tag::Set { tag, target, color } => {
                let (repo, tag) = named(&tag)?;
                let target = target.map(|text| Reference::parse(&text)).transpose()?;
                let set = registry.tag_set(&repo, &tag, target.as_ref(), color.as_deref());
                let set = found(set, &repo)?;
                let json = json!({
                    "repository": repo.full(), "tag": tag.as_str(), "digest": set.digest, "before": set.before,
                    "color": set.color,
                });
                common.say(&json, || {
                    let before = match &set.before {
                        None => " It is new.".into(),
                        Some(before) if *before == set.digest => String::new(),
                        Some(before) => format!(" It was {before}."),
                    };
                    let color = set.color.map_or_else(String::new, |color| format!(", in {color}"));
                    format!("{repo}:{tag} is {}{color}.{before}", set.digest)
                });
            }
            Tag::Remove { tag, dry_run } => {
                let (repo, tag) = named(&tag)?;
                let row = found(registry.tag_row(&repo, &tag), &repo)?;
                if !dry_run {
                    found(registry.manifest_delete(&repo, &Reference::Tag(tag)), &repo)?;
                }
                let removed = json!({"repository": repo.full(), "tag": row.name, "digest": row.digest});
                common.say(&json!({"removed": removed, "dry_run": dry_run}), || {
                    let (done, stays) =
                        if dry_run { ("Would remove", "would stay") } else { ("Removed", "stays") };
                    format!("{done} the tag {repo}:{}. The image {repo}@{} {stays}.", row.name, row.digest)
                });
            }
        }
        Ok(())
    }
}

/// A tag in its repository.
fn named(text: &str) -> Result<(RepoName, TagName)> {
    match image_name(text)? {
        (repo, Reference::Tag(tag)) if text.contains(':') => Ok((repo, tag)),
        _ => Err(Kind::Invalid(Thing::Tag).because("name the tag as REPOSITORY:TAG, as in team/app:v1")),
    }
}

fn line(row: &TagLine) -> String {
    let (by, color) =
        (row.pushed_by.as_deref().unwrap_or_default(), row.color.as_deref().unwrap_or_default());
    let state = if row.live { "" } else { "damaged" };
    let line =
        format!("{:<24} {} {} {by:<12} {color} {state}", row.name, short(&row.digest), when(row.pushed_us));
    line.trim_end().to_owned()
}
