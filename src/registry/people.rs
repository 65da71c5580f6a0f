//! Who there is, and what each may do: asked in one place.

use serde::Serialize;

use super::grants::Level;
use super::{Registry, password, random, sql};
use crate::error::{Kind, Result, Thing};
use crate::names::{LIBRARY, RepoName, UserName};

/// Shortest password taken, in characters (the v1 index's rule).
pub const PASSWORD_MIN: usize = 5;
/// Longest password taken, in bytes. A header could hold no more.
const PASSWORD_MAX: usize = 1_024;
const EMAIL_MAX: usize = 254;
/// Most lines of an htpasswd file.
const HTPASSWD_LINES_MAX: usize = 10_000;

/// A person or a machine that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub admin: bool,
    /// False: signed up and waits for an administrator, or was shut out by one.
    pub active: bool,
    /// Changes with password and rights; what was remembered of an older one is void.
    pub generation: i64,
}

/// A user as the administrator sees it.
pub struct UserRow {
    pub user: User,
    pub(super) password: String,
    pub emails: Vec<String>,
    pub created_us: i64,
}

/// What a caller may want to do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    Pull,
    Push,
    Delete,
}

impl Access {
    pub const ALL: [Access; 3] = [Access::Pull, Access::Push, Access::Delete];

    pub fn word(self) -> &'static str {
        match self {
            Access::Pull => "pull",
            Access::Push => "push",
            Access::Delete => "delete",
        }
    }

    pub fn from_word(word: &str) -> Option<Access> {
        Access::ALL.into_iter().find(|access| access.word() == word)
    }

    /// What somebody must hold for it.
    fn needs(self) -> Level {
        match self {
            Access::Pull => Level::Read,
            Access::Push => Level::Write,
            Access::Delete => Level::Admin,
        }
    }
}

pub struct UserAdd<'a> {
    pub name: &'a UserName,
    pub password: &'a str,
    pub admin: bool,
    pub email: Option<&'a str>,
}

/// What became of an htpasswd file's lines.
#[derive(Debug, Default, Serialize)]
pub struct Imported {
    pub added: Vec<String>,
    pub changed: Vec<String>,
}

impl Registry {
    /// The user of a name or e-mail address, if the password is right. Takes as long for a
    /// user there is not. Hashes, so it blocks, for tens of milliseconds, and takes 7 MiB.
    pub fn user_verify(&self, login: &str, password: &str) -> Result<Option<User>> {
        let row = match login.len() {
            1..=EMAIL_MAX => self.db.read(|tx| sql::user_by_login(tx, login))?,
            _ => None,
        };
        let right = password.len() <= PASSWORD_MAX
            && password::verify(password, row.as_ref().map(|row| row.password.as_str()))?;
        let Some(row) = row.filter(|_| right) else { return Ok(None) };
        if password::is_bcrypt(&row.password) {
            // From now on as costly to check, and to guess, as everyone's.
            self.password_renew(&row, password)?;
        }
        Ok(Some(row.user))
    }

    /// Replaces an imported hash by one of ours, for the same password.
    fn password_renew(&self, row: &UserRow, password: &str) -> Result<()> {
        let (id, old, new) = (row.user.id, row.password.clone(), password::hash(password)?);
        self.db.write(move |write| sql::user_renew_password(write.tx, id, &old, &new))
    }

    /// The user as it is now, if nothing that matters changed since `user` was looked up.
    pub fn user_still(&self, user: &User) -> Result<Option<User>> {
        let now = self.db.read(|tx| sql::user_by_id(tx, user.id))?;
        Ok(now.filter(|now| now.generation == user.generation))
    }

    /// The user of exactly this name.
    pub fn user_named(&self, name: &str) -> Result<Option<User>> {
        let row = self.db.read(|tx| sql::user_by_login(tx, name))?;
        // An e-mail address logs in too, and may look like anything.
        Ok(row.map(|row| row.user).filter(|user| user.name == name))
    }

    pub fn user_by_id(&self, id: i64) -> Result<Option<User>> {
        self.db.read(|tx| sql::user_by_id(tx, id))
    }

