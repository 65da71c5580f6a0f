//! What Docker's v1 index knows besides content: repositories that were announced, image
//! ids and checksums, short-lived tokens, people who sign up, search.

use ring::hmac;
use serde::Serialize;
use sha2::Digest as _;
use std::collections::HashSet;

use super::pages::{Listed, Slice};
use super::people::{User, UserAdd, check_email, check_password, password_replace, user_id, user_insert};
use super::repos::{FOUND_MAX, searched};
use super::{Access, Registry, Write, password, random, repo_make, sql};
use crate::error::{Error, Kind, Result, Thing};
use crate::names::{RepoName, Tag, UserName};

/// How long a token is good, and a deleted name remembered: for a push over a slow line.
const TOKEN_SECS: i64 = 3_600;
/// Tokens one user holds at once; older ones go.
const TOKENS_PER_USER: u32 = 256;
/// Images one request announces: each is a row in one transaction. A v1 image has at most
/// 127 layers.
const ANNOUNCED_MAX: usize = 1_000;
/// Images announced in one repository.
const IMAGES_MAX: u64 = 10_000;
/// Longest list of tags, and of images that were pushed. There are no pages, and rows of two
/// tables make each.
const LISTED_MAX: u32 = 2_000;
const CHECKSUM_BYTES_MAX: usize = 256;
/// Where so many users are, nobody signs up any more: strangers do not fill the disk.
const SIGNED_UP_MAX: u64 = 10_000;
const EMAILS_PER_USER: usize = 16;

/// What becomes of people who sign up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignUp {
    /// They do not; administrators add users.
    Closed,
    /// They wait until an administrator activates them.
    Approve,
    /// They are in.
    Open,
}

/// An account that somebody asks for.
pub struct SignUpAsk {
    pub name: UserName,
    pub email: String,
    pub password: String,
    /// May log in at once.
    pub active: bool,
}

/// An image as the index lists it: an id, and the checksum once it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct V1Image {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

impl V1Image {
    /// 12 to 64 hex digits: scripts announce the short ids that `docker images` prints.
    pub fn parse(id: &str, checksum: Option<&str>) -> Result<V1Image> {
        let invalid = |why: &'static str| Kind::Invalid(Thing::Request).because(why);
        let hex = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !(12..=64).contains(&id.len()) || !hex {
            return Err(invalid("Invalid data: an image id has 12 to 64 lower-case hex digits"));
        }
        let checksum = checksum.filter(|checksum| !checksum.is_empty());
        if checksum.is_some_and(|text| text.len() > CHECKSUM_BYTES_MAX || text.chars().any(char::is_control))
        {
            return Err(invalid("Invalid data: a checksum has at most 256 bytes and no control characters"));
        }
        Ok(V1Image { id: id.to_owned(), checksum: checksum.map(str::to_owned) })
    }
}

/// A token that is good: whose it is, and what for.
#[derive(Debug, Clone)]
pub struct V1Token {
    /// None: anybody's, to read what is public.
    pub user: Option<User>,
    pub repo: RepoName,
    pub access: Access,
}

/// A repository that was searched for.
#[derive(Debug)]
pub struct Found {
    pub name: String,
    pub description: String,
    pub stars: u64,
}

impl Registry {
    // repositories and images -----------------------------------------------------

    /// Makes a repository if it is new, and notes which images will come.
    pub fn repo_announce(&self, user: &User, repo: &RepoName, images: Vec<V1Image>) -> Result<()> {
        check_announced(&images)?;
        self.check_room(0)?;
        let (repo, private, by) = (repo.clone(), self.options().private, user.id);
        self.db.write(move |write| {
            let id = repo_make(write, &repo, private, Some(by))?;
            images_merge(write, id, &images)
        })
    }

