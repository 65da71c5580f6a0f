//! A bundle's stream, laid out before its first byte goes out: so its length is known, and the
//! same contents give the same bytes.

use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io;

use super::{
    Base, BlobLine, DOCKER_LIST, DOCUMENT, Document, INDEX, Inventory, Key, ManifestLine, OCI_LAYOUT,
    OCI_LAYOUT_BYTES, SIGNATURE, Sent, Signs, TagLine, blob_path,
};
use crate::error::{Kind, Result, Thing};
use crate::manifest::{Manifest, OCI_INDEX};
use crate::names::Digest;

/// Blocks of a tar file, and how many zero ones end it.
const BLOCK: u64 = 512;
const END_BLOCKS: u64 = 2;

/// What a stream looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A bundle: an OCI image layout with a document in front.
    #[default]
    Bundle,
    /// What every `docker load` reads: images alone, one platform each.
    DockerArchive,
}

/// A manifest that was chosen.
#[derive(Debug, Clone)]
pub struct Held {
    pub line: ManifestLine,
    /// What it names.
    pub named: Manifest,
    /// Its layers in order, also those that come twice, and those that live elsewhere.
    pub layers: Vec<Digest>,
    /// It lies in an index beside the image it is about, and runs nowhere.
    pub attests: bool,
}

/// What was chosen, in the order of a bundle.
#[derive(Debug, Default)]
pub struct Contents {
    pub tags: Vec<TagLine>,
    /// Children before their index.
    pub manifests: Vec<Held>,
    /// Configs, then layers.
    pub blobs: Vec<BlobLine>,
}

impl Contents {
    /// What a site has that has all this.
    pub fn inventory(self) -> Result<Inventory> {
        let mut pages = vec![self.blobs];
        Inventory::of_pages(|| {
            let page = pages.pop().unwrap_or_default();
            Ok(page.into_iter().map(|line| line.digest).collect())
        })
    }
}

/// A part of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Known(Vec<u8>),
    /// The bytes of a manifest, by its place in the document.
    Manifest(usize),
    /// The bytes of a blob, likewise.
    Blob(usize),
}

/// The stream.
#[derive(Debug)]
pub struct Layout {
    pub document: Document,
    pub parts: Vec<Part>,
    /// Bytes of the whole stream.
    pub bytes: u64,
}

impl Layout {
    /// Lays a bundle out. Blobs that `have` lists are named and not carried. `signed` is the key,
    /// the sequence it signs, and when: RFC 3339.
    pub fn bundle(
        contents: Contents,
        have: Option<&Inventory>,
        made: Option<String>,
        signed: Option<(&Key, u64)>,
    ) -> Result<Layout> {
        let index = text(&index(&contents))?;
        let archive = docker_list(&contents);
        let (base, blobs): (Vec<_>, Vec<_>) =
            contents.blobs.into_iter().partition(|line| have.is_some_and(|have| have.has(&line.digest)));
        let is_delta = !base.is_empty();
        let base = Base { blobs: base, manifests: Vec::new() };
        let manifests = contents.manifests.into_iter().map(|held| held.line).collect();
        let mut document = Document::new(contents.tags, manifests, blobs, base);
        document.made = made;
        document.sent = signed.map(|(key, sequence)| Sent { sender: key.name.clone(), sequence });
        let bytes = document.bytes()?;
        let mut layout = Layout { document, parts: Vec::new(), bytes: 0 };
        layout.file(OCI_LAYOUT, OCI_LAYOUT_BYTES)?;
        layout.file(DOCUMENT, &bytes)?;
        if let Some((key, _)) = signed {
            layout.file(SIGNATURE, &key.sign(Signs::Bundle, &bytes)?)?;
        }
        layout.file(INDEX, &index)?;
        if !archive.is_empty() && !is_delta {
            layout.file(DOCKER_LIST, &text(&archive)?)?;
        }
        for at in 0..layout.document.manifests.len() {
            let line = &layout.document.manifests[at];
            let (path, size) = (blob_path(&line.digest), line.size);
            layout.part(&path, size, Part::Manifest(at))?;
        }
        layout.blobs_and_end()?;
        Ok(layout)
    }

    /// Lays out what every `docker load` reads. Fails where an image is for several platforms, or is
    /// none that runs.
    pub fn docker_archive(contents: Contents) -> Result<Layout> {
        let list = docker_list(&contents);
        let named: HashSet<&str> = list.iter().flat_map(|image| &image.tags).map(String::as_str).collect();
        for TagLine { repo, tag, digest } in &contents.tags {
            if !named.contains(format!("{}:{tag}", repo.full()).as_str()) {
                return Err(Kind::Invalid(Thing::Manifest).because(format!(
                    "{repo}:{tag} ({digest}) is not one image that runs: a docker-archive takes one platform \
                     of each, by --platform; signatures and charts go into bundles"
                )));
            }
        }
        if list.is_empty() {
            return Err(Kind::Invalid(Thing::Manifest)
                .because("a docker-archive holds images with tags, and none was chosen"));
        }
        let used: HashSet<String> =
            list.iter().flat_map(|image| image.layers.iter().chain([&image.config])).cloned().collect();
        let list = text(&list)?;
        let blobs =
            contents.blobs.into_iter().filter(|line| used.contains(&blob_path(&line.digest))).collect();
        let document = Document::new(contents.tags, Vec::new(), blobs, Base::default());
        let mut layout = Layout { document, parts: Vec::new(), bytes: 0 };
        layout.file(DOCKER_LIST, &list)?;
        layout.blobs_and_end()?;
        Ok(layout)
    }

