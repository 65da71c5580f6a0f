//! The release binary as a process of its own, and what it costs.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;

pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

/// CPU time by thread, in nanoseconds. The process's own figure moves in ticks of 10 ms.
pub struct Cpu(HashMap<String, u64>);

impl Server {
    /// Starts a server on a free port of loopback, over plain HTTP, with nothing going on
    /// beside requests, and waits until it listens.
    pub fn start(binary: &Path, data: &Path, settings: &[(&str, &str)]) -> Result<Server> {
        let mut child = Command::new(binary)
            .args(["serve", "--insecure-http", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .env("OUTPORT_STORAGE_RESERVE_BYTES", "0")
            .env("OUTPORT_SCRUB_DAYS", "0")
            .env("OUTPORT_LOG_LEVEL", "warn")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}; make it by `cargo build --release`", binary.display()))?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        let address = said.trim().rsplit('/').next().and_then(|address| address.parse().ok());
        let server = address.map(|address| Server { child, address });
        server.ok_or_else(|| "the server did not start; what it said is above".into())
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }

    pub fn cpu(&self) -> Result<Cpu> {
        let mut threads = HashMap::new();
        for thread in std::fs::read_dir(self.proc("task"))? {
            let thread = thread?;
            // A thread may end meanwhile.
            let Ok(text) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let ns = text.split(' ').next().unwrap_or_default().parse()?;
            threads.insert(thread.file_name().to_string_lossy().into_owned(), ns);
        }
        Ok(Cpu(threads))
    }

    /// Most memory it ever had, in KiB.
    pub fn rss_peak_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Cpu {
    /// What was used since an earlier look.
    pub fn since(&self, earlier: &Cpu) -> Duration {
        let used = |(thread, ns): (&String, &u64)| ns - earlier.0.get(thread).unwrap_or(&0);
        Duration::from_nanos(self.0.iter().map(used).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked nicely, so that the directory can be used again.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
