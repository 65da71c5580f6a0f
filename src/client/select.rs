//! What belongs to the images that somebody names: manifests fetched, blobs listed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::task::JoinSet;

use super::{Client, Endpoint, Fetched, ImageName, Remote, Wanted};
use crate::error::{Error, Kind, Result, Thing};
use crate::manifest::{self, Platform};
use crate::names::{Digest, Reference, RepoName, Tag};

/// Manifests asked for at a time.
const JOBS: usize = 6;
/// Most manifests of a selection, and most bytes of them: they stay in memory.
const MANIFESTS_MAX: usize = 20_000;
const MANIFEST_BYTES_MAX: usize = 64 << 20;
/// An index in an index, a signature of an SBOM of an image: nobody goes deeper.
const DEPTH_MAX: usize = 8;
/// Longest config that is read for its platform.
const CONFIG_MAX: usize = 4 << 20;
/// What cosign appends to the tags it keeps signatures, attestations and SBOMs under.
const COSIGN: [&str; 3] = ["sig", "att", "sbom"];

/// What to select, and where from.
pub struct Select {
    pub client: Arc<Client>,
    pub mirrors: Vec<Endpoint>,
    /// Registries that no scheme was named for are spoken to over TLS.
    pub https: bool,
    /// Of an index only these; all if there are none.
    pub platforms: Vec<Platform>,
    /// With signatures and SBOMs.
    pub referrers: bool,
}

/// Everything that belongs together.
#[derive(Default)]
pub struct Selection {
    pub tags: Vec<(RepoName, Tag, Digest)>,
    /// Children before their index, each once, with the repositories it is in.
    pub manifests: Vec<(Fetched, Vec<RepoName>)>,
    /// Configs before layers, in order of first use, each once, with the repositories it is in.
    pub blobs: Vec<(Wanted, Vec<RepoName>)>,
}

/// A repository: at mirrors, and at last itself.
#[derive(Clone)]
struct Place {
    repo: RepoName,
    remotes: Vec<Arc<Remote>>,
}

impl Place {
    async fn manifest(&self, reference: &Reference) -> Result<Option<Fetched>> {
        let mut outcome = Ok(None);
        for remote in &self.remotes {
            outcome = remote.manifest(reference).await;
            if let Ok(Some(_)) = outcome {
                break;
            }
        }
        outcome
    }

    /// The registry itself: mirrors know little of referrers.
    fn origin(&self) -> Result<&Arc<Remote>> {
        self.remotes.last().ok_or_else(|| Kind::Internal.into())
    }

    fn missing(&self, what: &dyn std::fmt::Display) -> Error {
        let at = self.remotes.last().map(ToString::to_string).unwrap_or_default();
        Kind::NotFound(Thing::Manifest).because(format!("{at} has no image {what}"))
    }
}

/// A walk from the images that were named to all that they need.
struct Walk<'a> {
    select: &'a Select,
    places: Vec<Place>,
    known: HashMap<Digest, Fetched>,
    bytes: usize,
    /// By place and digest, in the order in which they were come across.
    seen: HashSet<(usize, Digest)>,
    order: Vec<(usize, Digest)>,
    next: VecDeque<(usize, Digest)>,
}

impl Select {
    /// Fetches all manifests. Fails if an image is not there, or not for a platform that is wanted.
    pub async fn select(&self, names: &[ImageName]) -> Result<Selection> {
        let mut walk = Walk {
            select: self,
            places: Vec::new(),
            known: HashMap::new(),
            bytes: 0,
            seen: HashSet::new(),
            order: Vec::new(),
            next: VecDeque::new(),
        };
        let mut selection = Selection::default();
        for name in names {
            walk.name(name, &mut selection.tags).await?;
        }
        for _ in 0..DEPTH_MAX {
            if walk.next.is_empty() {
                walk.sort(&mut selection)?;
                return Ok(selection);
            }
            walk.level().await?;
        }
        Err(Kind::TooLarge(Thing::Manifest).because(format!("the images are nested deeper than {DEPTH_MAX}")))
    }

    fn place(&self, name: &ImageName) -> Result<Place> {
        let endpoint = Endpoint { host: name.host.clone(), https: self.https };
        let mut remotes = Vec::new();
        for mirror in &self.mirrors {
            remotes.push(self.client.mirror(mirror, &name.repo)?);
        }
        remotes.push(self.client.remote(&endpoint, &name.repo)?);
        Ok(Place { repo: name.repo.clone(), remotes })
    }
}

