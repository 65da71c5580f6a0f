//! Images one by one, and tags set by hand: what the command line shows and changes. Shown
//! are also those that are out of service.

use serde::Serialize;

use super::catalog::ReferrersPage;
use super::repos::{Configs, PlatformRow, index_rows};
use super::{Registry, manifest_row, sql};
use crate::error::{Kind, Result, Thing};
use crate::manifest::{self, is_index};
use crate::names::{Digest, Reference, RepoName, Tag};

/// Most names that are shown with an image, of each sort: its tags, what is about it, what
/// lists it.
const SHOWN_MAX: u32 = 100;

/// Longest colour of a tag, in characters.
pub const TAG_COLOR_MAX: usize = 32;

/// A tag, for a list.
#[derive(Debug, Clone, Serialize)]
pub struct TagLine {
    pub name: String,
    pub digest: Digest,
    pub media_type: String,
    pub color: Option<String>,
    pub pushed_us: i64,
    /// A user's name.
    pub pushed_by: Option<String>,
    /// False while its image is out of service.
    pub live: bool,
}

/// A tag that was set.
#[derive(Debug, Clone)]
pub struct TagSet {
    pub digest: Digest,
    /// What it named before; none if it is new.
    pub before: Option<Digest>,
    pub color: Option<String>,
}

/// A manifest in a repository.
#[derive(Debug, Clone, Serialize)]
pub struct ImageRow {
    #[serde(skip)]
    pub(super) id: i64,
    pub digest: Digest,
    pub media_type: String,
    pub artifact_type: Option<String>,
    /// Of the manifest itself.
    pub bytes: u64,
    /// Of what it names; for an index, of what its images name as far as they are here.
    pub content_bytes: u64,
    pub config: Option<Digest>,
    /// What it is about: a signature's image.
    pub subject: Option<Digest>,
    pub pushed_us: i64,
    /// A user's name.
    pub pushed_by: Option<String>,
    /// False while it is out of service, because its bytes are wrong.
    pub live: bool,
    /// The first hundred, by name.
    pub tags: Vec<String>,
    pub tag_count: u64,
}

/// A manifest with all that it names, and all that names it.
#[derive(Debug)]
pub struct ImageWhole {
    pub row: ImageRow,
    /// An image's own, or one for each that an index lists.
    pub platforms: Vec<PlatformRow>,
    /// Its config and its layers, in their order.
    pub blobs: Vec<ImageBlob>,
    /// Manifests that it lists and that are not here.
    pub missing: Vec<Digest>,
    /// Indexes of its repository that list it; the first hundred.
    pub listed_by: Vec<Digest>,
    /// Manifests about it; the first hundred.
    pub referrers: ReferrersPage,
    /// The bytes of blobs that no other image needs: what comes back when it is deleted and
    /// collected.
    pub frees_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct ImageBlob {
    pub digest: Digest,
    pub bytes: u64,
    /// False while it is out of service.
    pub live: bool,
}

impl Registry {
    /// A repository's tags after `last`, by name. `NotFound(Repo)` if there is no such
    /// repository.
    pub fn tags_after(&self, repo: &RepoName, last: &str, limit: u32) -> Result<Vec<TagLine>> {
        self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::tags_after(tx, key.id, last, limit)
        })
    }

    /// Points a tag at an image of its repository, gives it a colour, or both; all or nothing.
    /// An empty colour takes it away. `NotFound(Manifest)` for the image, `NotFound(Tag)` where
    /// a tag that is not there is to be coloured.
    pub fn tag_set(
        &self,
        repo: &RepoName,
        tag: &Tag,
        target: Option<&Reference>,
        color: Option<&str>,
    ) -> Result<TagSet> {
        check_color(color.unwrap_or_default())?;
        let (repo, tag) = (repo.clone(), tag.clone());
        let (target, color) = (target.cloned(), color.map(str::to_owned));
        self.db.write(move |write| {
            let tx = write.tx;
            let key = sql::repo(tx, &repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let before = sql::tag_row(tx, key.id, tag.as_str())?.map(|row| row.digest);
            if let Some(target) = &target {
                let (image, _) = manifest_row(tx, &repo, target)?;
                sql::tag_set(tx, key.id, &tag, image, write.stamp(None))?;
                sql::repo_set_pushed(tx, key.id, write.now_us)?;
            }
            let mut row = sql::tag_row(tx, key.id, tag.as_str())?.ok_or(Kind::NotFound(Thing::Tag))?;
            if let Some(color) = color {
                row.color = Some(color).filter(|color| !color.is_empty());
                sql::tag_set_color(tx, row.id, row.color.as_deref())?;
            }
            Ok(TagSet { before, digest: row.digest, color: row.color })
        })
    }

    /// A repository's manifests, the newest first; those after `last`. `NotFound(Repo)` if
    /// there is no such repository.
    pub fn image_rows(&self, repo: &RepoName, last: Option<&ImageRow>, limit: u32) -> Result<Vec<ImageRow>> {
        let after = last.map(|row| (row.pushed_us, row.id));
        self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::image_rows(tx, key.id, after.unwrap_or((i64::MAX, i64::MAX)), SHOWN_MAX, limit)
        })
    }

    /// One manifest. `NotFound(Repo)` or `NotFound(Manifest)`. Opens a file.
    pub fn image_whole(&self, repo: &RepoName, reference: &Reference) -> Result<ImageWhole> {
        let (mut image, digest, configs) = self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let row = sql::image_row(tx, key.id, reference, SHOWN_MAX)?;
            let row = row.ok_or(Kind::NotFound(Thing::Manifest))?;
            let platforms = match is_index(&row.media_type) {
                true => index_rows(tx, key.id, row.id, row.bytes)?,
                false => Vec::new(),
            };
            let body = sql::manifest_body(tx, row.id)?;
            // One that is damaged names nothing for certain.
            let named = manifest::read(&body, Some(&row.media_type)).map(|read| read.blobs);
            let mut blobs = Vec::new();
            for digest in named.unwrap_or_default() {
                let found = sql::blob_in_repo(tx, repo, &digest)?;
                let bytes = match found {
                    Some(blob) => blob.bytes,
                    None => sql::blob(tx, &digest)?.map_or(0, |blob| blob.bytes),
                };
                blobs.push(ImageBlob { digest, bytes, live: found.is_some() });
            }
            let digest = row.digest.clone();
            let mut configs = Configs::default();
            configs.want(tx, key.id, row.config.as_ref())?;
            let whole = ImageWhole {
                platforms,
                blobs,
                missing: sql::children_missing(tx, key.id, row.id)?,
                listed_by: sql::manifests_listing(tx, key.id, &digest, SHOWN_MAX)?,
                referrers: ReferrersPage { referrers: Vec::new(), more: false },
                frees_bytes: sql::image_frees(tx, row.id)?,
                row,
            };
            Ok((whole, digest, configs))
        })?;
        image.referrers = self.referrers(repo, &digest, None, "", SHOWN_MAX)?;
        if let Some(config) = &image.row.config {
            let platform = self.configs_read(configs, manifest::config_platform).remove(config);
            let content_bytes = image.row.content_bytes;
            image.platforms.push(PlatformRow {
                digest,
                platform: platform.unwrap_or_default(),
                content_bytes,
            });
        }
        Ok(image)
    }
}

fn check_color(color: &str) -> Result<()> {
    if color.chars().count() > TAG_COLOR_MAX || color.chars().any(char::is_control) {
        return Err(Kind::Invalid(Thing::Tag)
            .because("a tag's colour has at most 32 characters, and no control characters"));
    }
    Ok(())
}
