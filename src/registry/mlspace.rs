//! What ML Space's API needs beside the rest: things by UUID, workspaces, and generated
//! passwords.

use std::collections::HashMap;

use super::catalog::repo_bury;
use super::grants::Pattern;
use super::pages::{Listed, Mark, Order, Slice, Walk, Wish};
use super::people::User;
use super::repos::{Configs, PlatformRow, Repo, RepoChange, index_rows, repos_listed};
use super::tokens::{TokenScope, hash, mint};
use super::{Access, Registry, sql};
use crate::error::{Kind, Result, Thing};
use crate::manifest::{ConfigFacts, config_facts};
use crate::names::{Digest, RepoName, Tag, Uuid};

/// What every generated password begins with.
pub const GENERATED_PREFIX: &str = "mlspace_";
/// Tags that are shown with an image or a repository, by name; longer lists have pages.
const TAGS_SHOWN: u32 = 100;

/// A namespace, as ML Space calls it.
#[derive(Debug, Clone)]
pub struct Workspace {
    pub(super) id: i64,
    pub uuid: String,
    pub name: String,
    pub created_us: i64,
}

/// One manifest in one repository, with its tags.
#[derive(Debug)]
pub struct Image {
    pub(super) id: i64,
    pub(super) repo_id: i64,
    pub uuid: String,
    /// The repository's full name.
    pub repo: String,
    pub repo_uuid: String,
    pub digest: Digest,
    /// Of the manifest itself.
    pub(super) bytes: u64,
    /// Of what it names; for an index, of what its images name as far as they are here.
    pub content_bytes: u64,
    pub pushed_us: i64,
    pub(super) config: Option<Digest>,
    /// The first hundred, by name.
    pub tags: Vec<ImageTag>,
    pub about: About,
}

impl Image {
    /// Takes over what its config says; nothing where that could not be read.
    fn tell(&mut self, facts: &HashMap<Digest, ConfigFacts>) {
        if let Some(config) = &self.config {
            self.about = About::Config(facts.get(config).cloned().unwrap_or_default());
        }
    }
}

/// What an image says of itself.
#[derive(Debug)]
pub enum About {
    Config(ConfigFacts),
    /// An index: what it lists.
    Platforms(Vec<PlatformRow>),
}

/// A tag, with what names its image and its repository.
#[derive(Debug)]
pub struct ImageTag {
    pub uuid: String,
    pub name: String,
    pub color: Option<String>,
    pub pushed_us: i64,
    pub image_uuid: String,
    pub repo_uuid: String,
    /// The repository's full name.
    pub repo: String,
    /// Its image has a signature: cosign's tag beside it, or a manifest of cosign or
    /// notation that refers to it. Nobody has verified it.
    pub signed: bool,
}

/// A repository as one caller sees it, with its images.
#[derive(Debug)]
pub struct RepoCard {
    pub repo: Repo,
    /// The namespace's UUID.
    pub registry: String,
    pub recent: Option<Image>,
    /// The first hundred, by name.
    pub tags: Vec<ImageTag>,
}

/// What is to be different about a repository. Labels are added first, then taken away.
#[derive(Debug)]
pub struct Relabel {
    pub description: Option<String>,
    pub add: Vec<String>,
    pub remove: Vec<String>,
}

impl Registry {
    // workspace ---------------------------------------------------------------

    /// A namespace by its UUID, for a caller who may know of it: one that belongs to nobody
    /// and holds nothing they may read is not there, for its name may be a secret.
    pub fn workspace(&self, user: Option<&User>, uuid: &Uuid) -> Result<Option<Workspace>> {
        let user = user.map_or(0, |user| user.id);
        self.db.read(|tx| {
            let Some((found, owned)) = sql::workspace(tx, uuid.as_str())? else { return Ok(None) };
            let may_know = owned || sql::workspace_shows(tx, found.id, user)?;
            Ok(may_know.then_some(found))
        })
    }

