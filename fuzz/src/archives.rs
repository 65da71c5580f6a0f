//! Archives, put together from parts that are right or nearly so: what bytes alone would hardly
//! come to, since every header has a checksum and every blob a digest.

use arbitrary::Arbitrary;
use outport::archive::Naming;
use outport::bundle::{Key, KeyName, Signs};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::io::Write as _;
use std::sync::LazyLock;

use crate::sha256;

/// Most blobs, and parts, of an archive.
const FEW: usize = 12;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An archive in parts, and what somebody does to its bytes.
#[derive(Arbitrary, Debug)]
pub struct Made<'a> {
    blobs: Vec<Body<'a>>,
    parts: Vec<Part<'a>>,
    packing: Packing,
    /// Where a byte is changed, and how.
    flip: Option<(u16, u8)>,
    /// How many bytes are left.
    cut: Option<u16>,
    naming: (Option<&'a str>, Option<&'a str>),
}

#[derive(Arbitrary, Debug)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// What a blob holds. Numbers are those of earlier blobs.
#[derive(Arbitrary, Debug)]
enum Body<'a> {
    Bytes(&'a [u8]),
    Config {
        layers: Vec<u8>,
    },
    Image {
        config: u8,
        layers: Vec<u8>,
        subject: Option<u8>,
    },
    Index {
        images: Vec<u8>,
        subject: Option<u8>,
    },
    /// One that says of its size what is not so.
    Lying {
        config: u8,
        bytes: u32,
    },
}

/// An entry, or several.
#[derive(Arbitrary, Debug)]
enum Part<'a> {
    Layout,
    Index(Vec<(u8, Option<Name<'a>>)>),
    DockerList(Vec<Saved<'a>>),
    Repositories(Vec<(Name<'a>, u8)>),
    /// `ID/json` and `ID/layer.tar`, as of before 2016.
    V1 {
        id: u8,
        parent: Option<u8>,
        layer: &'a [u8],
    },
    /// A document of these blobs: which are manifests is told by what they are.
    Document {
        tags: Vec<(Name<'a>, u8)>,
        blobs: Vec<u8>,
        base: Vec<u8>,
        sequence: Option<u64>,
        signed: bool,
    },
    Blob(u8),
    /// All blobs.
    Blobs,
    /// A blob by a path of docker's.
    Named {
        blob: u8,
        path: Path<'a>,
    },
    /// A blob under the digest of another.
    Wrong {
        blob: u8,
        by: u8,
    },
    Link {
        path: Path<'a>,
        target: Path<'a>,
        hard: bool,
    },
    File {
        path: Path<'a>,
        bytes: &'a [u8],
    },
    Entry {
        path: &'a [u8],
        kind: u8,
        link: &'a [u8],
        size: Option<&'a [u8]>,
        bytes: &'a [u8],
    },
    Pax(Vec<(&'a str, &'a str)>),
    Raw(&'a [u8]),
    Zeros,
}

#[derive(Arbitrary, Debug)]
struct Saved<'a> {
    config: u8,
    tags: Vec<Name<'a>>,
    layers: Vec<u8>,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Path<'a> {
    Text(&'a str),
    /// Where a blob lies in a layout.
    Blob(u8),
    /// `HEX.json`, as docker called configs.
    Config(u8),
    /// `HEX/layer.tar`.
    Layer(u8),
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Name<'a> {
    One,
    Other,
    Tag,
    Text(&'a str),
}

impl<'a> Name<'a> {
    fn text(self) -> &'a str {
        match self {
            Name::One => "team/app:v1",
            Name::Other => "registry.example:5000/site/new:2",
            Name::Tag => "v3",
            Name::Text(text) => text,
        }
    }

    /// Repository and tag, as a document has them.
    fn pair(self) -> (&'a str, &'a str) {
        self.text().split_once(':').unwrap_or((self.text(), "latest"))
    }
}

/// The key that bundles are signed by here: the same in every run, for seeds to mean the same.
pub fn key() -> Key {
    static SECRET: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let seed = [7; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a key");
        // RFC 8410 §7 and RFC 5958: a version, an algorithm, the seed, the public key.
        let head = [0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        [&head[..], &seed, &[0x81, 0x21, 0], pair.public_key().as_ref()].concat()
    });
    Key::of_secret(KeyName::parse("depot").expect("a name"), &SECRET).expect("a key")
}

impl Made<'_> {
    /// What the images shall be called; none if that does not parse.
    pub fn naming(&self) -> Option<Naming> {
        Naming::parse(self.naming.0, self.naming.1).ok()
    }

    /// The archive's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let blobs = self.blobs();
        let mut tar = Vec::new();
        for part in self.parts.iter().take(FEW) {
            part.write(&blobs, &mut tar);
        }
        tar.resize(tar.len() + 1024, 0);
        let mut bytes = match self.packing {
            Packing::Plain => tar,
            Packing::Gzip => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                to.write_all(&tar).expect("memory takes it");
                to.finish().expect("memory takes it")
            }
            Packing::Zstd => {
                ruzstd::encoding::compress_to_vec(&tar[..], ruzstd::encoding::CompressionLevel::Fastest)
            }
        };
        if let Some((at, by)) = self.flip {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= by;
        }
        if let Some(left) = self.cut {
            bytes.truncate(usize::from(left));
        }
        bytes
    }

    fn blobs(&self) -> Vec<Blob> {
        let mut blobs: Vec<Blob> = Vec::new();
        for body in self.blobs.iter().take(FEW) {
            let at = |number: &u8| pick(&blobs, *number);
            let all = |numbers: &[u8]| numbers.iter().take(FEW).filter_map(at).collect::<Vec<_>>();
            let described =
                |blob: &Blob| blob.descriptor(blob.media_type.unwrap_or("application/octet-stream"));
            let subject = |number: &Option<u8>| number.as_ref().and_then(at).map(described);
            let (text, media_type) = match body {
                Body::Bytes(bytes) => (bytes.to_vec(), None),
                Body::Config { layers } => {
                    let ids: Vec<&str> = all(layers).iter().map(|blob| blob.digest.as_str()).collect();
                    let config = json!({"architecture": "arm64", "os": "linux",
                        "rootfs": {"type": "layers", "diff_ids": ids}});
                    (config.to_string().into_bytes(), None)
                }
                Body::Image { config, layers, subject: of } => {
                    let mut manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
                        "config": at(config).map(described),
                        "layers": all(layers).into_iter().map(described).collect::<Vec<_>>()});
                    if let Some(of) = subject(of) {
                        manifest["subject"] = of;
                    }
                    (manifest.to_string().into_bytes(), Some(OCI_MANIFEST))
                }
                Body::Index { images, subject: of } => {
                    let mut index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
                        "manifests": all(images).into_iter().map(described).collect::<Vec<_>>()});
                    if let Some(of) = subject(of) {
                        index["subject"] = of;
                    }
                    (index.to_string().into_bytes(), Some(OCI_INDEX))
                }
                Body::Lying { config, bytes } => {
                    let mut config = at(config).map_or(Value::Null, described);
                    if config.is_object() {
                        config["size"] = (*bytes).into();
                    }
                    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
                        "config": config, "layers": []});
                    (manifest.to_string().into_bytes(), Some(OCI_MANIFEST))
                }
            };
            blobs.push(Blob { digest: sha256(&text), bytes: text, media_type });
        }
        blobs
    }
}

