//! Repositories and tags as people see them: descriptions, privacy, stars, platforms.

use std::collections::HashMap;

use super::pages::{Listed, Slice, Wish};
use super::people::User;
use super::{Piece, Registry, repo_make, sql};
use crate::error::{Kind, Result, Thing};
use crate::manifest::{self, Platform};
use crate::names::{Digest, RepoName, Tag};

/// Longest descriptions, in bytes. A dialect may take less.
const DESCRIPTION_MAX: usize = 1_000;
const FULL_DESCRIPTION_MAX: usize = 100_000;
const LABELS_MAX: usize = 100;
const LABEL_MAX: usize = 100;
/// Most hits of a search. Each is compared with its row: 1.5 µs (x86).
pub(super) const FOUND_MAX: u32 = 500;
/// Longest text that is searched for.
const SEARCHED_BYTES_MAX: usize = 255;
/// Indexes longer than this, in bytes, are listed without their platforms. Real ones have
/// a few kilobytes, and a page shows a hundred.
const INDEX_BYTES_MAX: u64 = 256 << 10;
/// Most platforms that are shown of an index.
const PLATFORMS_MAX: usize = 100;

/// A repository with its sums, as one caller sees it.
#[derive(Debug, Clone)]
pub struct Repo {
    pub id: i64,
    pub uuid: String,
    /// The first component of its name, and the others.
    pub namespace: String,
    pub name: String,
    pub private: bool,
    /// False until the first push.
    pub pushed: bool,
    pub description: String,
    /// Lists leave it empty.
    pub full_description: String,
    pub labels: Vec<String>,
    /// The server knows all of them, other processes those that were written down.
    pub pulls: u64,
    /// Who pushed, announced or made it first. None: removed since, or somebody at the
    /// command line.
    pub created_by: Option<String>,
    pub created_us: i64,
    pub updated_us: i64,
    pub pushed_us: Option<i64>,
    pub stars: u64,
    /// By the caller.
    pub starred: bool,
    pub tags: u64,
    /// Those that lists show: without what only an index lists.
    pub images: u64,
    /// Blobs it holds; those it shares with others count here as well.
    pub blob_bytes: u64,
    /// Of what was pushed lately. Lists leave it empty.
    pub media_types: Vec<String>,
}

/// What is to be different about a repository.
#[derive(Debug, Clone, Default)]
pub struct RepoChange {
    pub description: Option<String>,
    pub full_description: Option<String>,
    pub private: Option<bool>,
    pub labels: Option<Vec<String>>,
}

impl RepoChange {
    pub(super) fn check(&self) -> Result<()> {
        let too_long = |text: &Option<String>, max| text.as_ref().is_some_and(|text| text.len() > max);
        let labels = self.labels.as_deref().unwrap_or_default();
        if too_long(&self.description, DESCRIPTION_MAX)
            || too_long(&self.full_description, FULL_DESCRIPTION_MAX)
        {
            return Err(Kind::Invalid(Thing::Request).because("the description is too long"));
        }
        if labels.len() > LABELS_MAX || labels.iter().any(|label| label.len() > LABEL_MAX) {
            return Err(Kind::Invalid(Thing::Request)
                .because("a repository has at most 100 labels of at most 100 bytes"));
        }
        Ok(())
    }
}

/// Who pushed something.
#[derive(Debug, Clone)]
pub struct Pusher {
    pub id: i64,
    pub name: String,
}

/// A tag with the image it points at.
#[derive(Debug, Clone)]
pub struct TagRow {
    pub id: i64,
    pub uuid: String,
    pub name: String,
    pub color: Option<String>,
    /// The repository's id.
    pub repo: i64,
    pub pushed_us: i64,
    pub pushed_by: Option<Pusher>,
    /// The image's ids.
    pub manifest: i64,
    pub image_uuid: String,
    pub digest: Digest,
    pub media_type: String,
    /// Of the manifest itself.
    pub bytes: u64,
    /// Of what it names; for an index, of what its images name as far as they are here.
    pub content_bytes: u64,
    pub config: Option<Digest>,
    /// False once its manifest was found damaged.
    pub live: bool,
    /// One for an image, one each for an index's images.
    pub platforms: Vec<PlatformRow>,
}

#[derive(Debug, Clone)]
pub struct PlatformRow {
    pub digest: Digest,
    pub platform: Platform,
    pub content_bytes: u64,
}

/// What names and descriptions are compared with. `Invalid` for a text with control characters:
/// SQLite would read up to a zero byte and no further.
pub(super) fn searched(text: &str) -> Result<String> {
    if text.len() > SEARCHED_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Kind::Invalid(Thing::Request)
            .because("what is searched for has at most 255 bytes and no control characters"));
    }
    Ok(text.to_ascii_lowercase())
}

