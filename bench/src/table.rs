//! `outport-bench`: every figure that Outport has a target for, of Outport and of its peers.

use clap::Args;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::contenders::{Contender, Pki, contenders};
use crate::growth::{self, Grown};
use crate::measured::{COLUMNS, Measured, digits};
use crate::rows::{Rows, Sizes};
use crate::server::{self, machine_time};
use crate::targets::TARGETS;

/// Between these lines a file's table is written anew.
const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

#[derive(Args)]
pub struct Table {
    /// The binary to measure; otherwise the one beside this program
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Another registry, over plain HTTP: {addr} (or {host} and {port}) and {dir} are filled in
    #[arg(long, value_name = "NAME=COMMAND LINE")]
    peer: Vec<String>,
    /// The same one, over TLS: {cert} and {key} too
    #[arg(long, value_name = "NAME=COMMAND LINE")]
    peer_tls: Vec<String>,
    /// Where data directories are made; large stores are kept there for the next time
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Rows whose names hold this, alone; those that begin with "growth" only if this does
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Not how cost grows: to fill a store of a million takes a while
    #[arg(long)]
    no_growth: bool,
    /// How long each rate is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    secs: u64,
    /// Everything, but little of it: whether it works, in seconds
    #[arg(long)]
    short: bool,
    /// Write what was measured as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table into this file, between its two marks, instead of printing it
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    machine: Vec<String>,
    /// Each server that took part, Outport first.
    servers: Vec<String>,
    measured: Vec<Measured>,
    growth: Vec<Grown>,
    /// There was less of everything than the rows say.
    short: bool,
}

impl Table {
    pub fn run(&self) -> Result<()> {
        open_files()?;
        let binary = server::binary(self.binary.as_deref())?;
        let own = tempfile::tempdir()?;
        let work = self.data.as_deref().unwrap_or(own.path());
        std::fs::create_dir_all(work)?;
        let mut machine = machine(&binary, work)?;
        let (all_before, own_before) = machine_time()?;
        let temporary = tempfile::tempdir_in(work)?;
        let pki = Pki::new(&binary, temporary.path())?;
        let sizes = if self.short { Sizes::short() } else { Sizes::whole(Duration::from_secs(self.secs)) };
        let contenders = contenders(&binary, &self.peer, &self.peer_tls)?;
        let mut measured = Vec::new();
        for contender in &contenders {
            let mut rows = Rows {
                contender,
                pki: &pki,
                sizes,
                short: self.short,
                work: temporary.path(),
                only: &self.only,
                measured: Vec::new(),
            };
            rows.all()?;
            measured.extend(rows.measured);
        }
        let levels = if self.short { growth::SHORT } else { growth::WHOLE };
        let growth = match self.no_growth {
            true => Vec::new(),
            false => growth::measure(&binary, work, &levels, sizes.time, sizes.starts, &self.only)?,
        };
        if self.short {
            machine.push("in short: less of everything than the rows say".to_owned());
        }
        let (all_after, own_after) = machine_time()?;
        let busy = all_after - all_before;
        let others =
            busy.saturating_sub(own_after - own_before).div_duration_f64(busy.max(Duration::from_nanos(1)));
        machine.push(format!(
            "{:.0} % of the CPU time that the run took went to others, the kernel's own threads among them",
            others * 100.0
        ));
        let servers = contenders.into_iter().map(|Contender { name, .. }| name).collect();
        self.write(&Report { machine, servers, measured, growth, short: self.short })
    }

    fn write(&self, report: &Report) -> Result<()> {
        if let Some(file) = &self.json {
            std::fs::write(file, serde_json::to_string_pretty(report)? + "\n")?;
        }
        let text = report.markdown();
        let Some(file) = &self.into else {
            println!("{text}");
            return Ok(());
        };
        let old = std::fs::read_to_string(file)?;
        let (before, rest) = old.split_once(BEGIN).ok_or(format!("{} has no {BEGIN}", file.display()))?;
        let (_, after) = rest.split_once(END).ok_or(format!("{} has no {END}", file.display()))?;
        Ok(std::fs::write(file, format!("{before}{BEGIN}\n{text}\n{END}{after}"))?)
    }
}

