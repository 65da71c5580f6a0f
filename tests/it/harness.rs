//! A registry of a test's own, served on a free port of loopback, and a client that
//! says exactly what it is told to.

use crate::openapi;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outport::http::tls::{Source, Tls};
use outport::http::{App, Options, Server};
use outport::names::UserName;
use outport::registry::{self, Clock, Mode, Registry, SignUp, UserAdd};
use sha2::Digest as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What a site with TLS may be called besides its address; no machine knows it.
pub const NAME: &str = "registry.test";
pub const PASSWORD: &str = "correct horse";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A clock that stands still until it is told to move.
#[derive(Clone, Default)]
pub struct Hands(Arc<AtomicU64>);

impl Hands {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let (wall, monotonic) = (self.0.clone(), self.0.clone());
        Clock {
            wall_us: Arc::new(move || {
                1_800_000_000_000_000 + 1_000_000 * wall.load(Ordering::SeqCst).cast_signed()
            }),
            monotonic: Arc::new(move || Duration::from_secs(monotonic.load(Ordering::SeqCst))),
        }
    }
}

/// What a test may want otherwise than usual.
#[derive(Clone)]
pub struct Wishes {
    pub registry: registry::Options,
    pub http: Options,
    pub boot_id: String,
    /// With an authority of its own, in `tls/ca.crt`.
    pub tls: bool,
    /// By whose certificates clients may log in.
    pub client_ca: Option<PathBuf>,
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes {
            registry: registry::Options {
                private: true,
                library_open: false,
                anonymous_pull: false,
                sign_up: SignUp::Closed,
                blob_bytes_max: 1 << 30,
                reserve_bytes: Some(0),
                uploads_per_user: 64,
                upload_expiry: Duration::from_secs(86_400),
                grace: Duration::from_secs(3600),
                scrub_period: Duration::from_secs(30 * 86_400),
                retention: Vec::new(),
            },
            http: Options {
                anonymous_pull: false,
                empty_tags_for_missing: false,
                blob_bytes_max: 1 << 30,
                trusted_proxies: Vec::new(),
                connections_max: 256,
                pulls_max: 256,
                connections_per_address: 64,
                ca: None,
            },
            boot_id: "this boot".into(),
            tls: false,
            client_ca: None,
        }
    }
}

impl Wishes {
    pub fn anonymous() -> Wishes {
        let mut wishes = Wishes::default();
        wishes.registry.anonymous_pull = true;
        wishes.http.anonymous_pull = true;
        wishes
    }
}

/// A running registry with `admin` and `bob`.
pub struct Site {
    pub registry: Arc<Registry>,
    pub hands: Hands,
    pub address: SocketAddr,
    pub tls: Option<Arc<Tls>>,
    dir: Option<TempDir>,
    wishes: Wishes,
    stop: watch::Sender<bool>,
    serving: Option<tokio::task::JoinHandle<()>>,
    runtime: Option<Runtime>,
}

impl Site {
    pub fn new() -> Site {
        Site::with(Wishes::default())
    }

    pub fn with(wishes: Wishes) -> Site {
        let site = Site::start(tempfile::tempdir().unwrap(), wishes, Hands::default());
        site.registry.admin_init(Some(PASSWORD)).unwrap();
        site.add_user("bob");
        site
    }

    fn start(dir: TempDir, wishes: Wishes, hands: Hands) -> Site {
        let mode = Mode::Serve { boot_id: wishes.boot_id.clone() };
        let registry = Registry::open(dir.path(), &mode, wishes.registry.clone(), hands.clock()).unwrap();
        let registry = Arc::new(registry);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let source = Source::Own { dir: dir.path().join("tls"), names: vec![NAME.to_owned()] };
        let mut http = wishes.http.clone();
        http.ca = source.ca_path().filter(|_| wishes.tls);
        let app = App::new(registry.clone(), http).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let tls = wishes
            .tls
            .then(|| Arc::new(Tls::open(&source, wishes.client_ca.as_deref(), 1_800_000_000).unwrap()));
        let server = runtime.block_on(Server::bind(app, &[any], tls.clone())).unwrap();
        let address = server.addresses()[0];
        let (stop, told) = watch::channel(false);
        let serving = runtime.spawn(server.serve(told, Duration::from_secs(10)));
        let (dir, serving, runtime) = (Some(dir), Some(serving), Some(runtime));
        Site { registry, hands, address, tls, dir, wishes, stop, serving, runtime }
    }

