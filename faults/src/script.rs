//! What is done to a registry, as data: the same steps go to the linked store and over
//! HTTP, and say what must be true once they were acknowledged.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::random::noise;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Bytes that are the same for the same seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blob {
    pub len: usize,
    pub seed: u64,
}

impl Blob {
    pub fn bytes(self) -> Vec<u8> {
        noise(self.len, self.seed)
    }

    /// Computed once: scripts ask for it over and over.
    pub fn digest(self) -> String {
        static KNOWN: Mutex<BTreeMap<Blob, String>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(self).or_insert_with(|| sha256(&self.bytes())).clone()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", outport::names::hex(&sha2::Sha256::digest(bytes)))
}

/// One request, or what else happens to a registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Step {
    /// A process opens the directory, in a boot of this name.
    Start {
        boot: String,
    },
    /// It stops by itself.
    Stop,
    /// It is killed.
    Kill,
    Push {
        repo: String,
        blob: Blob,
    },
    /// Links a blob that another repository holds.
    Mount {
        repo: String,
        from: String,
        blob: Blob,
    },
    /// `slot` names an upload within its script.
    UploadBegin {
        slot: usize,
        repo: String,
    },
    UploadWrite {
        slot: usize,
        repo: String,
        blob: Blob,
        from: usize,
        to: usize,
    },
    UploadCommit {
        slot: usize,
        repo: String,
        blob: Blob,
    },
    UploadCancel {
        slot: usize,
        repo: String,
    },
    PutManifest {
        repo: String,
        tag: Option<String>,
        body: String,
    },
    Pull {
        repo: String,
        blob: Blob,
    },
    PullManifest {
        repo: String,
        reference: String,
        digest: String,
    },
    DeleteTag {
        repo: String,
        tag: String,
    },
    DeleteManifest {
        repo: String,
        digest: String,
    },
    DeleteBlob {
        repo: String,
        blob: Blob,
    },
    DeleteRepo {
        repo: String,
    },
    /// What no manifest relies on goes.
    Collect,
    /// An archive of one image comes in: the manifest `body` of these blobs.
    Import {
        repo: String,
        tag: String,
        blobs: Vec<Blob>,
        body: String,
    },
}

/// What may be asked about, and found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    Repo(String),
    /// Of a repository, by digest.
    Blob(String, String),
    Manifest(String, String),
    Tag(String, String),
}

/// What is there: a tag's digest, a manifest's text, a blob's length, nothing for a repository.
pub type State = BTreeMap<Key, String>;

/// How far an upload got: its repository and its bytes, by slot.
pub type Uploads = BTreeMap<usize, (String, usize)>;

impl Step {
    pub fn push(repo: &str, blob: Blob) -> Step {
        Step::Push { repo: repo.into(), blob }
    }

    pub fn put(repo: &str, tag: &str, body: &str) -> Step {
        Step::PutManifest { repo: repo.into(), tag: Some(tag.into()), body: body.into() }
    }

    pub fn import(repo: &str, tag: &str, blobs: &[Blob]) -> Step {
        let body = image(blobs, tag);
        Step::Import { repo: repo.into(), tag: tag.into(), blobs: blobs.to_vec(), body }
    }

    /// What is true once this was done.
    pub fn apply(&self, state: &mut State) {
        let mut set = |key: Key, value: String| {
            state.insert(key, value);
        };
        match self {
            Step::Push { repo, blob }
            | Step::Mount { repo, blob, .. }
            | Step::UploadCommit { repo, blob, .. } => {
                set(Key::Repo(repo.clone()), String::new());
                set(Key::Blob(repo.clone(), blob.digest()), blob.len.to_string());
            }
            Step::PutManifest { repo, tag, body } => {
                let digest = sha256(body.as_bytes());
                set(Key::Repo(repo.clone()), String::new());
                set(Key::Manifest(repo.clone(), digest.clone()), body.clone());
                if let Some(tag) = tag {
                    set(Key::Tag(repo.clone(), tag.clone()), digest);
                }
            }
            Step::Import { repo, tag, blobs, body } => {
                blobs.iter().for_each(|blob| Step::push(repo, *blob).apply(state));
                Step::put(repo, tag, body).apply(state);
            }
            Step::DeleteTag { repo, tag } => {
                state.remove(&Key::Tag(repo.clone(), tag.clone()));
            }
            Step::DeleteManifest { repo, digest } => {
                state.remove(&Key::Manifest(repo.clone(), digest.clone()));
                state.retain(|key, value| !matches!(key, Key::Tag(of, _) if of == repo && value == digest));
            }
            Step::DeleteBlob { repo, blob } => {
                state.remove(&Key::Blob(repo.clone(), blob.digest()));
            }
            Step::DeleteRepo { repo } => state.retain(|key, _| key.repo() != repo),
            Step::Collect => {
                let needed: BTreeSet<Key> = state.iter().flat_map(|(key, body)| needs(key, body)).collect();
                state.retain(|key, _| !matches!(key, Key::Blob(..)) || needed.contains(key));
            }
            Step::Start { .. }
            | Step::Stop
            | Step::Kill
            | Step::UploadBegin { .. }
            | Step::UploadWrite { .. }
            | Step::UploadCancel { .. }
            | Step::Pull { .. }
            | Step::PullManifest { .. } => {}
        }
    }

    /// How far uploads are once this was done, while the machine runs on.
    pub fn apply_uploads(&self, uploads: &mut Uploads) {
        match self {
            Step::UploadBegin { slot, repo } => {
                uploads.insert(*slot, (repo.clone(), 0));
            }
            Step::UploadWrite { slot, repo, to, .. } => {
                uploads.insert(*slot, (repo.clone(), *to));
            }
            Step::UploadCommit { slot, .. } | Step::UploadCancel { slot, .. } => {
                uploads.remove(slot);
            }
            _ => {}
        }
    }

