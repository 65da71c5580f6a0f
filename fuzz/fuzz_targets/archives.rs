//! Archives of images, of every sort: what is taken is whole and says where it belongs, and what
//! is refused is refused in words that do no harm to a terminal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::archive::{self, Content, Taker, broken, key};
use outport::bundle::{Document, Signature, Signs};
use outport::error::Result;
use outport::hash::digest_of;
use outport::manifest;
use outport::names::{Algorithm, Digest};
use outport_fuzz::{Made, is_told_well};
use std::collections::{HashMap, HashSet};
use std::io::Read;

/// An archive's blobs, in memory.
#[derive(Default)]
struct Memory {
    blobs: HashMap<Digest, Vec<u8>>,
    document: Option<Vec<u8>>,
}

impl Taker for Memory {
    fn document(&mut self, document: &[u8], signature: Option<&[u8]>) -> Result<()> {
        assert!(self.blobs.is_empty() && self.document.is_none(), "once, before all blobs");
        self.document = Some(document.to_vec());
        Document::read(document)?;
        signature.map_or(Ok(()), |signature| Signature::read(signature)?.verify(Signs::Bundle, document))
    }

    fn blob(&mut self, expected: Option<&Digest>, bytes: u64, from: &mut dyn Read) -> Result<Digest> {
        let mut found = Vec::new();
        from.read_to_end(&mut found).map_err(|error| broken(&error))?;
        assert_eq!(found.len() as u64, bytes, "as many as was said");
        let digest = digest_of(expected.map_or(Algorithm::Sha256, Digest::algorithm), &found);
        self.blobs.insert(digest.clone(), found);
        Ok(digest)
    }
}

impl Content for Memory {
    fn small(&mut self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.blobs.get(digest).filter(|bytes| bytes.len() as u64 <= max).cloned())
    }

    fn head(&mut self, digest: &Digest) -> Result<[u8; 4]> {
        let bytes = &self.blobs[digest];
        Ok(std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default()))
    }

    fn bytes(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(digest).map(|bytes| bytes.len() as u64)
    }

    fn keep(&mut self, mut bytes: &[u8]) -> Result<Digest> {
        self.blob(None, bytes.len() as u64, &mut bytes)
    }
}

fuzz_target!(|made: Made| {
    let bytes = made.bytes();
    let mut memory = Memory::default();
    let archive = match archive::read(&bytes[..], &mut memory) {
        Ok(archive) => archive,
        Err(error) => return is_told_well(&error),
    };
    assert_eq!(archive.document, memory.document);
    let (sizes, blobs) = (archive.sizes(), &memory.blobs);
    assert!(blobs.iter().all(|(digest, bytes)| sizes[&key(digest)] == bytes.len() as u64));
    let Some(naming) = made.naming() else { return };
    let plan = match archive.plan(&naming, &mut memory) {
        Ok(plan) => plan,
        Err(error) => return is_told_well(&error),
    };
    let mut planned = HashSet::new();
    for (at, item) in plan.manifests.iter().enumerate() {
        if at < plan.carried {
            let body = &memory.blobs[&item.digest];
            // A bundle's manifests are read where they are written.
            if let Ok(read) = manifest::read(body, item.media_type.as_deref()) {
                let later = plan.manifests[at..]
                    .iter()
                    .find(|other| other.repo == item.repo && read.children.contains(&other.digest));
                assert!(later.is_none() || archive.document.is_some(), "what an index lists comes first");
            } else {
                assert!(archive.document.is_some(), "it was read once");
            }
        }
        planned.insert((item.repo.full(), &item.digest));
    }
    let mut named = HashSet::new();
    for (repo, tag, digest) in &plan.tags {
        assert!(named.insert((repo.full(), tag.as_str())), "a tag is set once");
        assert!(planned.contains(&(repo.full(), digest)), "a tag names what is planned");
    }
    assert!(plan.absent.iter().all(|digest| memory.bytes(digest).is_none()));
});
