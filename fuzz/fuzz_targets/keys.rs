//! Files of keys, and the number that stands beside each: what is read signs, and its number only
//! grows; a public key is shown as it is read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::bundle::{KeyName, PublicKey, Signature, Signs};
use outport::registry::KeyFile;
use outport_fuzz::{in_memory, is_told_well};
use std::sync::LazyLock;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> =
    LazyLock::new(|| in_memory(|shm| tempfile::tempdir_in(shm)).expect("a directory"));

fuzz_target!(|input: (&[u8], &[u8])| {
    let (last, text) = input;
    let path = DIR.path().join("depot.key");
    std::fs::write(&path, text).expect("writes");
    std::fs::write(DIR.path().join("depot.key.last"), last).expect("writes");
    match KeyFile::open(&path) {
        Ok(file) => {
            assert_eq!(KeyName::parse(file.key.name.as_str()).as_ref().ok(), Some(&file.key.name));
            let signature = file.key.sign(Signs::Receipt, b"text").expect("signs");
            let signature = Signature::read(&signature).expect("reads");
            assert_eq!(signature.public, file.key.public());
            assert!(signature.verify(Signs::Receipt, b"text").is_ok());
            match file.next() {
                Ok(next) => assert_eq!(file.last().ok(), Some(next)),
                Err(error) => is_told_well(&error),
            }
        }
        Err(error) => is_told_well(&error),
    }
    assert_eq!(KeyFile::all(DIR.path()).is_ok(), KeyFile::open(&path).is_ok());
    if let Ok(text) = std::str::from_utf8(text)
        && let Ok(key) = PublicKey::parse(text)
    {
        assert_eq!(PublicKey::parse(&key.to_string()).ok(), Some(key));
    }
});
