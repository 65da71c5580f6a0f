//! Proxies between us and other servers, as the environment names them: `HTTPS_PROXY`,
//! `HTTP_PROXY` and `NO_PROXY`, by the rules that docker and podman go by
//! (pkg.go.dev/golang.org/x/net/http/httpproxy#Config).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::net::IpAddr;

use super::address::Origin;
use crate::error::{Kind, Result, Thing};

/// Which proxy is asked for what.
#[derive(Default)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    direct: Vec<Direct>,
}

/// A server that asks others for us. Its login is in no sentence: there is no `Debug`.
#[derive(Clone)]
pub(super) struct Proxy {
    pub origin: Origin,
    /// The value of `Proxy-Authorization`.
    pub login: Option<HeaderValue>,
}

/// Who is asked without a proxy.
#[derive(Debug, PartialEq, Eq)]
enum Direct {
    Everybody,
    /// Addresses that begin with so many bits of one.
    Net(IpAddr, u8),
    /// A name and those below it, or only those; at one port or at any.
    Name {
        name: String,
        below_alone: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// `get` looks into the environment. Fails where a proxy's address does not parse.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Proxies> {
        let set = |name: &str| {
            let either = get(name).filter(|text| !text.is_empty());
            either.or_else(|| get(&name.to_lowercase()).filter(|text| !text.is_empty()))
        };
        let proxy = |name: &str| set(name).map(|text| Proxy::parse(name, &text)).transpose();
        let (https, http) = (proxy("HTTPS_PROXY")?, proxy("HTTP_PROXY")?);
        let direct = set("NO_PROXY").unwrap_or_default();
        Ok(Proxies { https, http, direct: direct.split(',').filter_map(Direct::parse).collect() })
    }

    /// Whom to ask for what is at this server; None: itself. So are this machine's own, always.
    pub(super) fn to(&self, origin: &Origin) -> Option<&Proxy> {
        let proxy = if origin.https { &self.https } else { &self.http };
        let name = origin.name();
        let address = name.parse::<IpAddr>().ok();
        let is_own = name == "localhost" || address.is_some_and(|address| address.is_loopback());
        proxy.as_ref().filter(|_| !is_own && !self.direct.iter().any(|direct| direct.fits(origin, address)))
    }
}

impl Proxy {
    /// `[http[s]://][USER:PASSWORD@]HOST[:PORT]`, as a variable of the environment has it.
    fn parse(variable: &str, text: &str) -> Result<Proxy> {
        // It may hold a password, so it is not shown.
        let wrong = || {
            Kind::Invalid(Thing::Request).because(format!(
                "{variable} is no address of a proxy; one is like http://proxy.example:3128, with \
                 user:password@ before the host if it wants a login"
            ))
        };
        let (https, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => {
                let why = format!(
                    "{variable} names a proxy of another kind; those of http:// and https:// are asked"
                );
                return Err(Kind::Unsupported.because(why));
            }
        };
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let origin = Origin::parse(place.trim_end_matches('/'), https).ok_or_else(wrong)?;
        let login = match login {
            None => None,
            Some(login) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
                let pair = STANDARD.encode(format!("{}:{}", plain(user), plain(password)));
                let mut value = HeaderValue::from_str(&format!("Basic {pair}")).map_err(|_| wrong())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Proxy { origin, login })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {}", self.origin)
    }
}

impl Direct {
    /// One item of a list. What is nothing that could be meant is passed over.
    fn parse(text: &str) -> Option<Direct> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(Direct::Everybody);
        }
        if let Some((address, bits)) = text.split_once('/') {
            return Some(Direct::Net(address.parse().ok()?, bits.parse().ok()?));
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Direct::Net(address, 128));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        let bare = name.trim_start_matches('*').trim_start_matches('.');
        (!bare.is_empty()).then(|| Direct::Name {
            name: bare.to_owned(),
            below_alone: name.starts_with(['*', '.']),
            port,
        })
    }

    fn fits(&self, origin: &Origin, address: Option<IpAddr>) -> bool {
        match self {
            Direct::Everybody => true,
            Direct::Net(net, bits) => address.is_some_and(|address| within(address, *net, *bits)),
            Direct::Name { name, below_alone, port } => {
                let below = origin.name().strip_suffix(name.as_str());
                port.is_none_or(|port| port == origin.port)
                    && below.is_some_and(|below| below.ends_with('.') || (below.is_empty() && !below_alone))
            }
        }
    }
}

