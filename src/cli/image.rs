//! `outport image …`

use clap::Subcommand;
use serde_json::json;

use super::{Common, each_page, image_name};
use crate::error::{Kind, Result, Thing};
use crate::names::{Reference, RepoName};
use crate::registry::{ImageParts, ImageRow};

/// Images looked up at once.
const PAGE: u32 = 200;

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Show a repository's images, by digest
    List { repository: String },
    /// Show one image and what it is made of
    Show {
        #[arg(value_name = "REPOSITORY[:TAG|@DIGEST]")]
        image: String,
    },
    /// Delete an image with its tags; its space comes back by the next collection
    Remove {
        #[arg(value_name = "REPOSITORY@DIGEST")]
        image: String,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl Image {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        match self {
            Image::List { repository } => {
                let repo = RepoName::parse(&repository)?;
                each_page(
                    |last| registry.image_rows(&repo, last, PAGE),
                    |row| row.digest.clone(),
                    |row| common.say(row, || sentence(row)),
                )?;
            }
            Image::Show { image } => {
                let (repo, reference) = image_name(&image)?;
                let parts = registry.image_parts(&repo, &reference)?;
                common.say(&parts, || describe(&repo, &parts));
            }
            Image::Remove { image, dry_run } => {
                let (repo, reference) = image_name(&image)?;
                let Reference::Digest(_) = reference else {
                    return Err(Kind::Invalid(Thing::Digest).because(
                        "name the image as REPOSITORY@DIGEST; `outport tag remove` takes a tag alone",
                    ));
                };
                let row = registry.image_row(&repo, &reference)?;
                if !dry_run {
                    registry.manifest_delete(&repo, &reference)?;
                }
                common.say(&json!({"removed": row, "dry_run": dry_run}), || {
                    let done = if dry_run { "Would remove" } else { "Removed" };
                    let tags = if row.tags.is_empty() { "no tag".into() } else { row.tags.join(", ") };
                    format!(
                        "{done} {}@{} and with it {tags}. `outport gc` gives the space back.",
                        repo.full(),
                        row.digest
                    )
                });
            }
        }
        Ok(())
    }
}

fn sentence(row: &ImageRow) -> String {
    let word = if row.live { "" } else { "  (damaged: push it again)" };
    format!("{}  {:>14} bytes  {}{word}", row.digest, row.bytes + row.content_bytes, row.tags.join(" "))
        .trim_end()
        .to_owned()
}

fn describe(repo: &RepoName, parts: &ImageParts) -> String {
    let row = &parts.row;
    let mut lines = vec![
        format!("image      {}@{}", repo.full(), row.digest),
        format!("type       {}", row.media_type),
        format!("size       {} bytes, and {} of what it names", row.bytes, row.content_bytes),
    ];
    let mut add = |what: &str, values: &[String]| {
        if !values.is_empty() {
            lines.push(format!("{what:<10} {}", values.join("\n           ")));
        }
    };
    add("artifact", row.artifact_type.as_slice());
    add("about", row.subject.as_slice());
    add("tags", &row.tags);
    add("platforms", &parts.platforms);
    let blobs: Vec<String> = parts
        .blobs
        .iter()
        .map(|blob| {
            let word = if blob.live { "" } else { "  (damaged: push it again)" };
            format!("{}  {:>14} bytes{word}", blob.digest, blob.bytes)
        })
        .collect();
    add("blobs", &blobs);
    add("images", &parts.children);
    add("referrers", &parts.referrers);
    add("pushed by", row.pushed_by.as_slice());
    if !row.live {
        lines.push("damaged    push it again".to_owned());
    }
    lines.join("\n")
}
