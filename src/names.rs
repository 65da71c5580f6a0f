//! The words of the protocol, parsed once at the door: a value of one of these
//! types is well-formed, and no function further in asks again.

use std::fmt;

use crate::error::{Error, Kind, Result, Thing};

/// Longest repository name, in bytes, `library/` included. The OCI specification
/// recommends that host and name together stay within 255.
pub const REPO_NAME_MAX: usize = 255;
/// Longest tag, in bytes (OCI distribution specification, "Pulling manifests").
pub const TAG_MAX: usize = 128;
/// Longest user name, in bytes: it is also a path component of repository names.
pub const USER_NAME_MAX: usize = 64;
/// The namespace of names without a slash.
pub const LIBRARY: &str = "library";

/// First components that Docker Hub's API uses below `/v2/`: a repository of that
/// name could not be told from a Hub address.
const RESERVED: [&str; 3] = ["repositories", "namespaces", "orgs"];

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`: one component of a repository name.
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |s: &str| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    // Splitting at every letter and digit leaves the separators.
    text.starts_with(word) && text.ends_with(word) && text.split(word).all(separator)
}

/// A repository's name: `namespace/path`, where a name of one component is in
/// `library`. `nginx` and `library/nginx` are equal, and each remembers how it was asked.
#[derive(Debug, Clone)]
pub struct RepoName {
    full: String,
    bare: bool,
}

impl RepoName {
    /// Parses by the OCI grammar, at most 255 bytes; refuses what Hub's API owns.
    pub fn parse(text: &str) -> Result<RepoName> {
        let invalid = |why: &'static str| Kind::Invalid(Thing::Repo).because(why);
        if text.len() > REPO_NAME_MAX {
            return Err(invalid("a repository name has at most 255 characters"));
        }
        if !text.split('/').all(is_component) {
            return Err(invalid(
                "a repository name is made of lower-case letters and digits, \
                 with single separators . _ - between them and / between its parts",
            ));
        }
        let bare = !text.contains('/');
        let first = text.split('/').next().unwrap_or_default();
        if RESERVED.contains(&first) {
            return Err(invalid(
                "repository names that begin with \"repositories\", \"namespaces\" or \"orgs\" are reserved",
            ));
        }
        let full = if bare { format!("{LIBRARY}/{text}") } else { text.to_owned() };
        if full.len() > REPO_NAME_MAX {
            return Err(invalid("a repository name has at most 255 characters"));
        }
        Ok(RepoName { full, bare })
    }

    /// The one name it is stored under: `library/nginx`.
    pub fn full(&self) -> &str {
        &self.full
    }

    /// As the client wrote it: `nginx` or `library/nginx`.
    pub fn asked(&self) -> &str {
        if self.bare { &self.full[LIBRARY.len() + 1..] } else { &self.full }
    }

    /// The first component, which says who owns it.
    pub fn namespace(&self) -> &str {
        self.full.split('/').next().unwrap_or_default()
    }
}

impl PartialEq for RepoName {
    fn eq(&self, other: &RepoName) -> bool {
        self.full == other.full
    }
}
impl Eq for RepoName {}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.asked())
    }
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    pub fn parse(text: &str) -> Result<Tag> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let fits = (1..=TAG_MAX).contains(&text.len())
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if fits {
            Ok(Tag(text.to_owned()))
        } else {
            Err(Kind::Invalid(Thing::Tag).because(
                "a tag has 1 to 128 letters, digits, '_', '.' or '-' and begins with none of the last two",
            ))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The registered digest algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    pub fn parse(text: &str) -> Result<Algorithm> {
        Algorithm::ALL.into_iter().find(|a| a.name() == text).ok_or_else(|| {
            Kind::Invalid(Thing::Digest).because("the digest algorithms are sha256 and sha512")
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// A digest: `sha256:` and 64, or `sha512:` and 128 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    text: String,
}

impl Digest {
    pub fn parse(text: &str) -> Result<Digest> {
        let invalid = || {
            Kind::Invalid(Thing::Digest)
                .because("a digest is sha256: and 64, or sha512: and 128 lower-case hex digits")
        };
        let (name, hex) = text.split_once(':').ok_or_else(invalid)?;
        let algorithm = Algorithm::parse(name)?;
        let fits =
            hex.len() == algorithm.hex_len() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if fits { Ok(Digest { algorithm, text: text.to_owned() }) } else { Err(invalid()) }
    }

    /// The digest of a hash that was just computed.
    pub fn of_hash(algorithm: Algorithm, hash: &[u8]) -> Digest {
        let text = format!("{}:{}", algorithm.name(), hex(hash));
        debug_assert_eq!(text.len(), algorithm.name().len() + 1 + algorithm.hex_len());
        Digest { algorithm, text }
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// As its text.
impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

/// What is in a document is parsed as what clients send is.
macro_rules! read_as_text {
    ($($name:ty),*) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<$name, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                <$name>::parse(&text).map_err(|error| serde::de::Error::custom(error.detail()))
            }
        }
    )*};
}
read_as_text!(Digest, RepoName, Tag);

/// As the one name it is stored under.
impl serde::Serialize for RepoName {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(self.full())
    }
}

impl serde::Serialize for Tag {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// Lower-case hex of some bytes.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How a manifest is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

impl Reference {
    /// What has a colon is a digest, for no tag may have one.
    pub fn parse(text: &str) -> Result<Reference> {
        if text.contains(':') {
            Ok(Reference::Digest(Digest::parse(text)?))
        } else {
            Ok(Reference::Tag(Tag::parse(text)?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

/// The name of an open upload: 32 hex digits, 128 random bits, so that it cannot be guessed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(String);

impl UploadId {
    pub fn parse(text: &str) -> Result<UploadId> {
        let fits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        // One that cannot be ours is one we do not know: clients start over on that answer.
        if fits { Ok(UploadId(text.to_owned())) } else { Err(Kind::NotFound(Thing::Upload).into()) }
    }

    pub fn from_random(bytes: [u8; 16]) -> UploadId {
        UploadId(hex(&bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A UUID in lower case: any of RFC 9562's versions, since clients print all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Uuid(String);

impl Uuid {
    pub fn parse(text: &str) -> Option<Uuid> {
        const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
        let groups: Vec<&str> = text.split('-').collect();
        let fits = groups.len() == GROUPS.len()
            && groups.iter().zip(GROUPS).all(|(group, len)| group.len() == len)
            && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()));
        fits.then(|| Uuid(text.to_ascii_lowercase()))
    }

    /// Version 4, of random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Uuid {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let text = hex(&bytes);
        let groups = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
        Uuid(groups.join("-"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A user's name: one component of a repository name, since a user owns `user/…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserName(String);

