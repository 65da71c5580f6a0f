//! The directions in which modules may know each other.

use std::path::{Path, PathBuf};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Which of these words a part of the source uses, outside comments.
fn uses(part: &str, words: &[&str]) -> Vec<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    match src.join(part) {
        file if file.is_file() => files.push(file),
        dir => sources(&dir, &mut files),
    }
    assert!(!files.is_empty(), "{part} is somewhere");
    let mut found = Vec::new();
    for file in files {
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let code = line.split("//").next().unwrap();
            for word in words.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{}: {word}", file.display()));
            }
        }
    }
    found
}

#[test]
fn every_module_imports_only_what_lies_below_it() {
    let above_registry = ["crate::http", "crate::cli", "crate::config", "crate::jobs"];
    let nothing: Vec<String> = Vec::new();
    assert_eq!(uses("registry", &above_registry), nothing);
    assert_eq!(uses("registry", &["hyper::", "tokio::", "http_body"]), nothing, "the registry blocks");
    assert_eq!(uses("http", &["crate::cli", "crate::config", "crate::jobs", "rusqlite", "SELECT "]), nothing);
    assert_eq!(uses("jobs.rs", &["crate::http", "crate::cli", "crate::config", "rusqlite"]), nothing);
    let beside =
        ["crate::registry", "crate::http", "crate::cli::", "crate::config", "crate::jobs", "rusqlite"];
    assert_eq!(uses("client", &beside), nothing);
    assert_eq!(uses("carry", &beside), nothing);
    for apart in ["registry", "http", "archive"] {
        assert_eq!(uses(apart, &["crate::client", "crate::carry"]), nothing, "{apart}");
    }
    assert_eq!(uses("client", &["crate::archive", "crate::carry"]), nothing);
    for leaf in ["names.rs", "manifest.rs", "hash.rs", "error.rs", "config.rs"] {
        assert_eq!(
            uses(leaf, &["crate::registry", "crate::http", "crate::cli", "crate::client"]),
            nothing,
            "{leaf}"
        );
    }
}

#[test]
fn dialects_do_not_know_each_other() {
    // The token service is a part of the registry's dialect, and refuses in its words.
    let nothing: Vec<String> = Vec::new();
    assert_eq!(
        uses(
            "http/oci.rs",
            &["super::index_v1", "super::ops", "super::token", "super::hub", "super::mlspace"]
        ),
        nothing
    );
    assert_eq!(
        uses(
            "http/index_v1.rs",
            &["super::oci", "super::ops", "super::token", "super::hub", "super::mlspace"]
        ),
        nothing
    );
    assert_eq!(
        uses(
            "http/ops.rs",
            &["super::index_v1", "super::oci", "super::token", "super::hub", "super::mlspace"]
        ),
        nothing
    );
    assert_eq!(
        uses("http/token.rs", &["super::index_v1", "super::ops", "super::hub", "super::mlspace"]),
        nothing
    );
    let others = [
        "http::hub",
        "http::oci",
        "http::ops",
        "http::token",
        "super::hub",
        "super::index_v1",
        "super::oci",
        "super::ops",
        "super::token",
    ];
    assert_eq!(uses("http/mlspace.rs", &others), nothing);
    assert_eq!(uses("http/mlspace", &others), nothing);
    // Those of http/hub.rs have a module `tokens` and a handler `token` of their own.
    let others = [
        "http::mlspace",
        "http::oci",
        "http::ops",
        "http::token",
        "index_v1",
        "super::oci",
        "super::ops",
        "super::token::",
    ];
    assert_eq!(uses("http/hub.rs", &others), nothing);
    assert_eq!(uses("http/hub", &others), nothing);
}
