//! What goes on by itself while the server runs: each a verb of the registry, on a
//! thread that may block, on a timer.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::registry::Registry;

/// How often abandoned uploads are looked for: in memory, so it costs nothing.
const UPLOADS_EVERY: Duration = Duration::from_secs(600);

/// Runs until `stop` turns true.
pub async fn run(registry: Arc<Registry>, mut stop: watch::Receiver<bool>) {
    if registry.was_unclean() {
        let registry = registry.clone();
        blocking(move || match registry.orphans_remove() {
            Ok(0) => tracing::info!("the last server did not stop by itself; nothing was left behind"),
            Ok(files) => tracing::info!(
                files,
                "the last server did not stop by itself; removed what no push was told of"
            ),
            Err(error) => tracing::warn!(?error, "files that a crash left could not be looked for"),
        })
        .await;
    }
    let mut uploads = interval(UPLOADS_EVERY);
    uploads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = uploads.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let registry = registry.clone();
        blocking(move || {
            let dropped = registry.uploads_expire();
            if dropped > 0 {
                tracing::info!(dropped, "dropped uploads that nobody went on with");
            }
        })
        .await;
    }
}

async fn blocking(job: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(job).await {
        tracing::error!(%error, "an upkeep job panicked");
    }
}
