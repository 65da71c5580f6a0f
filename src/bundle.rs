//! What a bundle holds, who sent it, and how that is signed. Pure: bytes in, lines out.
//!
//! A bundle is an OCI image layout in one tar stream, so that other tools read it, with a
//! document in front that says what will follow:
//!
//! ```text
//! oci-layout
//! outport/bundle.json    the document
//! outport/bundle.sig     who vouches for it; only if signed
//! index.json             the images, by tag
//! manifest.json          the same for any `docker load`; not in deltas
//! blobs/sha256/HEX       manifests (children before their index), configs, layers
//! ```
//!
//! The signature is over the document's bytes, and the document names everything else by digest.

mod inventory;
mod layout;

pub use inventory::{INVENTORY_BYTES_MAX, Inventory};
pub use layout::{Contents, Format, Held, Layout, Part};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::error::{Error, Kind, Result, Thing};
use crate::manifest::{Few, MANIFEST_BYTES_MAX, Object};
use crate::names::{Digest, RepoName, Tag};

/// Names of entries, in the order they stand in.
pub const OCI_LAYOUT: &str = "oci-layout";
pub const DOCUMENT: &str = "outport/bundle.json";
pub const SIGNATURE: &str = "outport/bundle.sig";
pub const INDEX: &str = "index.json";
pub const DOCKER_LIST: &str = "manifest.json";

/// The whole of `oci-layout`.
pub const OCI_LAYOUT_BYTES: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Version of the document that this program writes and reads.
const VERSION: u32 = 1;
/// Longest document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Longest signature file, in bytes. Ours have 250.
pub const SIGNATURE_BYTES_MAX: usize = 4 << 10;
/// Most lines of one list of a document.
pub const LINES_MAX: usize = 50_000;
/// Most repositories of one line.
const REPOS_MAX: usize = 1_000;
/// Most strings of a document: short ones take several times their length once they are read.
const STRINGS_MAX: usize = 600_000;
/// Longest media type, in bytes (RFC 6838: two names of 127).
const MEDIA_TYPE_MAX: usize = 255;
/// Longest name of a key, in bytes.
const KEY_NAME_MAX: usize = 64;
/// Longest moment, in bytes: `2026-11-21T08:00:00Z`.
const MOMENT_MAX: usize = 32;
/// Largest sequence: the first bit is a sign in SQLite.
pub const SEQUENCE_MAX: u64 = i64::MAX as u64;

