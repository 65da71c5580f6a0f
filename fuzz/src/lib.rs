//! What several targets share: a registry in memory, and the real server before it.

#![expect(clippy::missing_panics_doc, reason = "a fuzz target panics")]

mod archives;

pub use archives::{Made, key};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outport::error::{Error, Kind};
use outport::http::{App, Server};
use outport::names::UserName;
use outport::registry::{self, Clock, Collect, Mode, Registry, SignUp, User};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub const PASSWORD: &str = "correct horse";
const GRACE: Duration = Duration::from_secs(600);

/// Makes something in a directory that lies in memory, where there is one.
pub fn in_memory<T>(make: impl FnOnce(&Path) -> T) -> T {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { make(shm) } else { make(&std::env::temp_dir()) }
}

/// Panics at an error that is our fault and not the client's.
pub fn is_a_refusal(error: &Error) {
    assert!(!matches!(error.kind, Kind::Internal | Kind::Unavailable | Kind::Full), "{error:?}");
}

/// Panics at a refusal that is our fault, or that would write to a terminal what it should not.
pub fn is_told_well(error: &Error) {
    is_a_refusal(error);
    let detail = error.detail();
    assert!(!detail.chars().any(char::is_control), "{detail:?}");
    assert!(detail.len() < 4_096, "{detail}");
}

/// A registry with two users, and a clock that moves when it is told to.
pub struct Store {
    pub registry: Arc<Registry>,
    pub dir: TempDir,
    secs: Arc<AtomicU64>,
}

impl Store {
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Store {
        let dir = in_memory(|shm| tempfile::tempdir_in(shm)).expect("a directory");
        let secs = Arc::new(AtomicU64::new(0));
        let (wall, monotonic) = (secs.clone(), secs.clone());
        let clock = Clock {
            wall_us: Arc::new(move || {
                1_800_000_000_000_000 + 1_000_000 * wall.load(Ordering::Relaxed).cast_signed()
            }),
            monotonic: Arc::new(move || Duration::from_secs(monotonic.load(Ordering::Relaxed))),
        };
        let options = registry::Options {
            private: false,
            library_open: false,
            anonymous_pull: false,
            sign_up: SignUp::Open,
            blob_bytes_max: 1 << 20,
            reserve_bytes: Some(0),
            uploads_per_user: 8,
            upload_expiry: Duration::from_secs(3_600),
            grace: GRACE,
            scrub_period: Duration::ZERO,
            retention: Vec::new(),
        };
        let mode = Mode::Serve { boot_id: "this boot".into() };
        let registry = Registry::open(dir.path(), &mode, options, clock).expect("opens");
        registry.admin_init(Some(PASSWORD)).expect("makes admin");
        let name = UserName::parse("bob").expect("parses");
        let bob = registry::UserAdd { name: &name, password: PASSWORD, admin: false, email: None };
        registry.user_add(&bob).expect("makes bob");
        Store { registry: Arc::new(registry), dir, secs }
    }

    pub fn user(&self, name: &str) -> User {
        let users = self.registry.users().expect("lists");
        users.into_iter().map(|row| row.user).find(|user| user.name == name).expect("is there")
    }

    /// Lets time go on, so that what nobody needs goes and nobody is refused for ever.
    pub fn tick(&self, by: Duration) {
        let before = self.secs.fetch_add(by.as_secs(), Ordering::Relaxed);
        if before / 3_600 != (before + by.as_secs()) / 3_600 {
            self.registry.uploads_expire();
            self.registry.collect(Collect { grace: GRACE, dry_run: false }, |_| {}).expect("collects");
        }
    }
}

/// The server, on a port of loopback.
pub struct Site {
    pub store: Store,
    address: SocketAddr,
    runtime: Runtime,
    /// The server stops when this goes.
    _stop: watch::Sender<bool>,
}

