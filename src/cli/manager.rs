//! The service manager: what it hands over (sockets, credentials) and what it is told.
//! By environment and datagrams, as sd_listen_fds(3) and sd_notify(3) describe; without it
//! nothing is handed over, and nobody is told.

use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Kind, Result, Thing};
use crate::registry::Registry;

const CREDENTIAL_BYTES_MAX: u64 = 4_096;

/// The sockets it listens on for us. To be called before there are threads: it takes them
/// out of the environment.
pub fn sockets() -> Result<Vec<TcpListener>> {
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(handed.len());
    for index in 0..handed.len() {
        let socket = handed.take_tcp_listener(index).map_err(|error| {
            Kind::Invalid(Thing::Request)
                .because(format!("the service manager handed over what is no listening TCP socket: {error}"))
        })?;
        sockets.extend(socket);
    }
    Ok(sockets)
}

/// Where it put a credential of ours; None if it was given none of that name.
pub fn credential(name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    let path = PathBuf::from(dir).join(name);
    path.exists().then_some(path)
}

/// The first line of a credential.
pub fn credential_line(name: &str) -> Result<Option<String>> {
    let Some(path) = credential(name) else { return Ok(None) };
    let mut text = String::new();
    std::fs::File::open(path)?.take(CREDENTIAL_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned))
}

pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// To be followed by [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says twice in each of its periods that we are alive, as long as disk and database
/// answer: otherwise it ends us and starts us again. "Full" and "read-only" are answers, and no
/// new start would change them. Never returns; without a watchdog it does nothing.
pub async fn feed_watchdog(registry: Arc<Registry>) {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut timer = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
    loop {
        timer.tick().await;
        let registry = registry.clone();
        let asked = tokio::task::spawn_blocking(move || {
            registry.check_reads()?;
            match registry.check_writes() {
                Err(error) if error.kind == Kind::Internal => Err(error),
                _ => Ok(()),
            }
        });
        match asked.await {
            Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
            Ok(Err(error)) => tracing::error!(?error, "the watchdog is not fed"),
            Err(error) => tracing::error!(%error, "the watchdog is not fed"),
        }
    }
}

fn tell(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
