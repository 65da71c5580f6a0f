//! `outport check`: what is found, what is said of it, and how it ends.

use crate::binary::{BINARY, complained, said};
use crate::harness::Site;
use outport::http::tls::{Certificate, Source, Tls};
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Asks with a disk of which nothing is kept back, for an address.
fn check(data: &Path, listen: &str, args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["check", "--data"]).arg(data).args(args);
    command.env("OUTPORT_SERVER_LISTEN", listen).env("OUTPORT_STORAGE_RESERVE_BYTES", "0");
    command.env_remove("OUTPORT_DATA").output().unwrap()
}

/// What it says to scripts.
fn findings(output: &Output) -> Vec<Value> {
    said(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What it says of one thing, the worst first.
fn of(output: &Output, about: &str) -> Vec<(String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let found = findings(output).into_iter().filter(|row| row["check"] == about);
    found.map(|row| (text(&row, "state"), text(&row, "says") + "; " + &text(&row, "remedy"))).collect()
}

/// The directory of a server that has stopped, with a certificate that is good by this machine's clock.
fn stopped() -> tempfile::TempDir {
    let site = Site::new();
    site.push_image("bob/app", "v1", b"layer");
    let dir = site.close();
    Tls::open(&own(dir.path()), None, now_secs()).unwrap();
    dir
}

fn own(dir: &Path) -> Source {
    Source::Own { dir: dir.join("tls"), names: Vec::new() }
}

fn now_secs() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs().cast_signed()
}

#[test]
fn all_that_matters_is_looked_at_and_what_is_well_is_said_too() {
    let dir = stopped();
    let output = check(dir.path(), "127.0.0.1:0", &["--json"]);
    assert!(output.status.success(), "{}", complained(&output));
    for about in [
        "clock",
        "certificate",
        "authority",
        "file system",
        "card",
        "permissions",
        "cpu",
        "space",
        "database",
        "store",
    ] {
        let rows = of(&output, about);
        assert!(!rows.is_empty(), "{about} is looked at");
        assert!(rows.iter().all(|(state, _)| state != "failed"), "{rows:?}");
    }
    let ca = Certificate::read(&dir.path().join("tls/ca.crt")).unwrap();
    assert!(of(&output, "authority")[0].1.contains(&ca.fingerprint), "people compare it");
    assert!(of(&output, "database")[0].1.contains("SQLite 3."));
    assert!(of(&output, "certificate")[0].1.contains("localhost"));
    let people = said(&check(dir.path(), "127.0.0.1:0", &[]));
    assert_eq!(people.lines().filter(|line| !line.starts_with(' ')).count(), findings(&output).len());
    assert!(people.contains("ok       database"), "{people}");
}

#[test]
fn a_port_that_another_has_fails_the_check_and_one_that_answers_does_not() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let dir = stopped();
    let output = check(dir.path(), &listen, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(complained(&output).contains("ss -ltnp"), "{}", complained(&output));
    assert_eq!(of(&output, "port")[0].0, "failed");

    let site = Site::new();
    let output = check(&site.path(""), &site.address.to_string(), &["--json"]);
    assert_eq!(of(&output, "port"), [("ok".to_owned(), format!("{} answers; ", site.address))]);
    drop(taken);
    let output = check(&site.path(""), &listen, &["--json"]);
    assert_eq!(of(&output, "port")[0].0, "warning", "a server may have been told otherwise");
}

#[test]
fn certificates_that_clients_refuse_fail_the_check() {
    let dir = stopped();
    let (cert, key) = own(dir.path()).paths();
    // Made by a clock of long ago, and by one that is years ahead.
    for wrong in [now_secs() + 3_000 * 86_400, now_secs() + 20_000 * 86_400] {
        Tls::open(&own(dir.path()), None, wrong).unwrap();
        let output = check(dir.path(), "127.0.0.1:0", &["--json"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(of(&output, "certificate")[0].1.contains("begins at"), "{output:?}");
    }
    std::fs::write(&key, "nonsense").unwrap();
    let output = check(dir.path(), "127.0.0.1:0", &["--json"]);
    assert!(of(&output, "certificate")[0].1.contains("start the server"), "{output:?}");
    std::fs::remove_file(cert).unwrap();
    assert_eq!(check(dir.path(), "127.0.0.1:0", &[]).status.code(), Some(1));
    assert_eq!(
        of(&check(dir.path(), "127.0.0.1:0", &["--json"]), "database")[0].0,
        "ok",
        "the rest is looked at"
    );
}

#[test]
fn keys_that_others_may_read_are_told_of() {
    let dir = stopped();
    let (_, key) = own(dir.path()).paths();
    std::fs::set_permissions(key, PermissionsExt::from_mode(0o644)).unwrap();
    let output = check(dir.path(), "127.0.0.1:0", &["--json"]);
    assert!(output.status.success());
    let warned = |(state, says): &(String, String)| {
        state == "warning" && says.contains("server.key") && says.contains("chmod go=")
    };
    assert!(of(&output, "permissions").iter().any(warned), "{output:?}");
}

#[test]
fn a_full_disk_fails_the_check() {
    let dir = stopped();
    let output = Command::new(BINARY)
        .args(["check", "--json", "--data"])
        .arg(dir.path())
        .env("OUTPORT_SERVER_LISTEN", "127.0.0.1:0")
        .env("OUTPORT_STORAGE_RESERVE_BYTES", "9000000000000000000")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(complained(&output).contains("pushes are refused") && complained(&output).contains("outport gc"));
}