/// An answer: its status, its head as it came, its body.
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.split("\r\n").filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Site {
    /// Where `anonymous`, nobody in particular may pull, and is asked for tokens.
    pub fn new(anonymous: bool) -> Site {
        let store = Store::new();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let options = outport::http::Options {
            anonymous_pull: anonymous,
            empty_tags_for_missing: false,
            blob_bytes_max: 1 << 20,
            trusted_proxies: vec![[127, 0, 0, 1].into()],
            connections_max: 64,
            pulls_max: 64,
            connections_per_address: 64,
            ca: None,
        };
        let app = App::new(store.registry.clone(), options).expect("an app");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = runtime.block_on(Server::bind(app, &[any], None)).expect("binds");
        let address = server.addresses()[0];
        let (stop, told) = watch::channel(false);
        runtime.spawn(server.serve(told, Duration::ZERO));
        Site { store, address, runtime, _stop: stop }
    }

    /// Sends bytes as they are, ends the sending there, and returns what comes back.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("sets a timeout");
        // Refused before everything was sent: then the answer counts.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut back = Vec::new();
        let _ = stream.read_to_end(&mut back);
        self.store.tick(Duration::from_secs(1));
        back
    }

    /// One request and its one answer, which must be whole and no fault of ours.
    /// `fields` are header lines, each with its end; what cannot be in one is left out.
    pub fn ask(&self, method: &str, target: &str, fields: &[(&str, &[u8])], body: &[u8]) -> Answer {
        let mut request = format!("{method} ").into_bytes();
        request.extend(target.bytes().map(|b| if b.is_ascii_graphic() { b } else { b'+' }));
        request.extend_from_slice(b" HTTP/1.1\r\nHost: registry.example\r\nConnection: close\r\n");
        for (name, value) in fields {
            request.extend_from_slice(name.as_bytes());
            request.extend_from_slice(b": ");
            request.extend(value.iter().filter(|b| **b >= b' ' && **b != 127));
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        let mut stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("sets a timeout");
        let _ = stream.write_all(&request);
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("an answer");
        self.store.tick(Duration::from_secs(1));
        let said = String::from_utf8_lossy(&request);
        let end = back.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer to {said}"));
        let head = String::from_utf8(back[..end].to_vec()).expect("a head is ASCII");
        let status = head.get(9..12).and_then(|text| text.parse().ok()).expect("a status");
        let answer = Answer { status, head, body: back.split_off(end + 4) };
        assert!(status < 500, "{status} to {said}: {}", String::from_utf8_lossy(&answer.body));
        let length = answer.header("content-length").and_then(|text| text.parse::<usize>().ok());
        if method != "HEAD" && status != 304 && status != 204 {
            assert_eq!(length, Some(answer.body.len()), "{status} to {said}");
        }
        answer
    }

    /// Whether the server still answers.
    pub fn is_up(&self) -> bool {
        self.runtime.metrics().num_alive_tasks() > 0
            && self.ask("GET", "/v2/", &[("Authorization", admin().as_bytes())], b"").status == 200
    }

    /// Pushes an image of one layer as team/app:v1, and returns the layer's digest.
    pub fn push_image(&self, layer: &[u8]) -> String {
        let auth = admin();
        let blob = |bytes: &[u8]| {
            let digest = sha256(bytes);
            let target = format!("/v2/team/app/blobs/uploads/?digest={digest}");
            assert_eq!(self.ask("POST", &target, &[("Authorization", auth.as_bytes())], bytes).status, 201);
            digest
        };
        let (config, digest) = (blob(b"{}"), blob(layer));
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{}}}]}}"#,
            layer.len()
        );
        let put = self.ask(
            "PUT",
            "/v2/team/app/manifests/v1",
            &[("Authorization", auth.as_bytes())],
            text.as_bytes(),
        );
        assert_eq!(put.status, 201);
        digest
    }
}

/// What admin's requests carry.
pub fn admin() -> String {
    format!("Basic {}", STANDARD.encode(format!("admin:{PASSWORD}")))
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", outport::names::hex(&sha2::Sha256::digest(bytes)))
}