impl UserName {
    pub fn parse(text: &str) -> Result<UserName> {
        let invalid = |why: &'static str| -> Error { Kind::Invalid(Thing::User).because(why) };
        if text.len() > USER_NAME_MAX || !is_component(text) {
            return Err(invalid(
                "a user name has 1 to 64 lower-case letters and digits, \
                 with single separators . _ - between them",
            ));
        }
        if RESERVED.contains(&text) || text == LIBRARY {
            return Err(invalid("this name is reserved; choose another"));
        }
        Ok(UserName(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_follow_the_grammar_of_the_specification() {
        for good in ["a", "0", "a.b", "a_b", "a__b", "a-b", "a---b", "a.b_c-d", "2048", "10000460x"] {
            assert!(is_component(good), "{good}");
        }
        for bad in [
            "", ".", "-", "_", ".a", "a.", "-a", "a-", "_a", "a_", "a..b", "a___b", "a._b", "a.-b", "a-_b",
            "A", "aB", "a b", "ä", "a/b", "a\0b", "a%2fb",
        ] {
            assert!(!is_component(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_without_a_slash_is_in_library_and_is_echoed_as_it_was_asked() {
        let bare = RepoName::parse("nginx").expect("parses");
        let full = RepoName::parse("library/nginx").expect("parses");
        assert_eq!(bare, full);
        assert_eq!((bare.full(), bare.asked(), bare.namespace()), ("library/nginx", "nginx", "library"));
        assert_eq!(full.asked(), "library/nginx");
        assert_eq!(RepoName::parse("org/a/b").expect("parses").namespace(), "org");
    }

    #[test]
    fn a_name_that_leaves_its_place_or_belongs_to_hub_is_refused() {
        for bad in
            ["..", "a/..", "a/../b", "/a", "a/", "a//b", "", "repositories/x", "namespaces/x", "repositories"]
        {
            assert!(RepoName::parse(bad).is_err(), "{bad}");
        }
        assert!(RepoName::parse(&"a".repeat(256)).is_err());
        assert!(RepoName::parse(&"a".repeat(250)).is_err(), "library/ and 250 are 258");
        assert!(RepoName::parse("a/repositories/b").is_ok());
    }

    #[test]
    fn a_digest_has_the_length_of_its_algorithm_and_lower_case() {
        let sha256 = format!("sha256:{}", "a".repeat(64));
        assert_eq!(Digest::parse(&sha256).expect("parses").hex().len(), 64);
        assert!(Digest::parse(&format!("sha512:{}", "0".repeat(128))).is_ok());
        for bad in ["", "sha256", "sha256:", "md5:aa", "sha256:../../etc"] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
        assert!(Digest::parse(&format!("sha256:{}", "A".repeat(64))).is_err());
        assert!(Digest::parse(&format!("sha512:{}", "a".repeat(64))).is_err());
    }

    #[test]
    fn uuids_are_taken_in_any_case_and_version_and_made_in_the_fourth() {
        let first = "44B5E14A-3919-11ea-8f8f-3a4ce9d1e497";
        assert_eq!(Uuid::parse(first).expect("parses").as_str(), first.to_ascii_lowercase());
        for bad in
            ["", "44b5e14a391911ea8f8f3a4ce9d1e497", "44b5e14a-3919-11ea-8f8f-3a4ce9d1e49g", "a-b-c-d-e"]
        {
            assert!(Uuid::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Uuid::from_random([0xff; 16]).as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn a_tag_has_up_to_128_characters_and_no_colon() {
        for good in ["latest", "v1.0", "_x", "A-b.c", "1"] {
            assert!(Tag::parse(good).is_ok(), "{good}");
        }
        assert!(Tag::parse(&"t".repeat(128)).is_ok());
        assert!(Tag::parse(&"t".repeat(129)).is_err());
        for bad in ["", ".a", "-a", "a b", "a/b", "a:b", "ä"] {
            assert!(Tag::parse(bad).is_err(), "{bad}");
        }
    }
}
