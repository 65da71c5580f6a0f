//! What a manifest names. Pure: bytes in, the things it relies on out.
//!
//! The bytes themselves are stored and served untouched; what is read here decides
//! only what must be present, what is linked, and what lists show.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use crate::error::{Error, Kind, Result, Thing};
use crate::names::Digest;

/// Largest manifest taken, in bytes. The OCI specification asks registries for at
/// least 4 MiB, and distribution and zot stop there.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Deepest nesting of a manifest's JSON. Real ones reach 4.
const DEPTH_MAX: usize = 32;
/// Most layers, or most children, of one manifest.
const DESCRIPTORS_MAX: usize = 1_000;
/// Most annotations of one manifest.
const ANNOTATIONS_MAX: usize = 1_000;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The media types taken, and the shape of each.
const MEDIA_TYPES: [(&str, Shape); 5] = [
    (OCI_MANIFEST, Shape::Image),
    (DOCKER_MANIFEST, Shape::Image),
    (OCI_INDEX, Shape::Index),
    (DOCKER_LIST, Shape::Index),
    (OCI_ARTIFACT, Shape::Artifact),
];

/// The media types that are asked for where any will do.
pub const ACCEPTED: [&str; 5] = [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST, OCI_ARTIFACT];

/// What clients that do not know better send as a Content-Type. The body decides then.
const GENERIC_TYPES: [&str; 5] =
    ["", "application/json", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A config and layers.
    Image,
    /// Other manifests.
    Index,
    /// Blobs alone: the artifact manifest that OCI 1.1 took back; clients still have some.
    Artifact,
}

/// A manifest, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it is served as.
    pub media_type: &'static str,
    /// Blobs that must be in the repository: config and layers, each once, in order.
    /// Layers that are fetched from elsewhere (`urls`) are not among them.
    pub blobs: Vec<Digest>,
    /// An image's config.
    pub config: Option<Digest>,
    /// Config and layers together, in bytes, by the sizes the manifest gives.
    pub content_bytes: u64,
    /// Manifests an index lists, each once, in order. They may be missing (OCI: sparse indexes).
    pub children: Vec<Digest>,
    /// What this manifest is about: a signature's image. It may be missing.
    pub subject: Option<Digest>,
    /// As referrers lists show it: `artifactType`, or else the config's media type.
    pub artifact_type: Option<String>,
    /// The annotations as JSON text, for referrers lists.
    pub annotations: Option<String>,
}

type Descriptors = Few<Object<Descriptor>, DESCRIPTORS_MAX>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Object<Descriptor>>,
    layers: Option<Descriptors>,
    manifests: Option<Descriptors>,
    blobs: Option<Descriptors>,
    fs_layers: Option<IgnoredAny>,
    subject: Option<Object<Descriptor>>,
    annotations: Option<FewPairs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    /// A negative, fractional or missing size is an error.
    size: u64,
    /// Only whether there are any counts, and `IgnoredAny` takes no memory.
    #[serde(default)]
    urls: Vec<IgnoredAny>,
}

/// A JSON object and nothing else: serde would take an array of the fields as well, and
/// whoever reads the same text next would not.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Object<T>, D::Error> {
        struct AsMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for AsMap<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_map(AsMap(PhantomData))
    }
}

/// A list that stops being read once it is too long, not when it is in memory.
#[derive(Default)]
pub struct Few<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Few<T, MAX>, D::Error> {
        struct Counted<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Counted<T, MAX> {
            type Value = Few<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a list of at most {MAX}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Few<T, MAX>, A::Error> {
                let mut few = Vec::new();
                while let Some(item) = list.next_element()? {
                    if few.len() == MAX {
                        return Err(A::Error::invalid_length(few.len() + 1, &self));
                    }
                    few.push(item);
                }
                Ok(Few(few))
            }
        }
        from.deserialize_seq(Counted::<T, MAX>(PhantomData))
    }
}