    /// Notes images that were pushed, with their checksums. They are added, never removed.
    pub fn v1_images_put(&self, repo: &RepoName, images: Vec<V1Image>) -> Result<()> {
        check_announced(&images)?;
        self.check_room(0)?;
        let repo = repo.clone();
        self.db.write(move |write| {
            let key = sql::repo(write.tx, &repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            images_merge(write, key.id, &images)?;
            sql::repo_set_pushed(write.tx, key.id, write.now_us)
        })
    }

    /// Images that were announced, then those pushed by other ways: each id once.
    pub fn v1_images(&self, repo: &RepoName) -> Result<Vec<V1Image>> {
        self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let mut images = sql::v1_images(tx, key.id)?;
            images.extend(sql::v1_images_pushed(tx, key.id, LISTED_MAX)?);
            let mut seen = HashSet::new();
            images.retain(|image| seen.insert(image.id.clone()));
            Ok(images)
        })
    }

    /// Tags in ASCII order, each with the id its image has in the list of images.
    pub fn v1_tags(&self, repo: &RepoName) -> Result<Vec<(String, String)>> {
        self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::v1_tags(tx, key.id, None, LISTED_MAX)
        })
    }

    pub fn v1_tag(&self, repo: &RepoName, tag: &Tag) -> Result<String> {
        self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            let found = sql::v1_tags(tx, key.id, Some(tag.as_str()), 1)?.pop();
            Ok(found.ok_or(Kind::NotFound(Thing::Tag))?.1)
        })
    }

    pub fn repo_is_private(&self, repo: &RepoName) -> Result<bool> {
        self.db.read(|tx| Ok(sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?.private))
    }

    /// Deletes a repository, and remembers the name for a while: true if it was there, false
    /// if it was deleted a while ago. `NotFound(Repo)` if neither.
    pub fn repo_bury(&self, user: &User, repo: &RepoName) -> Result<bool> {
        let (repo, user) = (repo.clone(), user.id);
        // A token nobody holds.
        let mut hash = [0; 32];
        random(&mut hash)?;
        self.db.write(move |write| {
            let (tx, now) = (write.tx, write.service_secs);
            let Some(key) = sql::repo(tx, &repo)? else {
                return match sql::v1_is_buried(tx, &repo, now)? {
                    true => Ok(false),
                    false => Err(Kind::NotFound(Thing::Repo).into()),
                };
            };
            sql::repo_delete(tx, key.id)?;
            sql::grants_delete(tx, &repo)?;
            sql::v1_tokens_trim(tx, user, TOKENS_PER_USER - 1, now)?;
            sql::v1_token_insert(tx, &hash, user, &repo, v1_word(Access::Delete), now + TOKEN_SECS)?;
            Ok(true)
        })
    }

    // tokens ------------------------------------------------------------------------

    /// A token for one repository, and for an hour. None for a user: for anybody, to read
    /// what is public.
    pub fn v1_token_new(&self, user: Option<&User>, repo: &RepoName, access: Access) -> Result<String> {
        let Some(user) = user else { return self.v1_token_of_nobody(repo) };
        let mut bytes = [0; 32];
        random(&mut bytes)?;
        let signature = letters(&bytes);
        let (user, repo, hash) = (user.id, repo.clone(), hash(&signature));
        self.db.write(move |write| {
            sql::v1_tokens_trim(write.tx, user, TOKENS_PER_USER - 1, write.service_secs)?;
            let expires_secs = write.service_secs + TOKEN_SECS;
            sql::v1_token_insert(write.tx, &hash, user, &repo, v1_word(access), expires_secs)
        })?;
        Ok(signature)
    }

    /// Opens no door that is not open without it, so it is always the same one: strangers
    /// write nothing to the disk, and there is nothing to expire.
    fn v1_token_of_nobody(&self, repo: &RepoName) -> Result<String> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret("v1_token")?);
        Ok(letters(hmac::sign(&key, repo.full().as_bytes()).as_ref()))
    }

    /// What a token is for, if it is good. `repo` is where it is shown: a token of nobody
    /// is known by it.
    pub fn v1_token(&self, signature: &str, repo: Option<&RepoName>) -> Result<Option<V1Token>> {
        let (hash, now) = (hash(signature), self.db.service_secs());
        let row = self.db.read(|tx| sql::v1_token(tx, &hash, now))?;
        if let Some((user, full, word)) = row {
            let user = self.user_by_id(user)?.filter(|user| user.active);
            let access = token_access(&word).ok_or(Kind::Internal)?;
            let repo = RepoName::parse(&full)?;
            return Ok(user.map(|user| V1Token { user: Some(user), repo, access }));
        }
        match repo {
            Some(repo) if self.v1_token_of_nobody(repo)? == signature => {
                Ok(Some(V1Token { user: None, repo: repo.clone(), access: Access::Pull }))
            }
            _ => Ok(None),
        }
    }

    /// Uses a token up. `Denied` if it was used up meanwhile; `NotFound(Repo)`, and it stays
    /// good, where there is no such repository and was none.
    pub fn v1_token_consume(&self, token: &V1Token, signature: &str) -> Result<()> {
        let (hash, repo, whose) = (hash(signature), token.repo.clone(), token.user.is_some());
        let stands = move |tx: &rusqlite::Connection, now_secs: i64| -> Result<()> {
            match sql::repo(tx, &repo)?.is_some() || sql::v1_is_buried(tx, &repo, now_secs)? {
                true => Ok(()),
                false => Err(Kind::NotFound(Thing::Repo).into()),
            }
        };
        if !whose {
            return self.db.read(|tx| stands(tx, self.db.service_secs()));
        }
        self.db.write(move |write| {
            stands(write.tx, write.service_secs)?;
            match sql::v1_token_delete(write.tx, &hash)? {
                true => Ok(()),
                false => Err(Kind::Denied.into()),
            }
        })
    }

    // people ------------------------------------------------------------------------

    /// Whether an account made now would be active. `Unauthorized` or `Denied` where `by`,
    /// who asks for it, may make none: administrators always may, others where signing up
    /// is not closed.
    pub fn may_sign_up(&self, by: Option<&User>) -> Result<bool> {
        match (self.options().sign_up, by) {
            (_, Some(user)) if user.admin => Ok(true),
            (SignUp::Open, _) => Ok(true),
            (SignUp::Approve, _) => Ok(false),
            (SignUp::Closed, None) => Err(Kind::Unauthorized.into()),
            (SignUp::Closed, Some(_)) => {
                Err(Kind::Denied.because("an administrator adds users to this registry"))
            }
        }
    }

    /// Adds a user. `Exists(User)` if the name or the e-mail address is taken, and also if
    /// there are repositories or grants under the name: a stranger shall not come to own
    /// them. Hashes, so it blocks.
    pub fn sign_up(&self, ask: SignUpAsk) -> Result<()> {
        let email = check_email(&ask.email)?;
        let add = UserAdd { name: &ask.name, password: &ask.password, admin: false, email: Some(&email) };
        check_password(add.password)?;
        self.check_room(0)?;
        // What is refused costs no hash.
        self.db.read(|tx| sign_up_free(tx, add.name, &email))?;
        let hash = password::hash(add.password)?;
        self.db.write(move |write| {
            sign_up_free(write.tx, &ask.name, &email)?;
            let id = user_insert(write, &ask.name, &hash, false)?;
            sql::email_insert(write.tx, &email, id, write.now_us)?;
            if !ask.active {
                sql::user_set_active(write.tx, id, false)?;
            }
            Ok(())
        })
    }

    /// Gives a user another password, one more e-mail address, or both or neither; all or
    /// nothing. An address they have already is no error. Hashes, so it blocks.
    pub fn user_update(&self, name: &UserName, email: Option<&str>, password: Option<&str>) -> Result<()> {
        let email = email.map(check_email).transpose()?;
        password.map(check_password).transpose()?;
        let hash = password.map(password::hash).transpose()?;
        let name = name.clone();
        self.db.write(move |write| {
            let id = user_id(write.tx, &name)?;
            if let Some(email) = &email {
                match sql::email_owner(write.tx, email)? {
                    Some(owner) if owner == id => {}
                    Some(_) => return Err(Kind::Exists(Thing::User).into()),
                    None if sql::email_count(write.tx, id)? >= EMAILS_PER_USER as u64 => {
                        return Err(
                            Kind::Invalid(Thing::User).because("an account has at most 16 e-mail addresses")
                        );
                    }
                    None => sql::email_insert(write.tx, email, id, write.now_us)?,
                }
            }
            if let Some(hash) = &hash {
                password_replace(write.tx, id, hash)?;
            }
            Ok(())
        })
    }

    // search ------------------------------------------------------------------------

    /// Repositories this caller may read whose name or description holds a text, by name; up
    /// to [`FOUND_MAX`] of them. None if the caller is nobody and nothing at all is public.
    pub fn search(&self, user: Option<&User>, text: &str, slice: Slice) -> Result<Option<Listed<Found>>> {
        let (id, text) = (user.map_or(0, |user| user.id), searched(text)?);
        self.db.read(|tx| {
            if user.is_none() && !sql::any_public(tx)? {
                return Ok(None);
            }
            let names = sql::names_found(tx, &sql::sight(tx, id)?, &text, FOUND_MAX)?;
            Ok(Some(Listed::of(sql::found(tx, slice.of(&names))?, names.len() as u64, slice)))
        })
    }
}

