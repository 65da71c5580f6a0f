//! What ML Space's API needs beside the rest: things by UUID, workspaces, and generated
//! passwords.

use super::catalog::repo_bury;
use super::grants::Pattern;
use super::people::User;
use super::repos::{Order, PlatformRow, Repo, RepoChange, Slice, index_rows};
use super::tokens::{TokenScope, hash, mint};
use super::{Access, Registry, sql};
use crate::error::{Kind, Result, Thing};
use crate::manifest::{ConfigFacts, config_facts};
use crate::names::{Digest, RepoName, Tag, Uuid};

/// What every generated password begins with.
pub const GENERATED_PREFIX: &str = "mlspace_";
/// Tags that are shown with an image or a repository, by name; longer lists have pages.
const TAGS_SHOWN: Slice = Slice { skip: 0, take: 100 };

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
    /// As [`Registry::images`] lists them.
    pub images: u64,
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
    /// last; `scope` is the most their token reaches. Costs one walk over the namespace.
    pub fn workspace_sums(
        &self,
        user: &User,
        workspace: &Workspace,
        scope: Option<&TokenScope>,
    ) -> Result<(u64, Option<i64>)> {
        match self.reach(user, workspace, scope)? {
            Reach::Whole => self.db.read(|tx| sql::workspace_sums(tx, workspace.id, user.id)),
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
    ) -> Result<Vec<RepoCard>> {
        let reach = self.reach(user, workspace, scope)?;
        let mut cards = self.db.read(|tx| {
            let rows = match reach {
                Reach::Whole => sql::repos_of(tx, workspace.id, user.id, "", Order::Name, slice)?.0,
                Reach::One(name) if slice.skip == 0 => match sql::repo(tx, &name)? {
                    Some(key) => vec![sql::repo_seen(tx, key.id, user.id)?],
                    None => Vec::new(),
                },
                Reach::One(_) | Reach::Nothing => Vec::new(),
            };
            rows.into_iter().map(|repo| card(tx, repo, &workspace.uuid)).collect::<Result<Vec<_>>>()
        })?;
        cards.iter_mut().filter_map(|card| card.recent.as_mut()).for_each(|image| self.add_facts(image));
        Ok(cards)
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
        let mut found = self.db.read(|tx| {
            let (id, name) = sql::repo_by_uuid(tx, uuid.as_str())?.ok_or(missing)?;
            let workspace = sql::workspace_named(tx, name.namespace())?.ok_or(missing)?;
            card(tx, sql::repo_seen(tx, id, user.id)?, &workspace.uuid)
        })?;
        found.recent.iter_mut().for_each(|image| self.add_facts(image));
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
        let mut image = self.db.read(|tx| with_rest(tx, sql::image(tx, uuid.as_str())?.ok_or(missing)?))?;
        self.add_facts(&mut image);
        Ok(image)
    }

    /// A repository's images, the newest first: those that have tags, and those that no
    /// index there names. Opens files.
    pub fn images(&self, repo: &Uuid, slice: Slice) -> Result<Vec<Image>> {
        let mut images = self.db.read(|tx| {
            let (id, _) = sql::repo_by_uuid(tx, repo.as_str())?.ok_or(Kind::NotFound(Thing::Repo))?;
            let found = sql::images(tx, id, slice)?;
            found.into_iter().map(|image| with_rest(tx, image)).collect::<Result<Vec<_>>>()
        })?;
        images.iter_mut().for_each(|image| self.add_facts(image));
        Ok(images)
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

    /// What an image's config says; nothing where that cannot be read.
    fn add_facts(&self, image: &mut Image) {
        let Some(config) = &image.config else { return };
        let text = RepoName::parse(&image.repo).and_then(|repo| self.config(&repo, config));
        image.about = About::Config(text.map(|text| config_facts(&text)).unwrap_or_default());
    }

    // tag ---------------------------------------------------------------------

    /// The name of the repository that a tag is in.
    pub fn tag_repo(&self, uuid: &Uuid) -> Result<RepoName> {
        self.db.read(|tx| Ok(sql::tag_place(tx, uuid.as_str())?.ok_or(Kind::NotFound(Thing::Tag))?.1))
    }

    /// An image's tags, by name.
    pub fn image_tags(&self, image: &Uuid, slice: Slice) -> Result<Vec<ImageTag>> {
        self.db.read(|tx| {
            let missing = Kind::NotFound(Thing::Manifest);
            let (id, _, _) = sql::image_place(tx, image.as_str())?.ok_or(missing)?;
            sql::tags_of_image(tx, id, slice)
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

fn card(tx: &rusqlite::Connection, repo: Repo, registry: &str) -> Result<RepoCard> {
    let newest = sql::images(tx, repo.id, Slice { skip: 0, take: 1 })?.pop();
    Ok(RepoCard {
        registry: registry.to_owned(),
        images: sql::images_count(tx, repo.id)?,
        recent: newest.map(|image| with_rest(tx, image)).transpose()?,
        tags: sql::tags_of_repo(tx, repo.id, TAGS_SHOWN)?,
        repo,
    })
}

/// An image with its tags, and with its platforms if it is an index.
fn with_rest(tx: &rusqlite::Connection, mut image: Image) -> Result<Image> {
    image.tags = sql::tags_of_image(tx, image.id, TAGS_SHOWN)?;
    if image.config.is_none() {
        image.about = About::Platforms(index_rows(tx, image.repo_id, image.id, image.bytes)?);
    }
    Ok(image)
}