/// Annotations, likewise.
struct FewPairs(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for FewPairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<FewPairs, D::Error> {
        struct Counted;
        impl<'de> Visitor<'de> for Counted {
            type Value = FewPairs;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "at most {ANNOTATIONS_MAX} annotations")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<FewPairs, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if pairs.len() == ANNOTATIONS_MAX {
                        return Err(A::Error::invalid_length(pairs.len() + 1, &self));
                    }
                    pairs.insert(key, value);
                }
                Ok(FewPairs(pairs))
            }
        }
        from.deserialize_map(Counted)
    }
}

impl Descriptor {
    fn digest(&self) -> Result<Digest> {
        Digest::parse(&self.digest)
            .map_err(|_| invalid("a descriptor's digest must be sha256: or sha512: and lower-case hex"))
    }

    /// Layers that registries were forbidden to hold: clients fetch them from `urls`.
    fn is_elsewhere(&self) -> bool {
        let media_type = self.media_type.as_deref().unwrap_or_default();
        !self.urls.is_empty() || media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
    }
}

fn invalid(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Kind::Invalid(Thing::Manifest).because(why)
}

/// Reads a manifest as it was pushed, with the Content-Type it was pushed under.
///
/// Fails with `TooLarge` beyond 4 MiB and with `Invalid` for anything that is not
/// one of the five manifest types, says two things at once (CVE-2021-41190), or
/// names no well-formed digest.
pub fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest> {
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(Kind::TooLarge(Thing::Manifest).because("a manifest has at most 4 MiB"));
    }
    check_depth(bytes)?;
    let Object(body): Object<Body> =
        serde_json::from_slice(bytes).map_err(|e| invalid(format!("the manifest does not parse: {e}")))?;
    let (media_type, shape) = settle_type(&body, content_type)?;

    if shape != Shape::Artifact && body.schema_version != Some(2) {
        return Err(invalid("a manifest must have \"schemaVersion\": 2"));
    }
    // From here on lists are as long as they may be, and objects are objects.
    let list = |few: Option<Descriptors>| {
        few.map(|few| few.0.into_iter().map(|object| object.0).collect::<Vec<Descriptor>>())
    };
    let (config, layers) = (body.config.map(|object| object.0), list(body.layers));
    let (manifests, blobs) = (list(body.manifests), list(body.blobs));

    let mut manifest = Manifest {
        media_type,
        blobs: Vec::new(),
        config: None,
        content_bytes: 0,
        children: Vec::new(),
        subject: body.subject.map(|object| object.0.digest()).transpose()?,
        artifact_type: body.artifact_type.filter(|text| !text.is_empty()),
        annotations: match body.annotations {
            Some(FewPairs(map)) if !map.is_empty() => {
                Some(serde_json::to_string(&map).map_err(|e| Kind::Internal.from_cause(e))?)
            }
            _ => None,
        },
    };
    match (shape, config, layers, manifests, blobs) {
        (Shape::Image, Some(config), Some(layers), None, None) => {
            if manifest.artifact_type.is_none() {
                manifest.artifact_type.clone_from(&config.media_type);
            }
            manifest.config = Some(config.digest()?);
            manifest.blobs.push(config.digest()?);
            manifest.content_bytes = sum(layers.iter().chain([&config]));
            for layer in &layers {
                let digest = layer.digest()?;
                if !layer.is_elsewhere() {
                    manifest.blobs.push(digest);
                }
            }
        }
        (Shape::Index, None, None, Some(children), None) => {
            manifest.children = children.iter().map(Descriptor::digest).collect::<Result<_>>()?;
        }
        (Shape::Artifact, None, None, None, blobs) => {
            let blobs = blobs.unwrap_or_default();
            manifest.content_bytes = sum(&blobs);
            manifest.blobs = blobs.iter().map(Descriptor::digest).collect::<Result<_>>()?;
        }
        (Shape::Image, ..) => {
            return Err(invalid("an image manifest has \"config\" and \"layers\" and no \"manifests\""));
        }
        (Shape::Index, ..) => {
            return Err(invalid("an index has \"manifests\" and neither \"config\" nor \"layers\""));
        }
        (Shape::Artifact, ..) => {
            return Err(invalid(
                "an artifact manifest has \"blobs\" and neither \"layers\" nor \"manifests\"",
            ));
        }
    }
    keep_first(&mut manifest.blobs);
    keep_first(&mut manifest.children);
    Ok(manifest)
}

