//! Which images an archive holds, and what they are to be called here.

use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Archive, docker, refused};
use crate::bundle::Document;
use crate::error::{Error, Result};
use crate::manifest::{self, MANIFEST_BYTES_MAX, is_index};
use crate::names::{Digest, RepoName, Tag};

/// Most manifests of one archive: all appear in one transaction.
const MANIFESTS_MAX: usize = 50_000;
/// Most tags likewise.
const NAMES_MAX: usize = 50_000;
/// How deep indexes may lie in each other.
const DEPTH_MAX: usize = 4;

/// What an archive brought, to be looked into again after it was read.
pub trait Content {
    /// The bytes of a blob that the archive brought; None if they are more than `max`.
    fn small(&mut self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>>;
    /// How a blob begins that the archive brought.
    fn head(&mut self, digest: &Digest) -> Result<[u8; 4]>;
    /// How many bytes a blob has, if the archive brought it.
    fn bytes(&self, digest: &Digest) -> Option<u64>;
    /// Takes what was made from the archive as if it had been in it.
    fn keep(&mut self, bytes: &[u8]) -> Result<Digest>;
}

/// What images shall be called, other than the archive says.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// The repository of all of them.
    pub repo: Option<RepoName>,
    /// The tag of the one there is.
    pub tag: Option<Tag>,
    /// Comes before every repository that the archive names.
    pub prefix: Option<RepoName>,
}

impl Naming {
    /// From what people write: `NAME[:TAG]`, or a prefix, or neither.
    pub fn parse(name: Option<&str>, prefix: Option<&str>) -> Result<Naming> {
        let mut naming = Naming::default();
        if let Some(name) = name {
            let (repo, tag) = match name.split_once(':') {
                Some((repo, tag)) => (repo, Some(Tag::parse(tag)?)),
                None => (name, None),
            };
            (naming.repo, naming.tag) = (Some(RepoName::parse(repo)?), tag);
        }
        if let Some(prefix) = prefix {
            naming.prefix = Some(RepoName::parse(prefix.trim_end_matches('/'))?);
        }
        Ok(naming)
    }

    /// What a repository of the archive is called here.
    pub fn under(&self, repo: &RepoName) -> Result<RepoName> {
        match &self.prefix {
            Some(prefix) => RepoName::parse(&format!("{}/{}", prefix.asked(), repo.asked())),
            None => Ok(repo.clone()),
        }
    }
}

/// A manifest that is to be in a repository.
#[derive(Debug, Clone)]
pub struct Planned {
    pub repo: RepoName,
    pub digest: Digest,
    /// As the archive calls it; the manifest itself counts for more.
    pub media_type: Option<String>,
}

/// What is to appear, all at once.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Those that others list come first; after so many that the archive brought come those that
    /// a delta builds upon, which are here.
    pub manifests: Vec<Planned>,
    pub carried: usize,
    pub tags: Vec<(RepoName, Tag, Digest)>,
    /// Images that an index lists and the archive does not hold: of other platforms.
    pub absent: Vec<Digest>,
}

impl Plan {
    fn add(&mut self, digest: &Digest, media_type: &str, repos: &[RepoName], naming: &Naming) -> Result<()> {
        for repo in repos {
            self.manifests.push(Planned {
                repo: naming.under(repo)?,
                digest: digest.clone(),
                media_type: Some(media_type.to_owned()),
            });
        }
        Ok(())
    }
}

