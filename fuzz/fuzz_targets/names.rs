//! Names: what parses says itself again, stays within its limits, and leads nowhere else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outport::names::{self, Digest, Reference, RepoName, Tag, UploadId, UserName, Uuid};

fuzz_target!(|text: &str| {
    if let Ok(name) = RepoName::parse(text) {
        assert_eq!(name.asked(), text);
        assert_eq!(RepoName::parse(name.full()).expect("its full name"), name);
        assert!(name.full().len() <= names::REPO_NAME_MAX);
        assert!(name.full().split('/').count() > 1, "it is in a namespace");
        assert!(
            name.full().split('/').all(|part| UserName::parse(part).is_ok() || is_reserved_or_long(part))
        );
        assert_eq!(name.full().split('/').next(), Some(name.namespace()));
    }
    if let Ok(tag) = Tag::parse(text) {
        assert_eq!(tag.as_str(), text);
        assert!(text.len() <= names::TAG_MAX && !text.contains([':', '/', '\\', '\0']));
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(format!("{}:{}", digest.algorithm().name(), digest.hex()), text);
        assert!(digest.hex().bytes().all(|b| b.is_ascii_hexdigit()));
    }
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(reference.to_string(), text);
        assert_eq!(matches!(reference, Reference::Digest(_)), Digest::parse(text).is_ok());
    }
    if let Ok(id) = UploadId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert_eq!(text.len(), 32);
    }
    if let Some(uuid) = Uuid::parse(text) {
        assert!(uuid.as_str().eq_ignore_ascii_case(text));
        assert_eq!(Uuid::parse(uuid.as_str()), Some(uuid));
    }
    if let Ok(user) = UserName::parse(text) {
        assert_eq!(user.as_str(), text);
        assert!(RepoName::parse(&format!("{text}/app")).is_ok(), "a user owns repositories");
    }
});

/// What may be in a repository's name and is no user's.
fn is_reserved_or_long(part: &str) -> bool {
    part.len() > names::USER_NAME_MAX || ["library", "repositories", "namespaces", "orgs"].contains(&part)
}