/// Whether a media type is one of those that list other manifests.
pub fn is_index(media_type: &str) -> bool {
    MEDIA_TYPES.iter().any(|(name, shape)| *name == media_type && *shape == Shape::Index)
}

/// The blobs that a manifest names, with the sizes it gives: its config first, then layers in
/// order. None for what does not parse; [`read`] says why.
pub fn blob_sizes(manifest: &[u8]) -> Vec<(Digest, u64)> {
    let Ok(Object::<Body>(body)) = serde_json::from_slice(manifest) else { return Vec::new() };
    let lists = [body.layers, body.blobs].into_iter().flatten().flat_map(|list| list.0);
    let all = body.config.into_iter().chain(lists);
    all.filter_map(|Object(descriptor)| Some((descriptor.digest().ok()?, descriptor.size))).collect()
}

/// Where an image runs, as far as it says so; empty where it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
    pub os_version: Option<String>,
}

impl Platform {
    /// Nobody checked this object when it was pushed, and only people look at it: what is
    /// not as it should be is left out.
    fn of(object: &serde_json::Value) -> Platform {
        let text =
            |key: &str| object[key].as_str().map(|text| text.chars().take(PLATFORM_WORD_MAX).collect());
        Platform {
            os: text("os").unwrap_or_default(),
            architecture: text("architecture").unwrap_or_default(),
            variant: text("variant"),
            os_version: text("os.version"),
        }
    }
}

impl Platform {
    /// `linux/arm64` or `linux/arm/v7`, as people name what they want.
    pub fn parse(text: &str) -> Result<Platform> {
        let words: Vec<&str> = text.split('/').collect();
        let fits = |word: &&str| {
            !word.is_empty() && word.len() <= PLATFORM_WORD_MAX && word.bytes().all(|b| b.is_ascii_graphic())
        };
        if !(2..=3).contains(&words.len()) || !words.iter().all(fits) {
            return Err(Kind::Invalid(Thing::Request)
                .because(format!("{text:.100} is no platform; one is like linux/arm64 or linux/arm/v7")));
        }
        Ok(Platform {
            os: words[0].to_owned(),
            architecture: words[1].to_owned(),
            variant: words.get(2).map(|&word| word.to_owned()),
            os_version: None,
        })
    }

    /// Whether somebody who wants this is served by that: without a variant any will do.
    pub fn takes(&self, other: &Platform) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// Longest word of a platform that is shown, in characters.
const PLATFORM_WORD_MAX: usize = 64;

/// The images an index lists, with their platforms. None for what is no index.
pub fn index_platforms(index: &[u8]) -> Vec<(Digest, Platform)> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Child>,
    }
    #[derive(Deserialize)]
    struct Child {
        digest: String,
        #[serde(default)]
        platform: serde_json::Value,
    }
    let Ok(index) = serde_json::from_slice::<Index>(index) else { return Vec::new() };
    let child = |child: &Child| Some((Digest::parse(&child.digest).ok()?, Platform::of(&child.platform)));
    index.manifests.iter().filter_map(child).collect()
}

/// What buildkit attests lies in the index beside its image, as something for no platform.
/// Which digest is about which.
pub fn index_attestations(index: &[u8]) -> Vec<(Digest, Digest)> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Child>,
    }
    #[derive(Deserialize)]
    struct Child {
        digest: String,
        #[serde(default)]
        annotations: serde_json::Value,
    }
    let Ok(index) = serde_json::from_slice::<Index>(index) else { return Vec::new() };
    let about = |child: &Child| {
        let image = child.annotations["vnd.docker.reference.digest"].as_str()?;
        Some((Digest::parse(&child.digest).ok()?, Digest::parse(image).ok()?))
    };
    index.manifests.iter().filter_map(about).collect()
}

/// The platform that an image's config names.
pub fn config_platform(config: &[u8]) -> Platform {
    Platform::of(&serde_json::from_slice(config).unwrap_or_default())
}

