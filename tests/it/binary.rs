//! The real binary: its command line, its signals, and kill -9.

use crate::harness::{Answer, basic, noise, seed, sha256};
use outport::registry::{Clock, Mode, Registry};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

pub const BINARY: &str = env!("CARGO_BIN_EXE_outport");

pub fn outport(data: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(args)
        .arg("--data")
        .arg(data)
        .env_remove("OUTPORT_DATA")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A verb that fails at once reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server process, with what it printed when it started.
struct Serving {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
    printed: String,
}

impl Serving {
    fn start(data: &Path, args: &[&str]) -> Serving {
        Serving::start_with(data, args, |_| {})
    }

    fn start_with(data: &Path, args: &[&str], change: impl FnOnce(&mut Command)) -> Serving {
        let mut command = Command::new(BINARY);
        command.env("OUTPORT_ADMIN_PASSWORD", "correct horse");
        change(&mut command);
        Serving::run(command, data, args)
    }

    /// By a command that runs the binary with what follows.
    fn run(mut command: Command, data: &Path, args: &[&str]) -> Serving {
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(args)
            .env("OUTPORT_STORAGE_RESERVE_BYTES", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut printed = String::new();
        stdout.read_line(&mut printed).unwrap();
        let address =
            printed.trim().rsplit('/').next().unwrap().parse().unwrap_or_else(|_| panic!("{printed}"));
        Serving { child, stdout, address, printed }
    }

    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n",
            basic("admin", "correct horse"),
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        if !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            return None;
        }
        let (answer, _) = Answer::read(&bytes, method == "HEAD");
        answer.whole.then_some(answer)
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn everything_that_was_acknowledged_survives_kill_9() {
    let seed = seed(20_261_121);
    let data = tempfile::tempdir().unwrap();
    let mut promised: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..6u64 {
        let server = Arc::new(Serving::start(data.path(), &["--insecure-http"]));
        // Killed from beside, after so many acknowledgements, while pushes go on.
        let (told, acks) = std::sync::mpsc::channel();
        let pushing: Vec<_> = (0..4u64)
            .map(|thread| {
                let (server, told) = (server.clone(), told.clone());
                std::thread::spawn(move || {
                    for n in 0.. {
                        let bytes = noise(
                            1_000 + usize::try_from((seed + n * 7_919) % 150_000).unwrap(),
                            seed + round * 1_000_000 + thread * 1_000 + n,
                        );
                        let digest = sha256(&bytes);
                        let target = format!("/v2/a/b/blobs/uploads/?digest={digest}");
                        match server.ask("POST", &target, &bytes) {
                            Some(answer) if answer.status == 201 => told.send((digest, bytes)).unwrap(),
                            Some(answer) => panic!("{answer:?}"),
                            None => return,
                        }
                    }
                })
            })
            .collect();
        drop(told);
        let wanted = 5 + usize::try_from((seed + round * 31) % 20).unwrap();
        promised.extend(acks.iter().take(wanted));
        server.signal("-KILL");
        promised.extend(acks.iter());
        for thread in pushing {
            thread.join().unwrap();
        }
    }
    let server = Serving::start(data.path(), &["--insecure-http"]);
    assert!(promised.len() >= 30, "{}", promised.len());
    for (digest, bytes) in &promised {
        let answer = server.ask("GET", &format!("/v2/a/b/blobs/{digest}"), b"").unwrap();
        assert_eq!((answer.status, &answer.body), (200, bytes), "SEED={seed}");
    }
    let left = std::fs::read_dir(data.path().join("uploads")).unwrap().count();
    assert!(left <= 6 * 4, "at most one a push that was cut: {left}");
    server.kill();
}

#[test]
fn strangers_who_only_connect_leave_descriptors_for_those_who_push_and_pull() {
    let data = tempfile::tempdir().unwrap();
    let mut few_files = Command::new("sh");
    few_files.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\"", BINARY]);
    few_files.env("OUTPORT_ADMIN_PASSWORD", "correct horse");
    let server = Serving::run(few_files, data.path(), &["--insecure-http"]);
    let mut inside = TcpStream::connect(server.address).unwrap();
    let mut ask = |method: &str, target: &str, body: &[u8]| {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n",
            basic("admin", "correct horse"),
            body.len()
        );
        inside.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut bytes = Vec::new();
        let mut some = [0; 4_096];
        while !bytes.windows(4).any(|window| window == b"\r\n\r\n") || !Answer::read(&bytes, false).0.whole {
            let read = inside.read(&mut some).unwrap();
            assert!(read > 0, "the connection ended");
            bytes.extend_from_slice(&some[..read]);
        }
        Answer::read(&bytes, false).0
    };
    assert_eq!(ask("GET", "/v2/", b"").status, 200);
    // As many as there are descriptors, and no more than a short queue holds.
    let strangers: Vec<_> = (0..140).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    for n in 0..20 {
        let bytes = noise(1_000, n);
        let digest = sha256(&bytes);
        let push = ask("POST", &format!("/v2/a/b/blobs/uploads/?digest={digest}"), &bytes);
        assert_eq!(push.status, 201, "{push:?}");
        assert_eq!(ask("GET", &format!("/v2/a/b/blobs/{digest}"), b"").body, bytes);
    }
    drop(strangers);
    assert_eq!(server.ask("GET", "/readyz", b"").unwrap().status, 200);
}