impl Walk<'_> {
    async fn name(&mut self, name: &ImageName, tags: &mut Vec<(RepoName, Tag, Digest)>) -> Result<()> {
        let place = self.select.place(name)?;
        let tag = name.tag.clone().map(Reference::Tag);
        let reference = name.digest.clone().map(Reference::Digest).or(tag).ok_or(Kind::Internal)?;
        let fetched =
            place.manifest(&reference).await?.ok_or_else(|| place.missing(&format!("{reference}")))?;
        self.check_platform(&place, &fetched).await?;
        let digest = fetched.digest.clone();
        let mut tag = |tag: Tag, digest: &Digest| {
            let row = (name.repo.clone(), tag, digest.clone());
            if !tags.contains(&row) {
                tags.push(row);
            }
        };
        if let Some(named) = &name.tag {
            tag(named.clone(), &digest);
        }
        let at = self.places.len();
        self.places.push(place);
        self.keep(fetched)?;
        self.come_across(at, digest.clone());
        if self.select.referrers {
            let place = self.places[at].clone();
            for kind in COSIGN {
                let cosigns = Tag::parse(&format!("{}.{kind}", digest.as_str().replacen(':', "-", 1)));
                // Of sha512 there is none: it would be too long for a tag.
                let Ok(cosigns) = cosigns else { continue };
                let reference = Reference::Tag(cosigns.clone());
                if place.origin()?.has_manifest(&reference).await?
                    && let Some(fetched) = place.manifest(&reference).await?
                {
                    tag(cosigns, &fetched.digest);
                    let digest = fetched.digest.clone();
                    self.keep(fetched)?;
                    self.come_across(at, digest);
                }
            }
        }
        Ok(())
    }

    /// An image that is not an index must itself be for a platform that is wanted.
    async fn check_platform(&self, place: &Place, fetched: &Fetched) -> Result<()> {
        let Some(config) = fetched.manifest.config.as_ref().filter(|_| !self.select.platforms.is_empty())
        else {
            return Ok(());
        };
        let sizes = manifest::blob_sizes(&fetched.bytes);
        let size = sizes.iter().find(|(digest, _)| digest == config).map_or(0, |(_, size)| *size);
        let remote = place.origin()?;
        let own = manifest::config_platform(&remote.small_blob(config, size, CONFIG_MAX).await?);
        // What is no image for a machine says nothing.
        if own.os.is_empty() || self.select.platforms.iter().any(|wanted| wanted.takes(&own)) {
            return Ok(());
        }
        Err(Kind::NotFound(Thing::Manifest).because(format!("{remote} is for {own} alone")))
    }

    fn keep(&mut self, fetched: Fetched) -> Result<()> {
        self.bytes += fetched.bytes.len();
        if self.known.len() >= MANIFESTS_MAX || self.bytes > MANIFEST_BYTES_MAX {
            return Err(Kind::TooLarge(Thing::Manifest).because(format!(
                "the images have more than {MANIFESTS_MAX} manifests, or more than 64 MiB of them; name fewer at a time"
            )));
        }
        self.known.insert(fetched.digest.clone(), fetched);
        Ok(())
    }

    fn come_across(&mut self, place: usize, digest: Digest) {
        if self.seen.insert((place, digest.clone())) {
            self.order.push((place, digest.clone()));
            self.next.push_back((place, digest));
        }
    }

    /// Goes one step further from everything that was come across.
    async fn level(&mut self) -> Result<()> {
        let level: Vec<(usize, Digest)> = self.next.drain(..).collect();
        for part in level.chunks(JOBS) {
            let mut jobs = JoinSet::new();
            for (at, digest) in part {
                let (at, digest, place) = (*at, digest.clone(), self.places[*at].clone());
                let (known, referrers) = (self.known.contains_key(&digest), self.select.referrers);
                jobs.spawn(async move {
                    let fetched = match known {
                        true => None,
                        false => {
                            let reference = Reference::Digest(digest.clone());
                            let fetched = place.manifest(&reference).await?;
                            Some(fetched.ok_or_else(|| place.missing(&digest))?)
                        }
                    };
                    let about = match referrers {
                        true => place.origin()?.referrers(&digest).await?,
                        false => Vec::new(),
                    };
                    Ok::<_, Error>((at, digest, fetched, about))
                });
            }
            let mut done = Vec::new();
            while let Some(job) = jobs.join_next().await {
                done.push(job.map_err(|error| Kind::Internal.from_cause(error))??);
            }
            // As they were asked for: the same selection is always the same bytes.
            done.sort_by_key(|(at, digest, ..)| part.iter().position(|row| (&row.0, &row.1) == (at, digest)));
            for (at, digest, fetched, about) in done {
                if let Some(fetched) = fetched
                    && !self.known.contains_key(&digest)
                {
                    self.keep(fetched)?;
                }
                for child in self.children(&digest)?.into_iter().chain(about) {
                    self.come_across(at, child);
                }
            }
        }
        Ok(())
    }

    /// The children of an index that are wanted.
    fn children(&self, digest: &Digest) -> Result<Vec<Digest>> {
        let Some(fetched) = self.known.get(digest) else { return Ok(Vec::new()) };
        let (all, wanted) = (&fetched.manifest.children, &self.select.platforms);
        if wanted.is_empty() || all.is_empty() {
            return Ok(all.clone());
        }
        let listed = manifest::index_platforms(&fetched.bytes);
        let fits = |platform: &Platform| wanted.iter().any(|wanted| wanted.takes(platform));
        let chosen: Vec<Digest> =
            listed.iter().filter(|(_, platform)| fits(platform)).map(|(digest, _)| digest.clone()).collect();
        // Lists of signatures and the like have no platforms at all.
        let named: Vec<String> = listed
            .iter()
            .filter(|(_, p)| !p.os.is_empty())
            .map(|(_, platform)| platform.to_string())
            .collect();
        // What buildkit attests of an image goes with it.
        let attested = manifest::index_attestations(&fetched.bytes);
        let attested = attested.into_iter().filter(|(_, about)| chosen.contains(about));
        let attested: Vec<Digest> = attested.map(|(attestation, _)| attestation).collect();
        match chosen.is_empty() {
            true if named.is_empty() => Ok(all.clone()),
            true => Err(Kind::NotFound(Thing::Manifest)
                .because(format!("{digest} is for other platforms: {}", named.join(", ")))),
            false => Ok([chosen, attested].concat()),
        }
    }

    /// Brings it all into the order of a bundle.
    fn sort(mut self, selection: &mut Selection) -> Result<()> {
        let mut repos: HashMap<Digest, Vec<RepoName>> = HashMap::new();
        let (mut configs, mut layers) = (Vec::new(), Vec::new());
        let mut blobs: HashMap<Digest, (Wanted, Vec<RepoName>)> = HashMap::new();
        let order = std::mem::take(&mut self.order);
        for (at, digest) in &order {
            let place = &self.places[*at];
            add(repos.entry(digest.clone()).or_default(), &place.repo);
            let Some(fetched) = self.known.get(digest) else { continue };
            for (blob, size) in manifest::blob_sizes(&fetched.bytes) {
                if !fetched.manifest.blobs.contains(&blob) {
                    continue;
                }
                let (_, in_repos) = blobs.entry(blob.clone()).or_insert_with(|| {
                    let is_config = fetched.manifest.config.as_ref() == Some(&blob);
                    if is_config {
                        configs.push(blob.clone())
                    } else {
                        layers.push(blob.clone())
                    }
                    (Wanted { digest: blob, size, from: place.remotes.clone() }, Vec::new())
                });
                add(in_repos, &place.repo);
            }
        }
        selection.blobs = configs.iter().chain(&layers).filter_map(|digest| blobs.remove(digest)).collect();
        // Depth first; what is in hand is on the path, and an index cannot list itself.
        let mut path: Vec<(Digest, bool)> =
            order.iter().rev().map(|(_, digest)| (digest.clone(), false)).collect();
        while let Some((digest, children_done)) = path.pop() {
            let Some(fetched) = self.known.get(&digest) else { continue };
            if children_done || fetched.manifest.children.is_empty() {
                if let Some(fetched) = self.known.remove(&digest) {
                    selection.manifests.push((fetched, repos.remove(&digest).unwrap_or_default()));
                }
                continue;
            }
            let children = fetched.manifest.children.clone();
            path.push((digest, true));
            path.extend(children.into_iter().rev().map(|child| (child, false)));
        }
        Ok(())
    }
}

fn add(repos: &mut Vec<RepoName>, repo: &RepoName) {
    if !repos.contains(repo) {
        repos.push(repo.clone());
    }
}