/// What an image's config says of it, each value as it stands there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ConfigFacts {
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<Box<RawValue>>,
    /// How it is run: environment, command, labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os: Option<Box<RawValue>>,
}

/// Longest `config` that is shown, and longest of the other facts, in bytes of JSON: a page
/// shows those of a hundred images.
const CONFIG_FACT_MAX: usize = 16 << 10;
const SHORT_FACT_MAX: usize = 1 << 10;

/// The facts of a config. Nobody checked it when it was pushed: what does not parse, or is
/// too long to be shown, is left out.
pub fn config_facts(config: &[u8]) -> ConfigFacts {
    let read = check_depth(config).ok().and_then(|()| serde_json::from_slice(config).ok());
    let Some(Object::<ConfigFacts>(facts)) = read else { return ConfigFacts::default() };
    let short = |fact: Option<Box<RawValue>>, max| fact.filter(|fact| fact.get().len() <= max);
    ConfigFacts {
        architecture: short(facts.architecture, SHORT_FACT_MAX),
        author: short(facts.author, SHORT_FACT_MAX),
        config: short(facts.config, CONFIG_FACT_MAX),
        created: short(facts.created, SHORT_FACT_MAX),
        os: short(facts.os, SHORT_FACT_MAX),
    }
}

fn sum<'a>(descriptors: impl IntoIterator<Item = &'a Descriptor>) -> u64 {
    descriptors.into_iter().fold(0, |sum, descriptor| sum.saturating_add(descriptor.size))
}

/// Which of the five types this is: the Content-Type and the body must agree where both speak.
fn settle_type(body: &Body, content_type: Option<&str>) -> Result<(&'static str, Shape)> {
    if body.schema_version == Some(1) || body.fs_layers.is_some() {
        return Err(invalid("schema 1 manifests are not taken; push the image again with a current client"));
    }
    // "…; charset=utf-8" is about the text, not the type.
    let said = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let said = (!GENERIC_TYPES.contains(&said)).then_some(said);
    let name = match (said, body.media_type.as_deref()) {
        (Some(said), Some(own)) if said != own => {
            return Err(invalid(format!(
                "the Content-Type and the manifest's \"mediaType\" differ: {said:.100} and {own:.100}"
            )));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) if body.manifests.is_some() => OCI_INDEX,
        (None, None) => OCI_MANIFEST,
    };
    MEDIA_TYPES
        .into_iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| invalid(format!("{name:.100} is not a type of manifest this registry takes")))
}

/// Keeps the first of equal digests, in order.
fn keep_first(digests: &mut Vec<Digest>) {
    let mut seen = std::collections::HashSet::new();
    digests.retain(|digest| seen.insert(digest.clone()));
}