/// Where a manifest or a blob is in a bundle, as in every OCI image layout.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// What is in a bundle, what it builds upon, and who sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    pub version: u32,
    /// Who signed it. An unsigned bundle says nothing of that.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Sent>,
    /// RFC 3339, UTC, by the sender's clock: for people. An export that nobody signs leaves it
    /// out, so that the same images give the same bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
    /// By repository and tag.
    pub tags: Vec<TagLine>,
    /// Those that follow, in order: children before their index.
    pub manifests: Vec<ManifestLine>,
    /// Those that follow, in order: configs, then layers.
    pub blobs: Vec<BlobLine>,
    /// What must be at the site already, by digest.
    #[serde(skip_serializing_if = "Base::is_empty")]
    pub base: Base,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sent {
    pub sender: KeyName,
    /// Grows with each bundle that a key signs; from 1.
    pub sequence: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagLine {
    pub repo: RepoName,
    pub tag: Tag,
    pub digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestLine {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    pub media_type: String,
    /// The repositories that get it.
    #[serde(deserialize_with = "few_repos")]
    pub repos: Vec<RepoName>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobLine {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// The repositories that get it.
    #[serde(deserialize_with = "few_repos")]
    pub repos: Vec<RepoName>,
}

/// What a delta leaves out. Its repositories are those that need it: a site links it there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Base {
    pub blobs: Vec<BlobLine>,
    pub manifests: Vec<ManifestLine>,
}

impl Base {
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.manifests.is_empty()
    }
}

fn few_repos<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Vec<RepoName>, D::Error> {
    Few::<RepoName, REPOS_MAX>::deserialize(from).map(|few| few.0)
}

/// A list of a document as it is read.
type Lines<T> = Few<Object<T>, LINES_MAX>;

#[derive(Deserialize)]
struct Body {
    sender: Option<KeyName>,
    sequence: Option<u64>,
    made: Option<String>,
    tags: Lines<TagLine>,
    manifests: Lines<ManifestLine>,
    blobs: Lines<BlobLine>,
    base: Option<Object<BaseBody>>,
}

#[derive(Deserialize)]
struct BaseBody {
    blobs: Lines<BlobLine>,
    manifests: Lines<ManifestLine>,
}

fn lines<T>(few: Lines<T>) -> Vec<T> {
    few.0.into_iter().map(|object| object.0).collect()
}

fn invalid(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Kind::Invalid(Thing::Request).because(why)
}

impl Document {
    /// An unsigned document; see [`Document::bytes`] for its limits.
    pub fn new(
        tags: Vec<TagLine>,
        manifests: Vec<ManifestLine>,
        blobs: Vec<BlobLine>,
        base: Base,
    ) -> Document {
        Document { version: VERSION, sent: None, made: None, tags, manifests, blobs, base }
    }

    /// Reads a document.
    ///
    /// Fails with `Invalid` for what is too long, does not parse, was made by a newer version, or
    /// contradicts itself: a digest named twice, a tag of a manifest that is neither
    /// carried nor in the base, a line for no repository.
    pub fn read(bytes: &[u8]) -> Result<Document> {
        if bytes.len() > DOCUMENT_BYTES_MAX || quotes(bytes) > 2 * STRINGS_MAX {
            return Err(invalid(TOO_LONG));
        }
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let broken =
            |error: serde_json::Error| invalid(format!("the bundle's document does not parse: {error}"));
        // Alone first: the rest of a newer one may look different.
        let Object(Head { version }) = serde_json::from_slice(bytes).map_err(broken)?;
        if version != VERSION {
            return Err(invalid("the bundle was made by a newer Outport; read it with that version"));
        }
        let Object(body): Object<Body> = serde_json::from_slice(bytes).map_err(broken)?;
        let sent = match (body.sender, body.sequence) {
            (None, None) => None,
            (Some(sender), Some(sequence)) => Some(Sent { sender, sequence }),
            _ => return Err(invalid("a bundle names its sender and its sequence, or neither")),
        };
        let base = body.base.map_or_else(Base::default, |Object(base)| Base {
            blobs: lines(base.blobs),
            manifests: lines(base.manifests),
        });
        let (tags, manifests, blobs) = (lines(body.tags), lines(body.manifests), lines(body.blobs));
        let document = Document { version, sent, made: body.made, tags, manifests, blobs, base };
        document.check()?;
        Ok(document)
    }

    /// The document's text, the same for the same lines. Fails where [`Document::read`] would.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        self.check()?;
        let bytes = serde_json::to_vec(self).map_err(|error| Kind::Internal.from_cause(error))?;
        match bytes.len() > DOCUMENT_BYTES_MAX || quotes(&bytes) > 2 * STRINGS_MAX {
            true => Err(invalid(TOO_LONG)),
            false => Ok(bytes),
        }
    }

    /// How many bytes the manifests and blobs that are carried have together.
    pub fn carried_bytes(&self) -> u64 {
        let manifests = self.manifests.iter().map(|line| line.size);
        manifests.chain(self.blobs.iter().map(|line| line.size)).fold(0, u64::saturating_add)
    }

    fn check(&self) -> Result<()> {
        if self.sent.as_ref().is_some_and(|sent| !(1..=SEQUENCE_MAX).contains(&sent.sequence)) {
            return Err(invalid("a bundle's sequence is a number from 1 on"));
        }
        let plain = |b: u8| b.is_ascii_digit() || matches!(b, b'-' | b'T' | b':' | b'.' | b'Z');
        if self.made.as_ref().is_some_and(|made| made.len() > MOMENT_MAX || !made.bytes().all(plain)) {
            return Err(invalid("when a bundle was made is said as 2026-11-21T08:00:00Z"));
        }
        let lists = [
            self.tags.len(),
            self.manifests.len(),
            self.blobs.len(),
            self.base.manifests.len(),
            self.base.blobs.len(),
        ];
        if lists.iter().any(|len| *len > LINES_MAX) {
            return Err(invalid(TOO_LONG));
        }
        // A manifest and a blob of one digest would be one entry, named twice.
        let mut named = HashSet::new();
        let mut manifests = HashMap::new();
        for line in self.manifests.iter().chain(&self.base.manifests) {
            check_line(&mut named, &line.digest, &line.repos)?;
            if line.size > MANIFEST_BYTES_MAX as u64 {
                return Err(invalid(format!("{}: a manifest has at most 4 MiB", line.digest)));
            }
            let plain = line.media_type.bytes().all(|b| b.is_ascii_graphic());
            if !plain || !(1..=MEDIA_TYPE_MAX).contains(&line.media_type.len()) {
                return Err(invalid(format!("{}: this is no media type", line.digest)));
            }
            manifests.insert(&line.digest, &line.repos);
        }
        for line in self.blobs.iter().chain(&self.base.blobs) {
            check_line(&mut named, &line.digest, &line.repos)?;
        }
        let mut tags = HashSet::new();
        for line in &self.tags {
            let TagLine { repo, tag, digest } = line;
            if !manifests.get(digest).is_some_and(|repos| repos.contains(repo)) {
                return Err(invalid(format!("the bundle has no manifest {digest} for its tag {repo}:{tag}")));
            }
            if !tags.insert((repo.full(), tag.as_str())) {
                return Err(invalid(format!("the bundle names its tag {repo}:{tag} twice")));
            }
        }
        Ok(())
    }
}

