//! The command line: each arm a verb and a print.
//!
//! Administration opens the data directory itself, so it works beside a running server
//! and without one. Results go to standard output, in sentences or with --json as JSON.

#![expect(clippy::print_stdout, reason = "printing is what a command line does")]

mod access;
mod backup;
mod bundle;
mod check;
mod config;
mod export;
mod gc;
mod healthcheck;
mod image;
mod import;
mod key;
mod manager;
mod output;
mod print;
mod progress;
mod pull;
mod push;
mod remote;
mod repo;
mod scrub;
mod serve;
mod service;
mod tag;
mod trust;
mod user;

use clap::{Args, Parser, Subcommand};
use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Config;
use crate::error::{Kind, Result, Thing};
use crate::names::{Digest, Reference, RepoName, Tag};
use crate::registry::{Clock, Mode, Options, Registry, SignUp};

/// A container registry for the edge, in one small binary.
#[derive(Debug, Parser)]
#[command(name = "outport", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
pub struct Common {
    /// The data directory [default: ./outport-data]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<String>,
    /// The configuration file [default: /etc/outport/outport.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "OUTPORT_CONFIG")]
    config: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the registry
    Serve(serve::Serve),
    /// People: add, list, remove, passwords
    #[command(subcommand)]
    User(user::User),
    /// Organisations: add, list, remove
    #[command(subcommand)]
    Org(access::Org),
    /// Groups of an organisation: add, list, remove, join, leave
    #[command(subcommand)]
    Group(access::Group),
    Grant(access::GrantVerb),
    Revoke(access::Revoke),
    /// Tokens for robots: new, list, revoke
    #[command(subcommand)]
    Token(access::Token),
    /// Service clients of ML Space's API: add, list, remove
    #[command(subcommand)]
    Service(service::Service),
    /// Repositories: list, show, set, remove
    #[command(subcommand)]
    Repo(repo::Repo),
    /// Tags: list, set, remove
    #[command(subcommand)]
    Tag(tag::Tag),
    /// Images: list, show, remove
    #[command(subcommand)]
    Image(image::Image),
    Export(export::ExportVerb),
    Inventory(export::InventoryVerb),
    Import(import::ImportVerb),
    Rollback(import::Rollback),
    Gc(gc::Gc),
    Scrub(scrub::Scrub),
    Check(check::Check),
    Trust(trust::Trust),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Rebuild(backup::Rebuild),
    Pull(pull::Pull),
    Push(push::Push),
    /// Bundles: inspect, verify
    #[command(subcommand)]
    Bundle(bundle::BundleVerb),
    /// Keys that sign bundles: new, list, trust, remove
    #[command(subcommand)]
    Key(key::KeyVerb),
    /// The configuration: show and check it
    #[command(subcommand)]
    Config(config::ConfigVerb),
    Healthcheck(healthcheck::Healthcheck),
    /// Print the version
    Version,
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> Result<()> {
        match self.verb {
            Verb::Serve(serve) => serve.run(&self.common),
            Verb::User(user) => user.run(&self.common),
            Verb::Org(org) => org.run(&self.common),
            Verb::Group(group) => group.run(&self.common),
            Verb::Grant(grant) => grant.run(&self.common),
            Verb::Revoke(revoke) => revoke.run(&self.common),
            Verb::Token(token) => token.run(&self.common),
            Verb::Service(service) => service.run(&self.common),
            Verb::Repo(repo) => repo.run(&self.common),
            Verb::Tag(tag) => tag.run(&self.common),
            Verb::Image(image) => image.run(&self.common),
            Verb::Export(export) => export.run(&self.common),
            Verb::Inventory(inventory) => inventory.run(&self.common),
            Verb::Import(import) => import.run(&self.common),
            Verb::Rollback(rollback) => rollback.run(&self.common),
            Verb::Gc(gc) => gc.run(&self.common),
            Verb::Scrub(scrub) => scrub.run(&self.common),
            Verb::Check(check) => check.run(&self.common),
            Verb::Trust(trust) => trust.run(&self.common),
            Verb::Backup(backup) => backup.run(&self.common),
            Verb::Restore(restore) => restore.run(&self.common),
            Verb::Rebuild(rebuild) => rebuild.run(&self.common),
            Verb::Pull(pull) => pull.run(&self.common),
            Verb::Push(push) => push.run(&self.common),
            Verb::Bundle(bundle) => bundle.run(&self.common),
            Verb::Key(key) => key.run(&self.common),
            Verb::Config(verb) => verb.run(&self.common),
            Verb::Healthcheck(healthcheck) => healthcheck.run(&self.common),
            Verb::Version => {
                let version = env!("CARGO_PKG_VERSION");
                self.common.say(&serde_json::json!({"version": version}), || format!("outport {version}"));
                Ok(())
            }
        }
    }
}

