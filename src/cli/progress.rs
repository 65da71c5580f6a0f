//! How far long work is: a line on a terminal, nothing otherwise.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::Waiter;

/// How often it is shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);

#[derive(Default)]
pub struct Progress {
    shown: Option<Instant>,
    /// When bytes began to be counted, and how many there were.
    began: Option<(Instant, u64)>,
}

/// Characters of a bar.
const BAR: usize = 24;
/// Before this a speed says little.
const SPEED_AFTER: Duration = Duration::from_secs(1);

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

    /// A bar, how many of how many bytes, how fast, and how much longer.
    pub fn bytes(&mut self, done: u64, all: u64) {
        let (began, before) = *self.began.get_or_insert_with(|| (Instant::now(), done));
        let took = began.elapsed();
        self.write(|| bar(done, all, done.saturating_sub(before), took));
    }

    fn write(&mut self, text: impl FnOnce() -> String) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() > SHOW_EVERY);
        if due && std::io::stderr().is_terminal() {
            self.shown = Some(Instant::now());
            // A terminal that is gone shows nothing.
            let _ = write!(std::io::stderr(), "\r{}{ERASE}", text());
        }
    }

    /// What was done, where standard output is taken.
    pub fn say(&mut self, sentence: &str) {
        self.clear();
        // Who does not listen misses nothing that matters.
        let _ = writeln!(std::io::stderr(), "{sentence}");
    }

    /// Makes room for a line.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r{ERASE}");
        }
    }
}

/// Erases to the end of the line.
const ERASE: &str = "\x1b[K";

fn bar(done: u64, all: u64, since: u64, took: Duration) -> String {
    let percent = (done.saturating_mul(100) / all.max(1)).min(100);
    let full = BAR * usize::try_from(percent).unwrap_or(0) / 100;
    let mut text = format!(
        "{}{} {percent:3} %  {} of {}",
        "#".repeat(full),
        "-".repeat(BAR - full),
        size(done),
        size(all)
    );
    if took >= SPEED_AFTER {
        let speed = since.saturating_mul(1_000) / u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        text += &format!("  {}/s", size(speed));
        if let Some(secs) = all.saturating_sub(done).checked_div(speed) {
            text += &match secs {
                0..120 => format!("  {secs} s left"),
                _ => format!("  {} min left", secs / 60),
            };
        }
    }
    text
}

/// Bytes, for people.
fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut whole, mut rest, mut unit) = (bytes, 0, 0);
    while whole >= 1_000 && unit + 1 < units.len() {
        (whole, rest, unit) = (whole / 1_000, whole % 1_000, unit + 1);
    }
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{} {}", rest / 100, units[unit]) }
}

/// Waits for another server, and says why where somebody watches.
pub fn waiter() -> Waiter {
    Arc::new(|wait, error| {
        if std::io::stderr().is_terminal() {
            let _ =
                write!(std::io::stderr(), "\r{error}; trying again in {} s{ERASE}\n", wait.as_secs().max(1));
        }
        Box::pin(tokio::time::sleep(wait))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_how_much_is_done_how_fast_and_how_much_longer() {
        let second = Duration::from_secs(1);
        assert_eq!(
            bar(500_000_000, 2_000_000_000, 100_000_000, 10 * second),
            "######------------------  25 %  500.0 MB of 2.0 GB  10.0 MB/s  2 min left"
        );
        assert_eq!(bar(0, 999, 0, Duration::ZERO), "------------------------   0 %  0 B of 999 B");
        assert_eq!(bar(7, 0, 7, Duration::ZERO), "######################## 100 %  7 B of 0 B");
    }
}
