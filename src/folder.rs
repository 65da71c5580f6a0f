//! The drop folder: bundles that somebody left in a directory are taken in by themselves, and a
//! receipt is left beside each.
//!
//! Nothing is remembered but what makes it faster: a receipt says of which file it is, by length
//! and time, and a file without one is looked at. Whoever pulls a stick out leaves things as they
//! were, and puts it in again.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::archive::{self, Found};
use crate::bundle::Signs;
use crate::error::{Error, Kind, Result};
use crate::registry::{Arrived, ImportAsk, KeyFile, Registry};

/// How a receipt is called, after the name of what it is for.
const RECEIPT: &str = ".receipt.json";
const SIGNATURE: &str = ".receipt.sig";
/// Longest receipt that is read again, in bytes.
const RECEIPT_BYTES_MAX: u64 = 96 << 20;
/// Most files of a folder that are looked at.
const FILES_MAX: usize = 10_000;
/// How often one call looks again because something came: a file that grows is another each time.
const LOOKS_MAX: usize = 16;
/// A full disk, or a store that takes no writes, may be well again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// What tells one file of a name from the next: the length of all volumes, and the latest time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    modified_secs: i64,
}

/// What became of an archive.
#[derive(Debug, Serialize)]
pub struct Receipt {
    version: u32,
    file: String,
    #[serde(flatten)]
    stamp: Stamp,
    /// Microseconds since 1970, by this machine's clock.
    taken_us: i64,
    #[serde(flatten)]
    outcome: Outcome,
    /// What is here now, as `outport inventory` writes it: for the next bundle's sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    inventory: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// What came, and what each tag names now.
    Imported(Arrived),
    /// Why nothing did.
    Refused(String),
}

/// A receipt that is there.
#[derive(Deserialize)]
struct Left {
    #[serde(flatten)]
    stamp: Stamp,
}

/// A directory in which archives appear.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    ask: ImportAsk,
    /// As they were at the last look.
    seen: HashMap<PathBuf, Stamp>,
    /// What is not looked at again for a while, although it has no receipt.
    tried: HashMap<PathBuf, (Stamp, Duration)>,
}

/// What a look at a folder came to.
#[derive(Debug, Default, Serialize)]
pub struct Looked {
    pub imported: Vec<String>,
    /// With the reason.
    pub refused: Vec<(String, String)>,
}

impl Folder {
    /// `unsigned`: also what nobody signed whose key is trusted.
    pub fn new(dir: PathBuf, unsigned: bool) -> Folder {
        let mut ask = ImportAsk { signed_only: !unsigned, ..ImportAsk::default() };
        ask.allow.unsigned = unsigned;
        Folder { dir, ask, seen: HashMap::new(), tried: HashMap::new() }
    }

    /// Takes in what is new and did not change since the last look. Blocks, for as long as it takes.
    pub fn look(&mut self, registry: &Registry) -> Result<Looked> {
        let there = self.files()?;
        let settled: Vec<(PathBuf, Stamp)> =
            there.iter().filter(|(path, stamp)| self.seen.get(path) == Some(stamp)).cloned().collect();
        self.seen = there.into_iter().collect();
        self.tried.retain(|path, _| self.seen.contains_key(path));
        self.take(settled, registry)
    }

    /// Takes in all there is, and what came meanwhile: who watches the directory may not be told of
    /// that again. What is still being copied is not waited for.
    pub fn look_once(&mut self, registry: &Registry) -> Result<Looked> {
        let mut all = Looked::default();
        for _ in 0..LOOKS_MAX {
            let there = self.files()?;
            let mut now = self.take(there, registry)?;
            if now.imported.is_empty() && now.refused.is_empty() {
                break;
            }
            // It was half there, and is another file now.
            all.refused.retain(|(name, _)| {
                !now.imported.contains(name) && now.refused.iter().all(|(other, _)| other != name)
            });
            all.imported.append(&mut now.imported);
            all.refused.append(&mut now.refused);
        }
        Ok(all)
    }

    fn take(&mut self, settled: Vec<(PathBuf, Stamp)>, registry: &Registry) -> Result<Looked> {
        let mut looked = Looked::default();
        for (path, stamp) in settled {
            if self.is_done(&path, stamp, registry) {
                continue;
            }
            let name = name_of(&path);
            match archive::find(&path) {
                Found::Bundle => {}
                Found::Archive if self.ask.allow.unsigned => {}
                // Something of somebody's, or a volume that is missing yet.
                _ => continue,
            }
            let outcome = self.import(&path, registry);
            if let Err(error) = &outcome
                && error.kind.is_ours()
            {
                tracing::error!(file = name, ?error, "a bundle could not be taken in; it is tried again");
                self.tried.insert(path, (stamp, registry.uptime()));
                continue;
            }
            let outcome = match outcome {
                Ok(arrived) => {
                    tracing::info!(
                        file = name,
                        images = arrived.images,
                        tags = arrived.tags.len(),
                        "took a bundle in"
                    );
                    looked.imported.push(name.clone());
                    Outcome::Imported(arrived)
                }
                Err(error) => {
                    tracing::warn!(file = name, %error, "a bundle was not taken in");
                    looked.refused.push((name.clone(), error.detail().into_owned()));
                    Outcome::Refused(error.detail().into_owned())
                }
            };
            if let Err(error) = leave(&path, name.clone(), stamp, outcome, registry) {
                tracing::warn!(file = name, %error, "the receipt could not be left beside the bundle");
                self.tried.insert(path, (stamp, Duration::MAX));
            }
        }
        Ok(looked)
    }

