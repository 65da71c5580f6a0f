//! `outport trust`: what a client needs that shall trust this registry's own authority.

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

use super::Common;
use super::serve::tls_source;
use crate::client::Host;
use crate::config::Config;
use crate::error::{Error, Kind, Result, Thing};
use crate::http::tls::{Certificate, Source};
use crate::machine;

/// Print or write what a client needs to trust this registry's own authority
///
/// What is printed is a script for the client: `outport trust docker HOST | ssh root@client sh`.
#[derive(Debug, Clone, Args)]
pub struct Trust {
    #[arg(value_enum)]
    client: Client,
    /// The registry as it stands in names of images [default: this machine's name, or the first of
    /// tls.names, with the port of server.listen]
    host: Option<String>,
    /// Write it, below this directory of the client's (/etc/docker, /etc/containers,
    /// /etc/containerd, /etc/rancher/k3s) instead of printing a script
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// This authority instead of the data directory's, PEM: one fetched from /ca.crt, or whoever
    /// signed tls.cert
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    Docker,
    /// Also for skopeo, buildah and CRI-O
    Podman,
    /// Also for ctr, nerdctl and Kubernetes
    Containerd,
    K3s,
}

/// A file of a client's.
#[derive(Debug, Serialize)]
struct Piece {
    path: PathBuf,
    text: String,
    /// It is about this registry alone, so that an older one may go.
    #[serde(skip)]
    ours: bool,
}

impl Trust {
    pub fn run(self, common: &Common) -> Result<()> {
        let config = common.load()?;
        let host = match &self.host {
            Some(host) => Host::parse(host)?,
            None => usual_host(&config)?,
        };
        let authority = self.authority(&config)?;
        let dir = match &self.write {
            Some(dir) => std::path::absolute(dir)?,
            None => PathBuf::from(self.client.dir()),
        };
        let pieces = self.client.pieces(&dir, &host, &authority.pem);
        let named = self.ca.is_some() || is_named(&config, &host)?;
        if self.write.is_some() {
            write(&pieces)?;
        }
        let told = json!({
            "host": host.as_str(),
            "fingerprint": authority.fingerprint,
            "files": pieces,
            "written": self.write.is_some(),
            "host_in_certificate": named,
        });
        let advice = if named { String::new() } else { not_named(&host) };
        common.say(&told, || match self.write.is_some() {
            true => {
                let paths: Vec<_> = pieces.iter().map(|piece| piece.path.display().to_string()).collect();
                format!("Wrote {}. {}{advice}", paths.join(", "), self.client.advice(&dir))
            }
            false => {
                let begin = format!(
                    "# Whose images are called {host}/… is trusted by the authority with the SHA-256 fingerprint\n\
                     # {}\n# {}{advice}",
                    authority.fingerprint,
                    self.client.advice(&dir)
                );
                script(&begin, &pieces)
            }
        });
        Ok(())
    }

    fn authority(&self, config: &Config) -> Result<Certificate> {
        if let Some(file) = &self.ca {
            return Certificate::read(file);
        }
        let refuse = |why: &str| Err(Kind::NotFound(Thing::Request).because(why.to_owned()));
        if config.server.insecure_http {
            return refuse("this registry is served by plain HTTP: there is nobody to trust");
        }
        match tls_source(config).ca_path() {
            None => refuse(
                "this registry's certificate comes from elsewhere (tls.cert); clients that do not know who \
                 signed it are shown that by --ca FILE",
            ),
            Some(path) if !path.exists() => Err(Kind::NotFound(Thing::Request).because(format!(
                "there is no authority in {} yet: `outport serve` makes it when it first starts; or name the \
                 directory with --data, or a file with --ca",
                config.data
            ))),
            Some(path) => Certificate::read(&path),
        }
    }
}

/// What clients call this registry, as far as we know.
fn usual_host(config: &Config) -> Result<Host> {
    let listen = config.listen()?;
    let Some(first) = listen.first().filter(|first| first.port() != 0) else {
        return Err(Kind::Invalid(Thing::Request)
            .because("say what clients call this registry, as in `outport trust docker pi.example:5000`"));
    };
    let name = match config.tls.names.iter().find(|name| !name.contains('*')) {
        _ if !first.ip().is_unspecified() => first.ip().to_string(),
        Some(name) => name.clone(),
        None => machine::host_name(),
    };
    match name.parse() {
        Ok(ip) => Host::parse(&std::net::SocketAddr::new(ip, first.port()).to_string()),
        Err(_) => Host::parse(&format!("{name}:{}", first.port())),
    }
}