#[test]
fn the_first_start_prints_a_password_that_works_and_never_again() {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--insecure-http", "--data"])
            .arg(data.path())
            .env_remove("OUTPORT_ADMIN_PASSWORD")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut first = start();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address: SocketAddr = lines.next().unwrap().rsplit('/').next().unwrap().parse().unwrap();
    let password = lines.next().unwrap().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(password.len(), 23, "{password}");
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {}\r\n\r\n",
        basic("admin", &password)
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200"));
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = start();
    let mut line = String::new();
    let mut stdout = BufReader::new(second.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    second.kill().unwrap();
    second.wait().unwrap();
    stdout.read_to_string(&mut line).unwrap();
    assert!(line.starts_with("Outport serves") && !line.contains("password"), "{line}");
}

#[test]
fn tls_is_on_and_its_authority_is_the_one_in_the_data_directory() {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, ServerName};
    let data = tempfile::tempdir().unwrap();
    let server = Serving::start(data.path(), &[]);
    assert!(server.printed.contains("https://"), "{}", server.printed);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(data.path().join("tls/ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for name in ["localhost", "127.0.0.1"] {
            let config = rustls::ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            let name = ServerName::try_from(name).unwrap();
            let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
            let mut stream = TcpStream::connect(server.address).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut stream);
            let request = format!(
                "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {}\r\n\r\n",
                basic("admin", "correct horse")
            );
            stream.write_all(request.as_bytes()).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            assert!(bytes.starts_with(b"HTTP/1.1 200"));
        }
    }
    let plain = server.ask("GET", "/v2/", b"").unwrap();
    assert_eq!(
        (plain.status, plain.body.as_slice()),
        (400, b"this is an HTTPS server; ask by https://\n".as_slice())
    );
    let key = std::fs::metadata(data.path().join("tls/ca.key")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
}

#[test]
fn sigterm_ends_it_cleanly() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Serving::start(data.path(), &[]);
    assert!(server.ask("GET", "/v2/", b"").is_some());
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    let mut rest = String::new();
    server.stdout.read_to_string(&mut rest).unwrap();
}

