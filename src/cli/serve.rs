//! `outport serve`: opens everything, says where it listens, and waits for signals.

use clap::Args;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;

use super::{Common, manager, registry_options};
use crate::config::Config;
use crate::error::{Kind, Result};
use crate::folder::Folder;
use crate::http::tls::{Certificate, Source, Tls};
use crate::http::{App, Options, Server};
use crate::jobs::{self, Ended};
use crate::registry::{Clock, Mode, OpenFiles, Registry, boot_id};

/// Threads for what blocks: hashing, files, commits. Each waits for the disk most of the
/// time; pushes that wait together share a commit.
const BLOCKING_THREADS: usize = 16;
/// Their stacks. Nothing recurses.
const STACK_BYTES: usize = 512 << 10;
/// How often files of certificates, this machine's addresses and the end of our own leaf are
/// looked at: a few system calls.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(30);
/// Credentials of the service manager, by name: the first administrator's password, and a
/// certificate with its key, where the configuration names none.
const PASSWORD: &str = "outport.admin-password";
const TLS_CERT: &str = "outport.tls-cert";
const TLS_KEY: &str = "outport.tls-key";

#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on; may be given more than once [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// Certificate chain, PEM, instead of one made here
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<String>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<String>,
    /// Plain HTTP, on loopback
    #[arg(long)]
    insecure_http: bool,
    /// Log in JSON
    #[arg(long)]
    log_json: bool,
}

impl Serve {
    pub fn run(self, common: &Common) -> Result<()> {
        let sockets = manager::sockets()?;
        let config = self.config(common)?;
        crate::memory::keep_small();
        raise_file_limit();
        start_log(&config);
        let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()?;
        runtime.block_on(self.serve(common, &config, sockets))
    }

    /// The configuration with this verb's flags, which win.
    fn config(&self, common: &Common) -> Result<Config> {
        let mut config = common.load()?;
        if !self.listen.is_empty() {
            config.server.listen.clone_from(&self.listen);
        }
        if self.tls_cert.is_some() {
            config.tls.cert.clone_from(&self.tls_cert);
            config.tls.key.clone_from(&self.tls_key);
        }
        config.server.insecure_http |= self.insecure_http;
        if self.log_json {
            config.log.format = "json".into();
        }
        config.check()?;
        Ok(config)
    }

    async fn serve(&self, common: &Common, config: &Config, sockets: Vec<TcpListener>) -> Result<()> {
        let dir = Path::new(&config.data);
        let clock = Clock::system();
        let now_secs = || (clock.wall_us)() / 1_000_000;
        let mode = Mode::Serve { boot_id: boot_id()? };
        let registry = Arc::new(Registry::open(dir, &mode, registry_options(config)?, clock.clone())?);

        let password = match std::env::var("OUTPORT_ADMIN_PASSWORD").ok().filter(|text| !text.is_empty()) {
            None => manager::credential_line(PASSWORD)?,
            given => given,
        };
        let made = registry.admin_init(password.as_deref())?;

        let tls = match config.server.insecure_http {
            true => None,
            false => {
                Some(Arc::new(Tls::open(&tls_source(config), client_ca(config).as_deref(), now_secs())?))
            }
        };
        let app = App::new(registry.clone(), http_options(config)?)?;
        let (wanted, fit) = (config.server.connections_max, OpenFiles::here().connections);
        if wanted > fit {
            tracing::warn!(wanted, fit, "fewer connections than configured, for so many files may be open");
        }
        let server = if sockets.is_empty() {
            Server::bind(app.clone(), &config.listen()?, tls.clone()).await?
        } else {
            Server::on(app.clone(), sockets, tls.clone())?
        };
        // Handed over sockets may be anywhere, whatever the configuration names.
        config.plain_http_may_be_on(&server.addresses())?;
        // Before anybody is told that we are here.
        let mut signals = Signals::new()?;
        let ca = tls.as_ref().and_then(|_| tls_source(config).ca_path());
        announce(&server, tls.is_some(), ca.as_deref(), made.as_deref())?;
        let watchdog = tokio::spawn(manager::feed_watchdog(registry.clone()));
        manager::ready();

        let (stop_sender, stop) = watch::channel(false);
        let mut upkeep = tokio::spawn(jobs::run(registry.clone(), stop.clone()));
        if let Some(dir) = &config.import.folder {
            let folder = Folder::new(dir.into(), config.import.unsigned);
            tokio::spawn(jobs::watch(registry.clone(), folder, stop.clone()));
        }
        let drain = Duration::from_secs(config.server.drain_secs);
        let serving = tokio::spawn(server.serve(stop, drain));

        let mut config = config.clone();
        let mut certificates = Certificates::default();
        let mut failed = false;
        loop {
            let told = tokio::select! {
                told = signals.next() => told,
                ended = &mut upkeep => {
                    failed = !matches!(ended, Ok(Ended::Told));
                    break;
                }
            };
            match told {
                Told::Stop => break,
                Told::CheckCertificate => {}
                Told::Reload => {
                    manager::reloading();
                    match self.reload(common, &app) {
                        Ok(new) => {
                            config = new;
                            tracing::info!("read the configuration again");
                        }
                        Err(error) => {
                            tracing::error!(%error, "the configuration was not taken; the old one stays")
                        }
                    }
                }
            }
            if let Some(tls) = &tls {
                certificates.look(tls, &config, told, now_secs()).await;
            }
            if matches!(told, Told::Reload) {
                manager::ready();
            }
        }
        manager::stopping();
        tracing::info!("stopping; open requests may finish");
        // Receivers are gone only if their tasks have ended, which is what is wanted.
        let _ = stop_sender.send(true);
        if let Err(error) = serving.await {
            tracing::error!(%error, "the server ended with a panic");
        }
        if failed {
            return Err(Kind::Internal
                .because("the database failed; start again, and it recovers what is on the disk"));
        }
        if let Err(error) = upkeep.await {
            tracing::error!(%error, "upkeep ended with a panic");
        }
        watchdog.abort();
        let _ = watchdog.await;
        tracing::info!("stopped");
        Ok(())
    }

