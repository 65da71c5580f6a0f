//! What Outport is to reach, and whether it does.

use crate::contenders::OUTPORT;
use crate::measured::{Measured, digits, row};

/// What a row tells of it, if it does.
pub type Figure = fn(&Measured) -> Option<f64>;

/// A figure of a row, and what it must be.
pub struct Target {
    pub row: &'static str,
    pub what: &'static str,
    figure: Figure,
    aims: &'static [Aim],
}

/// What a figure must be.
enum Aim {
    AtMost(f64),
    AtLeast(f64),
    /// At least so much of a peer's, if it was measured in the same run. A peer is known by how
    /// its name begins.
    OfPeer(f64, &'static str),
    /// At least so much of another row of our own.
    OfRow(f64, &'static str),
}

use Aim::{AtLeast, AtMost, OfPeer, OfRow};

const OLAREG: &str = "olareg";
const DISTRIBUTION: &str = "distribution 3";

const PER_S: Figure = |row| row.per_s;
const MB_PER_S: Figure = |row| row.mb_per_s;
const P99: Figure = |row| row.p99_ms;
const CPU_MS: Figure = |row| row.cpu_ms;
const CPU_PER_GIB: Figure = |row| row.cpu_s_per_gib;
const PEAK: Figure = |row| row.peak_mib;
const RSS: Figure = |row| row.rss_mib;

const fn target(row: &'static str, what: &'static str, figure: Figure, aims: &'static [Aim]) -> Target {
    Target { row, what, figure, aims }
}

pub const TARGETS: [Target; 34] = [
    target(row::START, "binary, MB", |row| row.binary_mb, &[AtMost(8.0)]),
    target(row::START, "start to first answer, ms", |row| row.start_ms, &[AtMost(15.0)]),
    target(row::IDLE, "RSS, MiB", RSS, &[AtMost(6.0)]),
    target(row::IMAGE, "images/s", PER_S, &[OfPeer(4.0, DISTRIBUTION), OfPeer(0.7, OLAREG)]),
    target(row::IMAGE, "CPU ms", CPU_MS, &[AtMost(4.0)]),
    target(row::IMAGE, "peak RSS, MiB", PEAK, &[AtMost(12.0)]),
    target(row::LARGE_PUSH, "CPU s/GiB", CPU_PER_GIB, &[AtMost(1.4)]),
    target(row::LARGE_PUSH, "MB/s", MB_PER_S, &[OfPeer(1.0, OLAREG)]),
    target(row::LARGE_PULL, "CPU s/GiB", CPU_PER_GIB, &[AtMost(0.45)]),
    target(row::LARGE_PULL, "MB/s", MB_PER_S, &[OfPeer(0.7, OLAREG)]),
    target(row::TLS_PULL, "CPU s/GiB", CPU_PER_GIB, &[AtMost(0.75)]),
    target(row::TLS_PULL, "MB/s", MB_PER_S, &[]),
    target(row::TLS_PUSH, "CPU s/GiB", CPU_PER_GIB, &[AtMost(2.5)]),
    target(row::TLS_PUSH, "MB/s", MB_PER_S, &[]),
    target(row::TLS_GET, "/s", PER_S, &[OfPeer(1.0, OLAREG)]),
    target(row::TLS_GET, "CPU ms", CPU_MS, &[AtMost(0.045)]),
    target(row::MIDDLING, "/s", PER_S, &[OfPeer(0.8, OLAREG)]),
    target(row::MIDDLING, "p99 ms", P99, &[AtMost(3.0)]),
    target(row::GET, "/s", PER_S, &[OfPeer(1.0, OLAREG)]),
    target(row::GET, "CPU ms", CPU_MS, &[AtMost(0.04)]),
    target(row::HEAD, "/s", PER_S, &[OfPeer(1.0, OLAREG)]),
    target(row::PUT, "/s", PER_S, &[OfPeer(6.0, DISTRIBUTION)]),
    target(row::PUT, "CPU ms", CPU_MS, &[]),
    target(row::TAGS_PAGE, "/s", PER_S, &[AtLeast(15_000.0)]),
    target(row::TAGS_PAGE, "CPU ms", CPU_MS, &[]),
    target(row::TAGS_ALL, "/s", PER_S, &[AtLeast(400.0)]),
    target(row::CATALOG, "/s", PER_S, &[AtLeast(15_000.0)]),
    target(row::CATALOG, "CPU ms", CPU_MS, &[]),
    target(row::BASIC, "/s", PER_S, &[OfRow(0.8, row::GET)]),
    target(row::CONNECTIONS, "RSS, MiB", RSS, &[AtMost(80.0)]),
    target(row::UPLOADS_8, "peak RSS, MiB", PEAK, &[AtMost(12.0)]),
    target(row::UPLOADS_8, "CPU s/GiB", CPU_PER_GIB, &[]),
    target(row::UPLOADS_64, "peak RSS, MiB", PEAK, &[AtMost(32.0)]),
    target(row::UPLOADS_64, "CPU s/GiB", CPU_PER_GIB, &[]),
];

impl Target {
    /// What a server reached.
    pub fn figure(&self, all: &[Measured], server: &str) -> Option<f64> {
        self.of(all, self.row, |name| name == server)
    }

    fn of(&self, all: &[Measured], row: &str, is: impl Fn(&str) -> bool) -> Option<f64> {
        all.iter().find(|measured| measured.row == row && is(&measured.server)).and_then(self.figure)
    }

    /// The aims, in words.
    pub fn aim(&self) -> String {
        let words = |aim: &Aim| match aim {
            AtMost(value) => format!("≤ {value}"),
            AtLeast(value) => format!("≥ {value}"),
            OfPeer(part, peer) => format!("≥ {part} × {peer}"),
            OfRow(part, row) => format!("≥ {part} × {row}"),
        };
        self.aims.iter().map(words).collect::<Vec<_>>().join(", ")
    }

    /// Which of them hold, in words; empty where there are none.
    pub fn verdict(&self, all: &[Measured]) -> String {
        let Some(ours) = self.figure(all, OUTPORT) else { return String::new() };
        let of = |part: f64, base: Option<f64>, whose: &str| match base {
            Some(base) if ours >= part * base => "yes".to_owned(),
            Some(base) => format!("no, {} ×", digits(ours / base)),
            None => format!("{whose} was not there"),
        };
        let words = |aim: &Aim| match aim {
            AtMost(value) if ours <= *value => "yes".to_owned(),
            AtLeast(value) if ours >= *value => "yes".to_owned(),
            AtMost(value) | AtLeast(value) => format!("no, {} × it", digits(ours / value)),
            OfPeer(part, peer) => of(*part, self.of(all, self.row, |name| name.starts_with(peer)), peer),
            OfRow(part, row) => of(*part, self.of(all, row, |name| name == OUTPORT), row),
        };
        self.aims.iter().map(words).collect::<Vec<_>>().join(", ")
    }
}