#[test]
fn sighup_takes_the_new_configuration_and_keeps_the_old_one_if_it_is_wrong() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("outport.toml");
    std::fs::write(&file, "").unwrap();
    let server = Serving::start(data.path(), &["--insecure-http", "--config", file.to_str().unwrap()]);
    let missing = |server: &Serving| server.ask("GET", "/v2/a/none/tags/list", b"").unwrap().status;
    // A signal is taken some time after it was sent; each answer comes after some of that time.
    let comes_to = |server: &Serving, status: u16| (0..10_000).any(|_| missing(server) == status);
    assert_eq!(missing(&server), 404);
    std::fs::write(&file, "[compat]\nempty_tags_for_missing = true\n").unwrap();
    server.signal("-HUP");
    assert!(comes_to(&server, 200));
    std::fs::write(&file, "[compat]\nempty_tags_for_missing = maybe\n").unwrap();
    server.signal("-HUP");
    assert_eq!(missing(&server), 200);
    std::fs::write(&file, "").unwrap();
    server.signal("-HUP");
    assert!(comes_to(&server, 404));
}

#[test]
fn the_service_manager_is_told_of_start_reload_life_and_end() {
    let data = tempfile::tempdir().unwrap();
    let heard = UnixDatagram::bind(data.path().join("notify")).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let told = |wanted: &str| {
        let mut bytes = [0; 256];
        loop {
            let len = heard.recv(&mut bytes).unwrap();
            let text = std::str::from_utf8(&bytes[..len]).unwrap();
            if text.lines().any(|line| line == wanted) {
                return text.to_owned();
            }
            assert_eq!(text, "WATCHDOG=1\n", "before {wanted}");
        }
    };
    let mut server = Serving::start_with(data.path(), &["--insecure-http"], |command| {
        command.env("NOTIFY_SOCKET", data.path().join("notify")).env("WATCHDOG_USEC", "20000");
    });
    told("READY=1");
    told("WATCHDOG=1");
    server.signal("-HUP");
    assert!(told("RELOADING=1").contains("MONOTONIC_USEC="));
    told("READY=1");
    server.signal("-TERM");
    told("STOPPING=1");
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn sockets_that_were_handed_over_are_served_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    // The shell becomes the server, with the process id that it wrote down.
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, BINARY])
        .stdin(OwnedFd::from(socket))
        .env("OUTPORT_ADMIN_PASSWORD", "correct horse");
    let server = Serving::run(command, data.path(), &["--insecure-http"]);
    assert_eq!(server.address, address);
    assert_eq!(server.ask("GET", "/v2/", b"").unwrap().status, 200);
}

#[test]
fn plain_http_on_a_socket_that_others_reach_is_refused_whoever_bound_it() {
    let data = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve --insecure-http --data \"$1\" 3<&0 </dev/null";
    let output = Command::new("sh")
        .args(["-c", script, BINARY])
        .arg(data.path())
        .stdin(OwnedFd::from(socket))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(complained(&output).contains("in the clear"), "{}", complained(&output));
}

#[test]
fn the_first_password_comes_from_a_credential() {
    let data = tempfile::tempdir().unwrap();
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("outport.admin-password"), "correct horse\n").unwrap();
    let server = Serving::start_with(data.path(), &["--insecure-http"], |command| {
        command.env_remove("OUTPORT_ADMIN_PASSWORD").env("CREDENTIALS_DIRECTORY", credentials.path());
    });
    assert_eq!(server.ask("GET", "/v2/", b"").unwrap().status, 200);
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let _first = Serving::start(data.path(), &["--insecure-http"]);
    let second = outport(data.path(), &["serve", "--listen", "127.0.0.1:0"], "");
    assert_eq!(second.status.code(), Some(1));
    assert!(
        complained(&second).contains("another outport serves this data directory"),
        "{}",
        complained(&second)
    );
}