fn check_announced(images: &[V1Image]) -> Result<()> {
    if images.len() > ANNOUNCED_MAX {
        return Err(Kind::TooLarge(Thing::Request).because("at most 1000 images are announced at once"));
    }
    Ok(())
}

/// Union by id; the first checksum and the first place stay.
fn images_merge(write: &Write, repo: i64, images: &[V1Image]) -> Result<()> {
    let (_, end) = sql::v1_images_end(write.tx, repo)?;
    for (image, position) in images.iter().zip(end..) {
        sql::v1_image_set(write.tx, repo, image, position)?;
    }
    // Counted afterwards, for most of them may have been there.
    match sql::v1_images_end(write.tx, repo)? {
        (count, _) if count > IMAGES_MAX => {
            Err(Kind::TooLarge(Thing::Request)
                .because("at most 10000 images can be announced in one repository"))
        }
        _ => Ok(()),
    }
}

fn sign_up_free(tx: &rusqlite::Connection, name: &UserName, email: &str) -> Result<()> {
    let taken = sql::user_by_login(tx, name.as_str())?.is_some()
        || sql::namespace_is_taken(tx, name.as_str())?
        || sql::email_owner(tx, email)?.is_some();
    if taken {
        return Err(Error::from(Kind::Exists(Thing::User)));
    }
    if sql::user_count(tx)? >= SIGNED_UP_MAX {
        return Err(Kind::Denied.because("this registry takes no more users; ask its administrator"));
    }
    Ok(())
}

/// What a token is for, in the words of the table and of the protocol.
pub fn v1_word(access: Access) -> &'static str {
    match access {
        Access::Pull => "read",
        Access::Push => "write",
        Access::Delete => "delete",
    }
}

fn token_access(word: &str) -> Option<Access> {
    Access::ALL.into_iter().find(|access| v1_word(*access) == word)
}

/// 32 letters and digits, 160 bits.
fn letters(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    bytes.iter().take(32).map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

fn hash(signature: &str) -> [u8; 32] {
    sha2::Sha256::digest(signature.as_bytes()).into()
}
