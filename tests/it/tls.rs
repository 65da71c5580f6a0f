//! Certificates: whom clients are told to trust, and what they are shown while time goes by.

use crate::binary::{complained, outport, said};
use crate::harness::{Answer, PASSWORD, Site, Wishes, basic, noise};
use outport::http::tls::{Certificate, Source, Tls};
use outport::machine;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// By the clock of those tests: some day in 2027.
const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

type Line = StreamOwned<ClientConnection, TcpStream>;

fn own(dir: &Path, names: &[&str]) -> Source {
    let names = names.iter().map(ToString::to_string).collect();
    Source::Own { dir: dir.join("tls"), names }
}

/// The leaf's file.
fn leaf(source: &Source) -> Certificate {
    Certificate::read(&source.paths().0).unwrap()
}

fn with_tls() -> Site {
    Site::with(Wishes { tls: true, ..Wishes::default() })
}

/// A client that trusts this authority and no other.
fn trusting(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> Line {
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(config.clone(), name).unwrap();
    StreamOwned::new(client, TcpStream::connect(address).unwrap())
}

/// Asks as admin, and reads the answer until the server closes.
fn get(line: &mut Line, target: &str) -> Answer {
    line.write_all(head(target).as_bytes()).unwrap();
    let mut bytes = Vec::new();
    line.read_to_end(&mut bytes).unwrap();
    Answer::read(&bytes, false).0
}

fn head(target: &str) -> String {
    let by = basic("admin", PASSWORD);
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {by}\r\n\r\n")
}

/// What a line was shown.
fn shown(line: &Line) -> Vec<u8> {
    line.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn whoever_asks_is_told_whom_to_trust() {
    let site = with_tls();
    let ca = site.path("tls/ca.crt");
    let answer = get(&mut connect(&trusting(&ca), site.address), "/ca.crt");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-x509-ca-cert")));
    assert_eq!(answer.body, std::fs::read(&ca).unwrap());
    let elsewhere = Site::new().ask("GET", "/ca.crt").by_nobody().send();
    assert_eq!(elsewhere.status, 404);
    assert!(elsewhere.json()["error"].as_str().unwrap().contains("authority"), "{elsewhere:?}");
}

#[test]
fn the_leaf_is_for_every_name_and_address_of_the_machine_and_those_configured() {
    let dir = tempfile::tempdir().unwrap();
    let source = own(dir.path(), &["registry.site.example", "192.0.2.77", "*.fleet.example"]);
    Tls::open(&source, None, NOW).unwrap();
    let leaf = leaf(&source);
    let mut names = vec!["localhost".into(), "127.0.0.1".into(), "::1".into(), machine::host_name()];
    names.extend(["registry.site.example", "192.0.2.77", "a.fleet.example"].map(str::to_owned));
    names.extend(machine::addresses().iter().map(ToString::to_string));
    for name in names {
        assert!(leaf.is_for(&name), "{name} is not among {:?}", leaf.names);
    }
    assert!(!leaf.is_for("elsewhere.example"));
    assert!(leaf.begins_secs < NOW - 450 * DAY, "clocks stand still while a client is off");
    assert!(leaf.ends_secs - leaf.begins_secs <= 825 * DAY, "some clients take none that lives longer");
}

#[test]
fn the_leaf_is_renewed_before_it_ends_under_the_same_authority_and_not_sooner() {
    let dir = tempfile::tempdir().unwrap();
    let source = own(dir.path(), &[]);
    let tls = Tls::open(&source, None, NOW).unwrap();
    let (ca, first) = (std::fs::read(source.ca_path().unwrap()).unwrap(), leaf(&source));
    for days in [0, 1, 50, 99] {
        assert!(!tls.refresh(&source, None, NOW + days * DAY).unwrap(), "day {days}");
    }
    assert_eq!(leaf(&source), first);
    let mut last = first;
    for days in [101, 400, 5_000] {
        let now = NOW + days * DAY;
        assert!(tls.refresh(&source, None, now).unwrap(), "day {days}");
        let renewed = leaf(&source);
        assert!(renewed.ends_secs > last.ends_secs && renewed.ends_secs > now + 300 * DAY, "day {days}");
        last = renewed;
    }
    assert_eq!(std::fs::read(source.ca_path().unwrap()).unwrap(), ca, "clients need not be told again");
}

#[test]
fn a_wrong_clock_makes_no_leaf_that_outlives_it() {
    let dir = tempfile::tempdir().unwrap();
    let source = own(dir.path(), &[]);
    let tls = Tls::open(&source, None, 0).unwrap();
    assert!(leaf(&source).ends_secs > NOW, "a clock of 1970 is not believed");
    assert!(tls.refresh(&source, None, NOW + 15_000 * DAY).unwrap(), "one of 2068 is, while it says so");
    assert!(tls.refresh(&source, None, NOW).unwrap(), "and no longer");
    assert!(leaf(&source).ends_secs < NOW + 400 * DAY);
}

#[test]
fn a_name_that_is_added_makes_a_new_leaf_and_one_that_goes_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls::open(&own(dir.path(), &["a.example"]), None, NOW).unwrap();
    let both = own(dir.path(), &["a.example", "b.example"]);
    assert!(tls.refresh(&both, None, NOW).unwrap());
    assert!(leaf(&both).is_for("b.example"));
    assert!(!tls.refresh(&own(dir.path(), &["b.example"]), None, NOW).unwrap());
}

#[test]
fn the_authority_is_never_replaced_by_another_that_no_client_trusts() {
    let dir = tempfile::tempdir().unwrap();
    let source = own(dir.path(), &[]);
    Tls::open(&source, None, NOW).unwrap();
    let ca = std::fs::read(dir.path().join("tls/ca.crt")).unwrap();
    std::fs::remove_file(dir.path().join("tls/ca.key")).unwrap();
    assert!(Tls::open(&source, None, NOW).is_ok(), "the leaf is still good");
    let error = Tls::open(&source, None, NOW + 600 * DAY).err().unwrap().to_string();
    assert!(error.contains("ca.key") && error.contains("bring it back"), "{error}");
    assert_eq!(std::fs::read(dir.path().join("tls/ca.crt")).unwrap(), ca);
}

/// Files of another authority's certificate: its leaf and key, in a directory.
fn files(dir: &Path, name: &str) -> (String, String) {
    let source = own(&dir.join(name), &[]);
    Tls::open(&source, None, NOW).unwrap();
    let (cert, key) = source.paths();
    (std::fs::read_to_string(cert).unwrap(), std::fs::read_to_string(key).unwrap())
}

#[test]
fn files_are_read_again_when_they_change_and_a_bad_one_leaves_the_old_one_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let put = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    let (first, second) = (files(dir.path(), "first"), files(dir.path(), "second"));
    put("crt", &first.0);
    put("key", &first.1);
    let source = Source::Files { cert: path("crt"), key: path("key") };
    let tls = Tls::open(&source, None, NOW).unwrap();
    assert!(!tls.refresh(&source, None, NOW).unwrap(), "nothing changed");
    // A certificate that came without its key, nonsense, nothing.
    for (bad, says) in [(second.0.as_str(), "crt"), ("nonsense", "no certificate"), ("", "no certificate")] {
        put("crt", bad);
        let error = tls.refresh(&source, None, NOW).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(!tls.refresh(&source, None, NOW).unwrap(), "it is told of once");
        assert!(tls.reload(&source, None, NOW).is_err(), "and to whoever asks for it");
    }
    put("crt", &second.0);
    assert!(tls.refresh(&source, None, NOW).is_err(), "its key is not there yet");
    put("key", &second.1);
    assert!(tls.refresh(&source, None, NOW).unwrap());
    std::fs::remove_file(path("crt")).unwrap();
    assert!(tls.refresh(&source, None, NOW).unwrap_err().to_string().contains("crt"));
}

