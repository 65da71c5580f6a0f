//! Images on their way out: what belongs to those that somebody names, and its bytes as one
//! stream. Every byte is checked as for a pull, and a pull is not counted.

use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::gc::{CollectionLock, lock_collection};
use super::{BlobReader, Piece, Registry, sql};
use crate::bundle::{BlobLine, Contents, Held, Inventory, LINES_MAX, Layout, ManifestLine, Part, TagLine};
use crate::error::{Error, Kind, Result, Thing};
use crate::manifest::{self, Platform};
use crate::names::{Digest, Reference, RepoName, Tag};

/// An index in an index, a signature of an SBOM of an image: nobody goes deeper.
const DEPTH_MAX: u32 = 8;
/// Names looked up at once.
const PAGE: u32 = 500;
/// Longest pattern, in bytes: a repository's name and a digest.
const PATTERN_MAX: usize = 512;
/// How long a collection that is at work is waited for, and how often it is looked.
const COLLECTION_TRIES: u32 = 100;
const COLLECTION_WAIT: Duration = Duration::from_millis(100);
/// Leases of what an export still needs are taken again after so many seconds: well within the
/// hour that a collection leaves what somebody was told of.
const LEASE_SECS: i64 = 300;
/// What cosign appends to the tags it keeps signatures, attestations and SBOMs under; the tag
/// without any is the specification's own for referrers (distribution 1.1, "Referrers Tag Schema").
const ABOUT: [&str; 4] = ["", ".sig", ".att", ".sbom"];