/// An image that the archive names, or not.
struct Root {
    digest: Digest,
    media_type: Option<String>,
    names: Vec<(Option<RepoName>, Option<Tag>)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Archive {
    /// What is to appear here. Fails where an image is not whole, or has no name; for a bundle,
    /// where it does not hold exactly what its document says.
    pub fn plan(&self, naming: &Naming, content: &mut dyn Content) -> Result<Plan> {
        if let Some(text) = &self.document {
            return self.plan_of_document(&Document::read(text)?, naming, content);
        }
        let roots = match &self.index {
            Some(text) => self.layout_roots(text, content)?,
            None => docker::images(self, content)?
                .into_iter()
                .map(|image| {
                    let names = image.tags.iter().map(|tag| full_name(tag)).collect::<Result<_>>()?;
                    Ok(Root { digest: image.manifest, media_type: None, names })
                })
                .collect::<Result<_>>()?,
        };
        if roots.is_empty() {
            return Err(refused("it names no images"));
        }
        let (done, tags, absent) = (HashSet::new(), HashMap::new(), HashSet::new());
        Planning { content, plan: Plan::default(), done, tags, absent }.all(&roots, naming)
    }

    fn plan_of_document(
        &self,
        document: &Document,
        naming: &Naming,
        content: &mut dyn Content,
    ) -> Result<Plan> {
        if naming.repo.is_some() {
            return Err(refused(
                "it is a bundle, whose images have names; --repo PREFIX puts one before them",
            ));
        }
        let manifests = document.manifests.iter().map(|line| (&line.digest, line.size));
        for (digest, size) in manifests.chain(document.blobs.iter().map(|line| (&line.digest, line.size))) {
            match self.bytes(digest) {
                None => return Err(refused(format!("its document names {digest}, which is not in it"))),
                Some(_) => check_size(content, digest, size)?,
            }
        }
        if self.blobs() > document.manifests.len() + document.blobs.len() {
            return Err(refused("it holds more than its document names"));
        }
        let mut plan = Plan::default();
        for line in &document.manifests {
            plan.add(&line.digest, &line.media_type, &line.repos, naming)?;
        }
        plan.carried = plan.manifests.len();
        for line in &document.base.manifests {
            plan.add(&line.digest, &line.media_type, &line.repos, naming)?;
        }
        if plan.manifests.len() > MANIFESTS_MAX || document.tags.len() > NAMES_MAX {
            return Err(refused(format!("it names more than {MANIFESTS_MAX} manifests or {NAMES_MAX} tags")));
        }
        for line in &document.tags {
            plan.tags.push((naming.under(&line.repo)?, line.tag.clone(), line.digest.clone()));
        }
        Ok(plan)
    }

    fn layout_roots(&self, text: &[u8], content: &mut dyn Content) -> Result<Vec<Root>> {
        let index: Index = serde_json::from_slice(text)
            .map_err(|error| refused(format!("its index.json does not parse: {error}")))?;
        if index.manifests.len() > MANIFESTS_MAX {
            return Err(refused(format!("its index.json lists more than {MANIFESTS_MAX} images")));
        }
        let (mut roots, mut known) = (Vec::<Root>::new(), HashMap::<String, usize>::new());
        for descriptor in index.manifests {
            let digest = parse_digest(&descriptor.digest)?;
            check_size(content, &digest, descriptor.size)?;
            let names = name_of(descriptor.annotations.as_ref())?;
            if let Some(at) = known.get(digest.as_str()) {
                roots[*at].names.extend(names);
                continue;
            }
            known.insert(digest.as_str().to_owned(), roots.len());
            let names = names.into_iter().collect();
            roots.push(Root { digest, media_type: descriptor.media_type, names });
        }
        // docker save lists names a second time; buildkit there alone.
        let mut second: HashMap<String, Vec<String>> = HashMap::new();
        for (config, tags) in docker::names(self)? {
            if let Some(config) = config {
                second.entry(config.as_str().to_owned()).or_default().extend(tags);
            }
        }
        if !second.is_empty() {
            for root in roots.iter_mut().filter(|root| root.names.is_empty()) {
                let config = config_of(content, root)?;
                if let Some(tags) = config.and_then(|config| second.get(config.as_str())) {
                    root.names = tags.iter().map(|tag| full_name(tag)).collect::<Result<_>>()?;
                }
            }
        }
        Ok(roots)
    }
}

fn config_of(content: &mut dyn Content, root: &Root) -> Result<Option<Digest>> {
    let text = content.small(&root.digest, MANIFEST_BYTES_MAX as u64)?;
    Ok(text
        .and_then(|text| manifest::read(&text, root.media_type.as_deref()).ok())
        .and_then(|read| read.config))
}

struct Planning<'a> {
    content: &'a mut dyn Content,
    plan: Plan,
    /// What is planned already: a repository and a digest.
    done: HashSet<(String, String)>,
    /// What each tag is to name.
    tags: HashMap<(String, String), Digest>,
    absent: HashSet<String>,
}