    /// The user's own.
    pub fn workspace_of(&self, user: &User) -> Result<Option<Workspace>> {
        self.db.read(|tx| sql::workspace_named(tx, &user.name))
    }

    /// How many repositories of a workspace a caller may read, and when one of them changed
    /// last; `scope` is the most their token reaches.
    pub fn workspace_sums(
        &self,
        user: &User,
        workspace: &Workspace,
        scope: Option<&TokenScope>,
    ) -> Result<(u64, Option<i64>)> {
        match self.reach(user, workspace, scope)? {
            Reach::Whole => self.db.read(|tx| {
                let namespace = (workspace.id, workspace.name.as_str());
                let within = sql::within(tx, workspace.id, user.id)?;
                let newest = Walk { order: Order::Newest, after: None, skip: 0, take: 1 };
                let mut updated_us = None;
                sql::repos_walk(tx, namespace, within, &newest, &mut |step| {
                    updated_us = Some(step.us);
                    false
                })?;
                Ok((sql::repos_count(tx, namespace, within)?, updated_us))
            }),
            Reach::One(name) => Ok((1, Some(self.repo_seen(Some(user), &name)?.updated_us))),
            Reach::Nothing => Ok((0, None)),
        }
    }

    /// The repositories of a workspace that a caller may read, by name; `scope` is the most
    /// their token reaches. Opens files.
    pub fn repo_cards(
        &self,
        user: &User,
        workspace: &Workspace,
        scope: Option<&TokenScope>,
        slice: Slice,
        after: Option<Mark>,
    ) -> Result<Listed<RepoCard>> {
        let wish = Wish::by_name(slice, after);
        let reach = self.reach(user, workspace, scope)?;
        let (mut listed, configs) = self.db.read(|tx| {
            let mut configs = Configs::default();
            let repos = match reach {
                Reach::Whole => {
                    let namespace = (workspace.id, workspace.name.as_str());
                    let within = sql::within(tx, workspace.id, user.id)?;
                    let all = sql::repos_count(tx, namespace, within)?;
                    repos_listed(tx, namespace, within, all, user.id, &wish)?
                }
                Reach::One(name) if wish.slice.skip == 0 => {
                    let found: Vec<i64> = sql::repo(tx, &name)?.iter().map(|key| key.id).collect();
                    Listed::of(sql::repos_by_id(tx, &found, user.id)?, 1, wish.slice)
                }
                Reach::One(_) | Reach::Nothing => Listed::of(Vec::new(), 0, wish.slice),
            };
            let (count, next) = (repos.count, repos.next);
            let card = |repo| card(tx, repo, &workspace.uuid, &mut configs);
            let rows = repos.rows.into_iter().map(card).collect::<Result<_>>()?;
            Ok((Listed { rows, count, next }, configs))
        })?;
        let facts = self.configs_read(configs, config_facts);
        listed.rows.iter_mut().filter_map(|card| card.recent.as_mut()).for_each(|image| image.tell(&facts));
        Ok(listed)
    }

    /// How much of a workspace a token reaches.
    fn reach(&self, user: &User, workspace: &Workspace, scope: Option<&TokenScope>) -> Result<Reach> {
        let Some(scope) = scope else { return Ok(Reach::Whole) };
        Ok(match Pattern::parse(&scope.pattern)? {
            Pattern::All => Reach::Whole,
            Pattern::Namespace(name) if name == workspace.name => Reach::Whole,
            Pattern::Repo(name)
                if name.namespace() == workspace.name
                    && self.may(Some(user), Access::Pull, &name)?
                    && self.db.read(|tx| sql::repo(tx, &name))?.is_some() =>
            {
                Reach::One(name)
            }
            Pattern::Namespace(_) | Pattern::Repo(_) => Reach::Nothing,
        })
    }

    // repository --------------------------------------------------------------