struct Blob {
    digest: String,
    bytes: Vec<u8>,
    /// If it is a manifest.
    media_type: Option<&'static str>,
}

impl Blob {
    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replacen(':', "/", 1))
    }
}

fn pick(blobs: &[Blob], number: u8) -> Option<&Blob> {
    (!blobs.is_empty()).then(|| &blobs[usize::from(number) % blobs.len()])
}

impl Path<'_> {
    fn text(self, blobs: &[Blob]) -> String {
        let hex = |number| pick(blobs, number).map_or("none", |blob| &blob.digest[7..]);
        match self {
            Path::Text(text) => text.to_owned(),
            Path::Blob(number) => pick(blobs, number).map(Blob::path).unwrap_or_default(),
            Path::Config(number) => format!("{}.json", hex(number)),
            Path::Layer(number) => format!("{}/layer.tar", hex(number)),
        }
    }
}

impl Part<'_> {
    fn write(&self, blobs: &[Blob], tar: &mut Vec<u8>) {
        let mut file = |path: &str, bytes: &[u8]| entry(tar, path.as_bytes(), b'0', b"", None, bytes);
        match self {
            Part::Layout => file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            Part::Index(images) => {
                let listed = images.iter().take(FEW).filter_map(|(number, name)| {
                    let blob = pick(blobs, *number)?;
                    let mut item = blob.descriptor(blob.media_type.unwrap_or(OCI_MANIFEST));
                    if let Some(name) = name {
                        item["annotations"] = json!({"org.opencontainers.image.ref.name": name.text()});
                    }
                    Some(item)
                });
                let index = json!({"schemaVersion": 2, "manifests": listed.collect::<Vec<_>>()});
                file("index.json", index.to_string().as_bytes());
            }
            Part::DockerList(images) => {
                let listed = images.iter().take(FEW).map(|Saved { config, tags, layers }| {
                    let layers = layers.iter().take(FEW).map(|number| Path::Layer(*number).text(blobs));
                    json!({"Config": Path::Config(*config).text(blobs), "Layers": layers.collect::<Vec<_>>(),
                        "RepoTags": tags.iter().map(|name| name.text()).collect::<Vec<_>>()})
                });
                file("manifest.json", Value::from(listed.collect::<Vec<_>>()).to_string().as_bytes());
            }
            Part::Repositories(images) => {
                let mut listed = json!({});
                for (name, id) in images {
                    let (repo, tag) = name.pair();
                    listed[repo][tag] = id.to_string().into();
                }
                file("repositories", listed.to_string().as_bytes());
            }
            Part::V1 { id, parent, layer } => {
                let mut said = json!({"id": id.to_string(), "os": "linux"});
                if let Some(parent) = parent {
                    said["parent"] = parent.to_string().into();
                }
                file(&format!("{id}/json"), said.to_string().as_bytes());
                file(&format!("{id}/layer.tar"), layer);
            }
            Part::Document { tags, blobs: carried, base, sequence, signed } => {
                let document = document(blobs, tags, [carried, base], *sequence);
                file("outport/bundle.json", &document);
                if *signed {
                    file("outport/bundle.sig", &key().sign(Signs::Bundle, &document).unwrap_or_default());
                }
            }
            Part::Blob(number) => {
                if let Some(blob) = pick(blobs, *number) {
                    file(&blob.path(), &blob.bytes);
                }
            }
            Part::Blobs => {
                for (at, blob) in blobs.iter().enumerate() {
                    if !blobs[..at].iter().any(|other| other.digest == blob.digest) {
                        file(&blob.path(), &blob.bytes);
                    }
                }
            }
            Part::Named { blob, path } => {
                if let Some(blob) = pick(blobs, *blob) {
                    file(&path.text(blobs), &blob.bytes);
                }
            }
            Part::Wrong { blob, by } => {
                if let (Some(blob), Some(by)) = (pick(blobs, *blob), pick(blobs, *by)) {
                    file(&blob.path(), &by.bytes);
                }
            }
            Part::Link { path, target, hard } => {
                let kind = if *hard { b'1' } else { b'2' };
                let (path, target) = (path.text(blobs), target.text(blobs));
                entry(tar, path.as_bytes(), kind, target.as_bytes(), None, b"");
            }
            Part::File { path, bytes } => file(&path.text(blobs), bytes),
            Part::Entry { path, kind, link, size, bytes } => entry(tar, path, *kind, link, *size, bytes),
            Part::Pax(pairs) => {
                let mut text = String::new();
                for (key, value) in pairs {
                    let rest = key.len() + value.len() + 3;
                    let mut length = rest + 1;
                    while length != rest + length.to_string().len() {
                        length += 1;
                    }
                    text += &format!("{length} {key}={value}\n");
                }
                entry(tar, b"pax", b'x', b"", None, text.as_bytes());
            }
            Part::Raw(bytes) => tar.extend_from_slice(bytes),
            Part::Zeros => tar.resize(tar.len() + 512, 0),
        }
    }
}