    /// From now on nobody is let in, and the server ends with what was begun.
    pub fn tell_to_stop(&self) {
        self.stop.send_replace(true);
    }

    fn halt(&mut self) -> TempDir {
        self.tell_to_stop();
        let runtime = self.runtime.take().unwrap();
        runtime.block_on(self.serving.take().unwrap()).unwrap();
        drop(runtime);
        self.dir.take().unwrap()
    }

    /// Stops the process, so to speak, and starts another on the same directory.
    pub fn restart(self) -> Site {
        let wishes = self.wishes.clone();
        self.restart_with(wishes)
    }

    pub fn restart_with(self, wishes: Wishes) -> Site {
        self.restart_after(wishes, |_| ())
    }

    /// Stops the server, and returns its directory.
    pub fn close(mut self) -> TempDir {
        let dir = self.halt();
        drop(self);
        dir
    }

    /// Does something to the data directory while nobody has it.
    pub fn restart_after(mut self, wishes: Wishes, harm: impl FnOnce(&Path)) -> Site {
        let dir = self.halt();
        let hands = self.hands.clone();
        drop(self);
        harm(dir.path());
        Site::start(dir, wishes, hands)
    }

    /// What the disk holds at this moment, as if the process were killed now.
    pub fn crash(self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(self.dir.as_ref().unwrap().path(), copy.path());
        copy
    }

    /// Another process on what a crash left, in a boot of this name.
    pub fn resume(dir: TempDir, boot_id: &str) -> Site {
        Site::start(dir, Wishes { boot_id: boot_id.into(), ..Wishes::default() }, Hands::default())
    }

    pub fn add_user(&self, name: &str) {
        let name = UserName::parse(name).unwrap();
        let add = UserAdd { name: &name, password: PASSWORD, admin: false, email: None };
        self.registry.user_add(&add).unwrap();
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.as_ref().unwrap().path().join(inside)
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.path("blobs").join(digest.replace(':', "/"))
    }

    pub fn uploads_left(&self) -> usize {
        std::fs::read_dir(self.path("uploads")).unwrap().count()
    }

    /// A request, by admin unless it says otherwise.
    pub fn ask(&self, method: &str, target: &str) -> Ask {
        Ask {
            address: self.address,
            method: method.into(),
            target: target.into(),
            headers: vec![("Authorization".into(), basic("admin", PASSWORD))],
            body: Vec::new(),
            framed: false,
            kept: false,
        }
    }

    pub fn get(&self, target: &str) -> Answer {
        self.ask("GET", target).send()
    }

