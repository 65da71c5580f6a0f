//! Bytes as an archive: unpacked and taken apart, never more than there can be, never to
//! somewhere else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::archive::{Form, Tar, digest_of_stream, unpack};
use outport::error::Result;
use outport_fuzz::is_told_well;

/// A path from the archive's root, or the root itself.
fn is_within(path: &str) -> bool {
    path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
}

fn read(bytes: &[u8]) -> Result<()> {
    let mut tar = Tar::new(unpack(bytes)?);
    let mut entries = 0;
    while let Some(entry) = tar.entry()? {
        assert!(is_within(&entry.path), "{:?}", entry.path);
        match &entry.form {
            Form::Link(target) => assert!(is_within(target), "{target:?}"),
            Form::File => assert!(!entry.path.is_empty()),
            Form::Dir => {}
        }
        // Whoever passes by what is in an entry finds the next one too.
        if entries % 2 == 0 {
            digest_of_stream(None, &mut tar)?;
        }
        entries += 1;
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = read(bytes) {
        is_told_well(&error);
    }
});