    /// A repository's name, which its UUID keeps for good.
    pub fn repo_by_uuid(&self, uuid: &Uuid) -> Result<RepoName> {
        self.db.read(|tx| Ok(sql::repo_by_uuid(tx, uuid.as_str())?.ok_or(Kind::NotFound(Thing::Repo))?.1))
    }

    /// A repository as this caller sees it. Opens a file.
    pub fn repo_card(&self, user: &User, uuid: &Uuid) -> Result<RepoCard> {
        let missing = Kind::NotFound(Thing::Repo);
        let (mut found, configs) = self.db.read(|tx| {
            let (id, name) = sql::repo_by_uuid(tx, uuid.as_str())?.ok_or(missing)?;
            let workspace = sql::workspace_named(tx, name.namespace())?.ok_or(missing)?;
            let mut configs = Configs::default();
            let repo = sql::repos_by_id(tx, &[id], user.id)?.pop().ok_or(missing)?;
            Ok((card(tx, repo, &workspace.uuid, &mut configs)?, configs))
        })?;
        let facts = self.configs_read(configs, config_facts);
        found.recent.iter_mut().for_each(|image| image.tell(&facts));
        Ok(found)
    }

    /// Changes a repository's description and labels. What would change nothing is not written.
    pub fn repo_relabel(&self, uuid: &Uuid, to: Relabel) -> Result<()> {
        let uuid = uuid.clone();
        self.db.write(move |write| {
            let missing = Kind::NotFound(Thing::Repo);
            let (id, description, before) = sql::repo_texts(write.tx, uuid.as_str())?.ok_or(missing)?;
            let mut labels = before.clone();
            for label in to.add {
                if !labels.contains(&label) {
                    labels.push(label);
                }
            }
            labels.retain(|label| !to.remove.contains(label));
            if labels == before && to.description.as_ref().is_none_or(|text| *text == description) {
                return Ok(());
            }
            let change =
                RepoChange { description: to.description, labels: Some(labels), ..RepoChange::default() };
            change.check()?;
            sql::repo_change(write.tx, id, &change, write.now_us)
        })
    }

    /// Deletes repositories, and returns those that were there. All in one transaction.
    pub fn repos_delete(&self, ids: Vec<Uuid>) -> Result<Vec<Uuid>> {
        self.delete_each(ids, |tx, uuid| {
            let Some((id, name)) = sql::repo_by_uuid(tx, uuid)? else { return Ok(false) };
            repo_bury(tx, id, &name)?;
            Ok(true)
        })
    }

    /// Runs a delete for each of these in one transaction; returns those it was true for.
    fn delete_each(
        &self,
        ids: Vec<Uuid>,
        delete: impl Fn(&rusqlite::Connection, &str) -> Result<bool> + Send + 'static,
    ) -> Result<Vec<Uuid>> {
        if ids.is_empty() {
            return Ok(ids);
        }
        self.db.write(move |write| {
            let mut deleted = Vec::new();
            for uuid in ids {
                if delete(write.tx, uuid.as_str())? {
                    deleted.push(uuid);
                }
            }
            Ok(deleted)
        })
    }

    // image -------------------------------------------------------------------

    /// The name of the repository that an image is in.
    pub fn image_repo(&self, uuid: &Uuid) -> Result<RepoName> {
        self.db.read(|tx| Ok(sql::image_place(tx, uuid.as_str())?.ok_or(Kind::NotFound(Thing::Manifest))?.2))
    }

    /// An image. Opens a file.
    pub fn image(&self, uuid: &Uuid) -> Result<Image> {
        let missing = Kind::NotFound(Thing::Manifest);
        let (mut image, configs) = self.db.read(|tx| {
            let mut configs = Configs::default();
            let image = sql::image(tx, uuid.as_str())?.ok_or(missing)?;
            Ok((with_rest(tx, image, &mut configs)?, configs))
        })?;
        image.tell(&self.configs_read(configs, config_facts));
        Ok(image)
    }