#[test]
fn a_pull_goes_on_while_the_certificate_is_swapped() {
    let site = with_tls();
    let layer = noise(24 << 20, 6);
    let client = trusting(&site.path("tls/ca.crt"));
    let digest = site.push_blob_over(&mut connect(&client, site.address), "bob/app", &layer);
    let mut pull = connect(&client, site.address);
    pull.write_all(head(&format!("/v2/bob/app/blobs/{digest}")).as_bytes()).unwrap();
    let mut bytes = vec![0; 1 << 20];
    pull.read_exact(&mut bytes).unwrap();
    let before = shown(&pull);

    let tls = site.tls.clone().unwrap();
    assert!(tls.refresh(&own(&site.path(""), &["new.example"]), None, NOW).unwrap());
    // A client of its own: what it remembers of the old one it may go on with.
    let mut after = connect(&trusting(&site.path("tls/ca.crt")), site.address);
    assert_eq!(get(&mut after, "/v2/").status, 200);
    assert_ne!(shown(&after), before, "new connections are shown the new one");
    let mut again = connect(&client, site.address);
    assert_eq!(get(&mut again, "/v2/").status, 200);

    pull.read_to_end(&mut bytes).unwrap();
    assert!(Answer::read(&bytes, false).0.body == layer, "what was being pulled came whole");
}

