//! Whom other registries know us as: what the command line gives, or the files in which docker
//! and podman keep their logins, and the programs that these name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::address::Host;
use super::helper;
use crate::error::{Kind, Result, Thing};
use crate::names::RepoName;

/// Longest file of logins, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Credentials. Their text is in no log: there is no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password {
        user: String,
        password: String,
    },
    /// A refresh token that a token service gave somebody (`identitytoken`).
    Refresh(String),
}

impl Login {
    /// A user's name, for sentences.
    pub fn who(&self) -> &str {
        match self {
            Login::Password { user, .. } => user,
            Login::Refresh(_) => "the owner of the stored token",
        }
    }
}

/// All credentials there are.
#[derive(Default)]
pub struct Logins {
    given: Option<(Host, Login)>,
    files: Vec<LoginFile>,
    /// What programs said, by their names and hosts.
    asked: Mutex<HashMap<(String, Host), Option<Login>>>,
}

/// `auth.json` of containers, `config.json` of docker.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoginFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    /// Programs that keep logins: for all hosts, and for one.
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
}

impl Logins {
    /// Reads the files in which logins are kept, as far as there are any: `REGISTRY_AUTH_FILE`
    /// alone if that is set, else podman's and docker's. `get` looks into the environment.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Logins> {
        let set = |name: &str| get(name).filter(|text| !text.is_empty()).map(PathBuf::from);
        let paths: Vec<PathBuf> = match set("REGISTRY_AUTH_FILE") {
            Some(file) => vec![file],
            None => {
                let podman = set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
                let docker = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
                [podman, docker.map(|dir| dir.join("config.json"))].into_iter().flatten().collect()
            }
        };
        let mut logins = Logins::default();
        for path in paths {
            let unusable = |why: String| {
                Kind::Invalid(Thing::Request).because(format!(
                    "the logins in {} cannot be read: {why}; REGISTRY_AUTH_FILE names another file",
                    path.display()
                ))
            };
            let mut text = Vec::new();
            match File::open(&path) {
                Ok(file) => file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => Err(error),
            }
            .map_err(|error| unusable(error.to_string()))?;
            if text.len() as u64 > FILE_BYTES_MAX {
                return Err(unusable("it is longer than a mebibyte".into()));
            }
            // An error of serde_json names a place and no text: a secret stays in its file.
            logins.files.push(serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?);
        }
        Ok(logins)
    }

    /// Credentials from the command line go before all others, and to this host alone.
    pub fn give(&mut self, host: Host, login: Login) {
        self.given = Some((host, login));
    }

    /// What to log in with for a repository. The entry that names most of it counts.
    pub fn find(&self, host: &Host, repo: &RepoName) -> Result<Option<Login>> {
        if let Some((given, login)) = &self.given
            && given == host
        {
            return Ok(Some(login.clone()));
        }
        for file in &self.files {
            if let Some(program) = file.helper(host)
                && let Some(login) = self.ask(program, host)?
            {
                return Ok(Some(login));
            }
            let fits =
                |key: &str| Some(place(key)?).filter(|place| place.0 == *host && within(&place.1, repo));
            let found = file.auths.iter().filter_map(|(key, entry)| Some((fits(key)?.1.len(), entry)));
            let best = found.max_by_key(|(length, _)| *length).map(|(_, entry)| entry);
            if let Some(login) = best.map(|entry| entry.login(host)).transpose()?.flatten() {
                return Ok(Some(login));
            }
            if let Some(program) = file.creds_store.as_deref().filter(|_| file.helper(host).is_none())
                && let Some(login) = self.ask(program, host)?
            {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    /// Asks a program, once for each host: it may ask a person.
    fn ask(&self, program: &str, host: &Host) -> Result<Option<Login>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (program.to_owned(), host.clone());
        if let Some(known) = asked.get(&key) {
            return Ok(known.clone());
        }
        let login = helper::ask(program, host)?;
        asked.insert(key, login.clone());
        Ok(login)
    }
}

impl LoginFile {
    /// The program that keeps the login of this host and of few others.
    fn helper(&self, host: &Host) -> Option<&str> {
        let named = self.cred_helpers.iter().find(|(key, _)| place(key).is_some_and(|(at, _)| at == *host));
        named.map(|(_, program)| program.as_str())
    }
}

impl Entry {
    fn login(&self, host: &Host) -> Result<Option<Login>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Login::Refresh(token.clone())));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let decoded =
            STANDARD.decode(auth.trim_end_matches('\0')).ok().and_then(|text| String::from_utf8(text).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) = pair.ok_or_else(|| {
            Kind::Invalid(Thing::User)
                .because(format!("the stored login for {host} is damaged; log in again, or give --user"))
        })?;
        // Docker has ended some with a zero byte.
        let password = password.trim_end_matches('\0');
        Ok(Some(Login::Password { user: user.to_owned(), password: password.to_owned() }))
    }
}

/// The host a key of `auths` is for, and the path below it: `https://index.docker.io/v1/`,
/// `registry.example:5000`, `registry.example/team/app`.
fn place(key: &str) -> Option<(Host, String)> {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = path.trim_matches('/');
    // What old clients put behind a host is a version of the protocol.
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    Some((Host::parse(host).ok()?, path.to_owned()))
}

fn within(path: &str, repo: &RepoName) -> bool {
    let below =
        |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path.is_empty() || below(repo.full()) || below(repo.asked())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(text: &str) -> Logins {
        Logins { files: vec![serde_json::from_str(text).expect("parses")], ..Logins::default() }
    }

    fn user(logins: &Logins, host: &str, repo: &str) -> Option<String> {
        let (host, repo) = (Host::parse(host).expect("a host"), RepoName::parse(repo).expect("a name"));
        logins.find(&host, &repo).expect("is readable").map(|login| login.who().to_owned())
    }

    #[test]
    fn a_stored_login_is_found_by_host_and_the_longest_path() {
        let entry = |user: &str| format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{user}:a:b")));
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{},"quay.example":{},"quay.example/team":{},"quay.example/team/app":{},"localhost:5000":{{}}}},"HttpHeaders":{{}}}}"#,
            entry("hub"),
            entry("all"),
            entry("team"),
            entry("app")
        );
        let logins = logins(&text);
        for (host, repo, expected) in [
            ("docker.io", "nginx", Some("hub")),
            ("registry-1.docker.io", "acme/app", Some("hub")),
            ("quay.example", "other/app", Some("all")),
            ("quay.example", "team/other", Some("team")),
            ("quay.example", "teams/other", Some("all")),
            ("quay.example", "team/app", Some("app")),
            ("quay.example:443", "team/app", None),
            ("localhost:5000", "a/b", None),
        ] {
            assert_eq!(user(&logins, host, repo).as_deref(), expected, "{host}/{repo}");
        }
    }

    #[test]
    fn a_given_login_goes_to_its_host_alone_and_a_damaged_one_is_an_error() {
        let mut logins = logins(r#"{"auths":{"a.example":{"auth":"bm9jb2xvbg=="}}}"#);
        let host = Host::parse("b.example").expect("a host");
        logins.give(host, Login::Password { user: "me".into(), password: "x".into() });
        assert_eq!(user(&logins, "b.example", "a/b").as_deref(), Some("me"));
        assert_eq!(user(&logins, "c.example", "a/b"), None);
        let (host, repo) =
            (Host::parse("a.example").expect("a host"), RepoName::parse("a/b").expect("a name"));
        let Err(error) = logins.find(&host, &repo) else { panic!("a pair without a colon is none") };
        assert!(error.to_string().contains("log in again"), "{error}");
    }
}
