//! What a bundle says of itself, and who signed it: what is read is written the same, keeps its
//! limits, and nobody signs for somebody else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::bundle::{Document, LINES_MAX, Signature, Signs};
use outport_fuzz::{is_told_well, key};

/// What our key has signed, and nothing else.
const SIGNED: &[u8] = b"a document";

fuzz_target!(|bytes: &[u8]| {
    match Document::read(bytes) {
        Ok(document) => {
            let written = document.bytes().expect("what was read can be written");
            assert_eq!(Document::read(&written).as_ref().ok(), Some(&document));
            let lists = [document.tags.len(), document.manifests.len(), document.blobs.len()];
            assert!(lists.iter().all(|lines| *lines <= LINES_MAX));
            assert!(document.sent.as_ref().is_none_or(|sent| sent.sequence > 0));
            assert!(document.tags.iter().all(|line| {
                let mut manifests = document.manifests.iter().chain(&document.base.manifests);
                manifests
                    .any(|manifest| manifest.digest == line.digest && manifest.repos.contains(&line.repo))
            }));
            let _ = document.carried_bytes();
        }
        Err(error) => is_told_well(&error),
    }
    match Signature::read(bytes) {
        Ok(signature) if signature.public == key().public() => {
            let ours = key().sign(Signs::Bundle, SIGNED).expect("signs");
            let ours = Signature::read(&ours).expect("reads");
            // Its name is not what is signed.
            let mut named = signature;
            named.key.clone_from(&ours.key);
            assert_eq!(named.verify(Signs::Bundle, SIGNED).is_ok(), named == ours);
            assert!(named.verify(Signs::Receipt, SIGNED).is_err());
            assert!(named.verify(Signs::Bundle, b"another document").is_err());
        }
        // Whose key it is, is the site's to say.
        Ok(signature) => {
            let _ = signature.verify(Signs::Bundle, SIGNED);
        }
        Err(error) => is_told_well(&error),
    }
});