#[test]
fn users_are_managed_beside_a_running_server() {
    let data = tempfile::tempdir().unwrap();
    let server = Serving::start(data.path(), &["--insecure-http"]);
    let run = |args: &[&str], input: &str| outport(data.path(), args, input);
    assert!(run(&["user", "add", "bob", "--password-stdin"], "secret\n").status.success());
    let again = run(&["user", "add", "bob", "--password-stdin"], "secret\n");
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(complained(&again), "outport: a user bob exists already\n");
    let list = run(&["user", "list", "--json"], "");
    let list: serde_json::Value = serde_json::from_str(&said(&list)).unwrap();
    assert_eq!(
        (&list[0]["name"], &list[0]["admin"], &list[1]["name"]),
        (&"admin".into(), &true.into(), &"bob".into())
    );
    assert!(run(&["user", "passwd", "admin", "--password-stdin"], "a new one\n").status.success());
    assert_eq!(server.ask("GET", "/v2/", b"").unwrap().status, 401, "the server knows at once");
    assert!(run(&["user", "passwd", "admin", "--password-stdin"], "correct horse\n").status.success());
    assert_eq!(server.ask("GET", "/v2/", b"").unwrap().status, 200);
    let revoked = run(&["user", "activate", "bob", "--revoke"], "");
    assert_eq!(said(&revoked), "bob is no longer active.\n");
    assert!(said(&run(&["user", "list"], "")).contains("bob                      not active"));
    assert_eq!(said(&run(&["user", "activate", "bob"], "")), "bob is now active.\n");
    let last = run(&["user", "activate", "admin", "--revoke"], "");
    assert!(complained(&last).contains("the last administrator"), "{last:?}");
    assert!(said(&run(&["user", "remove", "bob", "--dry-run"], "")).starts_with("Would remove bob"));
    assert!(run(&["user", "remove", "bob"], "").status.success());
    assert_eq!(run(&["user", "remove", "bob"], "").status.code(), Some(1));
    assert_eq!(run(&["user", "add", "Bob", "--password-stdin"], "secret\n").status.code(), Some(1));
    assert_eq!(run(&["user", "add", "eve", "--password-stdin"], "abc\n").status.code(), Some(1));
    assert_eq!(run(&["user", "frobnicate"], "").status.code(), Some(2));
}

#[test]
fn several_processes_on_one_database_find_each_other_s_pages_right() {
    let data = tempfile::tempdir().unwrap();
    let server = Serving::start(data.path(), &["--insecure-http"]);
    let digest = sha256(b"{}");
    let pushed = server.ask("POST", &format!("/v2/a/b/blobs/uploads/?digest={digest}"), b"{}");
    assert_eq!(pushed.unwrap().status, 201);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (server, digest) = (&server, &digest);
            scope.spawn(move || {
                for n in 0..60 {
                    let more = format!(r#","annotations":{{"n":"{thread} {n} {}"}}"#, "x".repeat(3_000));
                    let text = crate::harness::manifest(digest, 2, &[], &more);
                    let target = format!("/v2/a/b/manifests/v{thread}-{n}");
                    assert_eq!(server.ask("PUT", &target, text.as_bytes()).unwrap().status, 201);
                    assert_eq!(server.ask("GET", &target, b"").unwrap().body, text.as_bytes());
                }
            });
            let data = data.path();
            scope.spawn(move || {
                for n in 0..8 {
                    let name = format!("user{thread}-{n}");
                    let added = outport(data, &["user", "add", &name, "--password-stdin"], "secret\n");
                    assert!(added.status.success(), "{}", complained(&added));
                    assert!(said(&outport(data, &["user", "list"], "")).contains(&name));
                }
            });
        }
    });
    server.kill();
    // What the server had in its log is found again, and every page is right.
    let list = outport(data.path(), &["user", "list", "--json"], "");
    let list: serde_json::Value = serde_json::from_str(&said(&list)).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1 + 16);
    let options = crate::harness::Wishes::default().registry;
    let registry = Registry::open(data.path(), &Mode::Tool, options, Clock::system()).unwrap();
    let checked = registry.check_pages(1, 1_000_000).unwrap();
    assert_eq!((checked.wrong.as_slice(), checked.next), ([].as_slice(), None));
    assert!(checked.pages > 100);
}

