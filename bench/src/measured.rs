//! One row of one server, as it was measured.

use serde::Serialize;
use std::fmt;
use std::time::Duration;

use crate::load::Sample;

/// What rows are called.
pub mod row {
    pub const START: &str = "start";
    pub const IDLE: &str = "idle";
    pub const IMAGE: &str = "push an image of 4 layers, 1.4 MB";
    pub const GET: &str = "manifest GET";
    pub const HEAD: &str = "manifest HEAD";
    pub const BASIC: &str = "manifest GET, authenticated";
    pub const TLS_GET: &str = "manifest GET, TLS 1.3";
    pub const MIDDLING: &str = "pull 256 KiB";
    pub const PUT: &str = "manifest PUT, 10,000 tags";
    pub const TAGS_PAGE: &str = "tags/list?n=100 of 10,000";
    pub const TAGS_ALL: &str = "tags/list, all 10,000";
    pub const CATALOG: &str = "_catalog?n=100 of 2,000";
    pub const LARGE_PUSH: &str = "push 256 MiB, 2 at a time";
    pub const LARGE_PULL: &str = "pull 256 MiB, 2 at a time";
    pub const TLS_PUSH: &str = "push 256 MiB, 2 at a time, TLS 1.3";
    pub const TLS_PULL: &str = "pull 256 MiB, 2 at a time, TLS 1.3";
    pub const CONNECTIONS: &str = "10,000 idle connections";
    pub const UPLOADS_8: &str = "8 uploads of 256 MiB at once";
    pub const UPLOADS_64: &str = "64 uploads of 64 MiB at once";
}

/// Figures that a row has none of are absent.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Measured {
    pub row: String,
    pub server: String,
    /// Operations a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_s: Option<f64>,
    /// Millions of bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mb_per_s: Option<f64>,
    /// Latency at the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// CPU time of the server for one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_s_per_gib: Option<f64>,
    /// CPU time of the client, as a part of the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<f64>,
    /// The most memory of the server meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<f64>,
    /// Its memory while nothing happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_mib: Option<f64>,
    /// From the start of the process to the first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary_mb: Option<f64>,
}

impl Measured {
    fn new(row: &str) -> Measured {
        Measured { row: row.to_owned(), ..Measured::default() }
    }

    /// Something that is counted.
    pub fn operations(row: &str, sample: &Sample) -> Measured {
        let count = sample.operations.max(1) as f64;
        Measured {
            per_s: Some(count / sample.elapsed.as_secs_f64()),
            p50_ms: Some(ms(sample.percentile(50))),
            p99_ms: Some(ms(sample.percentile(99))),
            cpu_ms: Some(ms(sample.cpu) / count),
            ..Measured::loaded(row, sample)
        }
    }

    /// Something whose bytes are counted.
    pub fn bytes(row: &str, sample: &Sample) -> Measured {
        let bytes = sample.bytes.max(1) as f64;
        Measured {
            mb_per_s: Some(bytes / 1e6 / sample.elapsed.as_secs_f64()),
            cpu_s_per_gib: Some(sample.cpu.as_secs_f64() / bytes * f64::from(1 << 30)),
            ..Measured::loaded(row, sample)
        }
    }

    fn loaded(row: &str, sample: &Sample) -> Measured {
        Measured {
            client: (!sample.cpu.is_zero()).then(|| sample.client_cpu.div_duration_f64(sample.cpu)),
            peak_mib: Some(mib(sample.peak_kib)),
            ..Measured::new(row)
        }
    }

    pub fn start(row: &str, time: Duration, binary_bytes: u64) -> Measured {
        Measured {
            start_ms: Some(ms(time)),
            binary_mb: Some(binary_bytes as f64 / 1e6),
            ..Measured::new(row)
        }
    }

    pub fn memory(row: &str, kib: u64) -> Measured {
        Measured { rss_mib: Some(mib(kib)), ..Measured::new(row) }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}

/// A figure with three digits that count.
pub fn digits(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The cells that follow row and server in a table.
pub const COLUMNS: [&str; 7] =
    ["rate", "p50 ms", "p99 ms", "server's CPU", "client's CPU", "peak MiB", "other"];

impl Measured {
    pub fn cells(&self) -> [String; COLUMNS.len()] {
        let with = |value: Option<f64>, unit: &str| value.map(|value| digits(value) + unit);
        let first = |one: Option<String>, other: Option<String>| one.or(other).unwrap_or_default();
        let other =
            [with(self.start_ms, " ms"), with(self.binary_mb, " MB of binary"), with(self.rss_mib, " MiB")];
        [
            first(with(self.per_s, " /s"), with(self.mb_per_s, " MB/s")),
            first(with(self.p50_ms, ""), None),
            first(with(self.p99_ms, ""), None),
            first(with(self.cpu_ms, " ms"), with(self.cpu_s_per_gib, " s/GiB")),
            first(self.client.map(|part| format!("{:.0} %", part * 100.0)), None),
            first(with(self.peak_mib, ""), None),
            other.into_iter().flatten().collect::<Vec<_>>().join(", "),
        ]
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, {}:", self.server, self.row)?;
        for (name, cell) in COLUMNS.iter().zip(self.cells()).filter(|(_, cell)| !cell.is_empty()) {
            write!(formatter, "  {name} {cell}")?;
        }
        Ok(())
    }
}