    /// Whether a caller may do this in a repository, which need not exist. By name, before
    /// anybody looks whether it is there: a stranger cannot tell private from missing.
    ///
    /// Administrators may everything; users everything in `theirname/…`, owners in their
    /// organisations; others what was granted to them or to a group they are in; everyone
    /// who is known may pull what is public, and nobody too where anonymous pulls are on.
    /// `Unauthorized` if the user was removed or changed meanwhile.
    pub fn may(&self, user: Option<&User>, access: Access, repo: &RepoName) -> Result<bool> {
        self.db.read(|tx| {
            if let Some(known) = user {
                let now = sql::user_by_id(tx, known.id)?;
                if now.is_none_or(|now| now.generation != known.generation) {
                    return Err(Kind::Unauthorized.into());
                }
                if known.admin {
                    return Ok(true);
                }
                if sql::level(tx, known.id, repo)? >= access.needs() as u8 {
                    return Ok(true);
                }
            }
            // Whoever may push there must be able to look whether it is there already.
            if user.is_some()
                && access <= Access::Push
                && self.options().library_open
                && repo.namespace() == LIBRARY
            {
                return Ok(true);
            }
            match access {
                Access::Pull if user.is_some() || self.options().anonymous_pull => {
                    Ok(sql::repo(tx, repo)?.is_some_and(|key| !key.private))
                }
                _ => Ok(false),
            }
        })
    }

    /// Makes `admin` if there is no user at all, with this password or else a random one,
    /// which is returned: nobody will see it again.
    pub fn admin_init(&self, password: Option<&str>) -> Result<Option<String>> {
        if self.db.read(sql::user_count)? > 0 {
            return Ok(None);
        }
        let made = match password {
            Some(_) => None,
            None => Some(password_random()?),
        };
        let name = UserName::parse("admin")?;
        let password = password.or(made.as_deref()).unwrap_or_default();
        self.user_add(&UserAdd { name: &name, password, admin: true, email: None })?;
        Ok(made)
    }

    /// Adds a user, who owns the namespace of that name from then on.
    pub fn user_add(&self, add: &UserAdd) -> Result<()> {
        check_password(add.password)?;
        let email = add.email.map(check_email).transpose()?;
        let hash = password::hash(add.password)?;
        let (name, admin) = (add.name.clone(), add.admin);
        self.db.write(move |write| {
            if sql::user_by_login(write.tx, name.as_str())?.is_some() {
                return Err(Kind::Exists(Thing::User).because(format!("a user {name} exists already")));
            }
            let id = user_insert(write, &name, &hash, admin)?;
            if let Some(email) = &email {
                if sql::email_owner(write.tx, email)?.is_some() {
                    return Err(Kind::Exists(Thing::User).because("another user has this e-mail address"));
                }
                sql::email_insert(write.tx, email, id, write.now_us)?;
            }
            Ok(())
        })
    }

    pub fn user_set_password(&self, name: &UserName, password: &str) -> Result<()> {
        check_password(password)?;
        let hash = password::hash(password)?;
        let name = name.clone();
        self.db.write(move |write| {
            let id = user_id(write.tx, &name)?;
            password_replace(write.tx, id, &hash)
        })
    }

    pub fn user_set_admin(&self, name: &UserName, admin: bool) -> Result<()> {
        let name = name.clone();
        self.db.write(move |write| {
            let id = user_id(write.tx, &name)?;
            sql::user_set_admin(write.tx, id, admin)?;
            keep_one_admin(write.tx)
        })
    }

    /// Lets a user in who signed up, or shuts one out; what was remembered of them is void.
    pub fn user_set_active(&self, name: &UserName, active: bool) -> Result<()> {
        let name = name.clone();
        self.db.write(move |write| {
            let id = user_id(write.tx, &name)?;
            sql::user_set_active(write.tx, id, active)?;
            keep_one_admin(write.tx)
        })
    }

    /// Removes a user. Repositories stay; administrators look after them.
    pub fn user_remove(&self, name: &UserName) -> Result<()> {
        let name = name.clone();
        self.db.write(move |write| {
            let id = user_id(write.tx, &name)?;
            sql::user_delete(write.tx, id)?;
            keep_one_admin(write.tx)
        })
    }

    pub fn users(&self) -> Result<Vec<UserRow>> {
        self.db.read(sql::users)
    }

