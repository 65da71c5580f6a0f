//! Who is measured: Outport, Debian's `docker-registry` where it is installed, and any other by
//! its command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::Result;
use crate::client::{Door, trust};
use crate::fill::{ADMIN, PASSWORD};
use crate::server::{Server, free_address, outport, plain_outport};

pub const OUTPORT: &str = "Outport";
const DEBIAN: &str = "docker-registry";
/// Hashes of htpasswd's usual cost.
const BCRYPT_COST: u32 = 10;

/// How a server is reached, and whether it asks who comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Plain,
    Tls,
    /// Plain HTTP and Basic credentials.
    Basic,
}

/// A registry that can be started.
pub struct Contender {
    pub name: String,
    kind: Kind,
}

enum Kind {
    Outport(PathBuf),
    Debian,
    /// Command lines for the shell, plain and over TLS.
    Other {
        plain: String,
        tls: Option<String>,
    },
}

/// A certificate for loopback that every server shows.
pub struct Pki {
    dir: PathBuf,
    pub trust: Arc<ClientConfig>,
}

impl Pki {
    /// Lets Outport make one.
    pub fn new(binary: &Path, work: &Path) -> Result<Pki> {
        let (data, address) = (work.join("pki"), free_address()?);
        drop(Server::start(outport(binary, &data, address), address, true)?);
        let dir = data.join("tls");
        let trust = trust(&dir.join("ca.crt"))?;
        Ok(Pki { dir, trust })
    }
}

/// Outport first; then who is installed, and who is named: each `NAME=COMMAND LINE`.
pub fn contenders(binary: &Path, plain: &[String], tls: &[String]) -> Result<Vec<Contender>> {
    let mut found = vec![Contender { name: OUTPORT.to_owned(), kind: Kind::Outport(binary.to_owned()) }];
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&paths).any(|dir| dir.join(DEBIAN).is_file()) {
        found.push(Contender { name: DEBIAN.to_owned(), kind: Kind::Debian });
    }
    for text in plain {
        let (name, plain) = split(text)?;
        found.push(Contender {
            name: name.to_owned(),
            kind: Kind::Other { plain: plain.to_owned(), tls: None },
        });
    }
    for text in tls {
        let (name, line) = split(text)?;
        let peer =
            found.iter_mut().find(|contender| contender.name == name).map(|contender| &mut contender.kind);
        match peer {
            Some(Kind::Other { tls, .. }) => *tls = Some(line.to_owned()),
            _ => return Err(format!("--peer-tls {name}: there is no --peer of this name").into()),
        }
    }
    Ok(found)
}

fn split(text: &str) -> Result<(&str, &str)> {
    text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=COMMAND LINE").into())
}

impl Contender {
    /// Whether it is not Outport.
    pub fn is_peer(&self) -> bool {
        !matches!(self.kind, Kind::Outport(_))
    }

    /// Starts it on a data directory; None if it is not known how to do this one's `way`. More
    /// connections than usual are let in if `settings` say so to Outport.
    pub fn start(
        &self,
        dir: &Path,
        way: Way,
        pki: &Pki,
        settings: &[(&str, &str)],
    ) -> Result<Option<Server>> {
        let address = free_address()?;
        let command = match (&self.kind, way) {
            (Kind::Outport(binary), Way::Tls) => {
                let mut command = outport(binary, dir, address);
                command.env("OUTPORT_TLS_CERT", pki.dir.join("server.crt"));
                command.env("OUTPORT_TLS_KEY", pki.dir.join("server.key"));
                Some(command)
            }
            (Kind::Outport(binary), _) => Some(plain_outport(binary, dir, address)),
            (Kind::Debian, _) => Some(debian(dir, address, way, pki)?),
            (Kind::Other { plain, .. }, Way::Plain) => Some(other(plain, dir, address, pki)),
            (Kind::Other { tls, .. }, Way::Tls) => tls.as_ref().map(|line| other(line, dir, address, pki)),
            (Kind::Other { .. }, Way::Basic) => None,
        };
        let Some(mut command) = command else { return Ok(None) };
        command.envs(settings.iter().copied());
        Ok(Some(Server::start(command, address, way == Way::Tls)?))
    }

    /// For those who read: as nobody in particular, but by [`Way::Basic`].
    pub fn door(&self, server: &Server, way: Way, pki: &Pki) -> Door {
        let door = Door::new(server.address);
        match way {
            Way::Plain => door,
            Way::Tls => door.over_tls(pki.trust.clone()),
            Way::Basic => door.by(ADMIN, PASSWORD),
        }
    }

    /// For those who write: Outport lets nobody do so without a password.
    pub fn door_to_write(&self, server: &Server, way: Way, pki: &Pki) -> Door {
        let door = self.door(server, way, pki);
        match (&self.kind, way) {
            (Kind::Outport(_), Way::Plain | Way::Tls) => door.by(ADMIN, PASSWORD),
            _ => door,
        }
    }
}

/// As Debian configures it, without the log of each access.
fn debian(dir: &Path, address: SocketAddr, way: Way, pki: &Pki) -> Result<Command> {
    let mut text = format!(
        "version: 0.1\n\
         log: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{cache: {{blobdescriptor: inmemory}}, filesystem: {{rootdirectory: {:?}}}}}\n",
        dir.join("data")
    );
    let mut http = format!("addr: \"{address}\", secret: not-so-secret");
    if way == Way::Tls {
        let (cert, key) = (pki.dir.join("server.crt"), pki.dir.join("server.key"));
        http.push_str(&format!(", tls: {{certificate: {cert:?}, key: {key:?}}}"));
    }
    text.push_str(&format!("http: {{{http}}}\n"));
    if way == Way::Basic {
        let users = dir.join("htpasswd");
        std::fs::write(&users, format!("{ADMIN}:{}\n", bcrypt::hash(PASSWORD, BCRYPT_COST)?))?;
        text.push_str(&format!("auth: {{htpasswd: {{realm: bench, path: {users:?}}}}}\n"));
    }
    let file = dir.join("config.yml");
    std::fs::write(&file, text)?;
    let mut command = Command::new(DEBIAN);
    command.arg("serve").arg(file).env("OTEL_TRACES_EXPORTER", "none");
    Ok(command)
}

fn other(line: &str, dir: &Path, address: SocketAddr, pki: &Pki) -> Command {
    let path = |path: &Path| path.display().to_string();
    let line = line
        .replace("{addr}", &address.to_string())
        .replace("{host}", &address.ip().to_string())
        .replace("{port}", &address.port().to_string())
        .replace("{dir}", &path(dir))
        .replace("{cert}", &path(&pki.dir.join("server.crt")))
        .replace("{key}", &path(&pki.dir.join("server.key")));
    let mut command = Command::new("sh");
    // It takes the shell's place, so that it is the process that is looked at.
    command.args(["-c", &format!("exec {line}")]);
    command
}