/// Whether two addresses of one kind begin with the same bits.
fn within(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    let differ = match (address, net) {
        (IpAddr::V4(one), IpAddr::V4(other)) => u128::from((one.to_bits()) ^ other.to_bits()) << 96,
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= u32::from(bits).min(if address.is_ipv4() { 32 } else { 128 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(set: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::read(&|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn asked(proxies: &Proxies, host: &str, https: bool) -> Option<String> {
        let origin = Origin::parse(host, https).expect("parses");
        proxies.to(&origin).map(|proxy| proxy.origin.to_string())
    }

    #[test]
    fn a_proxy_is_asked_for_its_scheme_unless_no_proxy_names_the_server() {
        let set = [
            ("HTTPS_PROXY", "http://one.example:3128/"),
            ("http_proxy", "two.example"),
            (
                "NO_PROXY",
                "site.example, .inner.example,*.star.example,ported.example:5000,10.1.0.0/16,fd00::/8,192.168.7.2",
            ),
        ];
        let proxies = proxies(&set).expect("reads");
        for (host, direct) in [
            ("registry.example", false),
            ("site.example", true),
            ("site.example:5000", true),
            ("deep.site.example", true),
            ("website.example", false),
            ("inner.example", false),
            ("a.inner.example", true),
            ("star.example", false),
            ("a.star.example", true),
            ("ported.example:5000", true),
            ("ported.example", false),
            ("10.1.2.3:5000", true),
            ("10.2.2.3", false),
            ("[fd12::1]:5000", true),
            ("[2001:db8::1]", false),
            ("192.168.7.2", true),
            ("192.168.7.3", false),
            ("localhost:5000", true),
            ("127.3.2.1", true),
            ("[::1]", true),
        ] {
            let (tls, plain) = (asked(&proxies, host, true), asked(&proxies, host, false));
            let expected =
                if direct { (None, None) } else { (Some("one.example:3128"), Some("two.example")) };
            assert_eq!((tls.as_deref(), plain.as_deref()), expected, "{host}");
        }
    }

    #[test]
    fn nobody_is_asked_without_a_variable_or_with_a_star() {
        let none = proxies(&[("HTTPS_PROXY", "")]).expect("reads");
        assert_eq!(asked(&none, "a.example", true), None);
        let star = proxies(&[("https_proxy", "p.example:1"), ("no_proxy", "*")]).expect("reads");
        assert_eq!(asked(&star, "a.example", true), None);
    }

    #[test]
    fn a_login_is_decoded_and_told_to_nobody() {
        let set = [("HTTPS_PROXY", "https://me:p%40ss%3A1@proxy.example")];
        let read = proxies(&set).expect("reads");
        let origin = Origin::parse("a.example", true).expect("parses");
        let proxy = read.to(&origin).expect("is one");
        assert_eq!((proxy.origin.https, proxy.origin.port), (true, 443));
        let expected = format!("Basic {}", STANDARD.encode("me:p@ss:1"));
        assert_eq!(proxy.login.as_ref().and_then(|login| login.to_str().ok()), Some(expected.as_str()));
        for bad in [
            "socks5://proxy.example",
            "http://me:secret@",
            "me:secret@a b",
            "http://x:99999",
            "ftp://me:secret@x",
        ] {
            let Err(error) = proxies(&[("HTTPS_PROXY", bad)]) else { panic!("{bad} is none") };
            assert!(
                error.to_string().contains("HTTPS_PROXY") && !error.to_string().contains("secret"),
                "{error}"
            );
        }
    }
}
