//! Programs in which docker and podman keep logins (`docker-credential-NAME`), asked as docker does
//! (github.com/docker/docker-credential-helpers).

use serde::Deserialize;
use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::address::Host;
use super::login::Login;
use crate::error::{Error, Kind, Result, Thing};

/// What Docker Hub is called there.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// What they say where they know nothing.
const UNKNOWN: &str = "credentials not found";
/// The user that stands for a refresh token.
const TOKEN_USER: &str = "<token>";
/// Longest answer, and longest part of it that is told, in bytes.
const ANSWER_MAX: u64 = 64 << 10;
const TOLD_MAX: usize = 200;
/// How long somebody may take to unlock a keychain.
const WAIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a program for its login at a host; None if it knows none.
pub(super) fn ask(name: &str, host: &Host) -> Result<Option<Login>> {
    let program = format!("docker-credential-{name}");
    let failed = |why: &str| -> Error {
        let why: String = why.trim().chars().filter(|c| !c.is_control()).take(TOLD_MAX).collect();
        Kind::Invalid(Thing::User).because(format!(
            "{program}, which keeps the login for {host}, cannot be asked: {why}; give --user NAME instead"
        ))
    };
    // It is looked for where programs are, and nowhere else.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Err(failed("this is no name of a program"));
    }
    let spawned = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => failed("it is not installed"),
        _ => failed(&error.to_string()),
    })?;
    let key = if host.is_hub() { HUB_KEY } else { host.as_str() };
    if let Some(mut input) = child.stdin.take() {
        // One that reads nothing says so by its answer.
        let _ = input.write_all(key.as_bytes());
    }
    let output = child.stdout.take();
    let (told, hears) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = output.map(|output| output.take(ANSWER_MAX).read_to_end(&mut text));
        // Whoever waited may have given up.
        let _ = told.send((read.is_some_and(|read| read.is_ok()), text));
    });
    let heard = hears.recv_timeout(WAIT);
    if heard.is_err() {
        // It ended by itself just now, or ends here.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(&error.to_string()))?;
    let Ok((true, text)) = heard else { return Err(failed("it gives no answer")) };
    if !status.success() {
        let said = String::from_utf8_lossy(&text);
        return if said.contains(UNKNOWN) { Ok(None) } else { Err(failed(&said)) };
    }
    // An error of serde_json names a place and no text.
    let answer: Answer = serde_json::from_slice(&text).map_err(|error| failed(&error.to_string()))?;
    Ok(Some(match answer.username == TOKEN_USER {
        true => Login::Refresh(answer.secret),
        false => Login::Password { user: answer.username, password: answer.secret },
    }))
}