/// Images by name: `REPO`, all its tags as `docker save` takes them; `REPO:TAG`; `REPO@DIGEST`. In
/// REPO and TAG `*` stands for any letters, `/` among them, and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePattern {
    text: String,
    repo: Names<RepoName>,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Names<T> {
    One(T),
    Like(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Tags(Names<Tag>),
    Digest(Digest),
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?'])
}

impl ImagePattern {
    pub fn parse(text: &str) -> Result<ImagePattern> {
        if text.len() > PATTERN_MAX {
            return Err(
                Kind::Invalid(Thing::Request).because("the name of images has at most 512 characters")
            );
        }
        let (repo, what) = match (text.split_once('@'), text.split_once(':')) {
            (Some((repo, digest)), _) => (repo, What::Digest(Digest::parse(digest)?)),
            (_, Some((repo, tag))) if is_glob(tag) => (repo, What::Tags(Names::Like(tag.to_owned()))),
            (_, Some((repo, tag))) => (repo, What::Tags(Names::One(Tag::parse(tag)?))),
            _ => (text, What::Tags(Names::Like("*".to_owned()))),
        };
        let repo = match is_glob(repo) {
            true => Names::Like(repo.to_owned()),
            false => Names::One(RepoName::parse(repo)?),
        };
        Ok(ImagePattern { text: text.to_owned(), repo, what })
    }

    /// The one repository it is about; None for those that match.
    pub fn repo(&self) -> Option<&RepoName> {
        match &self.repo {
            Names::One(repo) => Some(repo),
            Names::Like(_) => None,
        }
    }

    fn takes_repo(&self, repo: &RepoName) -> bool {
        match &self.repo {
            Names::One(one) => one == repo,
            // `nginx*` means what `nginx` means.
            Names::Like(pattern) => {
                let bare = repo.full().strip_prefix("library/");
                is_like(pattern, repo.full()) || bare.is_some_and(|bare| is_like(pattern, bare))
            }
        }
    }
}

/// Whether a text has the shape of a pattern of `*` and `?`. Looks back at one star at most, so
/// no pattern takes long.
fn is_like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What of the images is wanted.
#[derive(Debug, Clone, Default)]
pub struct Choose {
    /// Of an index only these; all if there are none. The index stays as it is, and lacks the others.
    pub platforms: Vec<Platform>,
    /// With signatures, SBOMs and whatever else is about them.
    pub referrers: bool,
}

/// A stream on its way.
pub struct Export {
    layout: Layout,
    /// The part that comes next, and how much of it is out.
    at: usize,
    done: u64,
    blob: Option<BlobReader>,
    /// Other processes are not told of leases: no collection runs meanwhile.
    stays: Option<CollectionLock>,
    /// When leases were taken last, in service seconds.
    leased_secs: Option<i64>,
}

impl Export {
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// That what is there stays while a process chooses and exports it.
pub struct Stays(CollectionLock);

impl Registry {
    /// Keeps collections away, and waits ten seconds for one that is at work. For a process
    /// of its own; in the server, what is chosen is leased.
    pub fn stays(&self) -> Result<Stays> {
        for _ in 1..COLLECTION_TRIES {
            match lock_collection(&self.dir, true) {
                Err(error) if error.kind == Kind::Unavailable => std::thread::sleep(COLLECTION_WAIT),
                locked => return locked.map(Stays),
            }
        }
        lock_collection(&self.dir, true).map(Stays)
    }

    /// All that belongs to these images, in the repositories that `may` says yes to.
    ///
    /// Fails with `NotFound`, naming it, where a name matches nothing, an image is damaged or
    /// incomplete, or one that was named is for other platforms. Blocks: reads every manifest.
    pub fn choose(
        &self,
        images: &[ImagePattern],
        choose: &Choose,
        may: &dyn Fn(&RepoName) -> Result<bool>,
    ) -> Result<Contents> {
        let mut walk = Walk::new(self, choose);
        for pattern in images {
            let mut found = false;
            match pattern.repo() {
                Some(repo) => found = may(repo)? && walk.repo(repo, pattern)?,
                None => {
                    let mut last = String::new();
                    loop {
                        let names = self.db.read(|tx| sql::repo_names(tx, &last, PAGE))?;
                        let Some(name) = names.last() else { break };
                        last.clone_from(name);
                        for name in &names {
                            let repo = RepoName::parse(name)?;
                            if pattern.takes_repo(&repo) && may(&repo)? {
                                found |= walk.repo(&repo, pattern)?;
                            }
                        }
                    }
                }
            }
            if !found {
                let more = if choose.platforms.is_empty() { "" } else { " for these platforms" };
                return Err(Kind::NotFound(Thing::Manifest)
                    .because(format!("there is no image {}{more}", pattern.text)));
            }
        }
        Ok(walk.contents())
    }

    /// Every blob in service.
    pub fn inventory(&self) -> Result<Inventory> {
        let mut last = 0;
        Inventory::of_pages(|| {
            let page = self.db.read(|tx| sql::blobs_after(tx, last, PAGE))?;
            last = page.last().map_or(last, |(id, ..)| *id);
            Ok(page.into_iter().map(|(_, digest, _)| digest).collect())
        })
    }

    /// Begins a stream.
    pub fn export(&self, layout: Layout, stays: Option<Stays>) -> Export {
        Export { layout, at: 0, done: 0, blob: None, stays: stays.map(|stays| stays.0), leased_secs: None }
    }

    /// The next bytes of a stream, at most a piece; none at its end. Blocks.
    ///
    /// Fails with `NotFound`, naming it, for what is damaged: that is out of service then. The
    /// stream is of no use after a failure.
    pub fn export_piece(&self, export: &mut Export, size: Piece) -> Result<Option<Bytes>> {
        if export.stays.is_none() {
            self.lease_rest(export)?;
        }
        let document = &export.layout.document;
        let Some(part) = export.layout.parts.get(export.at) else { return Ok(None) };
        let (bytes, all) = match part {
            Part::Known(known) => {
                let from = usize::try_from(export.done).unwrap_or(known.len());
                let to = known.len().min(from + size.bytes());
                (Bytes::copy_from_slice(&known[from..to]), known.len() as u64)
            }
            Part::Manifest(at) => {
                let line = &document.manifests[*at];
                let repo = first_repo(&line.repos)?;
                let reference = Reference::Digest(line.digest.clone());
                let (_, body) = self
                    .manifest_uncounted(repo, &reference)
                    .map_err(|e| lost("image", repo, &line.digest, e))?;
                (body.into(), line.size)
            }
            Part::Blob(at) => {
                let line = &document.blobs[*at];
                let repo = first_repo(&line.repos)?;
                let named = |error| lost("blob", repo, &line.digest, error);
                let blob = match export.blob.take() {
                    Some(blob) => blob,
                    None => self.blob(repo, &line.digest).map_err(named)?,
                };
                let piece = self.blob_piece(&blob, export.done, line.size, size).map_err(named)?;
                export.blob = Some(blob);
                (piece, line.size)
            }
        };
        export.done += bytes.len() as u64;
        if export.done >= all {
            (export.at, export.done, export.blob) = (export.at + 1, 0, None);
        }
        Ok(Some(bytes))
    }
}

impl Registry {
    /// Keeps collections from the blobs that are still to come: an export to somebody who reads
    /// slowly outlasts leases, and its images may be deleted meanwhile.
    fn lease_rest(&self, export: &mut Export) -> Result<()> {
        let now_secs = self.db.service_secs();
        if export.leased_secs.is_some_and(|leased| now_secs - leased < LEASE_SECS) {
            return Ok(());
        }
        export.leased_secs = Some(now_secs);
        for part in &export.layout.parts[export.at..] {
            if let Part::Blob(at) = part {
                let line = &export.layout.document.blobs[*at];
                let repo = first_repo(&line.repos)?;
                self.lease(repo, &line.digest).map_err(|error| lost("blob", repo, &line.digest, error))?;
            }
        }
        Ok(())
    }
}

fn first_repo(repos: &[RepoName]) -> Result<&RepoName> {
    repos.first().ok_or_else(|| Kind::Internal.from_cause("a line of a bundle names no repository"))
}

/// What is to be done about something that cannot be read.
fn lost(what: &str, repo: &RepoName, digest: &Digest, error: Error) -> Error {
    match error.kind {
        Kind::NotFound(_) => {
            let text = format!(
                "the {what} {digest} of {repo} is damaged, or was deleted just now; push it again, then export again"
            );
            error.kind.because(text)
        }
        _ => error,
    }
}

/// A walk from the images that were named to all that they need.
struct Walk<'a> {
    registry: &'a Registry,
    choose: &'a Choose,
    tags: HashSet<(String, String)>,
    tag_lines: Vec<TagLine>,
    manifests: Vec<Held>,
    manifest_at: HashMap<Digest, usize>,
    configs: Vec<BlobLine>,
    layers: Vec<BlobLine>,
    /// Where a blob's line is: among the configs, and at which place.
    blob_at: HashMap<Digest, (bool, usize)>,
    /// What was walked: a repository and a digest.
    done: HashSet<(String, Digest)>,
}

impl<'a> Walk<'a> {
    fn new(registry: &'a Registry, choose: &'a Choose) -> Walk<'a> {
        Walk {
            registry,
            choose,
            tags: HashSet::new(),
            tag_lines: Vec::new(),
            manifests: Vec::new(),
            manifest_at: HashMap::new(),
            configs: Vec::new(),
            layers: Vec::new(),
            blob_at: HashMap::new(),
            done: HashSet::new(),
        }
    }

    fn contents(mut self) -> Contents {
        self.tag_lines.sort_by(|one, other| {
            (one.repo.full(), one.tag.as_str()).cmp(&(other.repo.full(), other.tag.as_str()))
        });
        self.configs.append(&mut self.layers);
        Contents { tags: self.tag_lines, manifests: self.manifests, blobs: self.configs }
    }

    /// The images of one repository that a name means. False if there are none.
    fn repo(&mut self, repo: &RepoName, pattern: &ImagePattern) -> Result<bool> {
        let tags = match &pattern.what {
            What::Digest(digest) => {
                let row = self.registry.manifest_stat(repo, &Reference::Digest(digest.clone()));
                return match row {
                    Ok(_) => self.root(repo, None, digest, pattern.repo().is_some()),
                    Err(error) if matches!(error.kind, Kind::NotFound(_)) => Ok(false),
                    Err(error) => Err(error),
                };
            }
            What::Tags(Names::One(tag)) => return self.tag(repo, tag, pattern.repo().is_some()),
            What::Tags(Names::Like(tags)) => tags,
        };
        let (mut found, mut last) = (false, String::new());
        loop {
            let page = match self.registry.tags(repo, &last, PAGE) {
                Err(error) if error.kind == Kind::NotFound(Thing::Repo) => return Ok(false),
                page => page?,
            };
            for name in page.names.iter().filter(|name| is_like(tags, name)) {
                // What lies under such a tag comes with the image it is about, or not at all.
                if self.choose.referrers || !is_about(name) {
                    found |= self.tag(repo, &Tag::parse(name)?, false)?;
                }
            }
            match page.names.last() {
                Some(name) if page.more => last.clone_from(name),
                _ => return Ok(found),
            }
        }
    }

    fn tag(&mut self, repo: &RepoName, tag: &Tag, by_name: bool) -> Result<bool> {
        match self.registry.manifest_stat(repo, &Reference::Tag(tag.clone())) {
            Ok(row) => self.root(repo, Some(tag), &row.digest, by_name),
            // A tag's image is there: if it is not answered, it is damaged.
            Err(error) if matches!(error.kind, Kind::NotFound(_)) => match by_name {
                true => Ok(false),
                false => Err(error
                    .kind
                    .because(format!("the image {repo}:{tag} is damaged; push it again, then export again"))),
            },
            Err(error) => Err(error),
        }
    }

    /// An image that was named, or matches. False if it is for other platforms; one that was
    /// named by itself then fails.
    fn root(&mut self, repo: &RepoName, tag: Option<&Tag>, digest: &Digest, by_name: bool) -> Result<bool> {
        if !self.manifest(repo, digest, false, 0)? {
            return match by_name {
                true => Err(Kind::NotFound(Thing::Manifest).because(format!(
                    "{repo}@{digest} is for other platforms; `outport image show` says for which"
                ))),
                false => Ok(false),
            };
        }
        if let Some(tag) = tag
            && self.tags.insert((repo.full().to_owned(), tag.as_str().to_owned()))
        {
            self.check_lines(self.tag_lines.len())?;
            self.tag_lines.push(TagLine { repo: repo.clone(), tag: tag.clone(), digest: digest.clone() });
        }
        Ok(true)
    }

    /// A manifest after all that it lists, then what is about it. False if it is for other
    /// platforms than those that are wanted.
    fn manifest(&mut self, repo: &RepoName, digest: &Digest, attests: bool, depth: u32) -> Result<bool> {
        if self.done.contains(&(repo.full().to_owned(), digest.clone())) {
            return Ok(true);
        }
        if depth > DEPTH_MAX {
            return Err(Kind::TooLarge(Thing::Manifest)
                .because(format!("what belongs to {repo} is nested deeper than {DEPTH_MAX}")));
        }
        let (row, body) = self
            .registry
            .manifest_uncounted(repo, &Reference::Digest(digest.clone()))
            .map_err(|error| lost("image", repo, digest, error))?;
        let named = manifest::read(&body, Some(&row.media_type))?;
        // What a manifest is about may be listed by it, and comes once.
        self.done.insert((repo.full().to_owned(), digest.clone()));
        let Some(children) = self.children(repo, &named, &body)? else {
            self.done.remove(&(repo.full().to_owned(), digest.clone()));
            return Ok(false);
        };
        let layers = manifest::blob_sizes(&body).into_iter().map(|(blob, _)| blob);
        // The config comes first.
        let layers: Vec<Digest> = layers.skip(usize::from(named.config.is_some())).collect();
        drop(body);
        for (child, attests) in children {
            match self.registry.manifest_stat(repo, &Reference::Digest(child.clone())) {
                Ok(_) => self.manifest(repo, &child, attests, depth + 1).map(|_| ())?,
                // An index may lack what it lists: for a platform that nobody has here.
                Err(error) if matches!(error.kind, Kind::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        for blob in &named.blobs {
            self.blob(repo, digest, blob, named.config.as_ref() == Some(blob))?;
        }
        match self.manifest_at.get(digest) {
            Some(at) => add(&mut self.manifests[*at].line.repos, repo),
            None => {
                self.check_lines(self.manifests.len())?;
                self.manifest_at.insert(digest.clone(), self.manifests.len());
                let (media_type, repos) = (row.media_type, vec![repo.clone()]);
                let line = ManifestLine { digest: digest.clone(), size: row.bytes, media_type, repos };
                self.manifests.push(Held { line, named, layers, attests });
            }
        }
        if self.choose.referrers {
            self.about(repo, digest, depth)?;
        }
        Ok(true)
    }

    /// What of an index is wanted, and whether it attests. None if that is nothing, or if
    /// an image is for another platform.
    fn children(
        &self,
        repo: &RepoName,
        named: &manifest::Manifest,
        body: &[u8],
    ) -> Result<Option<Vec<(Digest, bool)>>> {
        let wanted = &self.choose.platforms;
        let fits = |platform: &Platform| wanted.iter().any(|wanted| wanted.takes(platform));
        if let Some(config) = &named.config
            && named.subject.is_none()
            && !wanted.is_empty()
        {
            let own =
                self.registry.config(repo, config).map_err(|error| lost("blob", repo, config, error))?;
            let own = manifest::config_platform(&own);
            // What is no image for a machine says nothing.
            let known = !own.os.is_empty() && own.os != "unknown";
            return Ok((!known || fits(&own)).then(Vec::new));
        }
        let about: HashMap<Digest, Digest> = manifest::index_attestations(body).into_iter().collect();
        let all = || named.children.iter().map(|child| (child.clone(), about.contains_key(child)));
        let platforms = manifest::index_platforms(body);
        if wanted.is_empty() || platforms.iter().all(|(_, platform)| platform.os.is_empty()) {
            // Lists of signatures and the like have no platforms at all.
            return Ok(Some(all().collect()));
        }
        let chosen: HashSet<&Digest> =
            platforms.iter().filter(|(_, platform)| fits(platform)).map(|(digest, _)| digest).collect();
        let is_wanted = |(child, attests): &(Digest, bool)| match attests {
            true => self.choose.referrers && about.get(child).is_some_and(|image| chosen.contains(image)),
            false => chosen.contains(child),
        };
        let children: Vec<_> = all().filter(is_wanted).collect();
        Ok((!children.is_empty()).then_some(children))
    }

    fn blob(&mut self, repo: &RepoName, image: &Digest, digest: &Digest, is_config: bool) -> Result<()> {
        if let Some((is_config, at)) = self.blob_at.get(digest) {
            let line = if *is_config { &mut self.configs[*at] } else { &mut self.layers[*at] };
            add(&mut line.repos, repo);
            return Ok(());
        }
        self.check_lines(self.blob_at.len())?;
        let size = self.registry.blob_stat(repo, digest).map_err(|error| match error.kind {
            Kind::NotFound(_) => error.kind.because(format!(
                "the image {repo}@{image} lacks its blob {digest}, which is damaged or missing; push the image again"
            )),
            _ => error,
        })?;
        let lines = if is_config { &mut self.configs } else { &mut self.layers };
        self.blob_at.insert(digest.clone(), (is_config, lines.len()));
        lines.push(BlobLine { digest: digest.clone(), size, repos: vec![repo.clone()] });
        Ok(())
    }

    /// Signatures, SBOMs and the like, as the specification finds them and by the tags of older tools.
    fn about(&mut self, repo: &RepoName, digest: &Digest, depth: u32) -> Result<()> {
        let mut last = String::new();
        loop {
            let page = self.registry.referrers(repo, digest, None, &last, PAGE)?;
            let found: Vec<Digest> = page.referrers.into_iter().map(|row| row.digest).collect();
            for referrer in &found {
                self.manifest(repo, referrer, false, depth + 1)?;
            }
            match found.last() {
                Some(referrer) if page.more => referrer.as_str().clone_into(&mut last),
                _ => break,
            }
        }
        for kind in ABOUT {
            // Of sha512 there is none: it would be too long for a tag.
            let Ok(tag) = Tag::parse(&format!("{}{kind}", digest.as_str().replacen(':', "-", 1))) else {
                continue;
            };
            match self.registry.manifest_stat(repo, &Reference::Tag(tag.clone())) {
                Ok(row) if self.manifest(repo, &row.digest, false, depth + 1)? => {
                    self.root(repo, Some(&tag), &row.digest, false)?;
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind, Kind::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Refuses what no document holds before it is in memory.
    fn check_lines(&self, len: usize) -> Result<()> {
        match len < LINES_MAX {
            true => Ok(()),
            false => Err(Kind::TooLarge(Thing::Request).because(format!(
                "these are more than {LINES_MAX} images, tags or blobs; export fewer at a time"
            ))),
        }
    }
}

fn add(repos: &mut Vec<RepoName>, repo: &RepoName) {
    if !repos.contains(repo) {
        repos.push(repo.clone());
    }
}

/// Whether a tag is one under which tools keep what is about an image.
fn is_about(tag: &str) -> bool {
    ABOUT.iter().any(|kind| {
        let digest = tag.strip_suffix(kind).and_then(|tag| tag.strip_prefix("sha256-"));
        digest.is_some_and(|hex| Digest::parse(&format!("sha256:{hex}")).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_what_they_mean() {
        let takes = |pattern: &str, repo: &str| {
            let pattern = ImagePattern::parse(pattern).expect(pattern);
            pattern.takes_repo(&RepoName::parse(repo).expect(repo))
        };
        for (pattern, repo) in [
            ("acme/app", "acme/app"),
            ("acme/*", "acme/app"),
            ("acme/*", "acme/a/b"),
            ("*", "nginx"),
            ("ngin?", "nginx"),
            ("library/ng*x", "nginx"),
            ("nginx:1.*", "nginx"),
            ("*/app:1", "acme/app"),
        ] {
            assert!(takes(pattern, repo), "{pattern} {repo}");
        }
        for (pattern, repo) in [("acme/*", "acmeo/app"), ("acme/app?", "acme/app"), ("nginx", "acme/nginx")] {
            assert!(!takes(pattern, repo), "{pattern} {repo}");
        }
        for bad in ["", "acme/app:", "Acme/app", "acme/app@sha256:1", "a:b:c", &"*".repeat(513)] {
            assert!(ImagePattern::parse(bad).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_quick() {
        assert!(!is_like(&"*a".repeat(250), &"a".repeat(249)));
        assert!(is_like(&"*a".repeat(250), &"a".repeat(250)));
        assert!(is_like("a**b?c*", "axxbyc") && is_like("", "") && !is_like("", "a") && is_like("*", ""));
    }

    #[test]
    fn tags_that_are_about_images_are_told_from_others() {
        let hex = "a".repeat(64);
        assert!(is_about(&format!("sha256-{hex}")) && is_about(&format!("sha256-{hex}.sig")));
        assert!(!is_about("1.0") && !is_about("sha256-abc") && !is_about(&format!("sha256-{hex}.x")));
    }
}
