//! Other registries by way of a proxy, as the environment names one.

use crate::binary::BINARY;
use crate::client::{Patient, admin, forward};
use crate::harness::{NAME, PASSWORD, Site, Wishes, noise, sha256};
use outport::client::{Endpoint, Host, Options, Proxies, Remote};
use outport::error::Kind;
use outport::names::RepoName;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

/// A proxy that knows one server alone, under every name, and remembers the heads of what it was
/// asked: tunnels, and requests with whole addresses, one a connection.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `refuse` may answer instead.
    fn new(to: SocketAddr, refuse: impl Fn(usize, &str) -> Option<&'static str> + Send + 'static) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let Some(head) = head_of(&mut client) else { continue };
                let count = seen.lock().unwrap().len();
                seen.lock().unwrap().push(head.clone());
                match refuse(count, &head) {
                    Some(status) => {
                        let answer =
                            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                        let _ = client.write_all(answer.as_bytes());
                    }
                    None => pass_on(client, to, &head),
                }
            }
        });
        Proxy { address, heads }
    }

    fn open(to: SocketAddr) -> Proxy {
        Proxy::new(to, |_, _| None)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// A client that finds these in its environment; `{}` is where the proxy is.
    fn client(&self, set: &[(&str, &str)], change: impl FnOnce(&mut Options)) -> Patient {
        let set: Vec<(String, String)> = set
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.replace("{}", &self.address.to_string())))
            .collect();
        let get = |name: &str| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        Patient::with(|options| {
            options.proxies = Proxies::read(&get).unwrap();
            options.logins.give(Host::parse(NAME).unwrap(), admin());
            change(options);
        })
    }
}

/// A request's head, to its empty line and not a byte further.
fn head_of(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn pass_on(mut client: TcpStream, to: SocketAddr, head: &str) {
    let mut server = TcpStream::connect(to).unwrap();
    if head.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    } else {
        let (first, rest) = head.split_once("\r\n").unwrap();
        let mut words = first.split(' ');
        let (method, whole) = (words.next().unwrap(), words.next().unwrap());
        let (_, path) = whole.strip_prefix("http://").expect("a whole address").split_once('/').unwrap();
        let rest: String =
            rest.split_inclusive("\r\n").filter(|line| !line.to_lowercase().starts_with("proxy-")).collect();
        let said = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n{rest}");
        server.write_all(said.as_bytes()).unwrap();
    }
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || forward(from, to, usize::MAX, &AtomicUsize::new(0)));
    }
}

fn remote(client: &Patient, https: bool) -> Arc<Remote> {
    let endpoint = Endpoint::parse(NAME, https).unwrap();
    client.client.remote(&endpoint, &RepoName::parse("bob/app").unwrap()).unwrap()
}

#[test]
fn a_registry_that_only_a_proxy_reaches_is_asked_by_tls_through_a_tunnel() {
    let site = Site::with(Wishes { tls: true, ..Wishes::default() });
    let proxy = Proxy::open(site.address);
    let ca = site.path("tls/ca.crt");
    let client = proxy.client(&[("HTTPS_PROXY", "http://me:p%40ss@{}")], |options| options.ca = Some(ca));
    let remote = remote(&client, true);
    let layer = noise(3 << 20, 1);
    client.push(&remote, &layer).unwrap();
    assert!(client.blob(vec![remote.clone()], &sha256(&layer), layer.len()).unwrap() == layer);
    assert_eq!(client.manifest(&remote, "v1").unwrap(), None);
    let heads = proxy.heads();
    assert!(!heads.is_empty() && heads.len() < 5, "connections are kept: {heads:?}");
    for head in heads {
        assert!(head.starts_with("CONNECT registry.test:443 HTTP/1.1\r\n"), "{head}");
        let login = crate::harness::basic("me", "p@ss");
        assert!(
            head.to_lowercase().contains(&format!("proxy-authorization: {login}").to_lowercase()),
            "{head}"
        );
        assert!(
            !head.to_lowercase().contains("\r\nauthorization"),
            "the registry's login is not the proxy's"
        );
    }
}

