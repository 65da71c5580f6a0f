//! The configuration: flags over environment over one file over defaults, resolved once
//! into plain fields. Every key is declared once, with its default and its reason.

use serde::Deserialize;
use std::fmt::Write as _;
use std::path::Path;

use crate::error::{Error, Kind, Result, Thing};

/// Where the packaged configuration lies.
pub const DEFAULT_FILE: &str = "/etc/outport/outport.toml";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Declares sections of keys: the resolved struct, the optional one that a file fills,
/// the environment's names, and what `config show` prints.
macro_rules! settings {
    ($($(#[$section_doc:meta])* $section:ident $Section:ident $Partial:ident {
        $($key:ident: $type:ty = $default:expr, $reason:literal;)*
    })*) => {
        $(
            $(#[$section_doc])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $Section { $(#[doc = $reason] pub $key: $type,)* }

            #[derive(Debug, Default, Deserialize)]
            #[serde(deny_unknown_fields)]
            struct $Partial { $($key: Option<$type>,)* }
        )*

        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            /// The data directory.
            pub data: String,
            $(pub $section: $Section,)*
        }

        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Partial {
            data: Option<String>,
            $(#[serde(default)] $section: $Partial,)*
        }

        impl Default for Config {
            fn default() -> Config {
                Config { data: DATA.into(), $($section: $Section { $($key: $default,)* },)* }
            }
        }

        impl Config {
            fn apply(&mut self, partial: Partial) {
                if let Some(data) = partial.data { self.data = data; }
                $($(if let Some(value) = partial.$section.$key { self.$section.$key = value; })*)*
            }

            /// Takes what the environment says, through a look-up so that tests need none.
            fn apply_env(&mut self, get: &dyn Fn(&str) -> Option<String>) -> Result<()> {
                if let Some(data) = get("OUTPORT_DATA") { self.data = data; }
                $($({
                    let name = env_name(stringify!($section), stringify!($key));
                    if let Some(text) = get(&name) {
                        self.$section.$key = Value::from_text(&text).ok_or_else(|| wrong(format!(
                            "{name} cannot be {text:?}; {}", <$type as Value>::EXPECTED)))?;
                    }
                })*)*
                Ok(())
            }

            /// The effective configuration as a file, each key with its reason and default.
            pub fn show(&self) -> String {
                let default = Config::default();
                let mut text = String::new();
                show_key(&mut text, "data", "The data directory. Packaged: /var/lib/outport.", &self.data, &default.data);
                $(
                    let _ = write!(text, "\n[{}]\n", stringify!($section));
                    $(show_key(&mut text, stringify!($key), $reason, &self.$section.$key, &default.$section.$key);)*
                )*
                text
            }
        }
    };
}

const DATA: &str = "./outport-data";
const SIGN_UP: [&str; 3] = ["closed", "approve", "open"];

settings! {
    server Server PartialServer {
        listen: Vec<String> = vec!["127.0.0.1:5000".into()],
            "Addresses to listen on. 5000 is the registry port everywhere; nothing is exposed by trying it out.";
        insecure_http: bool = false,
            "Plain HTTP instead of TLS. On loopback only, unless insecure_http_on names the address.";
        insecure_http_on: Vec<String> = vec![],
            "Addresses, without ports, that may be served by plain HTTP although others can reach them.";
        connections_max: usize = 1_024,
            "Open connections. Beyond it new ones wait.";
        connections_per_address: usize = 64,
            "Open connections from one address, loopback excepted. Beyond it new ones are closed.";
        trusted_proxies: Vec<String> = vec![],
            "Proxies whose X-Forwarded-Proto and X-Forwarded-Host are believed.";
        drain_secs: u64 = 30,
            "How long requests may go on after SIGTERM.";
    }
    tls Tls PartialTls {
        cert: Option<String> = None,
            "Certificate chain, PEM. Without it one is made, under an authority of this data directory's own.";
        key: Option<String> = None,
            "The certificate's private key, PEM.";
        names: Vec<String> = vec![],
            "Names and addresses for the certificate that is made, besides this machine's own.";
        client_ca: Option<String> = None,
            "Authorities, PEM, by whose certificates clients may log in: the common name is the user's. Passwords work all the same.";
    }
    auth Auth PartialAuth {
        anonymous_pull: bool = false,
            "Let nobody in particular pull what is public. Clients are then asked for Bearer tokens instead of Basic.";
        sign_up: String = "closed".into(),
            "Who may sign up by Docker's v1 index: closed, approve (an administrator activates each account) or open. Whoever is in may pull what is public.";
    }
    repos Repos PartialRepos {
        private: bool = true,
            "New repositories are private: their owner and administrators see them.";
        library_open: bool = false,
            "Let every user push names without a slash. Otherwise administrators only.";
    }
    storage Storage PartialStorage {
        blob_bytes_max: u64 = 32 << 30,
            "Largest blob, in bytes.";
        reserve_bytes: Option<u64> = None,
            "Free bytes that pushes may not use up. Without it 5 % of the disk, at least 256 MiB and at most 2 GiB.";
        uploads_per_user: usize = 64,
            "Open uploads of one user.";
        upload_expiry_secs: u64 = 86_400,
            "An upload nobody goes on with is dropped after this long.";
    }
    scrub Scrub PartialScrub {
        days: u64 = 30,
            "How long it takes to read the whole store again, a little every minute, to find what the disk lost. 0: never.";
    }
    gc Gc PartialGc {
        grace_secs: u64 = 3_600,
            "What no image relies on stays this long after it was pushed, mounted or asked for: a push takes its time.";
        retention: Vec<String> = vec![],
            "What goes by itself, as in \"ci/*:pr-* older 14d\", \"team/* keep 20\", \"* untagged 7d\". Ages count the time in service.";
    }
    import Import PartialImport {
        folder: Option<String> = None,
            "A directory in which bundles are found, checked and taken in by themselves; a receipt is left beside each.";
        unsigned: bool = false,
            "Take in from the folder also what no trusted key signed, and any archive of images.";
    }
    compat Compat PartialCompat {
        empty_tags_for_missing: bool = false,
            "Answer the tag list of a missing repository with an empty list instead of 404.";
    }
    log Log PartialLog {
        level: String = "info".into(),
            "error, warn, info, debug or trace. Pulls are logged at debug: a journal on flash wears it out.";
        format: String = "text".into(),
            "text for people and the journal, or json.";
    }
}

/// A type that a key may have.
trait Value: Sized {
    const EXPECTED: &'static str;
    fn from_text(text: &str) -> Option<Self>;
    /// As TOML; None where there is no value.
    fn to_toml(&self) -> Option<toml::Value>;
}

impl Value for String {
    const EXPECTED: &'static str = "a text is expected";
    fn from_text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.as_str().into())
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false is expected";
    fn from_text(text: &str) -> Option<bool> {
        match text {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some((*self).into())
    }
}

impl Value for u64 {
    const EXPECTED: &'static str = "a whole number is expected";
    fn from_text(text: &str) -> Option<u64> {
        text.parse().ok()
    }
    fn to_toml(&self) -> Option<toml::Value> {
        i64::try_from(*self).ok().map(Into::into)
    }
}

impl Value for usize {
    const EXPECTED: &'static str = u64::EXPECTED;
    fn from_text(text: &str) -> Option<usize> {
        text.parse().ok()
    }
    fn to_toml(&self) -> Option<toml::Value> {
        i64::try_from(*self).ok().map(Into::into)
    }
}

impl Value for Vec<String> {
    const EXPECTED: &'static str = "a list with commas is expected";
    fn from_text(text: &str) -> Option<Vec<String>> {
        Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }
    fn to_toml(&self) -> Option<toml::Value> {
        Some(self.clone().into())
    }
}

impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn from_text(text: &str) -> Option<Option<T>> {
        if text.is_empty() { Some(None) } else { T::from_text(text).map(Some) }
    }
    fn to_toml(&self) -> Option<toml::Value> {
        self.as_ref().and_then(Value::to_toml)
    }
}

