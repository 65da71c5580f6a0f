//! Images one by one, and tags set by hand: what the command line shows and changes.

use serde::Serialize;

use super::people::User;
use super::repos::index_rows;
use super::{Registry, sql};
use crate::error::{Kind, Result, Thing};
use crate::manifest::{self, Platform};
use crate::names::{Digest, Reference, RepoName, Tag};

/// Longest page, in images.
const PAGE_MAX: u32 = 1_000;

/// Longest colour of a tag, in characters.
pub const TAG_COLOR_MAX: usize = 32;

/// A manifest in a repository, with its tags.
#[derive(Debug, Clone, Serialize)]
pub struct ImageRow {
    pub digest: String,
    pub media_type: String,
    pub artifact_type: Option<String>,
    /// What it is about, if it is about another manifest.
    pub subject: Option<String>,
    /// Of the manifest itself.
    pub bytes: u64,
    /// Of its config and layers; for an index nothing.
    pub content_bytes: u64,
    pub pushed_us: i64,
    /// A user's name.
    pub pushed_by: Option<String>,
    /// False while it is out of service.
    pub live: bool,
    pub tags: Vec<String>,
}

/// A tag, for a list.
#[derive(Debug, Clone, Serialize)]
pub struct TagLine {
    pub name: String,
    pub digest: String,
    pub color: Option<String>,
    pub pushed_us: i64,
    /// A user's name.
    pub pushed_by: Option<String>,
}

/// What an image is made of.
#[derive(Debug, Clone, Serialize)]
pub struct ImageParts {
    #[serde(flatten)]
    pub row: ImageRow,
    /// `os/architecture[/variant]`, as far as it says so.
    pub platforms: Vec<String>,
    /// Its config and layers, by digest.
    pub blobs: Vec<BlobPart>,
    /// The manifests it lists.
    pub children: Vec<String>,
    /// Manifests about it, at most a page.
    pub referrers: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BlobPart {
    pub digest: String,
    pub bytes: u64,
    /// False while it is out of service.
    pub live: bool,
}

impl Registry {
    /// A repository's images after the digest `last`, by digest. `NotFound(Repo)` if there
    /// is no such repository.
    pub fn image_rows(&self, repo: &RepoName, last: &str, limit: u32) -> Result<Vec<ImageRow>> {
        self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::image_rows(tx, key.id, last, limit.min(PAGE_MAX))
        })
    }

    /// A repository's tags after `last`, by name.
    pub fn tags_after(&self, repo: &RepoName, last: &str, limit: u32) -> Result<Vec<TagLine>> {
        self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::tags_after(tx, key.id, last, limit.min(PAGE_MAX))
        })
    }

    /// One image, by tag or digest.
    pub fn image_row(&self, repo: &RepoName, reference: &Reference) -> Result<ImageRow> {
        self.db.read(|tx| {
            let id = manifest_id(tx, repo, reference)?;
            sql::image_row(tx, id)
        })
    }

    /// One image with what it is made of. Reads its config, and for an index its body.
    pub fn image_parts(&self, repo: &RepoName, reference: &Reference) -> Result<ImageParts> {
        let (mut parts, config, mut platforms) = self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let id = manifest_id(tx, repo, reference)?;
            let row = sql::image_row(tx, id)?;
            let digest = Digest::parse(&row.digest)?;
            let config = sql::image_config(tx, id)?;
            let platforms: Vec<Platform> = match config {
                Some(_) => Vec::new(),
                None => index_rows(tx, key.id, id, row.bytes)?.into_iter().map(|row| row.platform).collect(),
            };
            let mut referrers = Vec::new();
            sql::referrers(tx, repo, &digest, None, "", |referrer| {
                referrers.push(referrer.digest.as_str().to_owned());
                referrers.len() < PAGE_MAX as usize
            })?;
            let (blobs, children) = (sql::image_blobs(tx, id)?, sql::image_children(tx, id)?);
            Ok((ImageParts { row, platforms: Vec::new(), blobs, children, referrers }, config, platforms))
        })?;
        // One that cannot be read says nothing.
        if let Some(text) = config.and_then(|config| self.config(repo, &config).ok()) {
            platforms.push(manifest::config_platform(&text));
        }
        parts.platforms = platforms.iter().filter_map(platform_text).collect();
        Ok(parts)
    }

    /// Points a tag at what another tag or a digest of the repository names; makes the tag,
    /// if it is new. Durable when it returns.
    pub fn tag_set(&self, user: Option<&User>, repo: &RepoName, tag: &Tag, target: &Reference) -> Result<()> {
        let (user, repo, tag, target) = (user.map(|user| user.id), repo.clone(), tag.clone(), target.clone());
        self.db.write(move |write| {
            let key = sql::repo(write.tx, &repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let manifest = manifest_id(write.tx, &repo, &target)?;
            sql::tag_set(write.tx, key.id, &tag, manifest, write.stamp(user))?;
            sql::repo_set_pushed(write.tx, key.id, write.now_us)
        })
    }

    /// Gives a tag a colour, or takes it away.
    pub fn tag_paint(&self, repo: &RepoName, tag: &Tag, color: Option<&str>) -> Result<()> {
        let (repo, tag, color) = (repo.clone(), tag.clone(), color.map(str::to_owned));
        self.db.write(move |write| {
            let key = sql::repo(write.tx, &repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let row = sql::tag_row(write.tx, key.id, tag.as_str())?.ok_or(Kind::NotFound(Thing::Tag))?;
            sql::tag_set_color(write.tx, row.id, color.as_deref())
        })
    }
}

/// `os/architecture[/variant]`.
fn platform_text(platform: &Platform) -> Option<String> {
    let variant = platform.variant.as_deref().unwrap_or_default();
    let words = [platform.os.as_str(), platform.architecture.as_str(), variant];
    let text = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("/");
    (!text.is_empty()).then_some(text)
}

fn manifest_id(tx: &rusqlite::Connection, repo: &RepoName, reference: &Reference) -> Result<i64> {
    super::manifest_row(tx, repo, reference).map(|(id, _)| id)
}