    /// A repository's images, the newest first: those that have tags, and those that no
    /// index there names. Opens files.
    pub fn images(&self, repo: &Uuid, slice: Slice, after: Option<Mark>) -> Result<Listed<Image>> {
        let wish = Wish { order: Order::Newest, ..Wish::by_name(slice, after) };
        let (mut listed, configs) = self.db.read(|tx| {
            let (id, _) = sql::repo_by_uuid(tx, repo.as_str())?.ok_or(Kind::NotFound(Thing::Repo))?;
            let all = sql::images_count(tx, id)?;
            let found = wish.find(all, 0, |walk, each| sql::images_walk(tx, id, &walk, each))?;
            let mut configs = Configs::default();
            let images = sql::images_by_id(tx, &found.rows)?.into_iter();
            let rows = images.map(|image| with_rest(tx, image, &mut configs)).collect::<Result<_>>()?;
            Ok((found.with(rows), configs))
        })?;
        let facts = self.configs_read(configs, config_facts);
        listed.rows.iter_mut().for_each(|image| image.tell(&facts));
        Ok(listed)
    }

    /// Deletes images with their tags, and returns those that were there. All in one
    /// transaction.
    pub fn images_delete(&self, ids: Vec<Uuid>) -> Result<Vec<Uuid>> {
        self.delete_each(ids, |tx, uuid| {
            let Some((id, _, _)) = sql::image_place(tx, uuid)? else { return Ok(false) };
            sql::manifest_delete(tx, id)?;
            Ok(true)
        })
    }

    // tag ---------------------------------------------------------------------

    /// The name of the repository that a tag is in.
    pub fn tag_repo(&self, uuid: &Uuid) -> Result<RepoName> {
        self.db.read(|tx| Ok(sql::tag_place(tx, uuid.as_str())?.ok_or(Kind::NotFound(Thing::Tag))?.1))
    }

    /// An image's tags, by name.
    pub fn image_tags(&self, image: &Uuid, slice: Slice, after: Option<Mark>) -> Result<Listed<ImageTag>> {
        let wish = Wish::by_name(slice, after);
        self.db.read(|tx| {
            let missing = Kind::NotFound(Thing::Manifest);
            let (id, repo, _) = sql::image_place(tx, image.as_str())?.ok_or(missing)?;
            // It has as many as its repository, or fewer.
            let most = sql::tags_count(tx, repo)?;
            let found = wish.find(most, 0, |walk, each| sql::image_tags_walk(tx, id, &walk, each))?;
            let rows = sql::image_tags_by_id(tx, &found.rows)?;
            Ok(found.with(rows))
        })
    }

    /// Points a tag at an image. One of that name moves there with its UUID, and keeps its
    /// colour if none is given.
    pub fn tag_point(&self, user: &User, image: &Uuid, tag: &Tag, color: Option<String>) -> Result<ImageTag> {
        let (user, image, tag) = (user.id, image.clone(), tag.clone());
        self.db.write(move |write| {
            let (tx, missing) = (write.tx, Kind::NotFound(Thing::Manifest));
            let (image, repo, _) = sql::image_place(tx, image.as_str())?.ok_or(missing)?;
            let there = sql::tag_row(tx, repo, tag.as_str())?;
            if there.is_none_or(|there| there.manifest != image) {
                sql::tag_set(tx, repo, &tag, image, write.stamp(user))?;
                sql::repo_set_pushed(tx, repo, write.now_us)?;
            }
            let row = sql::tag_row(tx, repo, tag.as_str())?.ok_or(missing)?;
            if color.is_some() {
                sql::tag_set_color(tx, row.id, color.as_deref())?;
            }
            Ok(sql::image_tag(tx, &row.uuid)?.ok_or(missing)?)
        })
    }

    pub fn tag(&self, uuid: &Uuid) -> Result<ImageTag> {
        self.db.read(|tx| Ok(sql::image_tag(tx, uuid.as_str())?.ok_or(Kind::NotFound(Thing::Tag))?))
    }