/// Refuses JSON nested deeper than `DEPTH_MAX`: fields nobody reads are skipped by
/// the parser without a limit, and those who read the manifest next may recurse.
fn check_depth(json: &[u8]) -> Result<()> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(invalid("the manifest's JSON is nested deeper than 32 levels"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/x","digest":"{}","size":2}},
               "layers":[{{"digest":"{}","size":3}}]{extra}}}"#,
            digest('a'),
            digest('b')
        )
    }

    #[test]
    fn an_image_names_its_config_and_its_layers_once_each() {
        let read = read(image("").as_bytes(), Some(OCI_MANIFEST)).expect("parses");
        let names: Vec<_> = read.blobs.iter().map(Digest::as_str).collect();
        assert_eq!(names, [digest('a'), digest('b')]);
        assert_eq!((read.config.expect("has one").as_str(), read.content_bytes), (digest('a').as_str(), 5));
        assert_eq!(read.artifact_type.as_deref(), Some("application/x"));
        assert_eq!(read.media_type, OCI_MANIFEST);
    }

    #[test]
    fn the_type_comes_from_the_header_or_else_from_the_body() {
        let docker = image(&format!(r#","mediaType":"{DOCKER_MANIFEST}""#));
        for said in [None, Some("application/json"), Some(DOCKER_MANIFEST)] {
            assert_eq!(read(docker.as_bytes(), said).expect("parses").media_type, DOCKER_MANIFEST);
        }
        assert!(read(docker.as_bytes(), Some(OCI_MANIFEST)).is_err(), "they differ");
        let with_charset = format!("{OCI_MANIFEST}; charset=utf-8");
        assert!(read(image("").as_bytes(), Some(&with_charset)).is_ok());
        assert!(read(image("").as_bytes(), Some("image/png")).is_err());
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":1}}]}}"#, digest('c'));
        assert_eq!(read(index.as_bytes(), None).expect("parses").media_type, OCI_INDEX);
    }

    #[test]
    fn a_configs_facts_are_shown_as_they_stand_and_what_is_too_long_or_deep_is_not() {
        let shown =
            |config: &str| serde_json::to_string(&config_facts(config.as_bytes())).expect("facts are JSON");
        let env = r#"{"Env":["A=1"],"n":1.50}"#;
        let whole = format!(r#"{{"os":"linux","created":null,"history":[],"config":{env}}}"#);
        assert_eq!(shown(&whole), format!(r#"{{"config":{env},"os":"linux"}}"#));
        let long = format!(r#"{{"os":"linux","config":"{}"}}"#, "x".repeat(CONFIG_FACT_MAX));
        assert_eq!(shown(&long), r#"{"os":"linux"}"#);
        let deep = format!(r#"{{"os":"linux","config":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
        for nothing in ["", "{", r#"["amd64","me",{},null,"linux"]"#, &deep] {
            assert_eq!(shown(nothing), "{}", "{nothing:.40}");
        }
    }

    #[test]
    fn a_manifest_that_is_two_things_at_once_is_refused() {
        let both = image(r#","manifests":[]"#);
        assert!(read(both.as_bytes(), Some(OCI_MANIFEST)).is_err());
        assert!(read(both.as_bytes(), Some(OCI_INDEX)).is_err());
    }

    #[test]
    fn broken_manifests_are_refused_with_a_sentence() {
        let negative = image("").replace("\"size\":3", "\"size\":-3");
        let huge = image("").replace("\"size\":3", "\"size\":99999999999999999999999");
        let twice = image(r#","config":{"digest":"x","size":1}"#);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let many = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            vec![format!(r#"{{"digest":"{}","size":1}}"#, digest('c')); 1001].join(",")
        );
        let listed = format!(
            r#"[2,"{OCI_MANIFEST}",null,{{"digest":"{}","size":2}},[],null,null,null,null,null]"#,
            digest('a')
        );
        let notes: Vec<String> = (0..1_001).map(|n| format!("\"{n}\":\"\"")).collect();
        let noted = image(&format!(",\"annotations\":{{{}}}", notes.join(",")));
        for bad in [&listed, &noted] {
            assert_eq!(read(bad.as_bytes(), None).expect_err(bad).kind, Kind::Invalid(Thing::Manifest));
        }
        for bad in ["", "{}", "[]", "null", "{", "\u{0}", &negative, &huge, &twice, &deep, &many] {
            let error = read(bad.as_bytes(), None).expect_err(bad);
            assert_eq!(error.kind, Kind::Invalid(Thing::Manifest), "{bad:.80}");
        }
        let schema1 = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(read(schema1.as_bytes(), None).expect_err("schema 1").detail().contains("schema 1"));
        assert_eq!(
            read(&vec![b' '; MANIFEST_BYTES_MAX + 1], None).expect_err("too large").kind,
            Kind::TooLarge(Thing::Manifest)
        );
    }

    #[test]
    fn layers_that_live_elsewhere_need_not_be_here() {
        let foreign = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":2}},"layers":[
               {{"digest":"{}","size":3,"urls":["https://example.org/x"]}},
               {{"digest":"{}","size":3,"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar"}}]}}"#,
            digest('a'),
            digest('b'),
            digest('c')
        );
        assert_eq!(read(foreign.as_bytes(), None).expect("parses").blobs.len(), 1);
    }

    #[test]
    fn brackets_inside_strings_are_not_depth() {
        let text = image(&format!(r#","annotations":{{"a":"{}\"{}"}}"#, "[".repeat(100), "{".repeat(100)));
        assert!(read(text.as_bytes(), None).is_ok());
    }
}
