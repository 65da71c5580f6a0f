//! What ML Space's API needs beside the rest: things by UUID, and generated passwords.

use base64::Engine as _;
use sha2::Digest as _;

use super::people::User;
use super::repos::TagRow;
use super::tokens::TokenScope;
use super::{Access, Registry, random, sql};
use crate::error::{Kind, Result, Thing};
use crate::names::{Digest, RepoName, Tag, Uuid};

/// What every generated password begins with.
pub const GENERATED_PREFIX: &str = "mlspace_";
/// Most images of a repository that are listed.
const IMAGES_MAX: u32 = 1_000;

/// A namespace, as ML Space calls it.
#[derive(Debug, Clone)]
pub struct Workspace {
    pub uuid: String,
    pub name: String,
    pub created_us: i64,
}

/// One manifest in one repository, with its tags.
#[derive(Debug, Clone)]
pub struct Image {
    pub uuid: String,
    /// The repository's full name.
    pub repo: String,
    pub repo_uuid: String,
    pub digest: Digest,
    pub content_bytes: u64,
    pub pushed_us: i64,
    pub config: Option<Digest>,
    pub signed: bool,
    pub tags: Vec<TagRow>,
}

impl Registry {
    pub fn workspace(&self, uuid: &Uuid) -> Result<Option<Workspace>> {
        self.db.read(|tx| sql::workspace(tx, uuid.as_str()))
    }

    /// The user's own.
    pub fn workspace_of(&self, user: &User) -> Result<Option<Workspace>> {
        self.db.read(|tx| sql::workspace_named(tx, &user.name))
    }

    pub fn namespace_uuid(&self, name: &str) -> Result<Option<String>> {
        Ok(self.db.read(|tx| sql::workspace_named(tx, name))?.map(|found| found.uuid))
    }

    pub fn repo_by_uuid(&self, uuid: &Uuid) -> Result<RepoName> {
        let name = self.db.read(|tx| sql::repo_name_by_uuid(tx, uuid.as_str()))?;
        RepoName::parse(&name.ok_or(Kind::NotFound(Thing::Repo))?)
    }

    pub fn image(&self, uuid: &Uuid) -> Result<Image> {
        self.db.read(|tx| Ok(sql::image(tx, uuid.as_str())?.ok_or(Kind::NotFound(Thing::Manifest))?))
    }

    /// A repository's images, the newest first: the first 1,000.
    pub fn images(&self, repo: &RepoName) -> Result<Vec<Image>> {
        self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::images(tx, key.id, IMAGES_MAX)
        })
    }

    /// A tag by its UUID: its name, and the image it points at.
    pub fn tag_by_uuid(&self, uuid: &Uuid) -> Result<(Tag, Image)> {
        let missing = Kind::NotFound(Thing::Tag);
        self.db.read(|tx| {
            let row = sql::tag_by_uuid(tx, uuid.as_str())?.ok_or(missing)?;
            let image = sql::image(tx, &row.image_uuid)?.ok_or(missing)?;
            Ok((Tag::parse(&row.name)?, image))
        })
    }

    /// Points a tag at an image; one of that name keeps its UUID. No colour leaves the
    /// colour it has.
    pub fn tag_point(&self, user: &User, image: &Uuid, tag: &Tag, color: Option<String>) -> Result<Image> {
        let (user, uuid, tag) = (user.id, image.clone(), tag.clone());
        self.db.write(move |write| {
            let (tx, missing) = (write.tx, Kind::NotFound(Thing::Manifest));
            let image = sql::image(tx, uuid.as_str())?.ok_or(missing)?;
            let name = RepoName::parse(&image.repo)?;
            let repo = sql::repo(tx, &name)?.ok_or(missing)?;
            let key = sql::manifest_by_digest(tx, &name, &image.digest)?.ok_or(missing)?;
            sql::tag_set(tx, repo.id, &tag, key.id, write.stamp(user))?;
            if let (Some(color), Some(row)) = (&color, sql::tag_row(tx, repo.id, tag.as_str())?) {
                sql::tag_set_color(tx, &row.uuid, Some(color))?;
            }
            sql::repo_set_pushed(tx, repo.id, write.now_us)
        })?;
        self.image(image)
    }

    pub fn tag_set_color(&self, uuid: &Uuid, color: Option<String>) -> Result<()> {
        let uuid = uuid.clone();
        self.db.write(move |write| sql::tag_set_color(write.tx, uuid.as_str(), color.as_deref()))
    }

    /// Makes a password for the registry, and voids the one before. It is not shown again.
    pub fn password_generate(&self, user: &User) -> Result<String> {
        let mut bytes = [0; 24];
        random(&mut bytes)?;
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let password = format!("{GENERATED_PREFIX}{text}");
        let (id, hash) = (user.id, hash(&password));
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

/// It is for pushes and pulls.
fn generated_scope() -> TokenScope {
    TokenScope { access: Access::Push, pattern: "*".into() }
}

fn hash(password: &str) -> [u8; 32] {
    sha2::Sha256::digest(password.as_bytes()).into()
}
