//! How far long work is: percent on a terminal, nothing otherwise.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often it is shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);

#[derive(Default)]
pub struct Progress {
    shown: Option<Instant>,
}

impl Progress {
    pub fn show(&mut self, done: u64, all: u64) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() > SHOW_EVERY);
        if due && std::io::stderr().is_terminal() {
            self.shown = Some(Instant::now());
            let percent = (done.saturating_mul(100) / all.max(1)).min(100);
            // A terminal that is gone shows nothing.
            let _ = write!(std::io::stderr(), "\r{percent:3} %");
        }
    }

    /// Makes room for a line.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r      \r");
        }
    }
}