impl Registry {
    /// Makes an empty repository. `Exists(Repo)` if there is one of that name.
    pub fn repo_create(&self, user: &User, name: &RepoName, change: RepoChange) -> Result<Repo> {
        change.check()?;
        let (id, to, private) = (user.id, name.clone(), self.options().private);
        self.db.write(move |write| {
            if sql::repo(write.tx, &to)?.is_some() {
                return Err(Kind::Exists(Thing::Repo).into());
            }
            let repo = repo_make(write, &to, change.private.unwrap_or(private), Some(id))?;
            sql::repo_change(write.tx, repo, &change, write.now_us)
        })?;
        self.repo_seen(Some(user), name)
    }

    /// Changes a repository, and makes it first if it is new: what the command line does.
    pub fn repo_set(&self, name: &RepoName, change: RepoChange) -> Result<()> {
        change.check()?;
        let (name, private) = (name.clone(), self.options().private);
        self.db.write(move |write| {
            let repo = repo_make(write, &name, private, None)?;
            sql::repo_change(write.tx, repo, &change, write.now_us)
        })
    }

    /// A repository as this caller sees it.
    pub fn repo_seen(&self, user: Option<&User>, name: &RepoName) -> Result<Repo> {
        let mut repo = self.db.read(|tx| {
            let key = sql::repo(tx, name)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::repo_seen(tx, key.id, id_of(user))
        })?;
        self.db.pulls.show([&mut repo]);
        Ok(repo)
    }

    /// Changes a repository, and returns it as it is then.
    pub fn repo_change(&self, user: &User, name: &RepoName, change: RepoChange) -> Result<Repo> {
        change.check()?;
        let to = name.clone();
        self.db.write(move |write| {
            let key = sql::repo(write.tx, &to)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::repo_change(write.tx, key.id, &change, write.now_us)
        })?;
        // Its sums are made where nobody waits for the writer.
        self.repo_seen(Some(user), name)
    }

    /// Repositories of a namespace that this caller may read. `NotFound` if there is no such
    /// namespace, and for one that belongs to nobody if there is nothing to see: its name may
    /// be a secret.
    pub fn repos_of(&self, user: Option<&User>, namespace: &str, wish: &Wish) -> Result<Listed<Repo>> {
        let user = id_of(user);
        self.db.read(|tx| {
            let missing = Kind::NotFound(Thing::Repo);
            let (id, owned) = sql::namespace(tx, namespace)?.ok_or(missing)?;
            let within = sql::within(tx, id, user)?;
            let all = sql::repos_count(tx, (id, namespace), within)?;
            if !owned && all == 0 && within != sql::Within::Whole {
                return Err(missing.into());
            }
            let mut listed = repos_listed(tx, (id, namespace), within, all, user, wish)?;
            self.db.pulls.show(&mut listed.rows);
            Ok(listed)
        })
    }

    /// Repositories that this caller may read whose names or descriptions hold `text`, by
    /// name; up to [`FOUND_MAX`] of them. `Invalid` for a text that nothing can hold.
    pub fn repos_found(&self, user: Option<&User>, text: &str, slice: Slice) -> Result<Listed<Repo>> {
        let (user, text) = (id_of(user), searched(text)?);
        self.db.read(|tx| {
            let names = sql::names_found(tx, &sql::sight(tx, user)?, &text, FOUND_MAX)?;
            let mut rows = sql::repos_by_name(tx, slice.of(&names), user)?;
            self.db.pulls.show(&mut rows);
            Ok(Listed::of(rows, names.len() as u64, slice))
        })
    }

    /// Stars a repository: the user's favourite.
    pub fn star(&self, user: &User, name: &RepoName) -> Result<()> {
        let (user, name) = (user.id, name.clone());
        self.db.write(move |write| {
            let key = sql::repo(write.tx, &name)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::star_set(write.tx, key.id, user, write.now_us)
        })
    }

    pub fn unstar(&self, user: &User, name: &RepoName) -> Result<()> {
        let (user, name) = (user.id, name.clone());
        self.db.write(move |write| {
            let key = sql::repo(write.tx, &name)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::star_unset(write.tx, key.id, user)
        })
    }