#[test]
fn repositories_are_shown_set_and_removed() {
    let data = tempfile::tempdir().unwrap();
    let server = Serving::start(data.path(), &["--insecure-http"]);
    let run = |args: &[&str]| outport(data.path(), args, "");
    let digest = sha256(b"{}");
    assert_eq!(
        server.ask("POST", &format!("/v2/hello/blobs/uploads/?digest={digest}"), b"{}").unwrap().status,
        201
    );
    let text = crate::harness::manifest(&digest, 2, &[], "");
    assert_eq!(server.ask("PUT", "/v2/hello/manifests/v1", text.as_bytes()).unwrap().status, 201);
    let shown: serde_json::Value =
        serde_json::from_str(&said(&run(&["repo", "show", "hello", "--json"]))).unwrap();
    assert_eq!(
        (&shown["name"], &shown["private"], &shown["tags"]),
        (&"library/hello".into(), &true.into(), &1.into())
    );
    assert!(said(&run(&["repo", "set", "hello", "--public"])).contains("public"));
    assert!(said(&run(&["repo", "list"])).contains("library/hello"));
    assert!(
        said(&run(&["repo", "remove", "hello", "--dry-run"]))
            .contains("Would remove library/hello with 1 tags")
    );
    assert_eq!(server.ask("GET", "/v2/hello/manifests/v1", b"").unwrap().status, 200);
    assert!(run(&["repo", "remove", "hello"]).status.success());
    assert_eq!(server.ask("GET", "/v2/hello/manifests/v1", b"").unwrap().status, 404);
    assert_eq!(run(&["repo", "show", "hello"]).status.code(), Some(1));
}

#[test]
fn organisations_grants_and_tokens_are_managed_at_the_command_line() {
    let data = tempfile::tempdir().unwrap();
    let server = Serving::start(data.path(), &["--insecure-http"]);
    let run = |args: &[&str]| outport(data.path(), args, "");
    let ok = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", complained(&output));
        said(&output)
    };
    assert!(outport(data.path(), &["user", "add", "bob", "--password-stdin"], "secret\n").status.success());
    ok(&["org", "add", "acme", "--full-name", "Acme Ltd"]);
    ok(&["group", "add", "acme/ci"]);
    ok(&["group", "join", "acme/ci", "bob"]);
    assert!(ok(&["group", "list", "acme"]).contains("bob"));
    assert_eq!(ok(&["grant", "acme/*", "write", "--to", "@acme/ci"]), "@acme/ci may write acme/*.\n");
    assert!(ok(&["grant"]).contains("@acme/ci"));
    assert!(ok(&["org", "list", "--json"]).contains("\"groups\":2"));
    let made: serde_json::Value =
        serde_json::from_str(&ok(&["token", "new", "admin", "--access", "push", "--json"])).unwrap();
    let mut stream = TcpStream::connect(server.address).unwrap();
    let token = basic("admin", made["token"].as_str().unwrap());
    let request =
        format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200"));
    assert!(ok(&["token", "list"]).contains("push"));
    ok(&["token", "revoke", &made["id"].to_string()]);
    ok(&["revoke", "acme/*", "--from", "@acme/ci"]);
    ok(&["group", "leave", "acme/ci", "bob"]);
    assert!(ok(&["group", "remove", "acme/ci", "--dry-run"]).starts_with("Would remove"));
    ok(&["group", "remove", "acme/ci"]);
    assert!(ok(&["org", "remove", "acme", "--dry-run"]).starts_with("Would remove"));
    ok(&["org", "remove", "acme"]);
    for wrong in [
        &["grant", "acme/*"][..],
        &["grant", "x", "own", "--to", "bob"],
        &["token", "new", "nobody"],
        &["group", "list", "acme"],
    ] {
        assert!(!run(wrong).status.success(), "{wrong:?}");
    }
}