fn env_name(section: &str, key: &str) -> String {
    format!("OUTPORT_{section}_{key}").to_ascii_uppercase()
}

fn show_key(text: &mut String, key: &str, reason: &str, value: &impl Value, default: &impl Value) {
    let shown = |value: Option<toml::Value>| value.map_or("none".to_owned(), |value| value.to_string());
    // Writing to a String does not fail.
    let _ = writeln!(text, "# {reason} Default: {}", shown(default.to_toml()));
    let _ = match value.to_toml() {
        Some(value) => writeln!(text, "{key} = {value}"),
        None => writeln!(text, "# {key} ="),
    };
}

fn wrong(why: String) -> Error {
    Kind::Invalid(Thing::Request).because(why)
}

impl Config {
    /// Defaults, then the file, then the environment. `file` must exist if it is given;
    /// else the packaged one is read if it is there. An unknown key is an error with its line.
    pub fn load(file: Option<&Path>, get: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
        let mut config = Config::default();
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match read(path) {
            Ok(text) => config.apply_file(&text, path)?,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong(format!("{} cannot be read: {error}", path.display()))),
        }
        config.apply_env(get)?;
        Ok(config)
    }

    fn apply_file(&mut self, text: &str, path: &Path) -> Result<()> {
        let partial: Partial =
            toml::from_str(text).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        self.apply(partial);
        Ok(())
    }

    /// What no single key can check.
    pub fn check(&self) -> Result<()> {
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(wrong("tls.cert and tls.key are given together or not at all".into()));
        }
        if self.data.is_empty() {
            return Err(wrong("data names no directory".into()));
        }
        if self.server.connections_max == 0
            || self.server.connections_per_address == 0
            || self.storage.uploads_per_user == 0
        {
            return Err(wrong(
                "connections_max, connections_per_address and uploads_per_user are at least 1".into(),
            ));
        }
        if !["error", "warn", "info", "debug", "trace"].contains(&self.log.level.as_str()) {
            return Err(wrong("log.level is error, warn, info, debug or trace".into()));
        }
        if !SIGN_UP.contains(&self.auth.sign_up.as_str()) {
            return Err(wrong("auth.sign_up is closed, approve or open".into()));
        }
        if !["text", "json"].contains(&self.log.format.as_str()) {
            return Err(wrong("log.format is text or json".into()));
        }
        self.trusted_proxies()?;
        self.plain_http_may_be_on(&self.listen()?)?;
        Ok(())
    }

    /// Refuses plain HTTP on an address that others reach and nobody named for it.
    pub fn plain_http_may_be_on(&self, sockets: &[std::net::SocketAddr]) -> Result<()> {
        let mut plain_on = Vec::new();
        for text in &self.server.insecure_http_on {
            plain_on.push(address(text)?);
        }
        for socket in sockets {
            if self.server.insecure_http && !socket.ip().is_loopback() && !plain_on.contains(&socket.ip()) {
                return Err(wrong(format!(
                    "passwords would cross the network in the clear: plain HTTP is for loopback, not for {}; \
                     use TLS, or name the address in server.insecure_http_on",
                    socket.ip()
                )));
            }
        }
        Ok(())
    }

    /// The addresses to listen on.
    pub fn listen(&self) -> Result<Vec<std::net::SocketAddr>> {
        if self.server.listen.is_empty() {
            return Err(wrong("server.listen names no address".into()));
        }
        let parse = |text: &String| {
            text.parse()
                .map_err(|_| wrong(format!("{text:?} is not ADDRESS:PORT, as in 0.0.0.0:5000 or [::]:5000")))
        };
        self.server.listen.iter().map(parse).collect()
    }

    pub fn trusted_proxies(&self) -> Result<Vec<std::net::IpAddr>> {
        self.server.trusted_proxies.iter().map(|text| address(text)).collect()
    }
}

