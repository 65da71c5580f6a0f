//! What goes on by itself while the server runs: each a verb of the registry, on a
//! thread that may block, on a timer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::error::{Kind, Result};
use crate::folder::Folder;
use crate::registry::{Collect, Collected, Registry};

/// How often abandoned uploads are looked for, and the directory is kept fit: in memory,
/// or one system call.
const UPKEEP_EVERY: Duration = Duration::from_secs(600);

/// How often what nobody needs is looked for, which is one indexed read if there is nothing.
const COLLECT_EVERY: Duration = Duration::from_secs(600);
/// How often somebody at the command line may have asked for it: one indexed read each.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// How often a slice of the store is read again.
const SCRUB_EVERY: Duration = Duration::from_secs(60);

/// How often the drop folder is looked into: a directory, and what changed in it. A bundle that is
/// the same at two looks was copied whole.
const FOLDER_EVERY: Duration = Duration::from_secs(10);

/// Why upkeep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Told,
    /// The database failed: the process shall end, for the next one to recover.
    Failed,
}

/// Runs until `stop` turns true, or the database fails.
pub async fn run(registry: Arc<Registry>, mut stop: watch::Receiver<bool>) -> Ended {
    if registry.was_unclean() {
        blocking(&registry, |registry| match registry.orphans_remove() {
            Ok(0) => tracing::info!("the last server did not stop by itself; nothing was left behind"),
            Ok(files) => tracing::info!(
                files,
                "the last server did not stop by itself; removed what no push was told of"
            ),
            Err(error) => tracing::warn!(?error, "files that a crash left could not be looked for"),
        })
        .await;
    }
    blocking(&registry, |registry| match registry.suspects_verify() {
        Ok(0) => {}
        Ok(blobs) => tracing::info!(blobs, "the power went; what was pushed last was read again"),
        Err(error) => tracing::warn!(?error, "what was pushed last could not all be read again"),
    })
    .await;
    blocking(&registry, tell_of_rows).await;
    let every = |period| {
        let mut timer = interval(period);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer
    };
    let (mut upkeep, mut collect, mut asked, mut scrub) =
        (every(UPKEEP_EVERY), every(COLLECT_EVERY), every(ASKED_EVERY), every(SCRUB_EVERY));
    loop {
        let job = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ended::Told,
            _ = upkeep.tick() => keep_fit as fn(&Registry),
            _ = collect.tick() => collect_on_time,
            _ = asked.tick() => collect_if_asked,
            _ = scrub.tick() => scrub_a_slice,
        };
        blocking(&registry, job).await;
        if registry.shall_end() {
            return Ended::Failed;
        }
    }
}

/// Looks into the drop folder until `stop` turns true. Apart from upkeep, for an import takes as
/// long as it takes.
pub async fn watch(registry: Arc<Registry>, folder: Folder, mut stop: watch::Receiver<bool>) {
    let folder = Arc::new(Mutex::new(folder));
    let mut timer = interval(FOLDER_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble = false;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = timer.tick() => {}
        }
        let (registry, folder) = (registry.clone(), folder.clone());
        let look = move || folder.lock().unwrap_or_else(PoisonError::into_inner).look(&registry);
        let outcome = tokio::task::spawn_blocking(look).await;
        // A folder that is not there is told of once: a stick comes and goes.
        match outcome {
            Ok(Ok(_)) => trouble = false,
            Ok(Err(error)) if !trouble => {
                tracing::warn!(%error, "the drop folder cannot be looked into");
                trouble = true;
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%error, "a look into the drop folder panicked"),
        }
    }
}

/// A disk that lost a write, and kept the page as it was before, leaves checksums right and rows wrong.
fn tell_of_rows(registry: &Registry) {
    match registry.check_rows_of_boot() {
        Ok(wrong) if wrong.is_empty() => {}
        Ok(wrong) => tracing::error!(
            wrong = wrong.join("; "),
            "rows of the database contradict each other: the disk has not kept what it said it had; see `outport check`"
        ),
        Err(error) => tracing::error!(?error, "the database's rows could not be checked"),
    }
}

fn keep_fit(registry: &Registry) {
    registry.upkeep();
    let dropped = registry.uploads_expire();
    if dropped > 0 {
        tracing::info!(dropped, "dropped uploads that nobody went on with");
    }
}

fn collect_on_time(registry: &Registry) {
    let grace = registry.options().grace;
    // What clients were told before this process started is not known: they get their time.
    if registry.uptime() > grace {
        told(registry.collect(Collect { grace, dry_run: false }, |_| {}));
    }
}

fn collect_if_asked(registry: &Registry) {
    match registry.collect_if_asked() {
        Ok(None) => {}
        Ok(Some(collected)) => told(Ok(collected)),
        Err(error) => told(Err(error)),
    }
}

fn scrub_a_slice(registry: &Registry) {
    if let Err(error) = registry.scrub_turn(SCRUB_EVERY) {
        tracing::error!(?error, "the store could not be read again; the next slice goes on");
    }
}

fn told(outcome: Result<Collected>) {
    match outcome {
        Ok(Collected { tags, images, blobs, bytes, .. }) if tags + images + blobs > 0 => {
            tracing::info!(tags, images, blobs, bytes, "removed what nothing relies on");
        }
        Ok(_) => {}
        Err(error) if error.kind == Kind::Unavailable => {
            tracing::info!(%error, "collected nothing");
        }
        Err(error) => tracing::error!(?error, "a collection failed; the next one goes on"),
    }
}

/// Runs a job on a thread that may block, and waits for it.
async fn blocking(registry: &Arc<Registry>, job: impl FnOnce(&Registry) + Send + 'static) {
    let registry = registry.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || job(&registry)).await {
        tracing::error!(%error, "an upkeep job panicked");
    }
}