    /// Takes what may change without a restart: everything a request looks up, and the
    /// certificate. Addresses, limits on connections and the log stay as they are.
    fn reload(&self, common: &Common, app: &App) -> Result<Config> {
        let config = self.config(common)?;
        app.registry.set_options(registry_options(&config)?);
        app.set_options(http_options(&config)?);
        Ok(config)
    }
}

/// What was told of certificates that could not be taken, so that it is told once.
#[derive(Default)]
struct Certificates {
    trouble: Option<String>,
}

impl Certificates {
    async fn look(&mut self, tls: &Arc<Tls>, config: &Config, told: Told, now_secs: i64) {
        let (tls, source, client_ca) = (tls.clone(), tls_source(config), client_ca(config));
        let look = move || match told {
            Told::Reload => tls.reload(&source, client_ca.as_deref(), now_secs).map(|()| true),
            _ => tls.refresh(&source, client_ca.as_deref(), now_secs),
        };
        let looked = match tokio::task::spawn_blocking(look).await {
            Ok(looked) => looked,
            Err(error) => return tracing::error!(%error, "a look at the certificate panicked"),
        };
        let trouble = match looked {
            Ok(true) => {
                tracing::info!("new connections are shown the certificate as it is now");
                None
            }
            // Whether it is the bad one of before, or a good one.
            Ok(false) => return,
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) =
            trouble.as_ref().filter(|_| trouble != self.trouble || matches!(told, Told::Reload))
        {
            tracing::error!(error, "the certificate was not taken; the old one stays");
        }
        self.trouble = trouble;
    }
}

#[derive(Clone, Copy)]
enum Told {
    Stop,
    Reload,
    CheckCertificate,
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.term.recv() => Told::Stop,
            _ = self.int.recv() => Told::Stop,
            _ = self.hup.recv() => Told::Reload,
            () = tokio::time::sleep(CERTIFICATE_EVERY) => Told::CheckCertificate,
        }
    }
}

/// Where the certificate comes from: files that are configured, credentials of the service
/// manager, or the authority of the data directory.
pub fn tls_source(config: &Config) -> Source {
    match (&config.tls.cert, &config.tls.key) {
        (Some(cert), Some(key)) => Source::Files { cert: cert.into(), key: key.into() },
        _ => match (manager::credential(TLS_CERT), manager::credential(TLS_KEY)) {
            (Some(cert), Some(key)) => Source::Files { cert, key },
            _ => {
                Source::Own { dir: PathBuf::from(&config.data).join("tls"), names: config.tls.names.clone() }
            }
        },
    }
}

/// By whose certificates clients may log in.
fn client_ca(config: &Config) -> Option<PathBuf> {
    config.tls.client_ca.as_ref().map(PathBuf::from)
}

fn http_options(config: &Config) -> Result<Options> {
    let fit = OpenFiles::here();
    Ok(Options {
        anonymous_pull: config.auth.anonymous_pull,
        empty_tags_for_missing: config.compat.empty_tags_for_missing,
        blob_bytes_max: config.storage.blob_bytes_max,
        trusted_proxies: config.trusted_proxies()?,
        connections_max: config.server.connections_max.min(fit.connections),
        pulls_max: fit.pulls,
        connections_per_address: config.server.connections_per_address,
        ca: tls_source(config).ca_path().filter(|_| !config.server.insecure_http),
    })
}

/// Says what a person needs who has just started this: where it is, whom to trust, and,
/// the only time, the first password.
fn announce(server: &Server, tls: bool, ca: Option<&Path>, password: Option<&str>) -> Result<()> {
    let scheme = if tls { "https" } else { "http" };
    for address in server.addresses() {
        println!("Outport serves {scheme}://{address}");
    }
    if let Some(ca) = ca {
        println!("Clients trust it with {}", ca.display());
        println!("whose SHA-256 fingerprint is {}", Certificate::read(ca)?.fingerprint);
    }
    if let Some(password) = password {
        println!("The first administrator is admin, with the password {password}");
        println!("It is not shown again; change it with `outport user passwd admin`");
    }
    Ok(())
}

/// As many open files as the system lets us have: each connection and each open upload is one.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Text to standard error, as the journal likes it, or JSON.
fn start_log(config: &Config) {
    let level: LevelFilter = config.log.level.parse().unwrap_or(LevelFilter::INFO);
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // Fails only if there is one already.
    let _ = if config.log.format == "json" {
        tracing::subscriber::set_global_default(log.json().finish())
    } else {
        tracing::subscriber::set_global_default(log.compact().finish())
    };
}
