//! The drop folder, with a receipt that somebody else wrote: what has none of its own gets one,
//! once.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::folder::Folder;
use outport_fuzz::{Made, Store};
use std::sync::LazyLock;

static STORE: LazyLock<Store> = LazyLock::new(Store::new);

fuzz_target!(|input: (Option<&[u8]>, bool, Made)| {
    let (receipt, unsigned, made) = input;
    let dir = STORE.dir.path().join("drop");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).expect("makes it");
    let bytes = made.bytes();
    std::fs::write(dir.join("stick.tar"), &bytes).expect("writes");
    if let Some(receipt) = receipt {
        std::fs::write(dir.join("stick.tar.receipt.json"), receipt).expect("writes");
    }
    let mut folder = Folder::new(dir.clone(), unsigned);
    let looked = folder.look_once(&STORE.registry).expect("looks");
    for name in looked.imported.iter().chain(looked.refused.iter().map(|(name, _)| name)) {
        assert_eq!(name, "stick.tar");
    }
    let came = looked.imported.len() + looked.refused.len();
    assert!(came <= 1);
    assert!(unsigned || looked.imported.is_empty(), "nobody is trusted here");
    if came == 1 {
        let left = std::fs::read(dir.join("stick.tar.receipt.json")).expect("is there");
        let left: serde_json::Value = serde_json::from_slice(&left).expect("is JSON");
        assert_eq!(left["bytes"], bytes.len());
    }
    let again = Folder::new(dir, unsigned).look_once(&STORE.registry).expect("looks");
    assert!(again.imported.is_empty() && again.refused.is_empty(), "{:?}", looked.refused);
});