impl Planning<'_> {
    fn all(mut self, roots: &[Root], naming: &Naming) -> Result<Plan> {
        // What is about an image lies where the image lies.
        let mut nameless = Vec::new();
        let named = roots.iter().filter(|root| !root.names.is_empty()).count();
        for root in roots {
            let alone = roots.len() == 1 || (named == 1 && !root.names.is_empty());
            let names = match (root.names.is_empty(), &naming.repo) {
                (true, Some(repo)) if roots.len() == 1 => vec![(repo.clone(), naming.tag.clone())],
                (true, _) => {
                    nameless.push(root);
                    continue;
                }
                _ => called(&root.names, naming, alone)?,
            };
            for (repo, tag) in names {
                self.root(root, &repo)?;
                if let Some(tag) = tag {
                    self.tag(repo, tag, &root.digest)?;
                }
            }
        }
        let mut homes: HashMap<String, Vec<RepoName>> = HashMap::new();
        if !nameless.is_empty() {
            for planned in &self.plan.manifests {
                homes.entry(planned.digest.as_str().to_owned()).or_default().push(planned.repo.clone());
            }
        }
        for root in nameless {
            let subject = self.subject(root)?;
            let mut repos =
                subject.and_then(|subject| homes.get(subject.as_str()).cloned()).unwrap_or_default();
            if repos.is_empty() {
                match &naming.repo {
                    Some(repo) => repos.push(repo.clone()),
                    None if homes.contains_key(root.digest.as_str()) => continue,
                    None => {
                        return Err(refused(format!(
                            "the image {} in it has no name; give it one with --as NAME:TAG",
                            root.digest
                        )));
                    }
                }
            }
            for repo in repos {
                self.root(root, &repo)?;
            }
        }
        self.plan.carried = self.plan.manifests.len();
        Ok(self.plan)
    }

    fn root(&mut self, root: &Root, repo: &RepoName) -> Result<()> {
        if self.content.bytes(&root.digest).is_none() {
            return Err(missing(&root.digest));
        }
        self.walk(&root.digest, root.media_type.as_deref(), repo, 0)
    }

    /// Plans a manifest, and what it lists before it.
    fn walk(
        &mut self,
        digest: &Digest,
        media_type: Option<&str>,
        repo: &RepoName,
        depth: usize,
    ) -> Result<()> {
        if !self.done.insert((repo.full().to_owned(), digest.as_str().to_owned())) {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            return Err(refused(format!("its indexes lie more than {DEPTH_MAX} deep in each other")));
        }
        if self.plan.manifests.len() >= MANIFESTS_MAX {
            return Err(refused(format!("it holds more than {MANIFESTS_MAX} manifests")));
        }
        let (text, media_type) = self.read(digest, media_type)?;
        let read = manifest::read(&text, media_type).map_err(|error| of(digest, &error))?;
        let descriptors: Sizes =
            serde_json::from_slice(&text).map_err(|_| of_text(digest, "it does not parse"))?;
        let mut here = 0;
        for descriptor in descriptors.all() {
            let child = parse_digest(&descriptor.digest)?;
            check_size(self.content, &child, descriptor.size)?;
            if read.children.contains(&child) {
                match self.content.bytes(&child) {
                    Some(_) => {
                        here += 1;
                        self.walk(&child, descriptor.media_type.as_deref(), repo, depth + 1)?;
                    }
                    None => {
                        if self.absent.insert(child.as_str().to_owned()) {
                            self.plan.absent.push(child);
                        }
                    }
                }
            }
        }
        if is_index(read.media_type) && here == 0 && !read.children.is_empty() {
            return Err(refused(format!("none of the images that {digest} lists is in it")));
        }
        self.plan.manifests.push(Planned {
            repo: repo.clone(),
            digest: digest.clone(),
            media_type: media_type.map(str::to_owned),
        });
        Ok(())
    }

    fn read<'m>(
        &mut self,
        digest: &Digest,
        media_type: Option<&'m str>,
    ) -> Result<(Vec<u8>, Option<&'m str>)> {
        let text = self.content.small(digest, MANIFEST_BYTES_MAX as u64)?;
        let text = text.ok_or_else(|| of_text(digest, "it has more than 4 MiB"))?;
        Ok((text, media_type))
    }

    fn subject(&mut self, root: &Root) -> Result<Option<Digest>> {
        if self.content.bytes(&root.digest).is_none() {
            return Err(missing(&root.digest));
        }
        let (text, media_type) = self.read(&root.digest, root.media_type.as_deref())?;
        let read = manifest::read(&text, media_type).map_err(|error| of(&root.digest, &error))?;
        Ok(read.subject)
    }

    fn tag(&mut self, repo: RepoName, tag: Tag, digest: &Digest) -> Result<()> {
        if self.plan.tags.len() >= NAMES_MAX {
            return Err(refused(format!("it names more than {NAMES_MAX} tags")));
        }
        match self.tags.insert((repo.full().to_owned(), tag.as_str().to_owned()), digest.clone()) {
            Some(other) if other != *digest => {
                Err(refused(format!("two images of it are both called {repo}:{tag}")))
            }
            Some(_) => Ok(()),
            None => {
                self.plan.tags.push((repo, tag, digest.clone()));
                Ok(())
            }
        }
    }
}