/// Whether the certificate that is shown is for this host. True where none is there to look at.
fn is_named(config: &Config, host: &Host) -> Result<bool> {
    let source @ Source::Own { .. } = tls_source(config) else { return Ok(true) };
    let (leaf, _) = source.paths();
    if !leaf.exists() {
        return Ok(true);
    }
    let name = host.as_str();
    let name = match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => name.split(':').next().unwrap_or_default(),
    };
    Ok(Certificate::read(&leaf)?.is_for(name))
}

fn not_named(host: &Host) -> String {
    format!(
        "\n# BUT the certificate is not for {host}: add its name to names in [tls] of the configuration, and \
         reload the server."
    )
}

impl Client {
    /// Where it looks, as packaged.
    fn dir(self) -> &'static str {
        match self {
            Client::Docker => "/etc/docker",
            Client::Podman => "/etc/containers",
            Client::Containerd => "/etc/containerd",
            Client::K3s => "/etc/rancher/k3s",
        }
    }

    /// The files that it needs. `dir`: where they will be read.
    fn pieces(self, dir: &Path, host: &Host, pem: &str) -> Vec<Piece> {
        // Who names the directory that all of it goes to means that.
        let certs = if dir.ends_with("certs.d") { dir.to_owned() } else { dir.join("certs.d") };
        let certs = certs.join(host.as_str());
        let ca = Piece { path: certs.join("ca.crt"), text: pem.to_owned(), ours: true };
        match self {
            Client::Docker | Client::Podman => vec![ca],
            Client::Containerd => {
                let text = format!(
                    "server = \"https://{host}\"\n\n[host.\"https://{host}\"]\n  capabilities = [\"pull\", \"resolve\", \"push\"]\n  ca = {}\n",
                    json!(ca.path)
                );
                vec![Piece { path: certs.join("hosts.toml"), text, ours: false }, ca]
            }
            Client::K3s => {
                let text = format!(
                    "mirrors:\n  \"{host}\":\n    endpoint:\n      - \"https://{host}\"\nconfigs:\n  \"{host}\":\n    tls:\n      ca_file: {}\n",
                    json!(ca.path)
                );
                vec![Piece { path: dir.join("registries.yaml"), text, ours: false }, ca]
            }
        }
    }

    /// What else is to be done.
    fn advice(self, dir: &Path) -> String {
        match self {
            Client::Docker => "Docker reads it at the next pull.".into(),
            Client::Podman => "Podman, skopeo and buildah read it at the next pull.".into(),
            Client::Containerd => format!(
                "nerdctl reads it at the next pull, ctr with --hosts-dir {0}/certs.d; for Kubernetes set config_path = \
                 \"{0}/certs.d\" in [plugins.\"io.containerd.grpc.v1.cri\".registry] of containerd's config.toml.",
                dir.display()
            ),
            Client::K3s => "K3s reads it when it starts: systemctl restart k3s, or k3s-agent.".into(),
        }
    }
}

/// Commands for a client's shell that make the files. A file that is about other registries too,
/// and is there, stays as it is.
fn script(begin: &str, pieces: &[Piece]) -> String {
    let mut lines = vec![begin.to_owned(), "set -e".to_owned()];
    for Piece { path, text, ours } in pieces {
        // Hosts have no letters that a shell knows.
        let (path, dir) = (path.display(), path.parent().unwrap_or(Path::new("/")).display());
        lines.push(format!("mkdir -p '{dir}'"));
        let cat = format!("cat >'{path}' <<'END'\n{text}END");
        match ours {
            true => lines.push(cat),
            false => lines.push(format!(
                "if [ -e '{path}' ]; then\n  echo '{path} is there already; see that it says this:' >&2\n  \
                 cat >&2 <<'END'\n{text}END\nelse\n{cat}\nfi"
            )),
        }
    }
    lines.join("\n")
}

/// Writes all, or nothing where a file says something else about other registries, perhaps.
fn write(pieces: &[Piece]) -> Result<()> {
    let unusable = |path: &Path, error: &std::io::Error| -> Error {
        Kind::Invalid(Thing::Request).because(format!("{} cannot be written: {error}", path.display()))
    };
    for piece in pieces.iter().filter(|piece| !piece.ours && piece.path.exists()) {
        if std::fs::read_to_string(&piece.path).is_ok_and(|text| text == piece.text) {
            continue;
        }
        return Err(Kind::Exists(Thing::Request).because(format!(
            "{} is there already and says something else; nothing was written. Add this to it:\n{}",
            piece.path.display(),
            piece.text
        )));
    }
    for Piece { path, text, .. } in pieces {
        let dir = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(dir).map_err(|error| unusable(dir, &error))?;
        // Not in one go: whoever reads half of it trusts nobody, and reads it again.
        std::fs::write(path, text).map_err(|error| unusable(path, &error))?;
    }
    Ok(())
}
