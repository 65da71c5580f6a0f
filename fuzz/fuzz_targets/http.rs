//! Bytes on a socket, through the real server: never a fault of ours, never the end of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport_fuzz::Site;
use std::sync::LazyLock;

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let site = Site::new(true);
    site.push_image(b"layer");
    site
});

fuzz_target!(|bytes: &[u8]| {
    let back = SITE.raw(bytes);
    if !back.is_empty() {
        assert!(back.starts_with(b"HTTP/1.1 ") || back.starts_with(b"HTTP/1.0 "));
        assert!(!back.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&back));
    }
});