/// Every descriptor of a manifest, for its size.
#[derive(Deserialize)]
struct Sizes {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    blobs: Vec<Descriptor>,
}

impl Sizes {
    fn all(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers).chain(&self.manifests).chain(&self.blobs)
    }
}

/// The names that an image gets.
fn called(
    names: &[(Option<RepoName>, Option<Tag>)],
    naming: &Naming,
    alone: bool,
) -> Result<Vec<(RepoName, Option<Tag>)>> {
    if naming.tag.is_some() && !alone {
        return Err(refused(
            "it holds several images, which cannot all have one tag: name a repository alone",
        ));
    }
    let mut all = Vec::new();
    for (repo, tag) in names {
        let repo = match (&naming.repo, repo) {
            (Some(repo), _) => repo.clone(),
            (None, Some(repo)) => repo.clone(),
            (None, None) => {
                let tag = tag.as_ref().map(Tag::as_str).unwrap_or_default();
                return Err(refused(format!(
                    "it calls an image \"{tag}\" and names no repository; give it one with --as NAME"
                )));
            }
        };
        let repo = naming.under(&repo)?;
        let tag = naming.tag.clone().or_else(|| tag.clone());
        if !all.contains(&(repo.clone(), tag.clone())) {
            all.push((repo, tag));
        }
    }
    Ok(all)
}

/// What an index calls an image: containerd's name, or the reference, which is a tag alone or a
/// whole name (OCI image layout, "Indicating References").
fn name_of(
    annotations: Option<&BTreeMap<String, String>>,
) -> Result<Option<(Option<RepoName>, Option<Tag>)>> {
    let Some(annotations) = annotations else { return Ok(None) };
    if let Some(name) = annotations.get("io.containerd.image.name") {
        return full_name(name).map(Some);
    }
    match annotations.get("org.opencontainers.image.ref.name") {
        None => Ok(None),
        Some(name) if name.contains(['/', ':', '@']) => full_name(name).map(Some),
        Some(tag) => match Tag::parse(tag) {
            Ok(tag) => Ok(Some((None, Some(tag)))),
            Err(error) => Err(misnamed(tag, &error)),
        },
    }
}

/// `[HOST/]NAME[:TAG][@DIGEST]`, as clients write it; without a tag `latest`.
fn full_name(text: &str) -> Result<(Option<RepoName>, Option<Tag>)> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    let name = strip_host(name);
    let (repo, tag) = match name.rsplit_once(':') {
        Some((repo, tag)) => (repo, Some(tag)),
        None if digest.is_some() => (name, None),
        None => (name, Some("latest")),
    };
    let parse = || Ok((Some(RepoName::parse(repo)?), tag.map(Tag::parse).transpose()?));
    parse().map_err(|error: Error| misnamed(text, &error))
}

/// A name without the registry it came from: a first part with a dot or a port in it, or
/// `localhost`, as Docker tells it.
pub fn strip_host(name: &str) -> &str {
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
        _ => name,
    }
}

fn misnamed(name: &str, error: &Error) -> Error {
    let name: String = name.chars().filter(|c| !c.is_control()).take(300).collect();
    refused(format!("it calls an image \"{name}\", but {}", error.detail()))
}

fn parse_digest(text: &str) -> Result<Digest> {
    Digest::parse(text)
        .map_err(|error| refused(format!("it names a digest that is none: {}", error.detail())))
}

fn check_size(content: &dyn Content, digest: &Digest, claimed: u64) -> Result<()> {
    match content.bytes(digest) {
        Some(bytes) if bytes != claimed => {
            Err(refused(format!("{digest} has {bytes} bytes, and what names it says {claimed}")))
        }
        _ => Ok(()),
    }
}

fn missing(digest: &Digest) -> Error {
    refused(format!("it names the image {digest}, which is not in it"))
}

fn of(digest: &Digest, error: &Error) -> Error {
    of_text(digest, &error.detail())
}

fn of_text(digest: &Digest, why: &str) -> Error {
    refused(format!("of the manifest {digest}: {why}"))
}