    fn blobs_and_end(&mut self) -> Result<()> {
        for at in 0..self.document.blobs.len() {
            let line = &self.document.blobs[at];
            let (path, size) = (blob_path(&line.digest), line.size);
            self.part(&path, size, Part::Blob(at))?;
        }
        self.known(&zeros(END_BLOCKS * BLOCK));
        Ok(())
    }

    fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.known(&header(path, content.len() as u64)?);
        self.known(content);
        self.known(&padding(content.len() as u64));
        Ok(())
    }

    fn part(&mut self, path: &str, size: u64, part: Part) -> Result<()> {
        self.known(&header(path, size)?);
        // What is empty has no pieces.
        if size > 0 {
            self.parts.push(part);
            self.bytes += size;
        }
        self.known(&padding(size));
        Ok(())
    }

    fn known(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        match self.parts.last_mut() {
            Some(Part::Known(known)) => known.extend_from_slice(bytes),
            _ if bytes.is_empty() => {}
            _ => self.parts.push(Part::Known(bytes.to_vec())),
        }
    }
}

/// `index.json`: images by their tags. What no tag names and no index lists is there too, or
/// nobody would find it.
fn index(contents: &Contents) -> Value {
    let listed: HashSet<&Digest> = contents.manifests.iter().flat_map(|held| &held.named.children).collect();
    let mut tags: HashMap<&Digest, Vec<&TagLine>> = HashMap::new();
    for line in &contents.tags {
        tags.entry(&line.digest).or_default().push(line);
    }
    let mut images = Vec::new();
    for held in &contents.manifests {
        let line = &held.line;
        let mut descriptor = json!({"mediaType": line.media_type, "digest": line.digest, "size": line.size});
        if held.named.subject.is_some()
            && let Some(kind) = &held.named.artifact_type
        {
            descriptor["artifactType"] = kind.as_str().into();
        }
        for TagLine { repo, tag, .. } in tags.get(&line.digest).into_iter().flatten() {
            descriptor["annotations"] = json!({
                "io.containerd.image.name": format!("{}:{tag}", repo.full()),
                "org.opencontainers.image.ref.name": tag.as_str(),
            });
            images.push(descriptor.clone());
        }
        if !tags.contains_key(&line.digest) && !listed.contains(&line.digest) {
            images.push(descriptor);
        }
    }
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": images})
}

/// An image of `manifest.json`.
#[derive(Serialize)]
struct DockerImage {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    tags: Vec<String>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

/// `manifest.json`: images that there is no choice about, with all that they need.
fn docker_list(contents: &Contents) -> Vec<DockerImage> {
    let by_digest: HashMap<&Digest, &Held> =
        contents.manifests.iter().map(|held| (&held.line.digest, held)).collect();
    let carried: HashSet<&Digest> = contents.blobs.iter().map(|line| &line.digest).collect();
    let runs = |held: &&Held| {
        // Signatures and charts have the shape of images, but no layers that a machine could run.
        let kind = held.named.artifact_type.as_deref().unwrap_or_default();
        held.named.subject.is_none()
            && (kind.ends_with(".image.config.v1+json") || kind.ends_with(".container.image.v1+json"))
            && held.layers.iter().all(|layer| carried.contains(layer))
    };
    let mut images: Vec<(&Digest, DockerImage)> = Vec::new();
    let mut at: HashMap<&Digest, usize> = HashMap::new();
    for TagLine { repo, tag, digest } in &contents.tags {
        let Some(root) = by_digest.get(digest) else { continue };
        let children = root.named.children.iter().filter_map(|child| by_digest.get(child).copied());
        let choices: Vec<&Held> = match root.named.config.is_some() {
            true => vec![root],
            false => children.filter(|child| !child.attests).collect(),
        };
        let [image] = choices[..] else { continue };
        let Some(config) = image.named.config.as_ref().filter(|_| runs(&image)) else { continue };
        let name = format!("{}:{tag}", repo.full());
        let place = *at.entry(&image.line.digest).or_insert(images.len());
        match images.get_mut(place) {
            Some((_, known)) => known.tags.push(name),
            None => images.push((
                &image.line.digest,
                DockerImage {
                    config: blob_path(config),
                    tags: vec![name],
                    layers: image.layers.iter().map(blob_path).collect(),
                },
            )),
        }
    }
    images.into_iter().map(|(_, image)| image).collect()
}

fn text(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Kind::Internal.from_cause(error))
}

/// A file's header, with what comes before it for a long name; always the same.
fn header(path: &str, size: u64) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, path, io::empty())?;
    // Not `into_inner`, which ends the archive.
    Ok(builder.get_ref().clone())
}

fn padding(size: u64) -> Vec<u8> {
    zeros((BLOCK - size % BLOCK) % BLOCK)
}

fn zeros(count: u64) -> Vec<u8> {
    // At most two blocks.
    vec![0; usize::try_from(count).unwrap_or_default()]
}
