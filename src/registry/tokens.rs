//! Tokens of people and robots: passwords that do less than their owner's, and end.

use base64::Engine as _;
use serde::Serialize;
use sha2::Digest as _;

use super::grants::Pattern;
use super::pages::{Listed, Slice};
use super::people::{User, user_id};
use super::{Access, Registry, random, sql};
use crate::error::{Kind, Result, Thing};
use crate::names::{RepoName, UserName, Uuid};

/// What every token begins with, so that people and scanners know one when they see it.
pub const TOKEN_PREFIX: &str = "outport_";
const LABEL_MAX: usize = 100;

/// The most a token may, where its owner may it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenScope {
    /// This and what is less: push holds pull, delete holds both.
    pub access: Access,
    /// A repository's full name, `namespace/*`, or `*`.
    pub pattern: String,
}

impl TokenScope {
    /// Whether it reaches every repository.
    pub fn is_for_all(&self) -> bool {
        self.pattern == "*"
    }

    pub fn covers(&self, access: Access, repo: &RepoName) -> bool {
        access <= self.access && Pattern::parse(&self.pattern).is_ok_and(|pattern| pattern.covers(repo))
    }
}

/// A token as lists show it; the token itself is nowhere.
#[derive(Debug, Clone, Serialize)]
pub struct TokenRow {
    pub id: i64,
    pub uuid: String,
    #[serde(skip)]
    pub(super) user: i64,
    pub owner: String,
    pub label: String,
    pub scope: TokenScope,
    pub active: bool,
    pub created_us: i64,
    pub expires_us: Option<i64>,
}

impl Registry {
    /// Makes a token, and returns it with its id: it is not shown again.
    pub fn token_new(
        &self,
        owner: &UserName,
        label: &str,
        access: Access,
        pattern: &Pattern,
        expires_us: Option<i64>,
    ) -> Result<(i64, String)> {
        check_label(label)?;
        let (token, hash) = mint(TOKEN_PREFIX)?;
        let scope = TokenScope { access, pattern: pattern.text() };
        let (owner, label) = (owner.clone(), label.to_owned());
        let id = self.db.write(move |write| {
            let owner = user_id(write.tx, &owner)?;
            sql::token_insert(write.tx, owner, &hash, &label, &scope, expires_us, write.now_us)
        })?;
        Ok((id, token))
    }

    pub fn tokens(&self) -> Result<Vec<TokenRow>> {
        self.db.read(sql::tokens)
    }

    /// A user's tokens, the newest first.
    pub fn tokens_of(&self, user: &User, slice: Slice) -> Result<Listed<TokenRow>> {
        let (rows, count) = self.db.read(|tx| sql::tokens_of(tx, user.id, slice))?;
        Ok(Listed::of(rows, count, slice))
    }

    pub fn token_of(&self, user: &User, uuid: &Uuid) -> Result<TokenRow> {
        self.db.read(|tx| Ok(sql::token_of(tx, user.id, uuid.as_str())?.ok_or(Kind::NotFound(Thing::User))?))
    }

    /// A token by the number that [`Registry::token_new`] gave it.
    pub fn token_row(&self, id: i64) -> Result<TokenRow> {
        self.db.read(|tx| Ok(sql::token_by_id(tx, id)?.ok_or(Kind::NotFound(Thing::User))?))
    }

    /// Gives a user's token another label, or puts it out of use for a while.
    pub fn token_change(
        &self,
        user: &User,
        uuid: &Uuid,
        label: Option<String>,
        active: Option<bool>,
    ) -> Result<TokenRow> {
        check_label(label.as_deref().unwrap_or_default())?;
        let (user, uuid) = (user.id, uuid.clone());
        self.db.write(move |write| {
            let missing = Kind::NotFound(Thing::User);
            let row = sql::token_of(write.tx, user, uuid.as_str())?.ok_or(missing)?;
            sql::token_change(write.tx, row.id, label.as_deref(), active)?;
            Ok(sql::token_by_id(write.tx, row.id)?.ok_or(missing)?)
        })
    }

    pub fn token_remove(&self, user: &User, uuid: &Uuid) -> Result<()> {
        let (user, uuid) = (user.id, uuid.clone());
        self.db.write(move |write| {
            let row = sql::token_of(write.tx, user, uuid.as_str())?.ok_or(Kind::NotFound(Thing::User))?;
            sql::token_delete(write.tx, row.id).map(|_| ())
        })
    }

    pub fn token_revoke(&self, id: i64) -> Result<()> {
        self.db.write(move |write| {
            if !sql::token_delete(write.tx, id)? {
                return Err(Kind::NotFound(Thing::User)
                    .because(format!("there is no token {id}; `outport token list` shows them")));
            }
            Ok(())
        })
    }

    /// The user behind a token that came as this user's password, and what it may; None if
    /// it is not one, is another's, or has ended. A hash of something random is looked up,
    /// so it is quick and tells nothing.
    pub fn token_verify(&self, login: &str, token: &str) -> Result<Option<(User, i64, TokenScope)>> {
        if !token.starts_with(TOKEN_PREFIX) {
            return Ok(None);
        }
        let hash = hash(token);
        self.db.read(|tx| {
            let Some(row) = sql::token_by_hash(tx, &hash)? else { return Ok(None) };
            let Some(login) = sql::user_by_login(tx, login)? else { return Ok(None) };
            if login.user.id != row.user || !self.is_good(&row) {
                return Ok(None);
            }
            Ok(Some((login.user, row.id, row.scope)))
        })
    }

    /// What a user's token that was good a while ago may now.
    pub fn token_still(&self, user: &User, id: i64) -> Result<Option<TokenScope>> {
        if id < 0 {
            return self.generated_still(user, id);
        }
        let row = self.db.read(|tx| sql::token_by_id(tx, id))?;
        Ok(row.filter(|row| row.user == user.id && self.is_good(row)).map(|row| row.scope))
    }

    fn is_good(&self, row: &TokenRow) -> bool {
        row.active && row.expires_us.is_none_or(|end| (self.clock.wall_us)() < end)
    }
}

fn check_label(label: &str) -> Result<()> {
    if label.len() > LABEL_MAX || label.chars().any(char::is_control) {
        return Err(
            Kind::Invalid(Thing::Request).because("a label has at most 100 bytes and no control characters")
        );
    }
    Ok(())
}

/// A new secret, 192 random bits behind a prefix, and the hash it is looked up by.
pub(super) fn mint(prefix: &str) -> Result<(String, [u8; 32])> {
    let mut bytes = [0; 24];
    random(&mut bytes)?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let secret = format!("{prefix}{text}");
    let hash = hash(&secret);
    Ok((secret, hash))
}

/// What is kept of a secret that is random: nobody could guess it, so that a fast hash will do.
pub(super) fn hash(secret: &str) -> [u8; 32] {
    sha2::Sha256::digest(secret.as_bytes()).into()
}
