//! A registry as a process of its own, and what it costs: Outport, or another.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::Door;
use crate::fill::PASSWORD;

const OWN: &str = "/proc/self/stat";
/// How long a start and an end may take; a start is looked at so often.
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_micros(100);
/// What is shown of the log of a server that did not start.
const LOG_BYTES: i64 = 2_000;
/// The unit of CPU times in /proc is 1/100 s on every Linux that we build for.
const TICK: Duration = Duration::from_millis(10);

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// From the start of the process until it had answered a request, or, where TLS is spoken,
    /// until it took a connection.
    pub started_in: Duration,
}

/// CPU time by thread, in nanoseconds. The process's own figure moves in ticks of 10 ms.
pub struct Cpu(HashMap<String, u64>);

/// CPU time until now of a server, threads that ended included, and of this process, who asks it.
pub struct Spent {
    pub server: Duration,
    pub client: Duration,
}

/// A free address of loopback.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Outport's binary: the one that is named, or that which lies beside this program, made anew if
/// cargo runs us.
pub fn binary(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    if let (Some(cargo), Some(here)) = (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR")) {
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let made = Command::new(cargo)
            .args(["build", "--locked", "--package", "outport", "--bin", "outport", "--profile", profile])
            .current_dir(here)
            .status()?;
        if !made.success() {
            return Err("the binary could not be made".into());
        }
    }
    Ok(std::env::current_exe()?.with_file_name("outport"))
}

/// Outport's binary on a data directory, with nothing going on beside requests.
pub fn outport(binary: &Path, data: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(binary);
    command.args(["serve", "--listen", &address.to_string(), "--data"]).arg(data);
    // What somebody set for a server of his own is not what is measured.
    let set = std::env::vars_os().map(|(key, _)| key);
    set.filter(|key| key.to_string_lossy().starts_with("OUTPORT_")).for_each(|key| {
        command.env_remove(key);
    });
    command
        .env("OUTPORT_ADMIN_PASSWORD", PASSWORD)
        .env("OUTPORT_AUTH_ANONYMOUS_PULL", "true")
        .env("OUTPORT_REPOS_PRIVATE", "false")
        .env("OUTPORT_STORAGE_RESERVE_BYTES", "0")
        .env("OUTPORT_SCRUB_DAYS", "0")
        .env("OUTPORT_LOG_LEVEL", "warn");
    command
}

/// The same, over plain HTTP.
pub fn plain_outport(binary: &Path, data: &Path, address: SocketAddr) -> Command {
    let mut command = outport(binary, data, address);
    command.arg("--insecure-http");
    command
}

impl Server {
    /// Starts what `command` says, and waits until it answers at `address`.
    pub fn start(mut command: Command, address: SocketAddr, tls: bool) -> Result<Server> {
        let mut log = tempfile::tempfile()?;
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let mut server = Server { child, address, started_in: Duration::ZERO };
        while !server.answers(tls) {
            if server.child.try_wait()?.is_some() || started.elapsed() > START_MAX {
                let mut said = String::new();
                let end = log.seek(SeekFrom::End(0))?;
                log.seek(SeekFrom::End(-LOG_BYTES.min(i64::try_from(end)?)))?;
                log.read_to_string(&mut said)?;
                return Err(format!("{} did not start: {said}", command.get_program().display()).into());
            }
            std::thread::sleep(LOOK);
        }
        server.started_in = started.elapsed();
        Ok(server)
    }

    fn answers(&self, tls: bool) -> bool {
        match tls {
            true => TcpStream::connect(self.address).is_ok(),
            false => Door::new(self.address).connect().and_then(|mut client| client.get("/v2/")).is_ok(),
        }
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

    /// The size of the program, in bytes.
    pub fn binary_bytes(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.proc("exe"))?.len())
    }

    /// Its memory now, in KiB.
    pub fn rss_kib(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// Most memory it ever had, or since [`Server::reset_peak`], in KiB.
    pub fn peak_kib(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// From now on its peak is counted anew.
    pub fn reset_peak(&self) -> Result<()> {
        Ok(std::fs::write(self.proc("clear_refs"), "5")?)
    }

    /// Asks it to end, so that its directory can be used again, and makes it if need be.
    fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let asked = Instant::now();
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > STOP_MAX {
                self.child.kill()?;
                self.child.wait()?;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Cpu {
    /// What was used since an earlier look.
    pub fn since(&self, earlier: &Cpu) -> Duration {
        let used = |(thread, ns): (&String, &u64)| ns - earlier.0.get(thread).unwrap_or(&0);
        Duration::from_nanos(self.0.iter().map(used).sum())
    }
}

impl Spent {
    pub fn now(server: &Server) -> Result<Spent> {
        Ok(Spent { server: cpu_time(&server.proc("stat"), 2)?, client: cpu_time(OWN, 2)? })
    }

    pub fn since(&self, earlier: &Spent) -> Spent {
        Spent { server: self.server - earlier.server, client: self.client - earlier.client }
    }
}

/// CPU time until now of all there is on this machine, and what of it was ours: this process's, and
/// that of the servers that ended.
pub fn machine_time() -> Result<(Duration, Duration)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    // User, nice and system; what follows is idle time, and interrupts.
    let ticks = text.split_whitespace().skip(1).take(3).map(str::parse::<u32>);
    Ok((TICK * ticks.sum::<std::result::Result<u32, _>>()?, cpu_time(OWN, 4)?))
}

/// User and system time, out of a file as proc(5) describes it; with 4 fields that of children, too,
/// that were waited for.
fn cpu_time(stat: &str, fields: usize) -> Result<Duration> {
    let text = std::fs::read_to_string(stat)?;
    // The name before the last bracket may hold anything. What follows begins with field 3.
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(fields).map(str::parse::<u32>);
    Ok(TICK * ticks.sum::<std::result::Result<u32, _>>()?)
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
