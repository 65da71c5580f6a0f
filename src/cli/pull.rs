//! `outport pull`

use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Common;
use super::progress::Progress;
use super::remote::{RemoteArgs, runtime};
use crate::archive::unreadable;
use crate::bundle::{INVENTORY_BYTES_MAX, Inventory};
use crate::carry::{To, pull};
use crate::client::{Endpoint, ImageName, Select};
use crate::error::{Kind, Result, Thing};
use crate::manifest::Platform;

/// Fetch images from any registry into a bundle; again if it broke off
#[derive(Debug, Args)]
pub struct Pull {
    /// [HOST/]REPOSITORY[:TAG][@DIGEST], of Docker Hub without a host
    #[arg(required = true, value_name = "REF")]
    images: Vec<String>,
    /// A new file, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Leave out what this inventory of the site lists, which `outport inventory` wrote there
    #[arg(long, value_name = "FILE")]
    have: Option<PathBuf>,
    /// Of images for several platforms only this one, as linux/arm64; may be given again
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<String>,
    /// Leave signatures and SBOMs behind
    #[arg(long)]
    no_referrers: bool,
    /// Ask this registry first, which has copies of the others' images; http:// before it asks it by
    /// plain HTTP
    #[arg(long, value_name = "HOST")]
    mirror: Vec<String>,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl Pull {
    pub fn run(self, common: &Common) -> Result<()> {
        let names = self.images.iter().map(|image| ImageName::parse(image)).collect::<Result<Vec<_>>>()?;
        let https = !self.remote.insecure_http;
        let first = names.first().map(|name| &name.host);
        let host = first.filter(|first| names.iter().all(|name| name.host == **first));
        let select = Select {
            client: self.remote.client(host, None)?,
            mirrors: self.mirror.iter().map(|host| Endpoint::parse(host, true)).collect::<Result<_>>()?,
            https,
            platforms: self
                .platform
                .iter()
                .map(|platform| Platform::parse(platform))
                .collect::<Result<_>>()?,
            referrers: !self.no_referrers,
        };
        let to = match self.output.as_os_str() == "-" {
            true if common.json => {
                return Err(Kind::Invalid(Thing::Request).because(
                    "standard output cannot be the bundle and the summary; name a file, or leave --json",
                ));
            }
            true => To::Output,
            false => To::File(self.output.clone()),
        };
        let have = self.have.as_deref().map(inventory).transpose()?;
        let runtime = runtime()?;
        let mut progress = Progress::default();
        let outcome =
            pull(&runtime, &select, &names, &to, have.as_ref(), &mut |done, all| progress.bytes(done, all));
        progress.clear();
        let done = outcome?;
        let sentence = format!(
            "Pulled {} tags, {} manifests and {} blobs, {} bytes in all; {} bytes were there from before, \
             {} blobs are at the site.",
            done.tags, done.manifests, done.blobs, done.bytes, done.had, done.base
        );
        match to {
            // Standard output is the bundle itself.
            To::Output => progress.say(&sentence),
            To::File(_) => common.say(&json!({"pulled": done, "file": self.output}), || sentence),
        }
        Ok(())
    }
}

/// What a site has, read from a file.
fn inventory(path: &Path) -> Result<Inventory> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(INVENTORY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(path, &error))?;
    Inventory::read(&bytes).map_err(|error| error.kind.because(format!("{}: {error}", path.display())))
}