    fn import(&self, path: &Path, registry: &Registry) -> Result<Arrived> {
        let mut import = registry.import_begin(self.ask.clone(), |_| {})?;
        let archive = archive::read_path(path, &mut import)?;
        import.finish(&archive, &name_of(path), |_| Ok(()))
    }

    fn is_done(&self, path: &Path, stamp: Stamp, registry: &Registry) -> bool {
        let waits = self
            .tried
            .get(path)
            .is_some_and(|(tried, at)| *tried == stamp && registry.uptime() < at.saturating_add(AGAIN_AFTER));
        let read = || -> Option<Left> {
            let mut text = Vec::new();
            let file = File::open(receipt_of(path)).ok()?;
            std::io::Read::read_to_end(&mut std::io::Read::take(file, RECEIPT_BYTES_MAX), &mut text).ok()?;
            serde_json::from_slice(&text).ok()
        };
        waits || read().is_some_and(|left| left.stamp == stamp)
    }

    /// What may be an archive: files by name, volumes by the first of them.
    fn files(&self) -> Result<Vec<(PathBuf, Stamp)>> {
        let unreadable = |error: std::io::Error| -> Error { archive::unreadable(&self.dir, &error) };
        let mut names: HashSet<PathBuf> = HashSet::new();
        for entry in std::fs::read_dir(&self.dir).map_err(unreadable)?.take(FILES_MAX) {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let is_ours = name.starts_with('.')
                || name.ends_with(RECEIPT)
                || name.ends_with(SIGNATURE)
                || name.ends_with(".part");
            let number = name.rsplit_once('.').map_or("", |(_, number)| number);
            let is_later = number.len() == 3 && number.bytes().all(|b| b.is_ascii_digit()) && number != "001";
            if !is_ours && !is_later && entry.file_type().map_err(unreadable)?.is_file() {
                names.insert(entry.path());
            }
        }
        let mut files: Vec<_> = names.into_iter().filter_map(|path| Some((stamp(&path)?, path))).collect();
        files.sort_by(|one, other| one.1.cmp(&other.1));
        Ok(files.into_iter().map(|(stamp, path)| (path, stamp)).collect())
    }
}

/// None while a file goes away, or a volume is missing.
fn stamp(path: &Path) -> Option<Stamp> {
    let mut stamp = Stamp { bytes: 0, modified_secs: 0 };
    for volume in archive::volumes(path).ok()? {
        let found = std::fs::metadata(volume).ok()?;
        stamp.bytes += found.len();
        stamp.modified_secs = stamp.modified_secs.max(found.mtime());
    }
    Some(stamp)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn receipt_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(RECEIPT);
    name.into()
}

/// Writes a receipt beside what it is for, whole or not at all; and who signs for this site, if it
/// has a key.
fn leave(path: &Path, file: String, stamp: Stamp, outcome: Outcome, registry: &Registry) -> Result<()> {
    let inventory = match &outcome {
        Outcome::Imported(_) => {
            let text = String::from_utf8(registry.inventory()?.bytes()?).map_err(internal)?;
            Some(RawValue::from_string(text).map_err(internal)?)
        }
        Outcome::Refused(_) => None,
    };
    let taken_us = (registry.clock().wall_us)();
    let receipt = Receipt { version: 1, file, stamp, taken_us, outcome, inventory };
    let text = serde_json::to_vec(&receipt).map_err(internal)?;
    if let Some(site) = KeyFile::all(&registry.keys_dir())?.first() {
        // First: what finds the receipt finds who signed it.
        put(path, SIGNATURE, &site.key.sign(Signs::Receipt, &text)?)?;
    }
    put(path, RECEIPT, &text)
}

fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Kind::Internal.from_cause(cause)
}

/// Writes a file beside another, whole or not at all.
fn put(path: &Path, ending: &str, bytes: &[u8]) -> Result<()> {
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let (to, part) = (beside(ending), beside(".receipt.part"));
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(std::fs::rename(&part, &to)?)
}

/// The receipt of an import by hand, beside the bundle.
pub fn leave_receipt(path: &Path, arrived: Arrived, registry: &Registry) -> Result<()> {
    let stamp = stamp(path).ok_or(Kind::Internal)?;
    leave(path, name_of(path), stamp, Outcome::Imported(arrived), registry)
}
