//! `outport pull`

use clap::Args;
use serde_json::json;
use std::path::PathBuf;

use super::Common;
use super::export::read_inventory;
use super::key::key_to_sign;
use super::output::{no_volumes, size};
use super::print::when;
use super::progress::Progress;
use super::remote::{RemoteArgs, runtime};
use crate::carry::{Signing, To, pull};
use crate::client::{Endpoint, ImageName, Select};
use crate::error::{Kind, Result, Thing};
use crate::manifest::Platform;
use crate::registry::Clock;

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
    /// Sign it with this key of the data directory, or with that of a file
    #[arg(long, value_name = "KEY")]
    sign: Option<String>,
    /// Cut it into files of this size, FILE.001 and so on: 4G for FAT
    #[arg(long, value_name = "SIZE", value_parser = size)]
    volume_size: Option<u64>,
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
            true => {
                no_volumes(self.volume_size)?;
                To::Output
            }
            false => To::File { path: self.output.clone(), volume: self.volume_size },
        };
        let have = self.have.as_deref().map(read_inventory).transpose()?;
        let key = |key: &String| key_to_sign(|| Ok(common.open()?.keys_dir()), key);
        let key = self.sign.as_ref().map(key).transpose()?;
        let number;
        let signing = match &key {
            Some(file) => {
                number = || Ok((file.next()?, when((Clock::system().wall_us)())));
                Some(Signing { key: &file.key, number: &number })
            }
            None => None,
        };
        let runtime = runtime()?;
        let mut progress = Progress::default();
        let outcome =
            pull(&runtime, &select, &names, &to, have.as_ref(), signing.as_ref(), &mut |done, all| {
                progress.bytes(done, all);
            });
        progress.clear();
        let done = outcome?;
        let mut sentence = format!(
            "Pulled {} tags, {} manifests and {} blobs, {} bytes in all; {} bytes were there from before, \
             {} blobs are at the site",
            done.tags, done.manifests, done.blobs, done.bytes, done.had, done.base
        );
        if let Some(sent) = &done.sent {
            sentence += &format!("; signed by {}, number {}", sent.sender, sent.sequence);
        }
        sentence += ".";
        match to {
            // Standard output is the bundle itself.
            To::Output => progress.say(&sentence),
            To::File { .. } => common.say(&json!({"pulled": done, "file": self.output}), || sentence),
        }
        Ok(())
    }
}