    /// Gives a tag another colour, or none.
    pub fn tag_set_color(&self, uuid: &Uuid, color: Option<String>) -> Result<ImageTag> {
        let uuid = uuid.clone();
        self.db.write(move |write| {
            let missing = Kind::NotFound(Thing::Tag);
            let (id, _, _) = sql::tag_place(write.tx, uuid.as_str())?.ok_or(missing)?;
            sql::tag_set_color(write.tx, id, color.as_deref())?;
            Ok(sql::image_tag(write.tx, uuid.as_str())?.ok_or(missing)?)
        })
    }

    /// Deletes tags, and returns those that were there. Their images stay. All in one
    /// transaction.
    pub fn tags_delete(&self, ids: Vec<Uuid>) -> Result<Vec<Uuid>> {
        self.delete_each(ids, |tx, uuid| {
            let Some((_, repo, tag)) = sql::tag_place(tx, uuid)? else { return Ok(false) };
            let key = sql::repo(tx, &repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::tag_delete(tx, key.id, &tag)
        })
    }

    // password ----------------------------------------------------------------

    /// Makes a password for the registry, and voids the one before. It is not shown again.
    pub fn password_generate(&self, user: &User) -> Result<String> {
        let (password, hash) = mint(GENERATED_PREFIX)?;
        let id = user.id;
        self.db.write(move |write| sql::generated_password_set(write.tx, id, &hash, write.now_us))?;
        Ok(password)
    }

    /// The user of a generated password, and what it may. In place of a token's id stands
    /// its time, negative, so that [`Registry::token_still`] knows it from a later one.
    pub fn password_generated(&self, login: &str, password: &str) -> Result<Option<(User, i64, TokenScope)>> {
        let hash = hash(password);
        self.db.read(|tx| {
            let Some((user, since)) = sql::generated_password(tx, &hash)? else { return Ok(None) };
            let row = sql::user_by_login(tx, login)?.filter(|row| row.user.id == user);
            Ok(row.map(|row| (row.user, -since, generated_scope())))
        })
    }

    /// What a generated password that was good a while ago may now.
    pub(super) fn generated_still(&self, user: &User, id: i64) -> Result<Option<TokenScope>> {
        let since = self.db.read(|tx| sql::generated_password_since(tx, user.id))?;
        Ok(since.filter(|since| -since == id).map(|_| generated_scope()))
    }
}

/// How much of a workspace somebody's token reaches.
enum Reach {
    Whole,
    /// A repository that is there, and that they may read.
    One(RepoName),
    Nothing,
}

/// It is for pushes and pulls.
fn generated_scope() -> TokenScope {
    TokenScope { access: Access::Push, pattern: "*".into() }
}

fn card(tx: &rusqlite::Connection, repo: Repo, registry: &str, configs: &mut Configs) -> Result<RepoCard> {
    let newest = Walk { order: Order::Newest, after: None, skip: 0, take: 1 };
    let mut recent = None;
    sql::images_walk(tx, repo.id, &newest, &mut |step| {
        recent = Some(step.id);
        false
    })?;
    let recent = sql::images_by_id(tx, recent.as_slice())?.pop();
    Ok(RepoCard {
        registry: registry.to_owned(),
        recent: recent.map(|image| with_rest(tx, image, configs)).transpose()?,
        tags: sql::tags_of_repo(tx, repo.id, TAGS_SHOWN)?,
        repo,
    })
}

/// An image with its tags, and with its platforms if it is an index.
fn with_rest(tx: &rusqlite::Connection, mut image: Image, configs: &mut Configs) -> Result<Image> {
    image.tags = sql::tags_of_image(tx, image.repo_id, image.id, TAGS_SHOWN)?;
    if image.config.is_none() {
        image.about = About::Platforms(index_rows(tx, image.repo_id, image.id, image.bytes)?);
    }
    configs.want(tx, image.repo_id, image.config.as_ref())?;
    Ok(image)
}