const TOO_LONG: &str = "a bundle's document has at most 16 MiB, and 50,000 lines in each of its lists; \
                        make several bundles, each of fewer images";

fn quotes(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'"').count()
}

fn check_line<'a>(named: &mut HashSet<&'a Digest>, digest: &'a Digest, repos: &[RepoName]) -> Result<()> {
    if !named.insert(digest) {
        return Err(invalid(format!("the bundle names {digest} twice")));
    }
    let mut each = HashSet::new();
    if repos.is_empty() || repos.len() > REPOS_MAX || !repos.iter().all(|repo| each.insert(repo.full())) {
        return Err(invalid(format!("{digest}: the bundle names at least one repository, each once")));
    }
    Ok(())
}

/// The name of a key, and so of a sender: `[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct KeyName(String);

impl KeyName {
    pub fn parse(text: &str) -> Result<KeyName> {
        let word = |b: u8| b.is_ascii_alphanumeric();
        let fits = (1..=KEY_NAME_MAX).contains(&text.len())
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'_' | b'-'));
        match fits {
            true => Ok(KeyName(text.to_owned())),
            false => Err(invalid(
                "a key's name has 1 to 64 letters, digits, '_', '.' or '-' and begins with a letter or a digit",
            )),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyName {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<KeyName, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        KeyName::parse(&text).map_err(|error| serde::de::Error::custom(error.detail()))
    }
}

/// What a signature is of: one of one sort is none of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signs {
    /// The document of a bundle.
    Bundle,
    /// What a site says of a bundle it took.
    Receipt,
}

impl Signs {
    /// What is signed: a word for the sort, a byte that is in none, and the bytes.
    fn message(self, bytes: &[u8]) -> Vec<u8> {
        let word: &[u8] = match self {
            Signs::Bundle => b"outport bundle\0",
            Signs::Receipt => b"outport receipt\0",
        };
        [word, bytes].concat()
    }
}

/// An Ed25519 public key; as text 44 characters of base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    pub fn parse(text: &str) -> Result<PublicKey> {
        let bytes = BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(PublicKey)
            .ok_or_else(|| invalid("a public key is 44 characters of base64, as `outport key list` shows it"))
    }

    pub fn of_bytes(bytes: [u8; 32]) -> PublicKey {
        PublicKey(bytes)
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A key that signs, with its name.
pub struct Key {
    pub name: KeyName,
    pair: Ed25519KeyPair,
}

impl Key {
    /// A new key's secret: 48 to 85 bytes of PKCS#8.
    pub fn generate() -> Result<Vec<u8>> {
        let secret = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| Kind::Internal.because("the system gives no random numbers"))?;
        Ok(secret.as_ref().to_vec())
    }

    /// A key from its secret.
    pub fn of_secret(name: KeyName, secret: &[u8]) -> Result<Key> {
        let pair = Ed25519KeyPair::from_pkcs8(secret)
            .map_err(|_| invalid("this is no Ed25519 key that `outport key new` made"))?;
        Ok(Key { name, pair })
    }

    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The bytes of a signature file.
    pub fn sign(&self, signs: Signs, bytes: &[u8]) -> Result<Vec<u8>> {
        let signature = BASE64.encode(self.pair.sign(&signs.message(bytes)));
        let file = SignatureBody { key: self.name.clone(), public: self.public().to_string(), signature };
        serde_json::to_vec(&file).map_err(|error| Kind::Internal.from_cause(error))
    }
}

