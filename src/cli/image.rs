//! `outport image …`

use clap::Subcommand;
use serde_json::{Value, json};

use super::print::{PAGE, card, comes_back, found, some, when, when_by, whole};
use super::{Common, image_name};
use crate::error::{Kind, Result, Thing};
use crate::manifest::{Platform, is_index};
use crate::names::{Digest, Reference, RepoName};
use crate::registry::{ImageRow, ImageWhole, PlatformRow};

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Show a repository's images, the newest first
    List { repository: String },
    /// Show one image: what it is made of, and what names it
    Show {
        #[arg(value_name = "REPOSITORY[:TAG|@DIGEST]")]
        image: String,
    },
    /// Delete an image with its tags
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
                let page = |last: Option<&ImageRow>| found(registry.image_rows(&repo, last, PAGE), &repo);
                common.each(page, whole, line)?;
            }
            Image::Show { image } => {
                let (repo, reference) = image_name(&image)?;
                let image = found(registry.image_whole(&repo, &reference), &repo)?;
                common.say(&shown(&repo, &image), || told(&repo, &image));
            }
            Image::Remove { image, dry_run } => {
                let (repo, reference) = image_name(&image)?;
                if let Reference::Tag(_) = reference {
                    return Err(Kind::Invalid(Thing::Manifest).because(
                        "an image is removed by its digest, REPOSITORY@DIGEST; `outport tag remove` takes a tag alone",
                    ));
                }
                let image = found(registry.image_whole(&repo, &reference), &repo)?;
                if !dry_run {
                    found(registry.manifest_delete(&repo, &reference), &repo)?;
                }
                let json = json!({"removed": shown(&repo, &image), "dry_run": dry_run});
                common.say(&json, || {
                    gone(&repo, &image, dry_run) + " " + &comes_back(image.frees_bytes, &registry)
                });
            }
        }
        Ok(())
    }
}

/// What the row has, with all that it names and that names it.
fn shown(repo: &RepoName, image: &ImageWhole) -> Value {
    let platform = |row: &PlatformRow| {
        let Platform { os, architecture, variant, os_version } = &row.platform;
        json!({
            "digest": row.digest, "os": os, "architecture": architecture, "variant": variant,
            "os_version": os_version, "content_bytes": row.content_bytes,
        })
    };
    let referrers = image.referrers.referrers.iter();
    let mut shown = json!({
        "repository": repo.full(),
        "platforms": image.platforms.iter().map(platform).collect::<Vec<_>>(),
        "blobs": image.blobs,
        "missing": image.missing,
        "listed_by": image.listed_by,
        "referrers": referrers.map(|row| json!({"digest": row.digest, "artifact_type": row.artifact_type}))
            .collect::<Vec<_>>(),
        "frees_bytes": image.frees_bytes,
    });
    if let (Value::Object(shown), Value::Object(row)) = (&mut shown, whole(&image.row)) {
        shown.extend(row);
    }
    shown
}

fn told(repo: &RepoName, image: &ImageWhole) -> String {
    let row = &image.row;
    let mut rows = vec![
        ("type", row.media_type.clone()),
        ("artifact", artifact_type(row)),
        ("state", if row.live { String::new() } else { "damaged; push it again, which heals it".into() }),
        ("size", format!("{} bytes, and {} of what it names", row.bytes, row.content_bytes)),
        ("pushed", when_by(row.pushed_us, row.pushed_by.as_deref())),
        ("tags", some(&row.tags, row.tag_count)),
        ("about", row.subject.as_ref().map_or_else(String::new, |subject| subject.as_str().to_owned())),
    ];
    for child in &image.platforms {
        let platform = platform(&child.platform);
        rows.push(match is_index(&row.media_type) {
            true => {
                let here = !image.missing.contains(&child.digest);
                ("lists", part(&child.digest, &platform, here))
            }
            false => ("platform", platform),
        });
    }
    for blob in &image.blobs {
        let word = if row.config.as_ref() == Some(&blob.digest) { "config" } else { "layer" };
        rows.push((word, part(&blob.digest, &format!("{} bytes", blob.bytes), blob.live)));
    }
    rows.extend(image.listed_by.iter().map(|digest| ("listed by", digest.as_str().to_owned())));
    for referrer in &image.referrers.referrers {
        let artifact_type = referrer.artifact_type.as_deref().unwrap_or_default();
        rows.push(("referrer", part(&referrer.digest, artifact_type, true)));
    }
    card(&format!("{repo}@{}", row.digest), &rows)
}

/// Something that an image names, or that names it.
fn part(digest: &Digest, what: &str, here: bool) -> String {
    let state = if here { "" } else { "missing" };
    let words: Vec<&str> =
        [digest.as_str(), what, state].into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// What sort of artifact it is; nothing for an image that is run.
fn artifact_type(row: &ImageRow) -> String {
    let runs = |text: &&String| {
        text.ends_with(".image.config.v1+json") || text.ends_with(".container.image.v1+json")
    };
    row.artifact_type.as_ref().filter(|text| !runs(text)).cloned().unwrap_or_default()
}

fn gone(repo: &RepoName, image: &ImageWhole, dry_run: bool) -> String {
    let row = &image.row;
    let done = if dry_run { "Would remove" } else { "Removed" };
    let tags = match row.tag_count {
        0 => "; no tag names it".into(),
        1 => format!(" with its tag {}", row.tags.join("")),
        count => format!(" with its {count} tags {}", some(&row.tags, count)),
    };
    let lists = match image.listed_by.len() {
        0 => String::new(),
        count => format!(" {count} of the repository's indexes list it, and lack it then."),
    };
    format!("{done} {repo}@{}{tags}.{lists}", row.digest)
}

/// `linux/arm64/v8`, as far as it says so.
fn platform(platform: &Platform) -> String {
    let Platform { os, architecture, variant, os_version } = platform;
    let words = [Some(os), Some(architecture), variant.as_ref(), os_version.as_ref()];
    let words: Vec<&str> =
        words.into_iter().flatten().map(String::as_str).filter(|word| !word.is_empty()).collect();
    words.join("/")
}

fn line(row: &ImageRow) -> String {
    let kind = match (is_index(&row.media_type), row.subject.is_some()) {
        _ if !row.live => "damaged",
        (true, _) => "index",
        (_, true) => "referrer",
        _ => "image",
    };
    let tags = some(&row.tags, row.tag_count);
    let line =
        format!("{} {kind:<8} {:>14} bytes {} {tags}", row.digest, row.content_bytes, when(row.pushed_us));
    line.trim_end().to_owned()
}
