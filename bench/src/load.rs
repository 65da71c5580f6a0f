//! Many clients doing one thing, and what it cost.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::server::{Server, Spent};

/// When it has been enough.
#[derive(Clone, Copy)]
pub enum Until {
    Passed(Duration),
    Done(usize),
}

/// What was done, and what it cost.
pub struct Sample {
    pub operations: usize,
    pub bytes: usize,
    pub elapsed: Duration,
    /// CPU time of the server.
    pub cpu: Duration,
    /// CPU time of this process.
    pub client_cpu: Duration,
    /// The most memory that the server had meanwhile.
    pub peak_kib: u64,
    /// In order of length.
    latencies: Vec<Duration>,
}

impl Sample {
    /// What so many of a hundred operations took at most.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * percent / 100).copied().unwrap_or_default()
    }
}

/// Lets `connections` clients do their work at once. `begin` makes one, warm; `work` gets it with the
/// operation's number, and tells the bytes that went.
pub fn run<C>(
    server: &Server,
    connections: usize,
    until: Until,
    begin: impl Fn() -> Result<C> + Sync,
    work: impl Fn(&mut C, usize) -> Result<usize> + Sync,
) -> Result<Sample> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (ready, start) = (Barrier::new(connections + 1), Barrier::new(connections + 1));
    let one = || -> Result<(Vec<Duration>, usize)> {
        let begun = begin();
        ready.wait();
        start.wait();
        let (mut client, mut latencies, mut bytes) = (begun?, Vec::new(), 0);
        let started = Instant::now();
        let mut now = started;
        while !failed.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let enough = match until {
                Until::Passed(time) => now - started >= time,
                Until::Done(count) => n >= count,
            };
            if enough {
                break;
            }
            bytes += work(&mut client, n)?;
            let then = Instant::now();
            latencies.push(then - now);
            now = then;
        }
        Ok((latencies, bytes))
    };
    std::thread::scope(|scope| {
        let watched = || one().inspect_err(|_| failed.store(true, Ordering::Relaxed));
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(watched)).collect();
        ready.wait();
        // Nothing may return before all have passed the barriers.
        let before = Spent::now(server);
        let reset = server.reset_peak();
        let started = Instant::now();
        start.wait();
        let (mut latencies, mut bytes, mut error) = (Vec::new(), 0, None);
        for thread in threads {
            match thread.join() {
                Ok(Ok((more, sent))) => {
                    latencies.extend(more);
                    bytes += sent;
                }
                Ok(Err(failure)) => error = error.or(Some(failure)),
                Err(_) => error = error.or(Some("a client panicked".into())),
            }
        }
        if let Some(error) = error {
            return Err(error);
        }
        let elapsed = started.elapsed();
        reset?;
        let spent = Spent::now(server)?.since(&before?);
        latencies.sort_unstable();
        Ok(Sample {
            operations: latencies.len(),
            bytes,
            elapsed,
            cpu: spent.server,
            client_cpu: spent.client,
            peak_kib: server.peak_kib()?,
            latencies,
        })
    })
}
