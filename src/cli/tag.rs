//! `outport tag …`

use clap::Subcommand;
use serde_json::json;

use super::{Common, each_page, image_name};
use crate::error::{Kind, Result, Thing};
use crate::names::{Reference, RepoName, Tag as TagName};
use crate::registry::TAG_COLOR_MAX;

/// Tags looked up at once.
const PAGE: u32 = 1_000;

#[derive(Debug, Subcommand)]
pub enum Tag {
    /// Show a repository's tags, by name
    List { repository: String },
    /// Point a tag at an image, or paint it; makes it, if it is new
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
    /// Delete a tag; its image stays
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
                each_page(
                    |last| registry.tags_after(&repo, last, PAGE),
                    |row| row.name.clone(),
                    |row| {
                        let color = row.color.as_deref().unwrap_or_default();
                        common.say(row, || {
                            format!("{:<40} {} {color}", row.name, row.digest).trim_end().to_owned()
                        });
                    },
                )?;
            }
            Tag::Set { tag, target, color } => {
                let (repo, name) = named(&tag)?;
                if color.as_ref().is_some_and(|color| color.chars().count() > TAG_COLOR_MAX) {
                    return Err(Kind::Invalid(Thing::Tag)
                        .because(format!("a colour has at most {TAG_COLOR_MAX} characters")));
                }
                if let Some(target) = target {
                    registry.tag_set(None, &repo, &name, &Reference::parse(&target)?)?;
                }
                if let Some(color) = &color {
                    registry.tag_paint(
                        &repo,
                        &name,
                        Some(color.as_str()).filter(|color| !color.is_empty()),
                    )?;
                }
                let row = registry.tag_row(&repo, &name)?;
                let shown = json!({"repository": repo.full(), "tag": row.name, "digest": row.digest.as_str(),
                    "color": row.color});
                common.say(&shown, || {
                    let painted = row.color.as_ref().map(|color| format!(", {color}")).unwrap_or_default();
                    format!("{}:{} is {}{painted}.", repo.full(), row.name, row.digest)
                });
            }
            Tag::Remove { tag, dry_run } => {
                let (repo, name) = named(&tag)?;
                let row = registry.tag_row(&repo, &name)?;
                if !dry_run {
                    registry.manifest_delete(&repo, &Reference::Tag(name))?;
                }
                let shown = json!({"removed": {"repository": repo.full(), "tag": row.name,
                    "digest": row.digest.as_str()}, "dry_run": dry_run});
                common.say(&shown, || {
                    let done = if dry_run { "Would remove" } else { "Removed" };
                    format!("{done} the tag {}:{}; its image {} stays.", repo.full(), row.name, row.digest)
                });
            }
        }
        Ok(())
    }
}

/// `REPOSITORY:TAG`.
fn named(text: &str) -> Result<(RepoName, TagName)> {
    match image_name(text)? {
        (repo, Reference::Tag(tag)) if text.contains(':') => Ok((repo, tag)),
        _ => Err(Kind::Invalid(Thing::Tag).because("name the tag as REPOSITORY:TAG, as in team/app:v1")),
    }
}
