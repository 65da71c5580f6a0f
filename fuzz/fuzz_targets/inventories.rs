//! Inventories: of what is read, the same file comes again; and bytes that were encoded by a
//! stranger are numbers that grow, or nothing.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use outport::bundle::Inventory;
use outport::names::Digest;
use outport_fuzz::{is_told_well, sha256};

fn check(text: &[u8]) -> Option<Inventory> {
    match Inventory::read(text) {
        Ok(inventory) => {
            let written = inventory.bytes().expect("writes");
            assert_eq!(Inventory::read(&written).as_ref().ok(), Some(&inventory));
            Some(inventory)
        }
        Err(error) => {
            is_told_well(&error);
            None
        }
    }
}

fuzz_target!(|input: (u64, &[u8])| {
    let (blobs, bytes) = input;
    check(bytes);
    // Steps as they are written, with a checksum that is right.
    let digests = STANDARD.encode(bytes);
    let checksum = sha256(digests.as_bytes());
    let file = serde_json::json!({
        "outport_inventory": 1, "blobs": blobs, "checksum": checksum, "digests": digests,
    });
    if let Some(inventory) = check(file.to_string().as_bytes()) {
        assert_eq!(inventory.len() as u64, blobs);
        assert!(inventory.len() <= bytes.len());
        let first = Digest::parse(&format!("sha256:{}", "0".repeat(64))).expect("parses");
        assert_eq!(inventory.has(&first), bytes.first() == Some(&0));
        let written = String::from_utf8(inventory.bytes().expect("writes")).expect("is text");
        assert!(written.contains(&digests), "a set is written in one way");
    }
});
