//! Manifests and configs: what is read keeps its limits, and reads the same way twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::manifest;

fuzz_target!(|input: (Option<&str>, &[u8])| {
    let (content_type, bytes) = input;
    // Whatever a blob holds may be asked about as if it were one.
    let _ = manifest::index_platforms(bytes);
    let _ = manifest::config_platform(bytes);
    let _ = manifest::config_facts(bytes);
    let Ok(read) = manifest::read(bytes, content_type) else { return };
    assert_eq!(manifest::read(bytes, Some(read.media_type)).as_ref().ok(), Some(&read));
    for (at, digest) in read.blobs.iter().enumerate() {
        assert!(!read.blobs[..at].contains(digest), "each once");
    }
    assert!(read.config.iter().all(|config| read.blobs.contains(config)), "an image needs its config");
    assert!(read.blobs.is_empty() || read.children.is_empty(), "an image or an index");
    if let Some(annotations) = &read.annotations {
        assert!(serde_json::from_str::<serde_json::Value>(annotations).is_ok_and(|json| json.is_object()));
    }
});