impl Common {
    /// File, environment and the flags that every verb has.
    fn load(&self) -> Result<Config> {
        let mut config = Config::load(self.config.as_deref(), &|name| std::env::var(name).ok())?;
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        Ok(config)
    }

    /// The registry of an existing data directory, for a verb of administration.
    fn open(&self) -> Result<Registry> {
        let config = self.load()?;
        config.check()?;
        let dir = PathBuf::from(&config.data);
        if !dir.join("registry.db").exists() {
            return Err(Kind::NotFound(Thing::Repo).because(format!(
                "there is no registry in {}; name its directory with --data, or make one with `outport serve`",
                dir.display()
            )));
        }
        Registry::open(&dir, &Mode::Tool, registry_options(&config)?, Clock::system())
    }
}

fn registry_options(config: &Config) -> Result<Options> {
    Ok(Options {
        private: config.repos.private,
        library_open: config.repos.library_open,
        anonymous_pull: config.auth.anonymous_pull,
        sign_up: match config.auth.sign_up.as_str() {
            "open" => SignUp::Open,
            "approve" => SignUp::Approve,
            // The check of the configuration knows the words.
            _ => SignUp::Closed,
        },
        blob_bytes_max: config.storage.blob_bytes_max,
        reserve_bytes: config.storage.reserve_bytes,
        uploads_per_user: config.storage.uploads_per_user,
        upload_expiry: Duration::from_secs(config.storage.upload_expiry_secs),
        grace: Duration::from_secs(config.gc.grace_secs),
        scrub_period: Duration::from_secs(config.scrub.days.saturating_mul(86_400)),
        retention: config.gc.retention.iter().map(|rule| rule.parse()).collect::<Result<_>>()?,
    })
}

/// A repository with a tag or a digest, as clients name images; without either `latest`.
fn image_name(text: &str) -> Result<(RepoName, Reference)> {
    if let Some((repo, digest)) = text.split_once('@') {
        return Ok((RepoName::parse(repo)?, Reference::Digest(Digest::parse(digest)?)));
    }
    let (repo, tag) = text.split_once(':').unwrap_or((text, "latest"));
    Ok((RepoName::parse(repo)?, Reference::Tag(Tag::parse(tag)?)))
}

/// A password from standard input, its first line; or typed twice at a terminal.
fn password(from_stdin: bool) -> Result<String> {
    const LINE_MAX: u64 = 4_096;
    if from_stdin {
        let mut line = String::new();
        std::io::stdin().lock().take(LINE_MAX).read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Kind::Invalid(Thing::User).because(
            "there is no terminal to ask for a password; give it on standard input with --password-stdin",
        ));
    }
    let once = rpassword::prompt_password("Password: ")?;
    let twice = rpassword::prompt_password("Once more: ")?;
    if once != twice {
        return Err(Kind::Invalid(Thing::User).because("the two passwords differ; nothing was changed"));
    }
    Ok(once)
}
