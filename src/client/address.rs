//! Where registries are, and how people write what is there.

use hyper::Uri;
use std::fmt;

use crate::error::{Error, Kind, Result, Thing};
use crate::names::{Digest, RepoName, Tag};

/// Docker Hub as people call it, and where it answers.
const HUB: &str = "docker.io";
const HUB_SERVES_AT: &str = "registry-1.docker.io";
/// What else people and files of credentials call it.
const HUB_ALIASES: [&str; 4] = [HUB, HUB_SERVES_AT, "index.docker.io", "registry.hub.docker.com"];

/// Longest host name with its port, in bytes (RFC 1035: 253).
const HOST_MAX: usize = 260;
/// Longest address a server may send us to. Signed ones of object stores reach 2 KiB.
const TARGET_MAX: usize = 16 << 10;

fn invalid(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Kind::Invalid(Thing::Request).because(why)
}

/// A registry's name, with its port if it has one: `docker.io`, `localhost:5000`, `[::1]:5000`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

impl Host {
    pub fn parse(text: &str) -> Result<Host> {
        let wrong = || {
            invalid(format!(
                "{text:.100} is no name of a registry; one is like registry.example or 192.168.7.2:5000"
            ))
        };
        let lower = text.to_ascii_lowercase();
        let (name, port) = match lower.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']').ok_or_else(wrong)?;
                name.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                (name, port)
            }
            None => lower.split_at(lower.find(':').unwrap_or(lower.len())),
        };
        let port_fits = port.is_empty()
            || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let name_fits = lower.starts_with('[') || name.split('.').all(label);
        if lower.len() > HOST_MAX || !port_fits || !name_fits {
            return Err(wrong());
        }
        Ok(if HUB_ALIASES.contains(&lower.as_str()) { Host(HUB.to_owned()) } else { Host(lower) })
    }

    /// Docker Hub, which is meant where no registry is named.
    pub fn hub() -> Host {
        Host(HUB.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_hub(&self) -> bool {
        self.0 == HUB
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A registry and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub host: Host,
    pub https: bool,
}

impl Endpoint {
    /// A host; `http://` before it asks for plain HTTP, `https://` for TLS, nothing for `https`.
    pub fn parse(text: &str, https: bool) -> Result<Endpoint> {
        let (https, host) = match text.split_once("://") {
            Some(("http", host)) => (false, host),
            Some(("https", host)) => (true, host),
            Some(_) => return Err(invalid(format!("{text:.100} is no address of a registry"))),
            None => (https, text),
        };
        Ok(Endpoint { host: Host::parse(host.trim_end_matches('/'))?, https })
    }

    pub(super) fn origin(&self) -> Origin {
        let host = if self.host.is_hub() { HUB_SERVES_AT } else { self.host.as_str() };
        Origin::of(host, self.https)
    }
}

/// An image somewhere: `[HOST/]REPOSITORY[:TAG][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    pub host: Host,
    pub repo: RepoName,
    pub tag: Option<Tag>,
    pub digest: Option<Digest>,
}

impl ImageName {
    /// Parses as docker does: what comes before the first slash is a host if it has a dot or a
    /// colon or is `localhost`; without a host it is Docker Hub, without tag and digest `latest`.
    pub fn parse(text: &str) -> Result<ImageName> {
        let text = text.strip_prefix("docker://").unwrap_or(text);
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => (text, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let is_host = |first: &&str| first.contains(['.', ':']) || *first == "localhost";
        let (host, path) = match text.split_once('/').filter(|(first, _)| is_host(first)) {
            Some((host, path)) => (Host::parse(host)?, path),
            None => (Host::hub(), text),
        };
        let (repo, tag) = match path.split_once(':') {
            Some((repo, tag)) => (repo, Some(Tag::parse(tag)?)),
            None => (path, None),
        };
        let tag = match (&tag, &digest) {
            (None, None) => Some(Tag::parse("latest")?),
            _ => tag,
        };
        Ok(ImageName { host, repo: RepoName::parse(repo)?, tag, digest })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repo)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// Scheme, host and port: what may be told a secret that was meant for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub https: bool,
    /// An IPv6 address keeps its brackets.
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// `HOST[:PORT]`; None if it is none.
    pub fn parse(text: &str, https: bool) -> Option<Origin> {
        // The hub's other names mean it where an image's do.
        Host::parse(text).ok().map(|_| Origin::of(&text.to_ascii_lowercase(), https))
    }

    /// Of a host that was checked when it was parsed.
    fn of(host: &str, https: bool) -> Origin {
        let colon =
            host.rfind(':').filter(|at| !host.ends_with(']') && host[at + 1..].parse::<u16>().is_ok());
        let port = colon.and_then(|at| host[at + 1..].parse().ok()).unwrap_or(Origin::usual_port(https));
        Origin { https, host: host[..colon.unwrap_or(host.len())].to_owned(), port }
    }

    /// The host as DNS and TLS know it.
    pub fn name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    fn usual_port(https: bool) -> u16 {
        if https { 443 } else { 80 }
    }

    /// As the `Host` field wants it.
    pub fn authority(&self) -> String {
        match self.port == Origin::usual_port(self.https) {
            true => self.host.clone(),
            false => self.place(),
        }
    }

    /// With its port in any case, as tunnels are asked for.
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub fn at(&self, target: impl Into<String>) -> Url {
        Url { origin: self.clone(), target: target.into() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

/// A whole address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub origin: Origin,
    /// Path and query.
    pub target: String,
}

impl Url {
    /// An absolute address, as a token service's is.
    pub fn parse(text: &str) -> Result<Url> {
        let wrong = || invalid(format!("the server named an address that is none: {text:.100}"));
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || text.len() > TARGET_MAX {
            return Err(wrong());
        }
        let origin = Origin {
            https,
            host: authority.host().to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(Origin::usual_port(https)),
        };
        Ok(origin.at(uri.path_and_query().map_or("/", |target| target.as_str())))
    }

    /// Where a `Location` leads from here: an absolute address, or a path of the same server.
    /// Never from TLS to plain HTTP.
    pub fn join(&self, location: &str) -> Result<Url> {
        let url = match location.strip_prefix('/') {
            Some(rest) if !rest.starts_with('/') => {
                let target: Uri =
                    location.parse().ok().filter(|_| location.len() <= TARGET_MAX).ok_or_else(|| {
                        invalid(format!("the server named an address that is none: {location:.100}"))
                    })?;
                self.origin.at(target.path_and_query().map_or("/", |target| target.as_str()))
            }
            _ => Url::parse(location)?,
        };
        if self.origin.https && !url.origin.https {
            // A registry behind a proxy that ends TLS and does not say so: its own address is meant.
            if url.origin.host == self.origin.host {
                return Ok(self.origin.at(url.target));
            }
            return Err(invalid(format!("{} leads from TLS to plain HTTP at {}", self.origin, url.origin)));
        }
        Ok(url)
    }

    /// The same with one more pair in its query.
    pub fn with_query(&self, key: &str, value: &str) -> Url {
        let sign = if self.target.contains('?') { '&' } else { '?' };
        let pair = form_urlencoded::Serializer::new(String::new()).append_pair(key, value).finish();
        self.origin.at(format!("{}{sign}{pair}", self.target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_host_is_docker_hubs_and_one_without_a_tag_is_latest() {
        let name = |text| ImageName::parse(text).expect("parses").to_string();
        for (text, meant) in [
            ("nginx", "docker.io/nginx:latest"),
            ("acme/app:1.2", "docker.io/acme/app:1.2"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("docker://Registry.Example:5000/a/b/c:1", "registry.example:5000/a/b/c:1"),
            ("[::1]:5000/app:1", "[::1]:5000/app:1"),
        ] {
            assert_eq!(name(text), meant, "{text}");
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        let both = ImageName::parse(&format!("ghcr.io/a/b:1@{digest}")).expect("parses");
        assert_eq!(both.tag.map(|tag| tag.to_string()).as_deref(), Some("1"));
        let bare = ImageName::parse(&format!("ghcr.io/a/b@{digest}")).expect("parses");
        assert_eq!((bare.tag, bare.digest.map(|d| d.to_string())), (None, Some(digest)));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for bad in [
            "",
            "/",
            "a b",
            "UPPER/app",
            "host.example/",
            "host.example:0/a",
            "host:99999/a",
            "a/b:",
            "host.example/a@sha256:1",
            "user@host.example/a",
            "[::1/a",
            "-/a",
            "http://host.example/a",
        ] {
            assert!(ImageName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn docker_hub_is_asked_where_it_answers_and_ports_are_the_schemes_own() {
        let authority = |text| Endpoint::parse(text, true).expect("parses").origin().authority();
        for (text, at) in [
            ("docker.io", "registry-1.docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("[::1]", "[::1]"),
            ("[::1]:5000", "[::1]:5000"),
            ("http://mirror.example:80/", "mirror.example"),
            ("https://mirror.example:443", "mirror.example"),
        ] {
            assert_eq!(authority(text), at, "{text}");
        }
        assert!(!Endpoint::parse("http://mirror.example", true).expect("parses").https);
    }

    #[test]
    fn a_redirect_never_leads_from_tls_to_plain_http() {
        let from = Url::parse("https://a.example/v2/x").expect("parses");
        assert_eq!(from.join("/v2/y?z=1").expect("joins").target, "/v2/y?z=1");
        assert_eq!(from.join("https://cdn.example/blob").expect("joins").origin.host, "cdn.example");
        assert!(from.join("http://cdn.example/blob").is_err());
        let own = from.join("http://a.example/v2/uploads/1").expect("joins");
        assert!(own.origin == from.origin && own.target == "/v2/uploads/1");
        for bad in ["", "v2/y", "//cdn.example/x", "ftp://a.example/", "https://user:pass@a.example/", "/a b"]
        {
            assert!(from.join(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_query_grows_whether_there_is_one_or_not() {
        let url =
            Url::parse("https://a.example/t").expect("parses").with_query("scope", "repository:a/b:pull");
        assert_eq!(url.target, "/t?scope=repository%3Aa%2Fb%3Apull");
        assert_eq!(url.with_query("a", "b").target, "/t?scope=repository%3Aa%2Fb%3Apull&a=b");
    }
}
