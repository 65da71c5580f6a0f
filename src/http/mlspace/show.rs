//! What is shown: ML Space's Registry, Repository, Image and Tag.

use serde::Serialize;

use crate::http::call::Call;
use crate::http::rfc3339_us;
use crate::manifest::ConfigFacts;
use crate::registry::{About, Image, ImageTag, PlatformRow, RepoCard, Workspace};

/// Nothing true can be said of when an image was pulled: pulls are counted by repository.
type Unknown = ();

#[derive(Serialize)]
struct Commands {
    #[serde(skip_serializing_if = "Option::is_none")]
    docker_login: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    docker_pull: Option<String>,
}

fn pull(reference: &str) -> Commands {
    Commands { docker_login: None, docker_pull: Some(format!("docker pull {reference}")) }
}

#[derive(Serialize)]
pub struct ShownRegistry<'a> {
    id: &'a str,
    name: &'a str,
    created_at: String,
    updated_at: String,
    repositories_count: u64,
    commands: Commands,
}

#[derive(Serialize)]
pub struct ShownRepo<'a> {
    id: &'a str,
    name: &'a str,
    full_name: String,
    description: Option<&'a str>,
    labels: &'a [String],
    created_at: String,
    updated_at: String,
    registry_id: &'a str,
    tags: Vec<ShownTag<'a>>,
    favorite: bool,
    recent_image: Option<ShownImage<'a>>,
    images_count: u64,
    commands: Commands,
}

#[derive(Serialize)]
pub struct ShownImage<'a> {
    id: &'a str,
    digest: &'a str,
    full_name: String,
    repository_id: &'a str,
    size: u64,
    push_time: String,
    pull_time: Unknown,
    extra_attrs: ExtraAttrs<'a>,
    tags: Vec<ShownTag<'a>>,
    commands: Commands,
}

/// Of an image what its config says, of an index its platforms.
#[derive(Serialize)]
#[serde(untagged)]
enum ExtraAttrs<'a> {
    Config(&'a ConfigFacts),
    Index {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        platforms: Vec<ShownPlatform<'a>>,
    },
}

#[derive(Serialize)]
struct ShownPlatform<'a> {
    digest: &'a str,
    os: &'a str,
    architecture: &'a str,
    variant: Option<&'a str>,
    size: u64,
}

#[derive(Serialize)]
pub struct ShownTag<'a> {
    id: &'a str,
    name: &'a str,
    full_name: String,
    image_id: &'a str,
    repository_id: &'a str,
    push_time: String,
    pull_time: Unknown,
    signed: bool,
    color: Option<&'a str>,
    commands: Commands,
}

/// Shows things as one client names them: under the host that it used.
pub struct Shower {
    host: String,
}

impl Shower {
    pub fn of(call: &Call) -> Shower {
        Shower { host: call.app.origin(call.asked()).1 }
    }

    /// `sums` are how many repositories there are, and when one of them changed last; an empty
    /// one has not changed since it was made.
    pub fn registry<'a>(&self, workspace: &'a Workspace, sums: (u64, Option<i64>)) -> ShownRegistry<'a> {
        let (count, updated_us) = sums;
        let login = Some(format!("docker login {}", self.host));
        ShownRegistry {
            id: &workspace.uuid,
            name: &workspace.name,
            created_at: rfc3339_us(workspace.created_us),
            updated_at: rfc3339_us(updated_us.unwrap_or(workspace.created_us)),
            repositories_count: count,
            commands: Commands { docker_login: login, docker_pull: None },
        }
    }

    pub fn repo<'a>(&self, card: &'a RepoCard) -> ShownRepo<'a> {
        let repo = &card.repo;
        let full_name = format!("{}/{}/{}", self.host, repo.namespace, repo.name);
        ShownRepo {
            id: &repo.uuid,
            name: &repo.name,
            description: Some(repo.description.as_str()).filter(|text| !text.is_empty()),
            labels: &repo.labels,
            created_at: rfc3339_us(repo.created_us),
            updated_at: rfc3339_us(repo.updated_us),
            registry_id: &card.registry,
            tags: self.tags(&card.tags),
            favorite: repo.starred,
            recent_image: card.recent.as_ref().map(|image| self.image(image)),
            images_count: repo.images,
            commands: pull(&full_name),
            full_name,
        }
    }

    pub fn image<'a>(&self, image: &'a Image) -> ShownImage<'a> {
        let full_name = format!("{}/{}@{}", self.host, image.repo, image.digest);
        ShownImage {
            id: &image.uuid,
            digest: image.digest.as_str(),
            repository_id: &image.repo_uuid,
            size: image.content_bytes,
            push_time: rfc3339_us(image.pushed_us),
            pull_time: (),
            extra_attrs: match &image.about {
                About::Config(facts) => ExtraAttrs::Config(facts),
                About::Platforms(rows) => {
                    ExtraAttrs::Index { platforms: rows.iter().map(platform).collect() }
                }
            },
            tags: self.tags(&image.tags),
            commands: pull(&full_name),
            full_name,
        }
    }

    pub fn tag<'a>(&self, tag: &'a ImageTag) -> ShownTag<'a> {
        let full_name = format!("{}/{}:{}", self.host, tag.repo, tag.name);
        ShownTag {
            id: &tag.uuid,
            name: &tag.name,
            image_id: &tag.image_uuid,
            repository_id: &tag.repo_uuid,
            push_time: rfc3339_us(tag.pushed_us),
            pull_time: (),
            signed: tag.signed,
            color: tag.color.as_deref(),
            commands: pull(&full_name),
            full_name,
        }
    }

    fn tags<'a>(&self, tags: &'a [ImageTag]) -> Vec<ShownTag<'a>> {
        tags.iter().map(|tag| self.tag(tag)).collect()
    }
}

fn platform(row: &PlatformRow) -> ShownPlatform<'_> {
    ShownPlatform {
        digest: row.digest.as_str(),
        os: &row.platform.os,
        architecture: &row.platform.architecture,
        variant: row.platform.variant.as_deref(),
        size: row.content_bytes,
    }
}
