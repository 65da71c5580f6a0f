//! The configuration file: what is taken is shown as a file that means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::config::Config;
use std::path::Path;
use std::sync::LazyLock;
use tempfile::NamedTempFile;

static FILE: LazyLock<NamedTempFile> =
    LazyLock::new(|| outport_fuzz::in_memory(|dir| NamedTempFile::new_in(dir)).expect("a file"));

fn load(text: &[u8]) -> Option<Config> {
    let path: &Path = FILE.path();
    std::fs::write(path, text).expect("writes");
    Config::load(Some(path), &|_| None).ok()
}

fuzz_target!(|text: &[u8]| {
    let Some(config) = load(text) else { return };
    // What is checked may be refused; what passed the check can be used.
    if config.check().is_ok() {
        assert!(config.listen().is_ok() && config.trusted_proxies().is_ok());
    }
    assert_eq!(load(config.show().as_bytes()), Some(config));
});
