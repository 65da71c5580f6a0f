//! The real binary, asked over HTTP as clients ask.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::check::{Expect, NEXT_BOOT, START_WITHIN, difference};
use crate::script::{Blob, Key, State, Step, archive, sha256};
use crate::store::{ANSWER_WITHIN, Failure, Outcome, PASSWORD, Running, Subject, Why};

/// A running server; killed when it is dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
}

/// An answer that came whole.
struct Answer {
    status: u16,
    head: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The answer, if its status is this one.
    fn expect(self, status: u16) -> Result<Answer, Failure> {
        if self.status == status {
            return Ok(self);
        }
        let why = match self.status {
            404 => Why::NotFound,
            503 => Why::Unavailable,
            507 => Why::Full,
            _ => Why::Other,
        };
        let body: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        Err(Failure::new(why, format!("{} {body}", self.status)))
    }
}

fn gone(error: impl Into<Box<dyn std::error::Error>>) -> Failure {
    Failure::new(Why::Gone, error.into().to_string())
}

impl Server {
    /// Starts a server on a directory, in a boot of this name; it listens when this returns.
    pub fn start(binary: &Path, data: &Path, boot: &str) -> Result<Server, Failure> {
        let own = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("OUTPORT_");
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os().filter(|(name, _)| own(name)) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--insecure-http", "--data"])
            .arg(data)
            .env("OUTPORT_BOOT_ID", boot)
            .env("OUTPORT_STORAGE_RESERVE_BYTES", "0")
            .env("OUTPORT_ADMIN_PASSWORD", PASSWORD)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(gone)?;
        let mut printed = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut printed));
        let address = printed.trim().rsplit('/').next().and_then(|address| address.parse().ok());
        match (address, read) {
            (Some(address), Some(Ok(_))) => Ok(Server { child, address }),
            _ => {
                // It ended, or is of no use.
                let _ = child.kill();
                let status = child.wait().map_err(gone)?;
                Err(gone(format!("the server does not start: {status}")))
            }
        }
    }

    fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Failure> {
        let mut stream = TcpStream::connect(self.address).map_err(gone)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(gone)?;
        let credentials = STANDARD.encode(format!("admin:{PASSWORD}"));
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Authorization: Basic {credentials}\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in headers {
            _ = write!(head, "{name}: {value}\r\n");
        }
        head += "\r\n";
        // It may answer and close before it has read everything.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map_err(gone)?;
        read(&bytes, method == "HEAD").ok_or_else(|| gone("the answer did not come whole"))
    }

    fn get(&self, target: &str) -> Result<Option<Answer>, Failure> {
        match self.ask("GET", target, &[], b"")?.expect(200) {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.why == Why::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Begins an upload; where it goes on.
    fn begin(&self, repo: &str) -> Result<String, Failure> {
        let answer = self.ask("POST", &format!("/v2/{repo}/blobs/uploads/"), &[], b"")?.expect(202)?;
        location(&answer)
    }

    fn write(&self, to: &str, from: usize, bytes: &[u8]) -> Result<String, Failure> {
        let range = format!("{from}-{}", (from + bytes.len()).saturating_sub(1));
        location(&self.ask("PATCH", to, &[("Content-Range", &range)], bytes)?.expect(202)?)
    }

    fn commit(&self, to: &str, blob: Blob) -> Result<(), Failure> {
        let separator = if to.contains('?') { '&' } else { '?' };
        let target = format!("{to}{separator}digest={}", blob.digest());
        self.ask("PUT", &target, &[], b"")?.expect(201).map(|_| ())
    }

    fn delete(&self, target: &str, status: u16) -> Result<(), Failure> {
        self.ask("DELETE", target, &[], b"")?.expect(status).map(|_| ())
    }

    fn value(&self, key: &Key) -> Result<Option<String>, Failure> {
        let right = |answer: Answer, digest: &str| match sha256(&answer.body) == digest {
            true => Ok(answer.body),
            false => Err(Failure::new(Why::WrongBytes, format!("{digest} was served as other bytes"))),
        };
        match key {
            Key::Repo(_) => Ok(None),
            Key::Blob(repo, digest) => {
                let target = format!("/v2/{repo}/blobs/{digest}");
                let head = self.ask("HEAD", &target, &[], b"")?.status;
                match self.get(&target)? {
                    Some(answer) => Ok(Some(right(answer, digest)?.len().to_string())),
                    None if head == 404 => Ok(None),
                    None => Ok(Some("named, but not readable".into())),
                }
            }
            Key::Manifest(repo, digest) => {
                let Some(answer) = self.get(&format!("/v2/{repo}/manifests/{digest}"))? else {
                    return Ok(None);
                };
                Ok(Some(String::from_utf8_lossy(&right(answer, digest)?).into_owned()))
            }
            Key::Tag(repo, tag) => {
                let Some(answer) = self.get(&format!("/v2/{repo}/manifests/{tag}"))? else { return Ok(None) };
                let digest = answer.header("docker-content-digest").unwrap_or_default().to_owned();
                right(answer, &digest)?;
                Ok(Some(digest))
            }
        }
    }
}

/// Where an answer says that the upload goes on.
fn location(answer: &Answer) -> Result<String, Failure> {
    let to = answer.header("location").ok_or_else(|| Failure::new(Why::Other, "no location"))?;
    let path = to.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    Ok(path.unwrap_or(to).to_owned())
}

/// None if it ends before its length says so.
fn read(bytes: &[u8], is_head: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let head = lines.filter_map(|line| line.split_once(':'));
    let head = head.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let mut answer = Answer { status, head, body: bytes[end + 4..].to_vec() };
    let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let length = if is_head { 0 } else { length };
    if answer.body.len() < length {
        return None;
    }
    answer.body.truncate(length);
    Some(answer)
}

impl Subject for Server {
    fn run(&self, step: &Step, upload: Option<&str>) -> Outcome {
        let upload = || upload.ok_or_else(|| Failure::new(Why::NotFound, "the upload never began"));
        match step {
            Step::Start { .. } | Step::Stop | Step::Kill | Step::Collect => {
                return Err(Failure::new(Why::Other, "no request does this"));
            }
            Step::Push { repo, blob } => {
                let to = self.write(&self.begin(repo)?, 0, &blob.bytes())?;
                self.commit(&to, *blob)?;
            }
            Step::Mount { repo, from, blob } => {
                let target = format!("/v2/{repo}/blobs/uploads/?mount={}&from={from}", blob.digest());
                self.ask("POST", &target, &[], b"")?.expect(201)?;
            }
            Step::UploadBegin { repo, .. } => return self.begin(repo),
            Step::UploadWrite { blob, from, to, .. } => {
                self.write(upload()?, *from, &blob.bytes()[*from..*to])?;
            }
            Step::UploadCommit { blob, .. } => self.commit(upload()?, *blob)?,
            Step::UploadCancel { .. } => self.delete(upload()?, 204)?,
            Step::PutManifest { repo, tag, body } => {
                let reference = tag.clone().unwrap_or_else(|| sha256(body.as_bytes()));
                let manifest: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
                let kind = manifest["mediaType"].as_str().unwrap_or_default();
                let target = format!("/v2/{repo}/manifests/{reference}");
                self.ask("PUT", &target, &[("Content-Type", kind)], body.as_bytes())?.expect(201)?;
            }
            Step::Pull { repo, blob } => {
                let found = self.value(&Key::Blob(repo.clone(), blob.digest()))?;
                found.ok_or_else(|| Failure::new(Why::NotFound, "the blob is not there"))?;
            }
            Step::PullManifest { repo, reference, .. } => {
                let found = self.value(&Key::Tag(repo.clone(), reference.clone()))?;
                found.ok_or_else(|| Failure::new(Why::NotFound, "the manifest is not there"))?;
            }
            Step::DeleteTag { repo, tag: reference } | Step::DeleteManifest { repo, digest: reference } => {
                self.delete(&format!("/v2/{repo}/manifests/{reference}"), 202)?;
            }
            Step::DeleteBlob { repo, blob } => {
                self.delete(&format!("/v2/{repo}/blobs/{}", blob.digest()), 202)?;
            }
            Step::DeleteRepo { repo } => {
                let answer = self.ask("DELETE", &format!("/v1/repositories/{repo}/"), &[], b"")?;
                // For an hour a deletion is confirmed to whoever asks for it once more.
                if answer.status == 200 {
                    return Err(Failure::new(Why::NotFound, "it was deleted before"));
                }
                answer.expect(202)?;
            }
            Step::Import { repo, tag, blobs, body } => {
                let bytes = archive(&format!("{repo}:{tag}"), blobs, body);
                self.ask("POST", "/import", &[], &bytes)?.expect(200)?;
            }
        }
        Ok(String::new())
    }

    /// Repositories show in no list of these without images, and are left out.
    fn look(&self, keys: &[Key]) -> Result<State, Failure> {
        let mut state = State::new();
        let mut repos: Vec<&str> = keys.iter().map(Key::repo).collect();
        repos.dedup();
        for key in keys {
            if let Some(value) = self.value(key)? {
                state.insert(key.clone(), value);
            }
        }
        for repo in repos {
            let Some(answer) = self.get(&format!("/v2/{repo}/tags/list"))? else { continue };
            let list: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            for tag in list["tags"].as_array().into_iter().flatten().filter_map(|tag| tag.as_str()) {
                let key = Key::Tag(repo.to_owned(), tag.to_owned());
                state.entry(key).or_insert_with(|| "listed, but not readable".into());
            }
        }
        Ok(state)
    }
}

/// What is wrong with an image of a crash, seen through the real binary: the promises I1 to
/// I5 of check.rs, as far as clients can see them.
pub fn check(binary: &Path, data: &Path, killed: bool, expect: &Expect) -> Vec<String> {
    let started = Instant::now();
    let server = match Server::start(binary, data, if killed { &expect.boot } else { NEXT_BOOT }) {
        Ok(server) => server,
        Err(failure) => return vec![format!("I4: {failure}")],
    };
    let mut problems = Vec::new();
    if started.elapsed() > START_WITHIN {
        problems.push(format!("I4: the start took {:?}", started.elapsed()));
    }
    let seen = |mut state: State| {
        state.retain(|key, _| !matches!(key, Key::Repo(_)));
        state
    };
    let keys = expect.world.keys();
    let mut compare = |allowed: Vec<State>, promise: &str| match server.look(&keys) {
        Ok(found) if allowed.contains(&found) => {}
        Ok(found) => problems.push(format!("{promise}: {}", difference(&found, &allowed[0]))),
        Err(failure) => problems.push(format!("{promise}: it cannot be read: {failure}")),
    };
    compare(expect.allowed().into_iter().map(seen).collect(), "I1, I2, I3");
    let mut refused = Vec::new();
    for step in expect.under_way.iter().filter_map(Step::again) {
        match server.run(&step, None) {
            Ok(_) => {}
            Err(failure) if step.deletes() && failure.why == Why::NotFound => {}
            Err(failure) => refused.push(format!("I5: {step}, once more: {failure}")),
        }
    }
    compare(vec![seen(expect.after())], "I5");
    problems.extend(refused);
    problems
}

impl Running for Server {
    fn has_failed(&self) -> bool {
        false
    }

    fn stop(mut self: Box<Self>) -> bool {
        let told = Command::new("kill").arg(self.child.id().to_string()).status();
        told.is_ok_and(|status| status.success()) && self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it is gone and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