    /// A repository's tags with their images. Opens files.
    pub fn tag_rows(&self, repo: &RepoName, wish: &Wish) -> Result<Listed<TagRow>> {
        let (mut listed, configs) = self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let all = sql::tags_count(tx, key.id)?;
            let found = wish.find(all, 0, |walk, each| sql::tags_walk(tx, key.id, &walk, each))?;
            let mut configs = Configs::default();
            let mut rows = sql::tags_by_id(tx, &found.rows)?;
            for row in &mut rows {
                add_children(tx, row)?;
                configs.want(tx, row.repo, row.config.as_ref())?;
            }
            Ok((found.with(rows), configs))
        })?;
        let platforms = self.configs_read(configs, manifest::config_platform);
        listed.rows.iter_mut().for_each(|row| add_image(row, &platforms));
        Ok(listed)
    }

    /// One tag with its image. Opens a file.
    pub fn tag_row(&self, repo: &RepoName, tag: &Tag) -> Result<TagRow> {
        let (mut row, configs) = self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let mut row = sql::tag_row(tx, key.id, tag.as_str())?.ok_or(Kind::NotFound(Thing::Tag))?;
            add_children(tx, &mut row)?;
            let mut configs = Configs::default();
            configs.want(tx, row.repo, row.config.as_ref())?;
            Ok((row, configs))
        })?;
        add_image(&mut row, &self.configs_read(configs, manifest::config_platform));
        Ok(row)
    }

    /// The first 64 KiB of a config: all there is of any real one. Opens a file.
    pub(super) fn config(&self, repo: &RepoName, config: &Digest) -> Result<bytes::Bytes> {
        let blob = self.blob(repo, config)?;
        self.blob_piece(&blob, 0, blob.bytes(), Piece::Small)
    }

    /// What configs say, of the first 64 KiB of each: all there is of any real one. Those that
    /// cannot be read say nothing. Opens files, one after the other.
    pub(super) fn configs_read<T>(&self, configs: Configs, of: impl Fn(&[u8]) -> T) -> HashMap<Digest, T> {
        let read = |(digest, file): (Digest, Option<(u64, Vec<u8>)>)| {
            let (bytes, crcs) = file.filter(|(bytes, _)| *bytes > 0)?;
            let blob = self.blob_open(&digest, bytes, crcs).ok()?;
            let text = self.blob_piece(&blob, 0, bytes, Piece::Small).ok()?;
            Some((digest, of(&text)))
        };
        configs.0.into_iter().filter_map(read).collect()
    }
}

/// The configs of a page of images, each once, by what it takes to open their files.
#[derive(Default)]
pub(super) struct Configs(HashMap<Digest, Option<(u64, Vec<u8>)>>);

impl Configs {
    /// Adds one that a repository holds, if it has not been added.
    pub fn want(&mut self, tx: &rusqlite::Connection, repo: i64, config: Option<&Digest>) -> Result<()> {
        if let Some(config) = config
            && !self.0.contains_key(config)
        {
            self.0.insert(config.clone(), sql::blob_file(tx, repo, config)?);
        }
        Ok(())
    }
}

/// A page of a namespace's repositories.
pub(super) fn repos_listed(
    tx: &rusqlite::Connection,
    namespace: (i64, &str),
    within: sql::Within,
    all: u64,
    user: i64,
    wish: &Wish,
) -> Result<Listed<Repo>> {
    let from = namespace.1.len() + 1;
    let found = wish.find(all, from, |walk, each| sql::repos_walk(tx, namespace, within, &walk, each))?;
    let rows = sql::repos_by_id(tx, &found.rows, user)?;
    Ok(found.with(rows))
}

/// An image's platform, from its config; nothing is said where that could not be read.
fn add_image(row: &mut TagRow, platforms: &HashMap<Digest, Platform>) {
    let Some(config) = &row.config else { return };
    row.platforms = vec![PlatformRow {
        digest: row.digest.clone(),
        platform: platforms.get(config).cloned().unwrap_or_default(),
        content_bytes: row.content_bytes,
    }];
}

fn add_children(tx: &rusqlite::Connection, row: &mut TagRow) -> Result<()> {
    if row.config.is_none() {
        row.platforms = index_rows(tx, row.repo, row.manifest, row.bytes)?;
        let children = row.platforms.iter().map(|platform| platform.content_bytes);
        row.content_bytes = children.fold(row.content_bytes, u64::saturating_add);
    }
    Ok(())
}

/// An index's platforms, from its body of so many bytes; none for what is no index.
pub(super) fn index_rows(
    tx: &rusqlite::Connection,
    repo: i64,
    manifest: i64,
    bytes: u64,
) -> Result<Vec<PlatformRow>> {
    if bytes > INDEX_BYTES_MAX {
        return Ok(Vec::new());
    }
    let body = sql::manifest_body(tx, manifest)?;
    let children = manifest::index_platforms(&body).into_iter().take(PLATFORMS_MAX);
    let row = |(digest, platform)| {
        let content_bytes = sql::content_bytes(tx, repo, &digest)?.unwrap_or(0);
        Ok(PlatformRow { digest, platform, content_bytes })
    };
    children.map(row).collect()
}

/// No user has the id 0.
fn id_of(user: Option<&User>) -> i64 {
    user.map_or(0, |user| user.id)
}