impl Report {
    fn markdown(&self) -> String {
        let machine = self.machine.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n");
        let parts = [
            ("The machine", machine),
            ("The targets", if self.short { String::new() } else { self.targets() }),
            ("All that was measured", self.rows()),
            ("How it grows", growth::markdown(&self.growth)),
        ];
        let sections = parts.into_iter().filter(|(_, text)| !text.is_empty());
        sections.map(|(title, text)| format!("### {title}\n\n{text}\n")).collect::<Vec<_>>().join("\n")
    }

    fn targets(&self) -> String {
        let (ours, peers) = self.servers.split_at(1);
        let ratios: Vec<String> = peers.iter().map(|peer| format!("to {peer}")).collect();
        let columns = [ours, peers, ratios.as_slice()].concat();
        let mut lines = vec![
            format!("| | {} | target | reached |", columns.join(" | ")),
            format!("|---|{}---|---|", "--:|".repeat(columns.len())),
        ];
        let (mut last, shown) = ("", |value: Option<f64>| value.map(digits).unwrap_or_default());
        for target in &TARGETS {
            let figure = |server: &String| target.figure(&self.measured, server);
            if !self.servers.iter().any(|server| figure(server).is_some()) {
                continue;
            }
            let title = if target.row == last { "… " } else { &format!("{}: ", target.row) };
            last = target.row;
            let mine = ours.first().and_then(figure);
            let ratio = |peer| {
                mine.zip(figure(peer)).map_or(String::new(), |(mine, theirs)| digits(mine / theirs) + " ×")
            };
            let mut cells = vec![format!("{title}{}", target.what)];
            cells.extend(self.servers.iter().map(|server| shown(figure(server))));
            cells.extend(peers.iter().map(ratio));
            cells.extend([target.aim(), target.verdict(&self.measured)]);
            lines.push(format!("| {} |", cells.join(" | ")));
        }
        if lines.len() > 2 { lines.join("\n") } else { String::new() }
    }

    fn rows(&self) -> String {
        let mut lines = vec![
            format!("| | server | {} |", COLUMNS.join(" | ")),
            format!("|---|---|{}", "--:|".repeat(COLUMNS.len())),
        ];
        let mut done: Vec<&str> = Vec::new();
        for Measured { row, .. } in &self.measured {
            if done.contains(&row.as_str()) {
                continue;
            }
            done.push(row);
            for (at, measured) in self.measured.iter().filter(|measured| measured.row == *row).enumerate() {
                let title = if at == 0 { row.as_str() } else { "" };
                lines.push(format!("| {title} | {} | {} |", measured.server, measured.cells().join(" | ")));
            }
        }
        if done.is_empty() { String::new() } else { lines.join("\n") }
    }
}

/// Lets this process, and those it starts, have as many open files as they may.
fn open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// What is measured, and on what.
fn machine(binary: &Path, work: &Path) -> Result<Vec<String>> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("a CPU without a name");
    let cores = std::thread::available_parallelism()?;
    Ok(vec![
        first_line(Command::new(binary).arg("--version"))?,
        format!("{cores} × {}", model.trim_start_matches([' ', '\t', ':'])),
        format!("Linux {}, {} under the data", read("/proc/sys/kernel/osrelease").trim(), file_system(work)?),
    ])
}

fn first_line(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// The kind of the mount with the longest name that holds the directory.
fn file_system(dir: &Path) -> Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let kinds = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        dir.starts_with(at).then_some((at.len(), kind))
    });
    Ok(kinds.max_by_key(|(length, _)| *length).map_or("nothing known", |(_, kind)| kind).to_owned())
}
