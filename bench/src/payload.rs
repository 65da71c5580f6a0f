//! What is pushed: bytes that no file system makes smaller, the same for every server, and no
//! blob like another. To make and to name one costs the client next to nothing.

use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The type of images' manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Blobs are made of this many bytes again and again: more than any file system compresses at
/// once.
const NOISE_BYTES: usize = 4 << 20;
const TAIL_BYTES: usize = 16;

/// Bytes from a generator (splitmix64) that begins at the same place in every run.
pub fn noise() -> Arc<[u8]> {
    let mut state: u64 = 0x0123_4567_89ab_cdef;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    };
    (0..NOISE_BYTES / 8).flat_map(|_| next()).collect()
}

/// The digest of bytes, as registries write it.
pub fn digest(bytes: &[u8]) -> String {
    named(Sha256::new_with_prefix(bytes))
}

fn named(hash: Sha256) -> String {
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Blobs of one length. They differ in their last bytes, so all else is hashed once.
pub struct Family {
    noise: Arc<[u8]>,
    /// Of what stands before the tail.
    body_bytes: usize,
    hash: Sha256,
}

impl Family {
    /// `bytes` are at least those of a tail.
    pub fn new(noise: &Arc<[u8]>, bytes: usize) -> Family {
        let body_bytes = bytes.saturating_sub(TAIL_BYTES);
        let mut hash = Sha256::new();
        pieces(noise, body_bytes).for_each(|piece| hash.update(piece));
        Family { noise: noise.clone(), body_bytes, hash }
    }

    /// The blob of this number.
    pub fn blob(&self, n: usize) -> Blob {
        let mut tail = [0; TAIL_BYTES];
        tail[..8].copy_from_slice(&(n as u64).to_le_bytes());
        let digest = named(self.hash.clone().chain_update(tail));
        Blob { noise: self.noise.clone(), body_bytes: self.body_bytes, tail, digest }
    }
}

pub struct Blob {
    noise: Arc<[u8]>,
    body_bytes: usize,
    tail: [u8; TAIL_BYTES],
    pub digest: String,
}

impl Blob {
    pub fn bytes(&self) -> usize {
        self.body_bytes + TAIL_BYTES
    }

    /// What it consists of, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        pieces(&self.noise, self.body_bytes).chain(std::iter::once(&self.tail[..]))
    }

    fn descriptor(&self, kind: &str) -> String {
        descriptor(kind, &self.digest, self.bytes())
    }
}

fn pieces(noise: &[u8], bytes: usize) -> impl Iterator<Item = &[u8]> {
    (0..bytes).step_by(noise.len()).map(move |at| &noise[..noise.len().min(bytes - at)])
}

fn descriptor(kind: &str, digest: &str, bytes: usize) -> String {
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{bytes}}}"#)
}

/// An image's manifest. `layers` are descriptors; `more` are further members, with a comma before.
fn manifest_of(config: &str, layers: &str, mark: &str, more: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layers}],"annotations":{{"mark":"{mark}"}}{more}}}"#
    )
}

/// The manifest of an image without layers.
pub fn bare_manifest(config: &str, mark: &str, more: &str) -> String {
    manifest_of(&descriptor(CONFIG, &digest(config.as_bytes()), config.len()), "", mark, more)
}

/// The manifest of an image of these blobs.
pub fn manifest(config: &Blob, layers: &[Blob], mark: &str) -> String {
    let layers: Vec<String> = layers.iter().map(|layer| layer.descriptor(LAYER)).collect();
    manifest_of(&config.descriptor(CONFIG), &layers.join(","), mark, "")
}

/// Numbers that look random, and are the same in every run.
pub fn scatter(n: usize, below: usize) -> usize {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % below.max(1)
}
