//! What verbs that ask other registries have in common.

use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Runtime;

use super::progress;
use crate::client::{Client, Host, Login, Logins, Options, Proxies};
use crate::error::{Kind, Result, Thing};

/// Where a password is looked for before anybody is asked.
const PASSWORD: &str = "OUTPORT_REGISTRY_PASSWORD";
/// Units of a rate.
const UNITS: [(char, u64); 3] = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];

#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// Log in as this user [default: what docker and podman keep]; the password is asked for, or
    /// taken from OUTPORT_REGISTRY_PASSWORD
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "user")]
    pub password_stdin: bool,
    /// Trust these authorities instead of the system's (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Ask by plain HTTP
    #[arg(long)]
    pub insecure_http: bool,
}

impl RemoteArgs {
    /// A client that logs in at this host with what the flags say, elsewhere with what is stored.
    pub fn client(&self, host: Option<&Host>, rate: Option<u64>) -> Result<Arc<Client>> {
        let get = |name: &str| std::env::var(name).ok();
        let mut logins = Logins::read(&get)?;
        if let Some(user) = &self.user {
            let host = host.ok_or_else(|| {
                Kind::Invalid(Thing::User).because(
                    "--user is for one registry, and the images are at several; log in with docker or podman",
                )
            })?;
            logins.give(host.clone(), Login::Password { user: user.clone(), password: self.password(host)? });
        }
        Client::new(Options {
            ca: self.ca.clone(),
            logins,
            proxies: Proxies::read(&get)?,
            rate,
            waiter: progress::waiter(),
            ..Options::usual()
        })
    }

    fn password(&self, host: &Host) -> Result<String> {
        if self.password_stdin {
            return super::password(true);
        }
        if let Some(password) = std::env::var(PASSWORD).ok().filter(|text| !text.is_empty()) {
            return Ok(password);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Kind::Invalid(Thing::User).because(format!(
                "there is no terminal to ask for a password; give it in {PASSWORD} or with --password-stdin"
            )));
        }
        Ok(rpassword::prompt_password(format!("Password at {host}: "))?)
    }
}

/// What runs the client: a verb that blocks, and a few threads that do not.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Bytes a second: `500K`, `2M`, `1000000`.
pub fn parse_rate(text: &str) -> std::result::Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, last)) => match UNITS.iter().find(|(unit, _)| *unit == last.to_ascii_uppercase()) {
            Some((_, unit)) => (&text[..at], *unit),
            None => (text, 1),
        },
        None => (text, 1),
    };
    let rate = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|rate| *rate >= 1 << 10);
    rate.ok_or_else(|| "a rate is bytes a second, at least 1K: 500K, 2M, 1000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_unit_or_none() {
        assert_eq!(parse_rate("2M"), Ok(2 << 20));
        assert_eq!(parse_rate("500k"), Ok(500 << 10));
        assert_eq!(parse_rate("1000000"), Ok(1_000_000));
        for bad in
            ["", "M", "0", "-1", "1.5M", "99999999999999999999", "18446744073709551615G", "2MB", "\u{e4}"]
        {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
