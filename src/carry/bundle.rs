//! A bundle's stream, laid out before a byte of a blob is fetched: the document, the indexes, and
//! where each blob will stand.

use serde::Serialize;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::io;

use crate::client::{Fetched, Selection, Wanted};
use crate::error::{Kind, Result};
use crate::manifest::{self, OCI_INDEX};
use crate::names::{Digest, RepoName};

/// Blocks of a tar file, and how many zero ones end it.
const BLOCK: u64 = 512;
const END_BLOCKS: usize = 2;

pub const DOCUMENT: &str = "outport/bundle.json";

#[derive(Serialize)]
struct Document {
    version: u32,
    made: String,
    tags: Vec<TagRow>,
    manifests: Vec<Row>,
    blobs: Vec<Row>,
    base: Base,
}

#[derive(Serialize)]
struct TagRow {
    repo: String,
    tag: String,
    digest: Digest,
}

#[derive(Serialize)]
struct Row {
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'static str>,
    repos: Vec<String>,
}

#[derive(Serialize)]
struct Base {
    blobs: Vec<Row>,
    manifests: Vec<Row>,
}

/// A part of the stream.
pub enum Part {
    /// Bytes that are known.
    Known(Vec<u8>),
    /// The next blob of [`Layout::blobs`].
    Blob,
}

pub struct Layout {
    pub parts: Vec<Part>,
    /// Blobs that are carried, in the order of their parts.
    pub blobs: Vec<Wanted>,
    /// Bytes of the whole stream.
    pub bytes: u64,
    pub manifests: u64,
    pub tags: u64,
}

/// Lays a bundle out. `had` says what the site has already, which is named and not carried.
pub fn lay_out(selection: &Selection, made: &str, had: &dyn Fn(&Digest) -> bool) -> Result<Layout> {
    let carried: Vec<&(Wanted, Vec<RepoName>)> =
        selection.blobs.iter().filter(|(wanted, _)| !had(&wanted.digest)).collect();
    let document = document(selection, made, had);
    let is_delta = !(document.base.blobs.is_empty() && document.base.manifests.is_empty());
    let mut layout = Layout {
        parts: Vec::new(),
        blobs: Vec::new(),
        bytes: 0,
        manifests: document.manifests.len() as u64,
        tags: document.tags.len() as u64,
    };
    layout.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    layout.file(DOCUMENT, &text(&document)?)?;
    layout.file("index.json", &text(&index(selection))?)?;
    let archive = if is_delta { Vec::new() } else { docker_archive(selection) };
    if !archive.is_empty() {
        layout.file("manifest.json", &text(&archive)?)?;
    }
    for (fetched, _) in selection.manifests.iter().filter(|(fetched, _)| !had(&fetched.digest)) {
        layout.file(&path(&fetched.digest), &fetched.bytes)?;
    }
    for (wanted, _) in carried {
        layout.known(header(&path(&wanted.digest), wanted.size)?);
        layout.parts.push(Part::Blob);
        layout.bytes += wanted.size;
        layout.blobs.push(wanted.clone());
        layout.known(padding(wanted.size));
    }
    layout.known(vec![0; END_BLOCKS * usize::try_from(BLOCK).unwrap_or(0)]);
    Ok(layout)
}

impl Layout {
    fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let mut bytes = header(path, content.len() as u64)?;
        bytes.extend_from_slice(content);
        bytes.extend(padding(content.len() as u64));
        self.known(bytes);
        Ok(())
    }

    fn known(&mut self, bytes: Vec<u8>) {
        self.bytes += bytes.len() as u64;
        if !bytes.is_empty() {
            self.parts.push(Part::Known(bytes));
        }
    }
}