#[test]
fn plain_http_goes_to_a_proxy_with_whole_addresses() {
    let site = Site::new();
    site.push_image("bob/app", "v1", b"layer");
    let proxy = Proxy::open(site.address);
    let client = proxy.client(&[("http_proxy", "{}"), ("HTTPS_PROXY", "http://127.0.0.1:1")], |_| ());
    let remote = remote(&client, false);
    assert!(client.manifest(&remote, "v1").unwrap().is_some());
    let layer = noise(9 << 20, 2);
    client.push(&remote, &layer).unwrap();
    assert!(client.blob(vec![remote], &sha256(&layer), layer.len()).unwrap() == layer);
    let heads = proxy.heads();
    assert!(heads.iter().all(|head| head.contains(" http://registry.test/v2/")), "{heads:?}");
    assert!(
        heads.iter().all(|head| head.to_lowercase().contains("\r\nhost: registry.test\r\n")),
        "{heads:?}"
    );
}

#[test]
fn what_is_here_or_excepted_is_asked_without_the_proxy() {
    let site = Site::new();
    site.push_image("bob/app", "v1", b"layer");
    let proxy = Proxy::open(site.address);
    let here = proxy.client(&[("HTTP_PROXY", "{}")], |options| {
        options.logins.give(Host::parse(&site.address.to_string()).unwrap(), admin());
    });
    let endpoint = Endpoint::parse(&site.address.to_string(), false).unwrap();
    let remote_here = here.client.remote(&endpoint, &RepoName::parse("bob/app").unwrap()).unwrap();
    assert!(here.manifest(&remote_here, "v1").unwrap().is_some());
    let excepted = proxy.client(&[("HTTP_PROXY", "{}"), ("NO_PROXY", "example.org,.test")], |_| ());
    let error = excepted.manifest(&remote(&excepted, false), "v1").unwrap_err();
    assert!(error.to_string().contains("registry.test cannot be reached"), "nobody else knows it: {error}");
    assert_eq!(proxy.heads(), Vec::<String>::new());
}

#[test]
fn a_proxy_that_says_no_is_named_and_asked_again_only_if_that_may_help() {
    let site = Site::new();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    for (status, https, kind, words, again) in [
        ("407 Proxy Authentication Required", true, Kind::Unauthorized, "wants a login", false),
        ("407 Proxy Authentication Required", false, Kind::Unauthorized, "wants a login", false),
        ("403 Forbidden", true, Kind::Unavailable, "does not connect to registry.test: 403", false),
        ("502 Bad Gateway", true, Kind::Unavailable, "does not connect to registry.test: 502", true),
    ] {
        let proxy = Proxy::new(site.address, move |_, _| Some(status));
        let client = proxy.client(&[("HTTPS_PROXY", "{}"), ("HTTP_PROXY", "{}")], |_| ());
        let error = client.manifest(&remote(&client, https), "v1").unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains(&format!("the proxy {}", proxy.address)), "{error}");
        assert_eq!(!client.waits.lock().unwrap().is_empty(), again, "{status}");
    }
    let passing = Proxy::new(nowhere, |_, _| Some("407 Proxy Authentication Required"));
    let client = passing.client(&[("HTTPS_PROXY", "http://me:secret@{}")], |_| ());
    let error = client.manifest(&remote(&client, true), "v1").unwrap_err().to_string();
    assert!(error.contains("does not take the login") && !error.contains("secret"), "{error}");
    let client = passing.client(&[("HTTPS_PROXY", "http://me:secret@127.0.0.1:1")], |_| ());
    let error = client.manifest(&remote(&client, true), "v1").unwrap_err().to_string();
    assert!(
        error.contains("the proxy 127.0.0.1:1, which the environment names, cannot be reached"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn the_command_line_pulls_and_pushes_by_way_of_the_proxy_that_its_environment_names() {
    let site = Site::with(Wishes { tls: true, ..Wishes::default() });
    let proxy = Proxy::open(site.address);
    let run = |args: &[&str]| {
        let output = Command::new(BINARY)
            .args(args)
            .args(["--user", "admin", "--ca"])
            .arg(site.path("tls/ca.crt"))
            .env("OUTPORT_REGISTRY_PASSWORD", PASSWORD)
            .env("HTTPS_PROXY", format!("http://{}", proxy.address))
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved.tar");
    let image = crate::import::image(5);
    std::fs::write(&saved, crate::archives::docker_save(&image, &["acme/app:1"]).end()).unwrap();
    run(&["push", saved.to_str().unwrap(), "--to", NAME]);
    let bundle = dir.path().join("bundle.tar");
    run(&["pull", &format!("{NAME}/acme/app:1"), "-o", bundle.to_str().unwrap()]);
    assert!(bundle.exists());
    assert!(proxy.heads().iter().all(|head| head.starts_with("CONNECT registry.test:443 ")));
}
