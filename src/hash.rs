//! Digests, computed.

use sha2::Digest as _;

use crate::names::{Algorithm, Digest};

/// A running hash of one of the two algorithms.
pub enum Hash {
    Sha256(Box<sha2::Sha256>),
    Sha512(Box<sha2::Sha512>),
}

impl Hash {
    pub fn new(algorithm: Algorithm) -> Hash {
        match algorithm {
            Algorithm::Sha256 => Hash::Sha256(Box::default()),
            Algorithm::Sha512 => Hash::Sha512(Box::default()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of what came so far; begins again.
    pub fn digest(&mut self) -> Digest {
        match self {
            Hash::Sha256(hash) => Digest::of_hash(Algorithm::Sha256, &hash.finalize_reset()),
            Hash::Sha512(hash) => Digest::of_hash(Algorithm::Sha512, &hash.finalize_reset()),
        }
    }
}

/// The digest of bytes that are in memory.
pub fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hash = Hash::new(algorithm);
    hash.update(bytes);
    hash.digest()
}
