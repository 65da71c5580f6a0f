//! `outport healthcheck`: what is asked, what is said, and how it ends.

use crate::binary::{BINARY, complained, said};
use crate::harness::{Site, Wishes};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::thread;

/// Asks at the configured address.
fn healthcheck(listen: &str, args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("healthcheck").args(args).env("OUTPORT_SERVER_LISTEN", listen);
    command.env("OUTPORT_DATA", "/nonexistent").output().unwrap()
}

fn failed(output: &Output, says: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = complained(output);
    assert!(said.contains(says) && said.lines().count() == 1, "{said}");
}

/// Somebody else's server, which says this once to whoever asks.
fn stranger(says: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut line, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        let _ = line.read(&mut head);
        line.write_all(says.as_bytes())
    });
    address
}

#[test]
fn a_server_that_reads_and_writes_is_well_whoever_signed_its_certificate() {
    let site = Site::with(Wishes { tls: true, ..Wishes::default() });
    let address = site.address.to_string();
    let output = healthcheck(&address, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said(&output), format!("https://{address} reads and writes.\n"));
    let output = healthcheck("192.0.2.1:1", &["--listen", &address, "--json"]);
    let told: Value = serde_json::from_str(&said(&output)).unwrap();
    assert_eq!(told, json!({"status": "ok", "reads": "ok", "writes": "ok"}));
    // Who listens everywhere is asked here.
    let output = healthcheck(&format!("0.0.0.0:{}", site.address.port()), &[]);
    assert!(output.status.success(), "{output:?}");
    // Plain HTTP where there is TLS is no answer of ours.
    failed(&healthcheck(&address, &["--insecure-http"]), "does not answer as Outport does");
}

#[test]
fn plain_http_is_asked_where_it_is_served() {
    let site = Site::new();
    let address = site.address.to_string();
    assert!(healthcheck(&address, &["--insecure-http"]).status.success());
    failed(&healthcheck(&address, &[]), "--insecure-http if it has no TLS");
}

#[test]
fn a_full_disk_is_told_of_and_what_is_wrong_with_it() {
    let mut wishes = Wishes::default();
    wishes.registry.reserve_bytes = Some(9_000_000_000_000_000_000);
    let site = Site::new().restart_with(wishes);
    let output = healthcheck(&site.address.to_string(), &["--insecure-http"]);
    failed(&output, "reading: ok; writing: ");
    assert!(complained(&output).contains("outport check"), "{output:?}");
}

#[test]
fn nobody_and_somebody_else_are_not_well() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    failed(&healthcheck(&nobody.to_string(), &[]), "start the server");
    for says in ["", "nonsense", "HTTP/1.1 200 OK\r\n\r\nwell", "HTTP/1.1 200 OK\r\n\r\n{}"] {
        let output = healthcheck(&stranger(says).to_string(), &["--insecure-http"]);
        failed(&output, "does not answer as Outport does");
    }
}

#[test]
fn who_takes_the_question_and_says_nothing_is_not_waited_for_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    failed(&healthcheck(&listener.local_addr().unwrap().to_string(), &[]), "timed out");
}