#[derive(Serialize, Deserialize)]
struct SignatureBody {
    key: KeyName,
    public: String,
    signature: String,
}

/// A signature, read. It says nothing before it was verified, and then only that whoever has
/// this key signed these bytes: whether the key is trusted is the site's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub key: KeyName,
    pub public: PublicKey,
    signature: Vec<u8>,
}

impl Signature {
    pub fn read(bytes: &[u8]) -> Result<Signature> {
        if bytes.len() > SIGNATURE_BYTES_MAX {
            return Err(invalid("a signature has at most 4 KiB"));
        }
        let Object(SignatureBody { key, public, signature }) = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("the signature does not parse: {error}")))?;
        let signature = BASE64.decode(signature).map_err(|_| invalid("the signature is not base64"))?;
        Ok(Signature { key, public: PublicKey::parse(&public)?, signature })
    }

    /// Fails unless it is of these bytes, by the key it names.
    pub fn verify(&self, signs: Signs, bytes: &[u8]) -> Result<()> {
        UnparsedPublicKey::new(&ED25519, self.public.bytes())
            .verify(&signs.message(bytes), &self.signature)
            .map_err(|_| {
                invalid(format!(
                    "the signature by {} is wrong: what it signs was changed, or somebody else signed it",
                    self.key
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> Digest {
        Digest::parse(&format!("sha256:{}", c.to_string().repeat(64))).expect("parses")
    }

    fn repos(names: &[&str]) -> Vec<RepoName> {
        names.iter().map(|name| RepoName::parse(name).expect("parses")).collect()
    }

    fn manifest(c: char, names: &[&str]) -> ManifestLine {
        let media_type = crate::manifest::OCI_MANIFEST.to_owned();
        ManifestLine { digest: digest(c), size: 10, media_type, repos: repos(names) }
    }

    fn blob(c: char, names: &[&str]) -> BlobLine {
        BlobLine { digest: digest(c), size: 5, repos: repos(names) }
    }

    fn document() -> Document {
        let tag = |tag: &str| TagLine {
            repo: RepoName::parse("acme/app").expect("parses"),
            tag: Tag::parse(tag).expect("parses"),
            digest: digest('a'),
        };
        let base = Base { blobs: vec![blob('d', &["acme/app"])], manifests: Vec::new() };
        Document::new(
            vec![tag("1.2"), tag("latest")],
            vec![manifest('a', &["acme/app", "acme/web"])],
            vec![blob('b', &["acme/app"]), blob('c', &["acme/app"])],
            base,
        )
    }

    fn key(name: &str) -> Key {
        let secret = Key::generate().expect("makes one");
        Key::of_secret(KeyName::parse(name).expect("parses"), &secret).expect("reads it")
    }

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let mut document = document();
        for sent in
            [None, Some(Sent { sender: KeyName::parse("depot-berlin").expect("parses"), sequence: 42 })]
        {
            document.made = sent.is_some().then(|| "2026-11-21T08:00:00Z".into());
            document.sent = sent;
            let bytes = document.bytes().expect("writes");
            assert_eq!(Document::read(&bytes).expect("reads"), document);
            assert_eq!(document.bytes().expect("writes"), bytes);
        }
        assert_eq!(document.carried_bytes(), 20);
    }

    #[test]
    fn a_name_without_a_slash_is_written_with_its_namespace() {
        let document =
            Document::new(Vec::new(), vec![manifest('a', &["nginx"])], Vec::new(), Base::default());
        let text = String::from_utf8(document.bytes().expect("writes")).expect("is text");
        assert_eq!(
            text,
            format!(
                r#"{{"version":1,"tags":[],"manifests":[{{"digest":"{}","size":10,"media_type":"{}","repos":["library/nginx"]}}],"blobs":[]}}"#,
                digest('a'),
                crate::manifest::OCI_MANIFEST
            )
        );
    }

    #[test]
    fn a_document_that_contradicts_itself_is_refused_with_a_sentence() {
        type Change = fn(&mut Document);
        let changes: [(Change, &str); 13] = [
            (|d| d.tags[0].digest = digest('e'), "no manifest"),
            (|d| d.tags[0].digest = digest('b'), "no manifest"),
            (|d| d.tags[1].tag = d.tags[0].tag.clone(), "twice"),
            (|d| d.tags[0].repo = RepoName::parse("other").expect("parses"), "no manifest"),
            (|d| d.blobs[0].digest = digest('a'), "twice"),
            (|d| d.blobs[0].digest = digest('d'), "twice"),
            (|d| d.blobs[0].repos.clear(), "at least one"),
            (|d| d.manifests[0].repos.push(RepoName::parse("acme/app").expect("parses")), "each once"),
            (|d| d.made = Some("<b>".into()), "said as"),
            (|d| d.manifests[0].size = MANIFEST_BYTES_MAX as u64 + 1, "4 MiB"),
            (|d| d.manifests[0].media_type = "a\nb".into(), "media type"),
            (|d| d.version = 2, "newer"),
            (
                |d| {
                    let sender = KeyName::parse("a").expect("parses");
                    d.sent = Some(Sent { sender, sequence: 0 });
                },
                "from 1",
            ),
        ];
        for (change, words) in changes {
            let mut document = document();
            change(&mut document);
            let bytes = serde_json::to_vec(&document).expect("writes");
            let error = Document::read(&bytes).expect_err(words);
            assert!(error.detail().contains(words), "{error}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused_and_takes_no_memory() {
        let many = format!(r#"{{"version":1,"tags":[{}"#, "{},".repeat(100));
        let strings = format!(r#"{{"version":1,"x":[{}""]}}"#, r#""","#.repeat(STRINGS_MAX));
        let long = format!(r#"{{"version":1,"x":"{}"}}"#, "x".repeat(DOCUMENT_BYTES_MAX));
        let half = r#"{"version":1,"sender":"a","tags":[],"manifests":[],"blobs":[]}"#;
        for bad in ["", "{", "[]", "[1]", "{}", "\u{0}", r#"{"version":1}"#, half, &many, &strings, &long] {
            let error = Document::read(bad.as_bytes()).expect_err("is none");
            assert_eq!(error.kind, Kind::Invalid(Thing::Request), "{bad:.60}");
        }
    }

    #[test]
    fn a_signature_is_good_for_its_bytes_its_key_and_its_purpose_alone() {
        let (key, other) = (key("depot"), key("depot"));
        let file = key.sign(Signs::Bundle, b"text").expect("signs");
        let read = Signature::read(&file).expect("reads");
        assert_eq!((read.key.as_str(), read.public), ("depot", key.public()));
        assert!(read.verify(Signs::Bundle, b"text").is_ok());
        assert!(read.verify(Signs::Bundle, b"texts").is_err());
        assert!(read.verify(Signs::Receipt, b"text").is_err());
        let renamed = Signature { public: other.public(), ..read.clone() };
        assert!(renamed.verify(Signs::Bundle, b"text").is_err());
        for at in 0..read.signature.len() {
            let mut flipped = read.clone();
            flipped.signature[at] ^= 1;
            assert!(flipped.verify(Signs::Bundle, b"text").is_err(), "byte {at}");
        }
        let nested = "[".repeat(5_000);
        for bad in ["", "{}", "[\"depot\",\"\",\"\"]", &nested] {
            assert!(Signature::read(bad.as_bytes()).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn a_public_key_is_read_as_it_is_shown() {
        let public = key("a").public();
        assert_eq!(PublicKey::parse(&public.to_string()).expect("parses"), public);
        for bad in ["", "AAAA", "not base64 at all, but as long as a key  ..."] {
            assert!(PublicKey::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", ".a", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(KeyName::parse(bad).is_err(), "{bad}");
        }
    }
}
