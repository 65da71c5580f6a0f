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
    /// Percent, where it is known how much there is.
    pub fn show(&mut self, done: u64, all: u64) {
        let percent = (done.saturating_mul(100) / all.max(1)).min(100);
        self.write(|| format!("{percent:3} %"));
    }

    /// How many, where it is not.
    pub fn count(&mut self, done: u64) {
        self.write(|| done.to_string());
    }

    fn write(&mut self, text: impl FnOnce() -> String) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() > SHOW_EVERY);
        if due && std::io::stderr().is_terminal() {
            self.shown = Some(Instant::now());
            // A terminal that is gone shows nothing.
            let _ = write!(std::io::stderr(), "\r{}", text());
        }
    }

    /// Makes room for a line.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r            \r");
        }
    }
}