fn document(selection: &Selection, made: &str, had: &dyn Fn(&Digest) -> bool) -> Document {
    let repos = |repos: &[RepoName]| repos.iter().map(|repo| repo.full().to_owned()).collect();
    let manifest = |(fetched, places): &(Fetched, Vec<RepoName>)| Row {
        digest: fetched.digest.clone(),
        size: fetched.bytes.len() as u64,
        media_type: Some(fetched.manifest.media_type),
        repos: repos(places),
    };
    let blob = |(wanted, places): &(Wanted, Vec<RepoName>)| Row {
        digest: wanted.digest.clone(),
        size: wanted.size,
        media_type: None,
        repos: repos(places),
    };
    let (base_manifests, manifests) =
        selection.manifests.iter().map(manifest).partition(|row: &Row| had(&row.digest));
    let (base_blobs, blobs) = selection.blobs.iter().map(blob).partition(|row: &Row| had(&row.digest));
    let tag = |(repo, tag, digest): &(RepoName, crate::names::Tag, Digest)| TagRow {
        repo: repo.full().to_owned(),
        tag: tag.to_string(),
        digest: digest.clone(),
    };
    Document {
        version: 1,
        made: made.to_owned(),
        tags: selection.tags.iter().map(tag).collect(),
        manifests,
        blobs,
        base: Base { blobs: base_blobs, manifests: base_manifests },
    }
}

/// Whatever nothing else lists is an image of its own here, under its names if it has any.
fn index(selection: &Selection) -> serde_json::Value {
    let listed: HashSet<&Digest> =
        selection.manifests.iter().flat_map(|(f, _)| &f.manifest.children).collect();
    let mut images = Vec::new();
    for (fetched, repos) in &selection.manifests {
        let mut descriptor = json!({
            "mediaType": fetched.manifest.media_type,
            "digest": fetched.digest,
            "size": fetched.bytes.len(),
        });
        let names = selection.tags.iter().filter(|(_, _, digest)| *digest == fetched.digest);
        let mut named = false;
        for (repo, tag, _) in names {
            named = true;
            descriptor["annotations"] = json!({
                "io.containerd.image.name": format!("{}:{tag}", repo.full()),
                "org.opencontainers.image.ref.name": tag.as_str(),
            });
            images.push(descriptor.clone());
        }
        if !named && !listed.contains(&fetched.digest) && fetched.manifest.subject.is_none() {
            let name = repos.first().map(|repo| format!("{}@{}", repo.full(), fetched.digest));
            descriptor["annotations"] = json!({"io.containerd.image.name": name});
            images.push(descriptor);
        }
    }
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": images})
}

/// What `docker load` reads that knows no OCI layout: images that there is no choice about.
fn docker_archive(selection: &Selection) -> Vec<serde_json::Value> {
    let by_digest: HashMap<&Digest, &Fetched> =
        selection.manifests.iter().map(|(f, _)| (&f.digest, f)).collect();
    let mut images: Vec<(&Fetched, Vec<String>)> = Vec::new();
    for (repo, tag, digest) in &selection.tags {
        let Some(root) = by_digest.get(digest) else { continue };
        let children: Vec<&&Fetched> =
            root.manifest.children.iter().filter_map(|child| by_digest.get(child)).collect();
        let image = match (root.manifest.config.is_some(), children.as_slice()) {
            (true, _) => root,
            (false, [only]) if only.manifest.config.is_some() => only,
            _ => continue,
        };
        let name = format!("{}:{tag}", repo.full());
        match images.iter_mut().find(|(known, _)| known.digest == image.digest) {
            Some((_, names)) => names.push(name),
            None => images.push((image, vec![name])),
        }
    }
    // Signatures and charts have the shape of images, but no layers that a machine could run.
    let is_image = |fetched: &Fetched| {
        fetched.manifest.subject.is_none()
            && fetched.manifest.artifact_type.as_deref().is_some_and(|kind| kind.contains("image"))
    };
    let image = |(fetched, names): &(&Fetched, Vec<String>)| {
        let config = fetched.manifest.config.as_ref()?;
        let layers = manifest::blob_sizes(&fetched.bytes).into_iter().map(|(digest, _)| digest);
        let layers: Vec<String> =
            layers.filter(|digest| digest != config).map(|digest| path(&digest)).collect();
        Some(json!({"Config": path(config), "RepoTags": names, "Layers": layers}))
    };
    images.iter().filter(|(fetched, _)| is_image(fetched)).filter_map(image).collect()
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn text(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Kind::Internal.from_cause(error))
}

/// A file's header, and what must come before it for a long name; always the same.
fn header(path: &str, size: u64) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, path, io::empty())?;
    let bytes = builder.get_ref().clone();
    Ok(bytes)
}

fn padding(size: u64) -> Vec<u8> {
    let short = (BLOCK - size % BLOCK) % BLOCK;
    vec![0; usize::try_from(short).unwrap_or(0)]
}