    /// Pushes a blob in one request, and returns its digest.
    pub fn push_blob(&self, repo: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let answer =
            self.ask("POST", &format!("/v2/{repo}/blobs/uploads/?digest={digest}")).body(bytes).send();
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// The same through a connection that somebody else made.
    pub fn push_blob_over(&self, line: &mut (impl Read + Write), repo: &str, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let ask = self.ask("POST", &format!("/v2/{repo}/blobs/uploads/?digest={digest}")).body(bytes);
        line.write_all(&ask.bytes()).unwrap();
        let mut back = Vec::new();
        line.read_to_end(&mut back).unwrap();
        assert_eq!(Answer::read(&back, false).0.status, 201);
        digest
    }

    /// Pushes an image of one layer under a tag, and returns the manifest's digest.
    pub fn push_image(&self, repo: &str, tag: &str, layer: &[u8]) -> String {
        let manifest = self.image_of(repo, layer);
        let answer = self.put_manifest(repo, tag, &manifest);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("docker-content-digest").unwrap().to_owned()
    }

    /// Pushes an image's blobs, and returns its manifest, which is not pushed.
    pub fn image_of(&self, repo: &str, layer: &[u8]) -> String {
        let (config, layer_digest) = (self.push_blob(repo, b"{}"), self.push_blob(repo, layer));
        manifest(&config, 2, &[(&layer_digest, layer.len())], "")
    }

    /// Pushes an index of these manifests, whether they are there or not, and returns its digest.
    pub fn push_index(&self, repo: &str, tag: &str, images: &[&str]) -> String {
        let image =
            |digest: &&str| format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":2}}"#);
        let images: Vec<String> = images.iter().map(image).collect();
        let index =
            format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, images.join(","));
        let put = self.ask("PUT", &format!("/v2/{repo}/manifests/{tag}")).header("Content-Type", OCI_INDEX);
        let answer = put.body(index.as_bytes()).send();
        assert_eq!(answer.status, 201, "{answer:?}");
        sha256(index.as_bytes())
    }

    pub fn put_manifest(&self, repo: &str, reference: &str, manifest: &str) -> Answer {
        self.ask("PUT", &format!("/v2/{repo}/manifests/{reference}"))
            .header("Content-Type", OCI_MANIFEST)
            .body(manifest.as_bytes())
            .send()
    }

    /// Begins an upload, and returns its address.
    pub fn begin_upload(&self, repo: &str) -> String {
        let answer = self.ask("POST", &format!("/v2/{repo}/blobs/uploads/")).send();
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.runtime.is_some() {
            self.halt();
        }
    }
}

/// The text of an image manifest. `more` goes in before the closing brace.
pub fn manifest(config: &str, config_bytes: usize, layers: &[(&str, usize)], more: &str) -> String {
    let layers: Vec<String> = layers
        .iter()
        .map(|(digest, bytes)| {
            format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{bytes}}}"#)
        })
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{config_bytes}}},"layers":[{}]{more}}}"#,
        layers.join(",")
    )
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", outport::names::hex(&sha2::Sha256::digest(bytes)))
}

pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", outport::names::hex(&sha2::Sha512::digest(bytes)))
}

pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Bytes that do not repeat, the same for the same seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What a random test goes by: `SEED`, or the one it has. It is said, for whoever looks at
/// a failure.
pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default);
    eprintln!("SEED={seed}");
    seed
}

/// Random numbers, the same for the same seed.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// A number below `end`, which is not 0. The generator is SplitMix64.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % end
    }

    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}

/// A request in the making.
pub struct Ask {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    framed: bool,
    /// The connection stays open for another one.
    kept: bool,
}

impl Ask {
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn by(self, user: &str) -> Ask {
        self.with_password(user, PASSWORD)
    }

    pub fn with_password(self, user: &str, password: &str) -> Ask {
        let value = basic(user, password);
        self.by_nobody().header("Authorization", &value)
    }

    pub fn bearer(self, token: &str) -> Ask {
        let value = format!("Bearer {token}");
        self.by_nobody().header("Authorization", &value)
    }

    /// With a token of Docker Hub's dialect, in its older scheme.
    pub fn jwt(self, token: &str) -> Ask {
        let value = format!("JWT {token}");
        self.by_nobody().header("Authorization", &value)
    }

    /// A body of fields, as curl's --data and Python's data= send it.
    pub fn form(self, body: &str) -> Ask {
        self.header("Content-Type", "application/x-www-form-urlencoded").body(body.as_bytes())
    }

    pub fn json(self, body: &serde_json::Value) -> Ask {
        self.header("Content-Type", "application/json").body(body.to_string().as_bytes())
    }

