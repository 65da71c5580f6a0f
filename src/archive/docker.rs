//! What `docker save` writes: images as lists of files, without manifests. Those are made here,
//! always the same for the same image.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::{Archive, Carried, Content, refused};
use crate::error::Result;
use crate::manifest::{DOCKER_MANIFEST, Object};
use crate::names::Digest;

/// What Docker calls a config, and layers by whether they are compressed. It pushes them
/// compressed, so that their digests change; what was saved is kept here as it is, and a pull
/// shows the digests that the saving machine had.
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Most images of an archive, and layers of one.
const IMAGES_MAX: usize = 1_000;
const LAYERS_MAX: usize = 1_000;
/// Longest config, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// An image of such an archive.
pub struct Saved {
    /// The manifest that was made, and its bytes.
    pub manifest: Digest,
    /// As they stand there: `host/name:tag`.
    pub tags: Vec<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Option<Vec<String>>,
}

/// Whether a file may be a config or a layer: docker, podman, skopeo, crane, jib and kaniko call
/// them by these names.
pub fn may_be_blob(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ends = [".tar", ".tar.gz", ".tgz", ".json"];
    ends.iter().any(|end| name.ends_with(end)) || name.starts_with("sha256:")
}

/// The images that `manifest.json` lists, with their names; no manifests are made.
pub fn names(archive: &Archive) -> Result<Vec<(Option<Digest>, Vec<String>)>> {
    let items = archive.docker.as_deref().map(items).transpose()?.unwrap_or_default();
    Ok(items
        .into_iter()
        .map(|item| {
            let config = archive.file(&item.config).map(|carried| carried.digest);
            (config, item.repo_tags.unwrap_or_default())
        })
        .collect())
}

fn items(text: &[u8]) -> Result<Vec<Item>> {
    let items: Vec<Item> = serde_json::from_slice(text)
        .map_err(|error| refused(format!("its manifest.json does not parse: {error}")))?;
    if items.len() > IMAGES_MAX {
        return Err(refused(format!("its manifest.json lists more than {IMAGES_MAX} images")));
    }
    Ok(items)
}

/// The images of an archive without OCI parts; their manifests are kept by `content`.
pub fn images(archive: &Archive, content: &mut dyn Content) -> Result<Vec<Saved>> {
    match (&archive.docker, &archive.repositories) {
        (Some(text), _) => items(text)?.into_iter().map(|item| image(archive, item, content)).collect(),
        (None, Some(text)) => v1_images(archive, text, content),
        (None, None) => Ok(Vec::new()),
    }
}

fn image(archive: &Archive, item: Item, content: &mut dyn Content) -> Result<Saved> {
    let absent = |path: &str| refused(format!("its manifest.json names {path}, which is not in it"));
    let config = archive.file(&item.config).ok_or_else(|| absent(&item.config))?;
    let layers = item.layers.unwrap_or_default();
    if layers.len() > LAYERS_MAX {
        return Err(refused(format!("an image of it has more than {LAYERS_MAX} layers")));
    }
    let layers: Vec<Carried> =
        layers.iter().map(|path| archive.file(path).ok_or_else(|| absent(path))).collect::<Result<_>>()?;
    let manifest = put_manifest(&config, &layers, content)?;
    Ok(Saved { manifest, tags: item.repo_tags.unwrap_or_default() })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    size: u64,
    digest: &'a Digest,
}

