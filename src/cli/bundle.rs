//! `outport bundle inspect`, `outport bundle verify`

use clap::Subcommand;
use serde_json::json;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Common;
use super::progress::Progress;
use crate::archive::{self, Taker, broken, key};
use crate::bundle::{Document, Signature, Signs};
use crate::error::{Error, Kind, Result, Thing};
use crate::hash::Hash;
use crate::names::{Algorithm, Digest};

/// How much is read at once.
const PIECE: usize = 256 << 10;

#[derive(Debug, Subcommand)]
pub enum BundleVerb {
    /// Say what is in a bundle, by its document alone
    Inspect {
        /// Bundles, first volumes (NAME.001), or - for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Read a bundle whole: everything must be there, have its digest, and be signed as it says
    Verify {
        /// Bundles, first volumes (NAME.001), or - for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

impl BundleVerb {
    pub fn run(self, common: &Common) -> Result<()> {
        let (files, whole) = match self {
            BundleVerb::Inspect { files } => (files, false),
            BundleVerb::Verify { files } => (files, true),
        };
        for file in &files {
            let told = look(common, file, whole);
            told.map_err(|error| error.kind.because(format!("{}: {}", file.display(), error.detail())))?;
        }
        Ok(())
    }
}

/// What a bundle says of itself, and whether that holds.
struct Looking {
    whole: bool,
    found: Option<(Document, Option<Signature>)>,
    progress: Progress,
    done: u64,
}

/// Ends the reading of a bundle where only its document was asked for.
const ENOUGH: &str = "the document is read";

impl Taker for Looking {
    fn document(&mut self, document: &[u8], signature: Option<&[u8]>) -> Result<()> {
        let read = Document::read(document)?;
        let signature = signature.map(Signature::read).transpose()?;
        match (&signature, &read.sent) {
            (Some(signature), Some(sent)) => {
                signature.verify(Signs::Bundle, document)?;
                if signature.key != sent.sender {
                    return Err(Kind::Invalid(Thing::Request).because(format!(
                        "it says that {} sent it, and {} signed it",
                        sent.sender, signature.key
                    )));
                }
            }
            (None, None) => {}
            _ => {
                return Err(Kind::Invalid(Thing::Request)
                    .because("it names a sender and is not signed, or the other way round"));
            }
        }
        self.found = Some((read, signature));
        match self.whole {
            true => Ok(()),
            false => Err(Kind::Unsupported.because(ENOUGH)),
        }
    }

    fn blob(&mut self, expected: Option<&Digest>, bytes: u64, from: &mut dyn Read) -> Result<Digest> {
        let Some((document, _)) = &self.found else { return Err(no_bundle()) };
        let all = document.carried_bytes();
        let mut hash = Hash::new(expected.map_or(Algorithm::Sha256, Digest::algorithm));
        let mut piece = vec![0; PIECE.min(usize::try_from(bytes).unwrap_or(PIECE)).max(1)];
        loop {
            match from.read(&mut piece) {
                Ok(0) => return Ok(hash.digest()),
                Ok(some) => {
                    hash.update(&piece[..some]);
                    self.done += some as u64;
                    self.progress.bytes(self.done, all);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
    }
}

fn no_bundle() -> Error {
    Kind::Invalid(Thing::Request).because(
        "it is no bundle of Outport's: it does not begin with a document; `outport import` may read it",
    )
}

fn look(common: &Common, file: &Path, whole: bool) -> Result<()> {
    let mut looking = Looking { whole, found: None, progress: Progress::default(), done: 0 };
    let outcome = match file.as_os_str() == "-" {
        true => archive::read(std::io::stdin(), &mut looking),
        false => archive::read_path(file, &mut looking),
    };
    looking.progress.clear();
    let brought = match outcome {
        Ok(archive) => archive.into_blobs(),
        Err(_) if !whole && looking.found.is_some() => HashMap::new(),
        Err(error) => return Err(error),
    };
    let Some((document, signature)) = looking.found else { return Err(no_bundle()) };
    if whole {
        let lines = document.manifests.iter().map(|line| (&line.digest, line.size));
        let lines = lines.chain(document.blobs.iter().map(|line| (&line.digest, line.size)));
        for (digest, size) in lines {
            if brought.get(&key(digest)) != Some(&size) {
                return Err(Kind::Invalid(Thing::Request)
                    .because(format!("its document names {digest} of {size} bytes, which is not in it")));
            }
        }
        if brought.len() > document.manifests.len() + document.blobs.len() {
            return Err(Kind::Invalid(Thing::Request).because("it holds more than its document names"));
        }
    }
    let public = signature.as_ref().map(|signature| signature.public);
    let json = json!({"file": file, "document": document, "public": public, "verified": whole});
    common.say(&json, || told(file, &document, signature.as_ref(), whole));
    Ok(())
}

fn told(file: &Path, document: &Document, signature: Option<&Signature>, whole: bool) -> String {
    let mut text: Vec<String> =
        document.tags.iter().map(|line| format!("{}:{} is {}", line.repo, line.tag, line.digest)).collect();
    if !document.base.is_empty() {
        let bytes: u64 = document.base.blobs.iter().map(|line| line.size).sum();
        text.push(format!(
            "It builds upon {} blobs of {bytes} bytes that the site has.",
            document.base.blobs.len() + document.base.manifests.len()
        ));
    }
    text.push(match (&document.sent, signature) {
        (Some(sent), Some(signature)) => format!(
            "Signed by {} with the key {}: its number {}, made {}. `outport key list` shows whether that key is trusted.",
            sent.sender,
            signature.public,
            sent.sequence,
            document.made.as_deref().unwrap_or("at an unknown time")
        ),
        _ => "It is not signed.".to_owned(),
    });
    let (what, end) = match whole {
        true => ("Verified", "each has its digest"),
        false => ("Inspected", "they were not read"),
    };
    text.push(format!(
        "{what} {}: {} tags, {} manifests and {} blobs of {} bytes; {end}.",
        file.display(),
        document.tags.len(),
        document.manifests.len(),
        document.blobs.len(),
        document.carried_bytes()
    ));
    text.join("\n")
}