// What `outport trust` says --------------------------------------------------------------

fn trust(data: &Path, args: &[&str]) -> Value {
    let output = outport(data, &[&["trust", "--json"], args].concat(), "");
    assert!(output.status.success(), "{args:?}: {}", complained(&output));
    serde_json::from_str(&said(&output)).unwrap()
}

fn refused(data: &Path, args: &[&str]) -> String {
    let output = outport(data, &[&["trust"], args].concat(), "");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    complained(&output)
}

/// A data directory with an authority.
fn data() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let source = own(dir.path(), &[]);
    Tls::open(&source, None, NOW).unwrap();
    let ca = std::fs::read_to_string(source.ca_path().unwrap()).unwrap();
    (dir, ca)
}

#[test]
fn each_client_is_given_the_authority_where_it_looks_for_it() {
    let (dir, ca) = data();
    let host = "localhost:5000";
    for (client, home) in [
        ("docker", "/etc/docker"),
        ("podman", "/etc/containers"),
        ("containerd", "/etc/containerd"),
        ("k3s", "/etc/rancher/k3s"),
    ] {
        let told = trust(dir.path(), &[client, host]);
        let files: Vec<_> = told["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
        let certs = format!("{home}/certs.d/{host}");
        let mut expected = vec![json!(format!("{certs}/ca.crt"))];
        match client {
            "containerd" => expected.insert(0, json!(format!("{certs}/hosts.toml"))),
            "k3s" => expected.insert(0, json!(format!("{home}/registries.yaml"))),
            _ => {}
        }
        assert_eq!(files, expected.iter().collect::<Vec<_>>(), "{client}");
        assert_eq!(told["files"][expected.len() - 1]["text"], ca);
        assert_eq!(told["written"], false);

        let to = tempfile::tempdir().unwrap();
        let told = trust(dir.path(), &[client, host, "--write", to.path().to_str().unwrap()]);
        assert_eq!(told["written"], true);
        for file in told["files"].as_array().unwrap() {
            let path = PathBuf::from(file["path"].as_str().unwrap());
            assert!(path.starts_with(to.path()));
            assert_eq!(std::fs::read_to_string(path).unwrap(), file["text"].as_str().unwrap());
        }
        trust(dir.path(), &[client, host, "--write", to.path().to_str().unwrap()]);
    }
}

#[test]
fn containerds_file_is_toml_that_names_the_authority_and_nothing_insecure() {
    let (dir, _) = data();
    let told = trust(dir.path(), &["containerd", "[2001:db8::7]:5000"]);
    let text = told["files"][0]["text"].as_str().unwrap();
    let hosts: toml::Table = text.parse().unwrap();
    assert_eq!(hosts["server"].as_str(), Some("https://[2001:db8::7]:5000"));
    let host = hosts["host"]["https://[2001:db8::7]:5000"].as_table().unwrap();
    assert_eq!(host["ca"].as_str(), Some("/etc/containerd/certs.d/[2001:db8::7]:5000/ca.crt"));
    assert!(!text.contains("skip_verify"), "{text}");
}

#[test]
fn what_a_file_says_of_other_registries_stays() {
    let (dir, _) = data();
    let to = tempfile::tempdir().unwrap();
    let theirs = to.path().join("registries.yaml");
    std::fs::write(&theirs, "mirrors: {}\n").unwrap();
    let to = to.path().to_str().unwrap();
    let error = refused(dir.path(), &["k3s", "localhost:5000", "--write", to]);
    assert!(error.contains("nothing was written") && error.contains("ca_file"), "{error}");
    assert_eq!(std::fs::read_to_string(theirs).unwrap(), "mirrors: {}\n");
    assert!(!Path::new(to).join("certs.d").exists());
}

#[test]
fn what_is_printed_is_a_script_that_makes_the_files() {
    let (dir, ca) = data();
    for client in ["docker", "k3s"] {
        let to = tempfile::tempdir().unwrap();
        let script = said(&outport(dir.path(), &["trust", client, "localhost:5000"], ""));
        let script = script.replace("/etc/", &format!("{}/", to.path().display()));
        // Twice: what is there already is no failure.
        for _ in 0..2 {
            let run = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert!(run.status.success(), "{}", complained(&run));
        }
        let made = to.path().join(if client == "docker" { "docker" } else { "rancher/k3s" });
        let text = std::fs::read_to_string(made.join("certs.d/localhost:5000/ca.crt")).unwrap();
        assert_eq!(text, ca);
        assert_eq!(made.join("registries.yaml").exists(), client == "k3s");
    }
}

#[test]
fn whoever_cannot_be_trusted_by_it_is_told_so() {
    let (dir, ca) = data();
    let told = said(&outport(dir.path(), &["trust", "docker", "elsewhere.example:5000"], ""));
    assert!(told.contains("the certificate is not for elsewhere.example"), "{told}");
    assert_eq!(trust(dir.path(), &["docker", "localhost:5000"])["host_in_certificate"], true);
    // By default the port and the address of the configuration.
    assert_eq!(trust(dir.path(), &["docker"])["host"], "127.0.0.1:5000");
    for bad in ["a/b", "x; rm -rf /", "a'b", "host:0", ""] {
        assert!(refused(dir.path(), &["docker", bad]).contains("no name of a registry"), "{bad:?}");
    }
    let none = tempfile::tempdir().unwrap();
    assert!(refused(none.path(), &["docker"]).contains("no authority"));
    let file = none.path().join("fetched.crt");
    std::fs::write(&file, &ca).unwrap();
    let fetched = trust(none.path(), &["docker", "a.example", "--ca", file.to_str().unwrap()]);
    assert_eq!(fetched["files"][0]["text"], ca);
    std::fs::write(&file, "nonsense").unwrap();
    assert!(
        refused(none.path(), &["docker", "a", "--ca", file.to_str().unwrap()]).contains("no certificate")
    );
}

// Clients with certificates of their own ---------------------------------------------------

/// An authority of clients.
struct Clients {
    file: PathBuf,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Clients {
    fn new(file: PathBuf) -> Clients {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Clients { file, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A client that trusts the site, with a certificate of this common name.
    fn client(&self, site: &Site, name: Option<&str>) -> Arc<ClientConfig> {
        let mut params = rcgen::CertificateParams::default();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = name {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(site.path("tls/ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots);
        Arc::new(config.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

/// Asks through a connection of one's own; None if there is none to be had.
fn ask(client: &Arc<ClientConfig>, site: &Site, ask: crate::harness::Ask) -> Option<Answer> {
    let mut line = connect(client, site.address);
    line.write_all(&ask.bytes()).ok()?;
    let mut bytes = Vec::new();
    line.read_to_end(&mut bytes).ok()?;
    Some(Answer::read(&bytes, false).0)
}

#[test]
fn a_certificate_logs_in_the_user_of_its_name_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let clients = Clients::new(dir.path().join("clients.crt"));
    let site = Site::with(Wishes { tls: true, client_ca: Some(clients.file.clone()), ..Wishes::default() });
    let status = |client: &Arc<ClientConfig>, sent| ask(client, &site, sent).unwrap().status;
    let nobody = |method: &str, target: &str| site.ask(method, target).by_nobody();
    let bob = clients.client(&site, Some("bob"));
    assert_eq!(status(&bob, nobody("GET", "/v2/")), 200);
    assert_eq!(status(&bob, nobody("POST", "/v2/bob/app/blobs/uploads/")), 202);
    assert_eq!(status(&bob, nobody("POST", "/v2/other/app/blobs/uploads/")), 403);
    // Whoever brings a password besides is whom that is of.
    assert_eq!(status(&bob, site.ask("POST", "/v2/other/app/blobs/uploads/")), 202);
    assert_eq!(status(&bob, nobody("GET", "/v2/").with_password("bob", "wrong")), 401);
    // What would outlive the certificate takes a password.
    let generate = "/public/v2/docker_registry/v1/users/generate_password";
    assert_eq!(status(&bob, nobody("GET", generate)), 403);

    for name in [Some("stranger"), Some("Bob"), Some("bob@example.org"), Some(""), None] {
        let client = clients.client(&site, name);
        assert_eq!(status(&client, nobody("GET", "/v2/")), 401, "{name:?}");
        assert_eq!(status(&client, site.ask("GET", "/v2/")), 200, "{name:?}: the password is right");
    }
    let without = trusting(&site.path("tls/ca.crt"));
    assert_eq!(status(&without, nobody("GET", "/v2/")), 401);
    assert_eq!(status(&without, site.ask("GET", "/v2/")), 200);
    let forged = Clients::new(dir.path().join("others.crt")).client(&site, Some("admin"));
    assert!(ask(&forged, &site, nobody("GET", "/v2/")).is_none(), "of an authority that nobody named");

    let name = outport::names::UserName::parse("bob").unwrap();
    site.registry.user_set_active(&name, false).unwrap();
    assert_eq!(status(&bob, nobody("GET", "/v2/")), 403);
    site.registry.user_remove(&name).unwrap();
    assert_eq!(status(&bob, nobody("GET", "/v2/")), 401);
}

#[test]
fn an_authority_of_clients_that_is_taken_back_lets_nobody_in_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clients = Clients::new(dir.path().join("clients.crt"));
    let site = Site::with(Wishes { tls: true, client_ca: Some(clients.file.clone()), ..Wishes::default() });
    let tls = site.tls.clone().unwrap();
    let bob = clients.client(&site, Some("bob"));
    let status = || ask(&bob, &site, site.ask("GET", "/v2/").by_nobody()).map(|answer| answer.status);
    assert_eq!(status(), Some(200));
    let source = own(&site.path(""), &[]);
    std::fs::write(dir.path().join("clients.crt"), "nonsense").unwrap();
    assert!(
        tls.refresh(&source, Some(&clients.file), NOW).unwrap_err().to_string().contains("no certificate")
    );
    assert_eq!(status(), Some(200));
    Clients::new(clients.file.clone());
    assert!(tls.refresh(&source, Some(&clients.file), NOW).unwrap());
    // Neither by its certificate nor by a ticket from before.
    assert_eq!(status(), None);
    assert!(tls.refresh(&source, None, NOW).unwrap());
    assert_eq!(status(), Some(401), "certificates are not asked for");
}

#[test]
fn whoever_came_before_a_stop_is_answered() {
    let site = with_tls();
    let config = trusting(&site.path("tls/ca.crt"));
    let mut silent = connect(&config, site.address);
    let mut greeted = connect(&config, site.address);
    greeted.conn.complete_io(&mut greeted.sock).unwrap();
    // They are let in one after the other, so now the two are in.
    assert_eq!(get(&mut connect(&config, site.address), "/ca.crt").status, 200);
    site.tell_to_stop();
    assert_eq!(get(&mut silent, "/ca.crt").status, 200);
    assert_eq!(get(&mut greeted, "/ca.crt").status, 200);
}