/// Makes an image's manifest, as Docker's schema 2 has it. Fails where the layers are not those
/// that the config names.
fn put_manifest(config: &Carried, layers: &[Carried], content: &mut dyn Content) -> Result<Digest> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: Option<Rootfs>,
    }
    #[derive(Deserialize)]
    struct Rootfs {
        #[serde(default)]
        diff_ids: Vec<String>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: Descriptor<'a>,
        layers: Vec<Descriptor<'a>>,
    }
    let text = content
        .small(&config.digest, CONFIG_BYTES_MAX)?
        .ok_or_else(|| refused(format!("the config {} has more than 4 MiB", config.digest)))?;
    let Object(parsed): Object<Config> = serde_json::from_slice(&text)
        .map_err(|_| refused(format!("the config {} does not parse", config.digest)))?;
    let ids = parsed.rootfs.map(|rootfs| rootfs.diff_ids).unwrap_or_default();
    if ids.len() != layers.len() {
        return Err(refused(format!(
            "the config {} names {} layers, and manifest.json {}",
            config.digest,
            ids.len(),
            layers.len()
        )));
    }
    let mut listed = Vec::with_capacity(layers.len());
    for (layer, id) in layers.iter().zip(&ids) {
        let head = content.head(&layer.digest)?;
        let media_type = match head {
            [0x1f, 0x8b, ..] => LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd] => LAYER_ZSTD,
            _ if layer.digest.as_str() == id => LAYER,
            _ => {
                return Err(refused(format!(
                    "a layer has the digest {}, and its image's config calls it {id}: the archive is damaged",
                    layer.digest
                )));
            }
        };
        listed.push(Descriptor { media_type, size: layer.bytes, digest: &layer.digest });
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: DOCKER_MANIFEST,
        config: Descriptor { media_type: CONFIG, size: config.bytes, digest: &config.digest },
        layers: listed,
    };
    // Our own types serialise.
    content.keep(&serde_json::to_vec(&manifest).unwrap_or_default())
}

/// Images from before 2016: `repositories` names the last layer of each, and each layer's JSON its
/// parent. The config is put together as Docker 1.10 did it.
fn v1_images(archive: &Archive, text: &[u8], content: &mut dyn Content) -> Result<Vec<Saved>> {
    let names: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(text)
        .map_err(|error| refused(format!("its repositories file does not parse: {error}")))?;
    let mut by_id: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (repo, tags) in names {
        for (tag, id) in tags {
            by_id.entry(id).or_default().push(format!("{repo}:{tag}"));
        }
    }
    if by_id.len() > IMAGES_MAX {
        return Err(refused(format!("its repositories file lists more than {IMAGES_MAX} images")));
    }
    by_id.into_iter().map(|(id, tags)| v1_image(archive, &id, tags, content)).collect()
}

fn v1_image(archive: &Archive, id: &str, tags: Vec<String>, content: &mut dyn Content) -> Result<Saved> {
    let texts =
        archive.v1.as_ref().ok_or_else(|| refused("the JSON files of its images have more than 4 MiB"))?;
    let mut chain = Vec::new();
    let mut at = Some(id.to_owned());
    while let Some(id) = at {
        if chain.len() >= LAYERS_MAX {
            return Err(refused("an image of it has more than 1000 layers, or is its own parent"));
        }
        let text = texts.get(&id).ok_or_else(|| refused(format!("{id}/json is named and not in it")))?;
        let json: Map<String, Value> =
            serde_json::from_slice(text).map_err(|_| refused(format!("{id}/json does not parse")))?;
        at = json.get("parent").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
        chain.push((id, json));
    }
    chain.reverse();
    let (mut layers, mut history) = (Vec::new(), Vec::new());
    for (id, json) in &chain {
        let path = format!("{id}/layer.tar");
        layers.push(archive.file(&path).ok_or_else(|| refused(format!("{path} is named and not in it")))?);
        let command = json.get("container_config").and_then(|config| config["Cmd"].as_array());
        let command: Vec<&str> = command.into_iter().flatten().filter_map(Value::as_str).collect();
        let mut step = Map::new();
        let said = |key: &str| json.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(created) = said("created") {
            step.insert("created".into(), created.into());
        }
        if let Some(author) = said("author") {
            step.insert("author".into(), author.into());
        }
        if !command.is_empty() {
            step.insert("created_by".into(), command.join(" ").into());
        }
        if let Some(comment) = said("comment") {
            step.insert("comment".into(), comment.into());
        }
        history.push(Value::Object(step));
    }
    let mut config = chain.pop().map(|(_, json)| json).unwrap_or_default();
    for key in ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"] {
        config.remove(key);
    }
    let ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    config.insert("rootfs".into(), json!({"type": "layers", "diff_ids": ids}));
    config.insert("history".into(), history.into());
    let text = serde_json::to_vec(&config).unwrap_or_default();
    let config = Carried { digest: content.keep(&text)?, bytes: text.len() as u64 };
    let manifest = put_manifest(&config, &layers, content)?;
    Ok(Saved { manifest, tags })
}