    pub fn by_nobody(mut self) -> Ask {
        self.headers.retain(|(name, _)| name != "Authorization");
        self
    }

    pub fn body(mut self, bytes: &[u8]) -> Ask {
        self.body = bytes.to_vec();
        self
    }

    /// The body in chunks of this many bytes, its length not announced.
    pub fn chunked(mut self, bytes: &[u8], size: usize) -> Ask {
        self.body.clear();
        for chunk in bytes.chunks(size) {
            self.body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            self.body.extend_from_slice(chunk);
            self.body.extend_from_slice(b"\r\n");
        }
        self.body.extend_from_slice(b"0\r\n\r\n");
        self.framed = true;
        self.header("Transfer-Encoding", "chunked")
    }

    /// No body, but a word that so many bytes will come.
    pub fn claiming(mut self, bytes: u64) -> Ask {
        self.framed = true;
        self.header("Content-Length", &bytes.to_string())
    }

    /// The request as it goes over the wire.
    pub fn bytes(mut self) -> Vec<u8> {
        if !self.framed && (!self.body.is_empty() || matches!(self.method.as_str(), "PUT" | "PATCH" | "POST"))
        {
            let length = self.body.len().to_string();
            self = self.header("Content-Length", &length);
        }
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.address);
        if !self.kept {
            text += "Connection: close\r\n";
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// What comes back, which must be as the OpenAPI document says.
    pub fn send(self) -> Answer {
        let (address, method, target) = (self.address, self.method.clone(), self.target.clone());
        let bytes = raw(address, &self.bytes());
        let answer = Answer::read(&bytes, method == "HEAD").0;
        openapi::check(&method, &target, &answer);
        answer
    }
}

/// A connection that is kept from one request to the next, while the server keeps it.
#[derive(Default)]
pub struct Line(Option<TcpStream>);

impl Line {
    pub fn send(&mut self, mut ask: Ask) -> Answer {
        ask.kept = true;
        let (address, is_head) = (ask.address, ask.method == "HEAD");
        let mut stream = self.0.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream
        });
        stream.write_all(&ask.bytes()).unwrap();
        let mut back = Vec::new();
        loop {
            let mut piece = [0; 16 << 10];
            let bytes = stream.read(&mut piece).unwrap();
            back.extend_from_slice(&piece[..bytes]);
            if bytes == 0 || back.windows(4).any(|window| window == b"\r\n\r\n") {
                let (answer, _) = Answer::read(&back, is_head);
                if answer.whole || bytes == 0 {
                    self.0 = (answer.header("connection") != Some("close")).then_some(stream);
                    return answer;
                }
            }
        }
    }
}

/// Sends bytes, and returns all that comes back until the other side closes.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The server may have answered and closed before it had read everything.
    let _ = stream.write_all(bytes);
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    back
}

/// An answer, read as its head says.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// False if the connection ended before the body had come in full.
    pub whole: bool,
}

impl Answer {
    /// The first answer in these bytes, and what follows it.
    pub fn read(bytes: &[u8], is_head: bool) -> (Answer, Vec<u8>) {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no answer in {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]))
        });
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let rest = &bytes[end + 4..];
        if status == 100 {
            return Answer::read(rest, is_head);
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, value)| value.parse().unwrap());
        let length = if is_head || status == 304 { 0 } else { length };
        let whole = rest.len() >= length;
        let (body, after) = rest.split_at(length.min(rest.len()));
        (Answer { status, headers, body: body.to_vec(), whole }, after.to_vec())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The first error's code, in the registry's shape.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_else(|| panic!("no code: {self:?}")).to_owned()
    }

    pub fn is(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{}",
            String::from_utf8_lossy(&self.body)
        );
    }

    pub fn strings(&self, key: &str) -> Vec<String> {
        let json = self.json();
        let list = json[key].as_array().unwrap_or_else(|| panic!("no list {key}: {self:?}"));
        list.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    }
}
