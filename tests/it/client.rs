//! The client of other registries, against our own server, lines that break, and servers that
//! say what a test wants.

use crate::harness::{PASSWORD, Site, Wishes, noise, sha256};
use outport::client::{
    Begun, Blob, Client, Endpoint, Fetch, Host, Login, Logins, Options, Remote, Times, Wanted,
};
use outport::error::{Kind, Result};
use outport::hash::Hash;
use outport::names::{Algorithm, Digest, Reference, RepoName};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;

/// A client that never waits, and remembers how long it should have.
pub struct Patient {
    pub runtime: Runtime,
    pub client: Arc<Client>,
    pub waits: Arc<Mutex<Vec<Duration>>>,
}

impl Patient {
    pub fn with(change: impl FnOnce(&mut Options)) -> Patient {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let seen = waits.clone();
        let mut options = Options::usual();
        options.waiter = Arc::new(move |wait, _| {
            seen.lock().unwrap().push(wait);
            Box::pin(std::future::ready(()))
        });
        change(&mut options);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Patient { runtime, client: Client::new(options).unwrap(), waits }
    }

    fn by_nobody() -> Patient {
        Patient::with(|_| ())
    }

    fn by_admin(of: SocketAddr) -> Patient {
        Patient::with(|options| options.logins.give(Host::parse(&of.to_string()).unwrap(), admin()))
    }

    fn remote(&self, at: SocketAddr, repo: &str) -> Arc<Remote> {
        let endpoint = Endpoint::parse(&at.to_string(), false).unwrap();
        self.client.remote(&endpoint, &RepoName::parse(repo).unwrap()).unwrap()
    }

    pub fn manifest(&self, remote: &Remote, reference: &str) -> Result<Option<String>> {
        let reference = Reference::parse(reference).unwrap();
        let fetched = self.runtime.block_on(remote.manifest(&reference))?;
        Ok(fetched.map(|fetched| fetched.digest.to_string()))
    }

    /// A blob's bytes.
    pub fn blob(&self, from: Vec<Arc<Remote>>, digest: &str, size: usize) -> Result<Vec<u8>> {
        let wanted = Wanted { digest: Digest::parse(digest).unwrap(), size: size as u64, from };
        let mut fetch = Fetch::new(self.runtime.handle(), [wanted]);
        let bytes = whole(fetch.next(0, None).unwrap().unwrap())?;
        assert!(fetch.next(0, None).unwrap().is_none());
        Ok(bytes)
    }

    pub fn push(&self, remote: &Arc<Remote>, bytes: &[u8]) -> Result<()> {
        let digest = Digest::parse(&sha256(bytes)).unwrap();
        self.runtime.block_on(async {
            match remote.upload(&digest, bytes.len() as u64, None, None).await? {
                Begun::Had => panic!("nobody has it"),
                Begun::Upload(mut upload) => {
                    for piece in bytes.chunks(1 << 18) {
                        upload.write(piece.to_vec().into()).await?;
                    }
                    upload.finish().await
                }
            }
        })
    }
}

fn whole(mut blob: Blob) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = blob.piece()? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

pub fn admin() -> Login {
    Login::Password { user: "admin".into(), password: PASSWORD.into() }
}

/// A line to a server that is cut, again and again, after so many bytes in a direction.
struct Cutter {
    address: SocketAddr,
    /// Bytes that went each way.
    up: Arc<AtomicUsize>,
    down: Arc<AtomicUsize>,
}

impl Cutter {
    fn new(to: SocketAddr, up_max: usize, down_max: usize) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (up, down) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (up.clone(), down.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(std::result::Result::ok) {
                let server = TcpStream::connect(to).unwrap();
                for (from, to, max, count) in
                    [(&client, &server, up_max, &counts.0), (&server, &client, down_max, &counts.1)]
                {
                    let (from, to, count) =
                        (from.try_clone().unwrap(), to.try_clone().unwrap(), count.clone());
                    std::thread::spawn(move || forward(from, to, max, &count));
                }
            }
        });
        Cutter { address, up, down }
    }
}