    /// Takes the users of an htpasswd file with bcrypt hashes (`htpasswd -B`), all or none;
    /// known users get the file's password.
    pub fn users_import(&self, htpasswd: &str) -> Result<Imported> {
        let mut lines = Vec::new();
        for (number, line) in htpasswd.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if lines.len() >= HTPASSWD_LINES_MAX {
                return Err(
                    Kind::TooLarge(Thing::Request).because("an htpasswd file has at most 10000 users")
                );
            }
            let wrong = |why: &str| Kind::Invalid(Thing::User).because(format!("line {number}: {why}"));
            let (name, hash) = line.split_once(':').ok_or_else(|| wrong("expected name:hash"))?;
            let name = UserName::parse(name).map_err(|error| wrong(&error.detail()))?;
            if !password::is_usable_bcrypt(hash) {
                return Err(wrong(
                    "the hash is not bcrypt of a cost up to 14; make the file with `htpasswd -B`",
                ));
            }
            lines.push((name, hash.to_owned()));
        }
        self.db.write(move |write| {
            let mut imported = Imported::default();
            for (name, hash) in &lines {
                match sql::user_by_login(write.tx, name.as_str())? {
                    Some(row) if row.user.name == name.as_str() => {
                        password_replace(write.tx, row.user.id, hash)?;
                        imported.changed.push(name.to_string());
                    }
                    _ => {
                        user_insert(write, name, hash, false)?;
                        imported.added.push(name.to_string());
                    }
                }
            }
            Ok(imported)
        })
    }
}

pub(super) fn user_insert(write: &super::Write, name: &UserName, hash: &str, admin: bool) -> Result<i64> {
    let id = sql::user_insert(write.tx, name, hash, admin, write.now_us)?;
    let namespace = sql::namespace_make(write.tx, name.as_str(), write.now_us)?;
    sql::namespace_set_owner(write.tx, namespace, id)?;
    Ok(id)
}

/// Sets a password. What the old one made, and nobody can list or take back, ends with it;
/// robot tokens and service clients stay.
pub(super) fn password_replace(tx: &rusqlite::Connection, user: i64, hash: &str) -> Result<()> {
    sql::user_set_password(tx, user, hash)?;
    sql::v1_tokens_void(tx, user)?;
    sql::generated_password_delete(tx, user)
}

pub(super) fn user_id(tx: &rusqlite::Connection, name: &UserName) -> Result<i64> {
    match sql::user_by_login(tx, name.as_str())? {
        Some(row) => Ok(row.user.id),
        None => Err(Kind::NotFound(Thing::User)
            .because(format!("there is no user {name}; `outport user list` shows who there is"))),
    }
}

/// A registry without an administrator could only be mended by hand.
fn keep_one_admin(tx: &rusqlite::Connection) -> Result<()> {
    if sql::admin_count(tx)? == 0 {
        return Err(
            Kind::InUse(Thing::User).because("this is the last administrator; make another one first")
        );
    }
    Ok(())
}

pub(super) fn check_password(password: &str) -> Result<()> {
    if password.chars().count() < PASSWORD_MIN {
        return Err(Kind::Invalid(Thing::User).because("a password has at least 5 characters"));
    }
    if password.len() > PASSWORD_MAX || password.chars().any(char::is_control) {
        return Err(
            Kind::Invalid(Thing::User).because("a password has at most 1024 bytes and no control characters")
        );
    }
    if password.starts_with(super::TOKEN_PREFIX) || password.starts_with(super::GENERATED_PREFIX) {
        return Err(
            Kind::Invalid(Thing::User).because("a password does not begin like a token; choose another")
        );
    }
    Ok(())
}

pub(super) fn check_email(email: &str) -> Result<String> {
    let fits = email.len() <= EMAIL_MAX
        && email
            .split_once('@')
            .is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains('@'))
        && !email.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':');
    if fits {
        Ok(email.to_owned())
    } else {
        Err(Kind::Invalid(Thing::User).because("this is not an e-mail address"))
    }
}

/// Four groups of five letters and digits that are not mistaken for one another:
/// 20 of 32 each, 100 bits.
fn password_random() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 20];
    random(&mut bytes)?;
    let letters = bytes.map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    let groups: Vec<String> = letters.chunks(5).map(|group| group.iter().collect()).collect();
    Ok(groups.join("-"))
}
