//! `outport push`

use clap::Args;
use serde_json::json;
use std::path::PathBuf;

use super::Common;
use super::progress::Progress;
use super::remote::{RemoteArgs, parse_rate, runtime};
use crate::archive::Naming;
use crate::carry::{Push as Pushing, Sessions};
use crate::client::Endpoint;
use crate::error::{Kind, Result, Thing};

/// Send bundles, OCI layouts or archives of docker save to any registry; again if it broke off
#[derive(Debug, Args)]
pub struct Push {
    /// Archives, directories of layouts, first volumes; - is standard input, for bundles alone
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The registry, and what comes before the repositories' names there
    #[arg(long, value_name = "HOST[/PREFIX]")]
    to: String,
    /// What the image is to be called, if the archive does not say so
    #[arg(long = "as", value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// Send no more than so many bytes a second: 500K, 2M
    #[arg(long, value_parser = parse_rate)]
    rate: Option<u64>,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl Push {
    pub fn run(self, common: &Common) -> Result<()> {
        let (scheme, rest) =
            self.to.split_once("://").map_or(("", self.to.as_str()), |(scheme, rest)| (scheme, rest));
        let (host, prefix) = rest.split_once('/').map_or((rest, ""), |(host, prefix)| (host, prefix));
        let host = if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") };
        let to = Endpoint::parse(&host, !self.remote.insecure_http)?;
        let prefix = prefix.trim_end_matches('/');
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let naming = Naming::parse(self.name.as_deref(), prefix)?;
        let input = self.files.iter().any(|file| file.as_os_str() == "-");
        if input && self.remote.password_stdin {
            return Err(Kind::Invalid(Thing::User).because(
                "standard input cannot be the password and the bundle; set OUTPORT_REGISTRY_PASSWORD",
            ));
        }
        let client = self.remote.client(Some(&to.host), self.rate)?;
        let runtime = runtime()?;
        let push = Pushing { runtime: &runtime, client: &client, to: to.clone(), naming: &naming };
        for file in &self.files {
            let from = Some(file.as_path()).filter(|file| file.as_os_str() != "-");
            let mut sessions = from.map(Sessions::beside).unwrap_or_default();
            let mut progress = Progress::default();
            let outcome = push.push(from, &mut sessions, &mut |done, all| progress.bytes(done, all));
            progress.clear();
            let done = outcome?;
            common.say(&json!({"pushed": done, "file": file, "to": self.to}), || {
                format!(
                    "Pushed {} to {}: sent {} blobs of {} bytes, {} were there, {} came from other repositories; \
                     {} manifests, {} tags.",
                    file.display(),
                    self.to,
                    done.blobs,
                    done.bytes,
                    done.had,
                    done.mounted,
                    done.manifests,
                    done.tags
                )
            });
        }
        Ok(())
    }
}
