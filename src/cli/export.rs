//! `outport export`, `outport inventory`

use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};

use super::Common;
use super::key::key_to_sign;
use super::output::{Output, size};
use super::print::when;
use super::progress::Progress;
use crate::archive::unreadable;
use crate::bundle::{Format, INVENTORY_BYTES_MAX, Inventory, Layout};
use crate::error::{Kind, Result, Thing};
use crate::manifest::Platform;
use crate::registry::{Choose, ImagePattern, KeyFile, Piece};

/// Write images into a bundle: an OCI layout that skopeo, podman, crane and docker read too
#[derive(Debug, Args)]
pub struct ExportVerb {
    #[command(flatten)]
    chosen: Chosen,
    /// A new file, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = FormatName::Bundle)]
    format: FormatName,
    /// Leave out what this inventory of a site lists
    #[arg(long, value_name = "FILE")]
    have: Option<PathBuf>,
    /// Sign it with this key of the data directory, or with that of a file
    #[arg(long, value_name = "KEY")]
    sign: Option<String>,
    /// Cut it into files of this size, FILE.001 and so on: 4G for FAT
    #[arg(long, value_name = "SIZE", value_parser = size)]
    volume_size: Option<u64>,
}

/// Images by name.
#[derive(Debug, Args)]
struct Chosen {
    /// REPOSITORY, which means all its tags, REPOSITORY:TAG or REPOSITORY@DIGEST; with * and ?
    #[arg(required = true, value_name = "REF")]
    images: Vec<String>,
    /// Of images for several platforms only this one, as linux/arm64; may be given again
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<String>,
    /// Leave signatures and SBOMs behind
    #[arg(long)]
    no_referrers: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    /// With all that belongs to the images
    Bundle,
    /// What every `docker load` reads: one platform of each image
    DockerArchive,
}

/// Say what is here, for somebody who packs a bundle for this site
#[derive(Debug, Args)]
pub struct InventoryVerb {
    /// A new file, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Only what these images need: REPOSITORY[:TAG|@DIGEST], with * and ? [default: everything]
    #[arg(value_name = "REF")]
    images: Vec<String>,
}

fn patterns(images: &[String]) -> Result<Vec<ImagePattern>> {
    images.iter().map(|image| ImagePattern::parse(image)).collect()
}

impl Chosen {
    fn choose(&self) -> Result<Choose> {
        let platforms = self.platform.iter().map(|text| Platform::parse(text)).collect::<Result<_>>()?;
        Ok(Choose { platforms, referrers: !self.no_referrers })
    }
}

impl ExportVerb {
    pub fn run(self, common: &Common) -> Result<()> {
        let format = match self.format {
            FormatName::Bundle => Format::Bundle,
            FormatName::DockerArchive => Format::DockerArchive,
        };
        if format == Format::DockerArchive && (self.sign.is_some() || self.have.is_some()) {
            return Err(Kind::Invalid(Thing::Request)
                .because("a docker-archive cannot be signed, nor leave anything out; a bundle can"));
        }
        let (images, choose) = (patterns(&self.chosen.images)?, self.chosen.choose()?);
        let registry = common.open()?;
        let key = self.sign.as_ref().map(|key| key_to_sign(|| Ok(registry.keys_dir()), key)).transpose()?;
        let have = self.have.as_deref().map(read_inventory).transpose()?;
        let stays = registry.stays()?;
        let contents = registry.choose(&images, &choose, &|_| Ok(true))?;
        let layout = match format {
            Format::DockerArchive => Layout::docker_archive(contents)?,
            Format::Bundle => {
                let number = key.as_ref().map(KeyFile::next).transpose()?;
                let signed = key.as_ref().map(|file| &file.key).zip(number);
                let made = signed.as_ref().map(|_| when((registry.clock().wall_us)()));
                Layout::bundle(contents, have.as_ref(), made, signed)?
            }
        };
        drop(have);
        let all = layout.bytes;
        let mut output = Output::create(&self.output, self.volume_size, all)?;
        let mut export = registry.export(layout, Some(stays));
        let (mut progress, mut done) = (Progress::default(), 0);
        let outcome = loop {
            match registry.export_piece(&mut export, Piece::Full) {
                Ok(None) => break Ok(()),
                Ok(Some(piece)) => {
                    if let Err(error) = output.put(&piece) {
                        break Err(error);
                    }
                    done += piece.len() as u64;
                    progress.bytes(done, all);
                }
                Err(error) => break Err(error),
            }
        };
        progress.clear();
        outcome?;
        let files = output.finish()?;
        let document = &export.layout().document;
        let base: u64 = document.base.blobs.iter().map(|line| line.size).sum();
        let sent = document.sent.as_ref();
        let mut sentence = format!(
            "Wrote {} tags, {} manifests and {} blobs, {all} bytes in all",
            document.tags.len(),
            document.manifests.len(),
            document.blobs.len()
        );
        if !document.base.is_empty() {
            sentence += &format!("; {} blobs of {base} bytes are at the site", document.base.blobs.len());
        }
        if let Some(sent) = sent {
            sentence += &format!("; signed by {}, number {}", sent.sender, sent.sequence);
        }
        sentence += ".";
        if files.is_empty() {
            // Standard output is the bundle itself.
            progress.say(&sentence);
        } else {
            let shown = json!({
                "files": files, "bytes": all, "tags": document.tags.len(),
                "manifests": document.manifests.len(), "blobs": document.blobs.len(),
                "base_blobs": document.base.blobs.len(), "base_bytes": base,
                "sender": sent.map(|sent| &sent.sender), "sequence": sent.map(|sent| sent.sequence),
            });
            common.say(&json!({"exported": shown}), || sentence);
        }
        Ok(())
    }
}

/// Reads the inventory of a site.
pub fn read_inventory(path: &Path) -> Result<Inventory> {
    let cannot = |error| unreadable(path, &error);
    let bytes = std::fs::metadata(path).map_err(cannot)?.len();
    if bytes > INVENTORY_BYTES_MAX as u64 {
        return Err(Kind::Invalid(Thing::Request)
            .because(format!("{} is no inventory: those have at most 64 MiB", path.display())));
    }
    let text = std::fs::read(path).map_err(cannot)?;
    Inventory::read(&text)
        .map_err(|error| error.kind.because(format!("{}: {}", path.display(), error.detail())))
}

impl InventoryVerb {
    pub fn run(self, common: &Common) -> Result<()> {
        let images = patterns(&self.images)?;
        let registry = common.open()?;
        let inventory = match images.is_empty() {
            true => registry.inventory()?,
            false => {
                let _stays = registry.stays()?;
                let choose = Choose { referrers: true, ..Choose::default() };
                registry.choose(&images, &choose, &|_| Ok(true))?.inventory()?
            }
        };
        let bytes = inventory.bytes()?;
        let mut output = Output::create(&self.output, None, bytes.len() as u64)?;
        output.put(&bytes)?;
        let files = output.finish()?;
        let sentence = format!("Listed {} blobs in {} bytes.", inventory.len(), bytes.len());
        match files.first() {
            // Standard output is the inventory itself.
            None => Progress::default().say(&sentence),
            Some(file) => common
                .say(&json!({"inventory": file, "blobs": inventory.len(), "bytes": bytes.len()}), || {
                    sentence
                }),
        }
        Ok(())
    }
}