    /// The upload this is about.
    pub fn slot(&self) -> Option<usize> {
        match self {
            Step::UploadBegin { slot, .. }
            | Step::UploadWrite { slot, .. }
            | Step::UploadCommit { slot, .. }
            | Step::UploadCancel { slot, .. } => Some(*slot),
            _ => None,
        }
    }

    /// What a client does whose request was cut off: the whole of it once more.
    pub fn again(&self) -> Option<Step> {
        match self {
            Step::UploadCommit { repo, blob, .. } => Some(Step::push(repo, *blob)),
            Step::Start { .. }
            | Step::Stop
            | Step::Kill
            | Step::UploadBegin { .. }
            | Step::UploadWrite { .. }
            | Step::UploadCancel { .. } => None,
            step => Some(step.clone()),
        }
    }

    pub fn deletes(&self) -> bool {
        matches!(
            self,
            Step::DeleteTag { .. }
                | Step::DeleteManifest { .. }
                | Step::DeleteBlob { .. }
                | Step::DeleteRepo { .. }
        )
    }
}

impl Key {
    pub fn repo(&self) -> &str {
        match self {
            Key::Repo(repo) | Key::Blob(repo, _) | Key::Manifest(repo, _) | Key::Tag(repo, _) => repo,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |digest: &str| digest.get(..19).unwrap_or(digest).to_owned();
        match self {
            Key::Repo(repo) => write!(f, "repository {repo}"),
            Key::Blob(repo, digest) => write!(f, "blob {repo}@{}", short(digest)),
            Key::Manifest(repo, digest) => write!(f, "manifest {repo}@{}", short(digest)),
            Key::Tag(repo, tag) => write!(f, "tag {repo}:{tag}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Start { boot } => write!(f, "start in {boot}"),
            Step::Stop => f.write_str("stop"),
            Step::Kill => f.write_str("kill"),
            Step::Push { repo, blob } => write!(f, "push blob {} ({} bytes) to {repo}", blob.seed, blob.len),
            Step::Mount { repo, from, blob } => write!(f, "mount blob {} from {from} to {repo}", blob.seed),
            Step::UploadBegin { slot, repo } => write!(f, "begin upload {slot} to {repo}"),
            Step::UploadWrite { slot, from, to, .. } => write!(f, "write {from}..{to} to upload {slot}"),
            Step::UploadCommit { slot, .. } => write!(f, "commit upload {slot}"),
            Step::UploadCancel { slot, .. } => write!(f, "cancel upload {slot}"),
            Step::PutManifest { repo, tag: Some(tag), .. } => write!(f, "put manifest {repo}:{tag}"),
            Step::PutManifest { repo, tag: None, body } => {
                write!(f, "put {}", Key::Manifest(repo.clone(), sha256(body.as_bytes())))
            }
            Step::Pull { repo, blob } => write!(f, "pull blob {} from {repo}", blob.seed),
            Step::PullManifest { repo, reference, .. } => write!(f, "pull manifest {repo}:{reference}"),
            Step::DeleteTag { repo, tag } => write!(f, "delete tag {repo}:{tag}"),
            Step::DeleteManifest { repo, digest } => {
                write!(f, "delete {}", Key::Manifest(repo.clone(), digest.clone()))
            }
            Step::DeleteBlob { repo, blob } => write!(f, "delete blob {} of {repo}", blob.seed),
            Step::DeleteRepo { repo } => write!(f, "delete repository {repo}"),
            Step::Collect => f.write_str("collect"),
            Step::Import { repo, tag, .. } => write!(f, "import {repo}:{tag}"),
        }
    }
}

/// The blobs that an image's manifest relies on, in its repository.
fn needs(key: &Key, body: &str) -> Vec<Key> {
    let Key::Manifest(repo, _) = key else { return Vec::new() };
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let layers = body["layers"].as_array().into_iter().flatten();
    let digests = layers.chain([&body["config"]]).filter_map(|descriptor| descriptor["digest"].as_str());
    digests.map(|digest| Key::Blob(repo.clone(), digest.into())).collect()
}

/// A manifest of an image with these blobs; the first is its configuration.
pub fn image(blobs: &[Blob], note: &str) -> String {
    let descriptor = |blob: &Blob, of: &str| {
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{of}"), "digest": blob.digest(), "size": blob.len,
        })
    };
    let (config, layers) = blobs.split_first().expect("an image has a configuration");
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(layer, "layer.v1.tar")).collect();
    serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(config, "config.v1+json"),
        "layers": layers, "annotations": {"note": note},
    })
    .to_string()
}

/// An OCI layout, as a tar file, of an image by its name.
pub fn archive(name: &str, blobs: &[Blob], body: &str) -> Vec<u8> {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": OCI_MANIFEST, "digest": sha256(body.as_bytes()), "size": body.len(),
        "annotations": {"io.containerd.image.name": name},
    }]});
    let path = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes).expect("memory takes it");
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    add("index.json", index.to_string().as_bytes());
    add(&path(&sha256(body.as_bytes())), body.as_bytes());
    blobs.iter().for_each(|blob| add(&path(&blob.digest()), &blob.bytes()));
    tar.into_inner().expect("memory takes it")
}

/// An index of these manifests.
pub fn index(manifests: &[&str]) -> String {
    let manifests: Vec<_> = manifests
        .iter()
        .map(|body| {
            serde_json::json!({
                "mediaType": OCI_MANIFEST, "digest": sha256(body.as_bytes()), "size": body.len(),
            })
        })
        .collect();
    serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string()
}