#[test]
fn service_clients_are_managed_at_the_command_line_and_the_server_knows_at_once() {
    let data = tempfile::tempdir().unwrap();
    let server = Serving::start(data.path(), &["--insecure-http"]);
    let run = |args: &[&str]| outport(data.path(), args, "");
    let made = run(&["service", "add", "admin", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&said(&made)).unwrap();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    assert_eq!((text("user"), text("workspace")), ("admin".to_owned(), "admin".to_owned()));
    let login = serde_json::json!({"client_id": text("id"), "client_secret": text("secret")}).to_string();
    let log_in = || server.ask("POST", "/public/v2/service_auth", login.as_bytes()).unwrap().status;
    assert_eq!(log_in(), 200);
    let listed = said(&run(&["service", "list", "--json"]));
    assert!(listed.contains(&text("id")) && listed.contains(&text("workspace_id")), "{listed}");
    assert!(!listed.contains(&text("secret")) && !listed.contains(&text("api_key")), "shown once");
    assert!(said(&run(&["service", "list"])).starts_with(&text("id")));
    let told = said(&run(&["service", "add", "admin", "--workspace", "admin"]));
    for word in ["client_id", "client_secret", "x-api-key", "x-workspace-id", &text("workspace_id")] {
        assert!(told.contains(word), "{told}");
    }
    assert!(run(&["service", "remove", &text("id")]).status.success());
    assert_eq!(log_in(), 401);
    for wrong in [
        &["service", "remove", &text("id")][..],
        &["service", "add", "nobody"],
        &["service", "add", "admin", "--workspace", "nowhere"],
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
        assert!(complained(&output).contains("there is no "), "{}", complained(&output));
    }
}

#[test]
fn mistakes_at_the_command_line_are_told_in_a_sentence() {
    let data = tempfile::tempdir().unwrap();
    let none = outport(&data.path().join("none"), &["user", "list"], "");
    assert_eq!(none.status.code(), Some(1));
    assert!(complained(&none).contains("there is no registry in"), "{}", complained(&none));
    let open = outport(data.path(), &["serve", "--insecure-http", "--listen", "0.0.0.0:0"], "");
    assert!(complained(&open).contains("in the clear"), "{}", complained(&open));
    let half = outport(data.path(), &["serve", "--tls-cert", "x"], "");
    assert_eq!(half.status.code(), Some(2));
    let file = data.path().join("outport.toml");
    std::fs::write(&file, "[server]\nlisten = [\"127.0.0.1:0\"]\nport = 5\n").unwrap();
    let wrong = outport(data.path(), &["config", "check", "--config", file.to_str().unwrap()], "");
    assert!(complained(&wrong).contains("line 3"), "{}", complained(&wrong));
    let shown = outport(data.path(), &["config", "show"], "");
    assert!(said(&shown).contains("anonymous_pull = false"));
}

#[test]
fn gc_works_without_a_server_and_asks_one_that_runs() {
    let data = tempfile::tempdir().unwrap();
    let server = Serving::start(data.path(), &["--insecure-http"]);
    let push = |server: &Serving, bytes: &[u8]| {
        let digest = sha256(bytes);
        let answer = server.ask("POST", &format!("/v2/a/b/blobs/uploads/?digest={digest}"), bytes).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    };
    let digest = push(&server, b"alone");
    let kept = outport(data.path(), &["gc", "--json"], "");
    assert_eq!(said(&kept), "{\"tags\":0,\"images\":0,\"blobs\":0,\"bytes\":0,\"leased\":0}\n");
    let would = outport(data.path(), &["gc", "--grace", "0", "--dry-run"], "");
    assert!(
        said(&would).contains(&digest) && said(&would).contains("Would remove 1 blobs of 5 bytes"),
        "{would:?}"
    );
    let asked = outport(data.path(), &["gc", "--grace", "0"], "");
    assert!(said(&asked).starts_with("Removed 1 blobs of 5 bytes"), "{asked:?}");
    let head = server.ask("HEAD", &format!("/v2/a/b/blobs/{digest}"), b"").unwrap();
    assert_eq!(head.status, 404);
    push(&server, b"alone again");
    server.kill();
    let alone = outport(data.path(), &["gc", "--grace", "0"], "");
    assert!(said(&alone).starts_with("Removed 1 blobs of 11 bytes"), "{alone:?}");
}