pub fn forward(mut from: TcpStream, mut to: TcpStream, max: usize, count: &AtomicUsize) {
    let (mut piece, mut left) = (vec![0; 64 << 10], max);
    while left > 0 {
        let room = piece.len().min(left);
        match from.read(&mut piece[..room]) {
            Ok(bytes) if bytes > 0 && to.write_all(&piece[..bytes]).is_ok() => {
                left -= bytes;
                count.fetch_add(bytes, Ordering::Relaxed);
            }
            _ => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A request as a server sees it: its head, in lower case but for the first line.
type Head = String;

/// A server that answers what it is told to, and remembers what it was asked.
struct Scripted {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<Head>>>,
}

impl Scripted {
    fn new(answer: impl Fn(usize, &str) -> String + Send + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(std::result::Result::ok) {
                let mut bytes = Vec::new();
                let mut piece = [0; 64 << 10];
                let end = loop {
                    if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                        break end;
                    }
                    match stream.read(&mut piece) {
                        Ok(read) if read > 0 => bytes.extend_from_slice(&piece[..read]),
                        _ => return,
                    }
                };
                let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                let length = head.to_lowercase();
                let length =
                    length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let mut left = length.unwrap_or(0usize).saturating_sub(bytes.len() - end - 4);
                while left > 0 {
                    match stream.read(&mut piece) {
                        Ok(read) if read > 0 => left = left.saturating_sub(read),
                        _ => break,
                    }
                }
                let count = seen.lock().unwrap().len();
                seen.lock().unwrap().push(head.clone());
                let _ = stream.write_all(answer(count, &head).as_bytes());
            }
        });
        Scripted { address, heads }
    }

    fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap().clone()
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn is_authorized(head: &str) -> bool {
    head.to_lowercase().contains("authorization:")
}

#[test]
fn an_image_comes_over_tls_from_a_registry_whose_authority_is_trusted_and_from_no_other() {
    let site = Site::with(Wishes { tls: true, ..Wishes::default() });
    let ca = site.path("tls/ca.crt");
    let host = Host::parse(&site.address.to_string()).unwrap();
    let endpoint = Endpoint::parse(&site.address.to_string(), true).unwrap();
    let repo = RepoName::parse("bob/app").unwrap();
    let trusting = Patient::with(|options| {
        options.ca = Some(ca);
        options.logins.give(host, admin());
    });
    let remote = trusting.client.remote(&endpoint, &repo).unwrap();
    let layer = noise(3 << 20, 1);
    trusting.push(&remote, &layer).unwrap();
    assert_eq!(trusting.blob(vec![remote], &sha256(&layer), layer.len()).unwrap(), layer);

    let stranger = Patient::by_nobody();
    let remote = stranger.client.remote(&endpoint, &repo).unwrap();
    let error = stranger.manifest(&remote, "v1").unwrap_err();
    assert!(error.to_string().contains("not trusted") && error.to_string().contains("--ca"), "{error}");
    let remote = stranger.remote(site.address, "bob/app");
    assert!(stranger.manifest(&remote, "v1").unwrap_err().to_string().contains("400"), "plain HTTP to TLS");
    assert!(stranger.waits.lock().unwrap().is_empty(), "nothing of this gets better with time");
}

#[test]
fn plain_http_answered_to_tls_is_named() {
    let site = Site::new();
    let client = Patient::by_nobody();
    let endpoint = Endpoint::parse(&site.address.to_string(), true).unwrap();
    let remote = client.client.remote(&endpoint, &RepoName::parse("bob/app").unwrap()).unwrap();
    let error = client.manifest(&remote, "v1").unwrap_err().to_string();
    assert!(error.contains("does not speak TLS") && error.contains("--insecure-http"), "{error}");
}

#[test]
fn basic_and_bearer_open_what_they_may_and_a_wrong_password_is_told_from_none() {
    for wishes in [Wishes::default(), Wishes::anonymous()] {
        let site = Site::with(wishes);
        let digest = site.push_image("bob/app", "v1", b"layer");
        let client = Patient::by_admin(site.address);
        let remote = client.remote(site.address, "bob/app");
        assert_eq!(client.manifest(&remote, "v1").unwrap(), Some(digest.clone()));
        assert_eq!(client.manifest(&remote, &digest).unwrap(), Some(digest));
        assert_eq!(client.manifest(&remote, "v2").unwrap(), None);
        assert_eq!(client.blob(vec![remote.clone()], &sha256(b"layer"), 5).unwrap(), b"layer");
        client.push(&remote, &noise(9 << 20, 2)).unwrap();

        let wrong = Patient::with(|options| {
            let login = Login::Password { user: "admin".into(), password: "not this one".into() };
            options.logins.give(Host::parse(&site.address.to_string()).unwrap(), login);
        });
        let remote = wrong.remote(site.address, "bob/app");
        let error = wrong.manifest(&remote, "v1").unwrap_err();
        assert_eq!(error.kind, Kind::Denied, "{error}");
        assert!(error.to_string().contains("admin") && !error.to_string().contains("not this"), "{error}");
        let nobody = Patient::by_nobody();
        let error = nobody.manifest(&nobody.remote(site.address, "bob/app"), "v1").unwrap_err();
        assert!(error.to_string().contains("--user"), "{error}");
    }
}

#[test]
fn a_blob_goes_on_where_the_line_broke_and_nothing_comes_twice() {
    let site = Site::new();
    let layer = noise(20 << 20, 3);
    site.push_image("bob/app", "v1", &layer);
    let cutter = Cutter::new(site.address, usize::MAX, 3 << 20);
    let client = Patient::by_admin(cutter.address);
    let remote = client.remote(cutter.address, "bob/app");
    assert_eq!(client.blob(vec![remote], &sha256(&layer), layer.len()).unwrap(), layer);
    let down = cutter.down.load(Ordering::Relaxed);
    assert!(down < layer.len() + (1 << 20), "{down} bytes came");
    assert!(client.waits.lock().unwrap().len() >= 6, "it broke again and again");
}

#[test]
fn a_line_that_brings_nothing_is_given_up() {
    let site = Site::new();
    let layer = noise(1 << 20, 4);
    site.push_image("bob/app", "v1", &layer);
    let cutter = Cutter::new(site.address, usize::MAX, 4 << 10);
    let client = Patient::by_admin(cutter.address);
    let remote = client.remote(cutter.address, "bob/app");
    let error = client.blob(vec![remote], &sha256(&layer), layer.len()).unwrap_err();
    assert!(error.to_string().contains("broke"), "{error}");
    assert_eq!(client.waits.lock().unwrap().len(), 5);
}

#[test]
fn an_upload_goes_on_from_the_offset_that_the_registry_names() {
    let site = Site::new();
    let layer = noise(40 << 20, 5);
    let cutter = Cutter::new(site.address, 11 << 20, usize::MAX);
    let client = Patient::by_admin(cutter.address);
    let remote = client.remote(cutter.address, "bob/app");
    client.push(&remote, &layer).unwrap();
    assert_eq!(site.get(&format!("/v2/bob/app/blobs/{}", sha256(&layer))).body, layer);
    let up = cutter.up.load(Ordering::Relaxed);
    assert!(up < layer.len() + (20 << 20), "{up} bytes went");
    assert!(!client.waits.lock().unwrap().is_empty(), "it broke");
}

#[test]
fn an_upload_that_another_process_left_is_gone_on_with() {
    let site = Site::new();
    let layer = noise(20 << 20, 6);
    let digest = Digest::parse(&sha256(&layer)).unwrap();
    let (first, second) = (Patient::by_admin(site.address), Patient::by_admin(site.address));
    let remote = first.remote(site.address, "bob/app");
    let session = first.runtime.block_on(async {
        let Begun::Upload(mut upload) = remote.upload(&digest, layer.len() as u64, None, None).await.unwrap()
        else {
            panic!("nobody has it")
        };
        for piece in layer[..17 << 20].chunks(1 << 20) {
            upload.write(piece.to_vec().into()).await.unwrap();
        }
        upload.session().unwrap()
    });
    let cutter = Cutter::new(site.address, usize::MAX, usize::MAX);
    let remote = second.remote(site.address, "bob/app");
    second.runtime.block_on(async {
        let begun = remote.upload(&digest, layer.len() as u64, None, Some(&session)).await.unwrap();
        let Begun::Upload(mut upload) = begun else { panic!("nobody has it") };
        assert_eq!(upload.at(), 16 << 20);
        for piece in layer.chunks(1 << 20) {
            upload.write(piece.to_vec().into()).await.unwrap();
        }
        upload.finish().await.unwrap();
    });
    drop(cutter);
    assert_eq!(site.get(&format!("/v2/bob/app/blobs/{digest}")).body, layer);
}

#[test]
fn a_blob_that_a_sibling_has_is_mounted() {
    for wishes in [Wishes::default(), Wishes::anonymous()] {
        let site = Site::with(wishes);
        let digest = Digest::parse(&site.push_blob("bob/base", b"shared")).unwrap();
        let client = Patient::by_admin(site.address);
        let remote = client.remote(site.address, "bob/app");
        let from = RepoName::parse("bob/base").unwrap();
        let begun = client.runtime.block_on(remote.upload(&digest, 6, Some(&from), None)).unwrap();
        assert!(matches!(begun, Begun::Had));
        assert!(client.runtime.block_on(remote.has_blob(&digest)).unwrap());
    }
}

#[test]
fn a_registry_that_takes_no_chunks_gets_the_blob_in_one_body() {
    let layer = noise(20 << 20, 7);
    let digest = sha256(&layer);
    let server = Scripted::new(|_, head| match head.split(' ').next() {
        Some("POST") => answer("202 Accepted", "Location: /v2/a/b/blobs/uploads/1\r\n", ""),
        Some("PATCH") => answer("405 Method Not Allowed", "", ""),
        _ => answer("201 Created", "", ""),
    });
    let client = Patient::by_nobody();
    client.push(&client.remote(server.address, "a/b"), &layer).unwrap();
    let heads = server.heads();
    let methods: Vec<_> = heads.iter().map(|head| head.split(' ').next().unwrap()).collect();
    assert_eq!(methods, ["POST", "PATCH", "POST", "PUT"]);
    let put = heads[3].to_lowercase();
    assert!(put.contains(&format!("content-length: {}", layer.len())), "{put}");
    assert!(put.contains(&digest.replace(':', "%3a")), "{put}");
}

#[test]
fn too_many_requests_are_waited_for_as_long_as_the_server_says() {
    let body = r#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = sha256(body.as_bytes());
    let server = Scripted::new(move |count, _| match count {
        0 => answer("429 Too Many Requests", "Retry-After: 17\r\n", ""),
        1 => answer("503 Service Unavailable", "Retry-After: 3\r\n", ""),
        2 => answer("502 Bad Gateway", "", "<html>"),
        _ => answer("200 OK", "Content-Type: application/vnd.oci.image.index.v1+json\r\n", body),
    });
    let client = Patient::by_nobody();
    assert_eq!(client.manifest(&client.remote(server.address, "a/b"), "v1").unwrap(), Some(digest));
    let waits = client.waits.lock().unwrap().clone();
    assert_eq!((waits.len(), waits[0].as_secs(), waits[1].as_secs()), (3, 17, 3), "{waits:?}");

    let never = Scripted::new(|_, _| answer("429 Too Many Requests", "Retry-After: 21600\r\n", ""));
    let error = client.manifest(&client.remote(never.address, "a/b"), "v1").unwrap_err();
    assert!(error.to_string().contains("21600 seconds"), "{error}");
    assert_eq!(never.heads().len(), 1);
}

#[test]
fn a_redirect_is_followed_without_a_login_and_not_for_ever() {
    let content = "the layer";
    let cdn = Scripted::new(move |_, _| answer("200 OK", "", content));
    let to = format!("Location: http://{}/signed?x=1\r\n", cdn.address);
    let registry = Scripted::new(move |_, head| match is_authorized(head) {
        true => answer("307 Temporary Redirect", &to, ""),
        false => answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", ""),
    });
    let client = Patient::by_admin(registry.address);
    let remote = client.remote(registry.address, "a/b");
    assert_eq!(client.blob(vec![remote], &sha256(content.as_bytes()), 9).unwrap(), content.as_bytes());
    assert!(!cdn.heads().is_empty() && !cdn.heads().iter().any(|head| is_authorized(head)));
    assert!(cdn.heads()[0].starts_with("GET /signed?x=1 "), "{:?}", cdn.heads());

    let circle = Scripted::new(|_, _| answer("302 Found", "Location: /v2/a/b/blobs/x\r\n", ""));
    let error = client.manifest(&client.remote(circle.address, "a/b"), "v1").unwrap_err();
    assert!(error.to_string().contains("redirects more than"), "{error}");
    assert_eq!(circle.heads().len(), 6);
}

#[test]
fn a_token_is_asked_for_once_with_the_scope_that_is_needed() {
    let digest = sha256(b"x");
    let service =
        Scripted::new(|_, _| answer("200 OK", "", r#"{"access_token":"the-token","expires_in":300}"#));
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"the service\",scope=\"repository:a/b:pull\"\r\n",
        service.address
    );
    let registry = Scripted::new(move |_, head| match head.contains("Bearer the-token") {
        true => answer("200 OK", "", "x"),
        false => answer("401 Unauthorized", &challenge, ""),
    });
    let client = Patient::by_admin(registry.address);
    let remote = client.remote(registry.address, "a/b");
    for _ in 0..3 {
        assert_eq!(client.blob(vec![remote.clone()], &digest, 1).unwrap(), b"x");
    }
    let heads = service.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    let asked = "GET /token?service=the+service&scope=repository%3Aa%2Fb%3Apull ";
    assert!(heads[0].starts_with(asked) && is_authorized(&heads[0]), "{heads:?}");
}

#[test]
fn a_mirror_is_asked_first_and_what_it_lacks_or_breaks_comes_from_the_registry() {
    let site = Site::new();
    let layer = noise(6 << 20, 8);
    site.push_image("bob/app", "v1", &layer);
    // It breaks in the middle of every blob.
    let mirror = Cutter::new(site.address, usize::MAX, 2 << 20);
    let client = Patient::with(|options| {
        options.logins.give(Host::parse(&site.address.to_string()).unwrap(), admin());
    });
    let endpoint = Endpoint::parse(&mirror.address.to_string(), false).unwrap();
    let repo = RepoName::parse("bob/app").unwrap();
    let first = client.client.mirror(&endpoint, &repo).unwrap();
    let from = vec![first, client.remote(site.address, "bob/app")];
    assert_eq!(client.blob(from, &sha256(&layer), layer.len()).unwrap(), layer);
    assert!(mirror.down.load(Ordering::Relaxed) > 0);
    assert!(client.waits.lock().unwrap().is_empty());
}

#[test]
fn bytes_that_are_not_what_was_asked_for_are_an_error() {
    let lying = Scripted::new(|_, _| answer("200 OK", "Content-Type: application/json\r\n", "{}"));
    let client = Patient::by_nobody();
    let remote = client.remote(lying.address, "a/b");
    let digest = sha256(b"xx");
    let error = client.blob(vec![remote.clone()], &digest, 2).unwrap_err();
    assert!(error.to_string().contains("wrong bytes"), "{error}");
    let error = client.blob(vec![remote.clone()], &digest, 3).unwrap_err();
    assert!(error.to_string().contains("other than the length"), "{error}");
    assert_eq!(client.manifest(&remote, &digest).unwrap_err().kind, Kind::DigestMismatch);
}

#[test]
fn a_server_that_knows_no_ranges_is_read_again_from_the_start() {
    let text = "0123456789".repeat(1000);
    let digest = sha256(text.as_bytes());
    let body = text.clone();
    let server = Scripted::new(move |count, head| match count {
        // Half of it, and the line is gone.
        0 => answer("200 OK", "", &body)[..5_000].to_owned(),
        _ => {
            assert!(head.to_lowercase().contains("range: bytes="), "{head}");
            answer("200 OK", "", &body)
        }
    });
    let client = Patient::by_nobody();
    let remote = client.remote(server.address, "a/b");
    assert_eq!(client.blob(vec![remote], &digest, text.len()).unwrap(), text.as_bytes());
    assert_eq!(server.heads().len(), 2);
}

#[test]
fn a_blob_that_is_had_in_part_is_fetched_from_there() {
    let site = Site::new();
    let layer = noise(5 << 20, 9);
    site.push_image("bob/app", "v1", &layer);
    let cutter = Cutter::new(site.address, usize::MAX, usize::MAX);
    let client = Patient::by_admin(cutter.address);
    let from = vec![client.remote(cutter.address, "bob/app")];
    let wanted = Wanted { digest: Digest::parse(&sha256(&layer)).unwrap(), size: layer.len() as u64, from };
    let had = 4 << 20;
    let mut hash = Hash::new(Algorithm::Sha256);
    hash.update(&layer[..had]);
    let mut fetch = Fetch::new(client.runtime.handle(), [wanted]);
    let rest = whole(fetch.next(had as u64, Some(hash)).unwrap().unwrap()).unwrap();
    assert_eq!(rest, layer[had..]);
    assert!(cutter.down.load(Ordering::Relaxed) < 2 << 20);
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_without_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = Patient::with(|options| {
        let short = Duration::from_millis(50);
        options.times = Times { connect: short, stall: short, commit: short };
    });
    let error = client.manifest(&client.remote(address, "a/b"), "v1").unwrap_err();
    assert_eq!(error.kind, Kind::Slow, "{error}");
}

#[test]
fn referrers_come_by_the_api_and_by_the_tag_that_stands_in_for_it() {
    let site = Site::new();
    let image = site.push_image("bob/app", "v1", b"layer");
    let subject = Digest::parse(&image).unwrap();
    let signature = site.image_of("bob/app", b"signature");
    let about = format!(
        r#","subject":{{"mediaType":"{}","digest":"{image}","size":2}}}}"#,
        crate::harness::OCI_MANIFEST
    );
    let signature = signature.strip_suffix('}').unwrap().to_owned() + &about;
    let expected = sha256(signature.as_bytes());
    assert_eq!(site.put_manifest("bob/app", &expected, &signature).status, 201);
    let client = Patient::by_admin(site.address);
    let remote = client.remote(site.address, "bob/app");
    let found = client.runtime.block_on(remote.referrers(&subject)).unwrap();
    assert_eq!(found.iter().map(Digest::as_str).collect::<Vec<_>>(), [expected.as_str()]);

    let child =
        format!(r#"{{"mediaType":"{}","digest":"{expected}","size":2}}"#, crate::harness::OCI_MANIFEST);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{child}]}}"#);
    let older = Scripted::new(move |_, head| match head.contains("/manifests/sha256-") {
        true => answer("200 OK", "Content-Type: application/vnd.oci.image.index.v1+json\r\n", &index),
        false => answer("404 Not Found", "", ""),
    });
    let found = client.runtime.block_on(client.remote(older.address, "a/b").referrers(&subject)).unwrap();
    assert_eq!(found.iter().map(Digest::as_str).collect::<Vec<_>>(), [expected.as_str()]);
}

#[test]
fn logins_are_read_from_the_file_that_docker_and_podman_keep() {
    let site = Site::new();
    site.push_image("bob/app", "v1", b"layer");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    let auth = crate::harness::basic("admin", PASSWORD);
    let auth = auth.strip_prefix("Basic ").unwrap();
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, site.address)).unwrap();
    let get = |name: &str| (name == "REGISTRY_AUTH_FILE").then(|| file.display().to_string());
    let client = Patient::with(|options| options.logins = Logins::read(&get).unwrap());
    assert!(client.manifest(&client.remote(site.address, "bob/app"), "v1").unwrap().is_some());
    std::fs::write(&file, "{").unwrap();
    let error = Logins::read(&get).err().unwrap();
    assert!(error.to_string().contains("auth.json"), "{error}");
}