fn address(text: &str) -> Result<std::net::IpAddr> {
    text.parse().map_err(|_| wrong(format!("{text:?} is not an IP address")))
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Config> {
        let mut config = Config::default();
        config.apply_file(text, Path::new("outport.toml"))?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn what_config_show_prints_is_a_file_that_says_the_same() {
        let config =
            file("data = \"/srv\"\n[server]\nlisten = [\"[::1]:6000\"]\n[storage]\nreserve_bytes = 5")
                .expect("parses");
        assert_eq!(file(&config.show()).expect("parses"), config);
        assert_eq!(file(&Config::default().show()).expect("parses"), Config::default());
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let error = file("[server]\nlisten = []\nlissten = []\n").expect_err("unknown").detail();
        assert!(error.contains("line 3") && error.contains("lissten"), "{error}");
        assert!(file("[servers]\n").is_err());
    }

    #[test]
    fn the_environment_wins_over_the_file_and_is_checked() {
        let mut config = file("[auth]\nanonymous_pull = false").expect("parses");
        let env = |name: &str| match name {
            "OUTPORT_AUTH_ANONYMOUS_PULL" => Some("true".to_owned()),
            "OUTPORT_SERVER_LISTEN" => Some("127.0.0.1:1, [::1]:2".to_owned()),
            "OUTPORT_DATA" => Some("/elsewhere".to_owned()),
            _ => None,
        };
        config.apply_env(&env).expect("applies");
        assert!(config.auth.anonymous_pull);
        assert_eq!(config.listen().expect("parses").len(), 2);
        assert_eq!(config.data, "/elsewhere");
        let bad = |name: &str| (name == "OUTPORT_SERVER_DRAIN_SECS").then(|| "soon".to_owned());
        assert!(
            config.apply_env(&bad).expect_err("no number").detail().contains("OUTPORT_SERVER_DRAIN_SECS")
        );
    }

    #[test]
    fn plain_http_stays_on_loopback_unless_the_address_is_named() {
        assert!(file("[server]\ninsecure_http = true").is_ok());
        let open = "[server]\ninsecure_http = true\nlisten = [\"192.0.2.1:5000\"]\n";
        assert!(file(open).is_err());
        assert!(file(&format!("{open}insecure_http_on = [\"192.0.2.1\"]")).is_ok());
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        for bad in [
            "[tls]\ncert = \"x\"",
            "[log]\nlevel = \"loud\"",
            "[auth]\nsign_up = \"maybe\"",
            "[server]\nlisten = [\"here\"]",
            "[server]\nconnections_max = 0",
        ] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }
}