/// A bundle's document: what is carried, and what is not.
fn document(
    blobs: &[Blob],
    tags: &[(Name, u8)],
    [carried, base]: [&Vec<u8>; 2],
    sequence: Option<u64>,
) -> Vec<u8> {
    let lists = [carried, base].map(|numbers| {
        let (mut manifests, mut others) = (Vec::new(), Vec::new());
        for blob in numbers.iter().take(FEW).filter_map(|number| pick(blobs, *number)) {
            let mut line = json!({"digest": blob.digest, "size": blob.bytes.len(), "repos": ["team/app"]});
            match blob.media_type {
                Some(media_type) => {
                    line["media_type"] = media_type.into();
                    manifests.push(line);
                }
                None => others.push(line),
            }
        }
        (manifests, others)
    });
    let tags = tags.iter().take(FEW).filter_map(|(name, number)| {
        let (repo, tag) = name.pair();
        Some(json!({"repo": repo, "tag": tag, "digest": pick(blobs, *number)?.digest}))
    });
    let [(manifests, others), (base_manifests, base_others)] = lists;
    let mut document = json!({"version": 1, "tags": tags.collect::<Vec<_>>(), "manifests": manifests,
        "blobs": others, "base": {"manifests": base_manifests, "blobs": base_others}});
    if let Some(sequence) = sequence {
        document["sender"] = "depot".into();
        document["sequence"] = sequence.into();
    }
    document.to_string().into_bytes()
}

/// Writes an entry; a `size` stands in its header as it is.
fn entry(tar: &mut Vec<u8>, path: &[u8], kind: u8, link: &[u8], size: Option<&[u8]>, bytes: &[u8]) {
    let mut header = [0; 512];
    let mut put = |at: usize, most: usize, bytes: &[u8]| {
        let most = most.min(bytes.len());
        header[at..at + most].copy_from_slice(&bytes[..most]);
    };
    put(0, 100, path);
    put(100, 8, b"0000644\0");
    put(124, 12, format!("{:011o}\0", bytes.len()).as_bytes());
    put(124, 12, size.unwrap_or_default());
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link);
    put(257, 8, b"ustar  \0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(bytes);
    tar.resize(tar.len().next_multiple_of(512), 0);
}
