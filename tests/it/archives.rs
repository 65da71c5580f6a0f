//! Archives made by hand: good ones of every sort, and such as nobody should send.

use crate::harness::{OCI_MANIFEST, manifest, sha256};
use outport::bundle::{Key, KeyName, Signs};
use serde_json::{Value, json};
use std::io::Write;

/// A tar archive, written as it is told to be.
#[derive(Default, Clone)]
pub struct Tarball {
    pub bytes: Vec<u8>,
}

impl Tarball {
    pub fn file(mut self, path: &str, content: &[u8]) -> Tarball {
        self.entry(path.as_bytes(), b'0', b"", content, content.len() as u64);
        self
    }

    pub fn link(mut self, path: &str, target: &str) -> Tarball {
        self.entry(path.as_bytes(), b'2', target.as_bytes(), b"", 0);
        self
    }

    /// Any header: a type, a link, content, and the size the header claims.
    pub fn entry(&mut self, path: &[u8], kind: u8, link: &[u8], content: &[u8], claims: u64) {
        let mut header = tar::Header::new_gnu();
        {
            let raw = header.as_mut_bytes();
            raw[..path.len().min(100)].copy_from_slice(&path[..path.len().min(100)]);
            raw[156] = kind;
            raw[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        }
        header.set_size(claims);
        header.set_mode(0o644);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    pub fn any(mut self, path: &[u8], kind: u8, link: &[u8], content: &[u8]) -> Tarball {
        self.entry(path, kind, link, content, content.len() as u64);
        self
    }

    /// A pax header, for the entry that comes next.
    pub fn pax(self, pairs: &[(&str, &str)]) -> Tarball {
        let mut text = String::new();
        for (key, value) in pairs {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            text += &format!("{length} {key}={value}\n");
        }
        self.any(b"pax", b'x', b"", text.as_bytes())
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

pub fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// An image: its manifest, config and layers.
#[derive(Clone)]
pub struct Image {
    pub manifest: String,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// One whose layers are these bytes.
    pub fn of(layers: &[&[u8]]) -> Image {
        let config = json!({
            "architecture": "arm64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| sha256(layer)).collect::<Vec<_>>()},
        });
        let config = config.to_string().into_bytes();
        let digests: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        let listed: Vec<(&str, usize)> =
            digests.iter().zip(layers).map(|(digest, layer)| (digest.as_str(), layer.len())).collect();
        let manifest = manifest(&sha256(&config), config.len(), &listed, "");
        Image { manifest, config, layers: layers.iter().map(|layer| layer.to_vec()).collect() }
    }

    pub fn digest(&self) -> String {
        sha256(self.manifest.as_bytes())
    }

    /// Manifest, config and layers, as blobs of a layout.
    pub fn blobs(&self) -> Vec<(String, Vec<u8>)> {
        let parts = [self.manifest.as_bytes(), &self.config].map(<[u8]>::to_vec);
        let parts = parts.into_iter().chain(self.layers.iter().cloned());
        parts.map(|bytes| (blob_path(&sha256(&bytes)), bytes)).collect()
    }

    pub fn descriptor(&self, name: &str) -> Value {
        json!({
            "mediaType": OCI_MANIFEST, "digest": self.digest(), "size": self.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        })
    }
}

pub fn index(descriptors: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "manifests": descriptors}).to_string().into_bytes()
}

pub const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An OCI layout of images and what they are called; `index.json` comes first or last.
pub fn layout(images: &[(&Image, &str)], index_first: bool) -> Tarball {
    let listed: Vec<Value> = images.iter().map(|(image, name)| image.descriptor(name)).collect();
    let mut tar = Tarball::default().file("oci-layout", LAYOUT);
    if index_first {
        tar = tar.file("index.json", &index(&listed));
    }
    let mut seen = Vec::new();
    for (path, bytes) in images.iter().flat_map(|(image, _)| image.blobs()) {
        if !seen.contains(&path) {
            tar = tar.file(&path, &bytes);
            seen.push(path);
        }
    }
    if index_first { tar } else { tar.file("index.json", &index(&listed)) }
}

/// What `docker save` wrote before Docker 25.
pub fn docker_save(image: &Image, tags: &[&str]) -> Tarball {
    let config = format!("{}.json", &sha256(&image.config)[7..]);
    let mut tar = Tarball::default();
    let mut layers = Vec::new();
    for (at, layer) in image.layers.iter().enumerate() {
        let id = format!("{at:064}");
        tar = tar.any(format!("{id}/").as_bytes(), b'5', b"", b"");
        tar = tar.file(&format!("{id}/VERSION"), b"1.0").file(&format!("{id}/json"), b"{}");
        let path = format!("{id}/layer.tar");
        // The same layer twice is a link to the first.
        tar = match image.layers[..at].iter().position(|other| other == layer) {
            Some(first) => tar.link(&path, &format!("../{first:064}/layer.tar")),
            None => tar.file(&path, layer),
        };
        layers.push(path);
    }
    let list = json!([{"Config": config, "RepoTags": tags, "Layers": layers}]).to_string();
    tar.file(&config, &image.config).file("manifest.json", list.as_bytes()).file("repositories", b"{}")
}

/// A bundle of ours, without a signature; layers that are left out must be there already.
pub fn bundle(image: &Image, repo: &str, tag: &str, without: &[&[u8]]) -> Tarball {
    bundle_by(None, image, repo, tag, without)
}

/// The same, signed as the sender's bundle of this number.
pub fn bundle_by(
    sender: Option<(&Key, u64)>,
    image: &Image,
    repo: &str,
    tag: &str,
    without: &[&[u8]],
) -> Tarball {
    let item = |bytes: &[u8]| json!({"digest": sha256(bytes), "size": bytes.len(), "repos": [repo]});
    let mut carried = vec![item(&image.config)];
    let mut base = Vec::new();
    for layer in &image.layers {
        let list = if without.contains(&layer.as_slice()) { &mut base } else { &mut carried };
        list.push(item(layer));
    }
    let mut manifest = item(image.manifest.as_bytes());
    manifest["media_type"] = OCI_MANIFEST.into();
    let mut document = json!({
        "version": 1,
        "tags": [{"repo": repo, "tag": tag, "digest": image.digest()}],
        "manifests": [manifest], "blobs": carried, "base": {"blobs": base, "manifests": []},
    });
    if let Some((key, sequence)) = sender {
        document["sender"] = key.name.as_str().into();
        document["sequence"] = sequence.into();
        document["made"] = "2026-11-21T08:00:00Z".into();
    }
    let document = document.to_string();
    let mut tar =
        Tarball::default().file("oci-layout", LAYOUT).file("outport/bundle.json", document.as_bytes());
    if let Some((key, _)) = sender {
        tar = tar.file("outport/bundle.sig", &key.sign(Signs::Bundle, document.as_bytes()).unwrap());
    }
    tar = tar.file("index.json", &index(&[image.descriptor(tag)]));
    for (path, bytes) in image.blobs() {
        if !without.contains(&bytes.as_slice()) {
            tar = tar.file(&path, &bytes);
        }
    }
    tar
}

/// A new key.
pub fn key(name: &str) -> Key {
    Key::of_secret(KeyName::parse(name).unwrap(), &Key::generate().unwrap()).unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}
