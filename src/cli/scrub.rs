//! `outport scrub`

use clap::Args;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::Common;
use crate::error::{Kind, Result, Thing};
use crate::registry::Read;

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// Read everything again and compare digests; what is wrong goes out of service
#[derive(Debug, Clone, Args)]
pub struct Scrub {
    /// Begin anew instead of where the last scrub stopped
    #[arg(long)]
    from_start: bool,
}

impl Scrub {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        if self.from_start {
            registry.scrub_from_start();
        }
        let all = registry.scrub_bytes()?;
        let mut progress = Progress::new(all);
        let scrubbed = registry.scrub(|read| {
            progress.add(read.bytes());
            if let Read::Blob { digest, good: false, .. } | Read::Manifest { digest, good: false, .. } = read
            {
                progress.clear();
                common.say(&json!({"bad": digest.as_str()}), || format!("bad: {digest}"));
            }
            true
        })?;
        progress.clear();
        common.say(&scrubbed, || {
            format!(
                "Read {} blobs and {} manifests, {} bytes; {} were wrong.",
                scrubbed.blobs, scrubbed.manifests, scrubbed.bytes, scrubbed.bad
            )
        });
        if scrubbed.bad > 0 {
            return Err(Kind::NotFound(Thing::Blob).because(
                "some of the store is damaged; `outport check` lists what to push or import again",
            ));
        }
        Ok(())
    }
}

/// Percent on a terminal, nothing otherwise.
struct Progress {
    all: u64,
    done: u64,
    shown: Option<Instant>,
}

impl Progress {
    fn new(all: u64) -> Progress {
        Progress { all, done: 0, shown: None }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let due = self.shown.is_none_or(|shown| shown.elapsed() > SHOW_EVERY);
        if due && std::io::stderr().is_terminal() {
            self.shown = Some(Instant::now());
            let percent = (self.done.saturating_mul(100) / self.all.max(1)).min(100);
            // A terminal that is gone shows nothing.
            let _ = write!(std::io::stderr(), "\r{percent:3} %");
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r      \r");
        }
    }
}
