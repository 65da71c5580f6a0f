//! What a bundle's document says, read: every name and digest of it parsed.

use serde::Deserialize;

use super::refused;
use crate::error::{Error, Result};
use crate::names::{Digest, RepoName, Tag};

/// A manifest or a blob, and the repositories that have it.
#[derive(Debug)]
pub struct Item {
    pub digest: Digest,
    pub size: u64,
    pub media_type: Option<String>,
    pub repos: Vec<RepoName>,
}

/// What must be at the site already.
#[derive(Debug, Default)]
pub struct Base {
    pub manifests: Vec<Item>,
    pub blobs: Vec<Item>,
}

/// `outport/bundle.json`.
#[derive(Debug)]
pub struct Document {
    pub sender: Option<String>,
    pub sequence: Option<u64>,
    pub made: Option<String>,
    pub tags: Vec<(RepoName, Tag, Digest)>,
    pub manifests: Vec<Item>,
    pub blobs: Vec<Item>,
    pub base: Base,
}

#[derive(Deserialize)]
struct RawItem {
    digest: String,
    size: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    repos: Vec<String>,
}

#[derive(Deserialize, Default)]
struct RawBase {
    #[serde(default)]
    manifests: Vec<RawItem>,
    #[serde(default)]
    blobs: Vec<RawItem>,
}

#[derive(Deserialize)]
struct RawTag {
    repo: String,
    tag: String,
    digest: String,
}

#[derive(Deserialize)]
struct Raw {
    version: u32,
    #[serde(default)]
    sender: Option<String>,
    #[serde(default)]
    sequence: Option<u64>,
    #[serde(default)]
    made: Option<String>,
    tags: Vec<RawTag>,
    manifests: Vec<RawItem>,
    blobs: Vec<RawItem>,
    #[serde(default)]
    base: Option<RawBase>,
}

impl Document {
    /// Reads a document; the archive's reader has seen to its length.
    pub fn read(text: &[u8]) -> Result<Document> {
        let raw: Raw = serde_json::from_slice(text)
            .map_err(|error| refused(format!("its document does not parse: {error}")))?;
        if raw.version != 1 {
            return Err(refused(format!(
                "its document is of version {}; this Outport reads version 1: bring a newer one first",
                raw.version
            )));
        }
        let base = raw.base.unwrap_or_default();
        let tag = |raw: RawTag| {
            Ok((RepoName::parse(&raw.repo)?, Tag::parse(&raw.tag)?, Digest::parse(&raw.digest)?))
        };
        let parse = || -> Result<Document> {
            Ok(Document {
                sender: raw.sender,
                sequence: raw.sequence,
                made: raw.made,
                tags: raw.tags.into_iter().map(tag).collect::<Result<_>>()?,
                manifests: items(raw.manifests)?,
                blobs: items(raw.blobs)?,
                base: Base { manifests: items(base.manifests)?, blobs: items(base.blobs)? },
            })
        };
        parse().map_err(|error: Error| refused(format!("of its document, {}", error.detail())))
    }
}

fn items(raw: Vec<RawItem>) -> Result<Vec<Item>> {
    let item = |raw: RawItem| {
        let repos = raw.repos.iter().map(|repo| RepoName::parse(repo)).collect::<Result<_>>()?;
        Ok(Item { digest: Digest::parse(&raw.digest)?, size: raw.size, media_type: raw.media_type, repos })
    };
    raw.into_iter().map(item).collect()
}
