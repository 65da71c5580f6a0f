//! `outport import`, `outport rollback`

use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

use super::Common;
use super::print::{short, when};
use super::progress::Progress;
use crate::archive::{self, Naming, unreadable};
use crate::error::{Kind, Result, Thing};
use crate::folder::{self, Folder};
use crate::registry::{Allow, Arrived, ImportAsk, ImportRow, Registry, RolledBack, TagMoved};

/// Take in images from archives: OCI layouts, docker save, bundles; plain, gzip or zstd
#[derive(Debug, Args)]
pub struct ImportVerb {
    /// Files, directories, first volumes (NAME.001), or - for standard input
    #[arg(required_unless_present = "folder")]
    source: Vec<PathBuf>,
    /// Take in all bundles of a directory that have no receipt yet, as the drop folder does
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source", "name", "repo", "dry_run"])]
    folder: Option<PathBuf>,
    /// What the image is called here, whatever the archive calls it
    #[arg(long = "as", value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// Comes before every repository that the archives name
    #[arg(long, value_name = "PREFIX", conflicts_with = "name")]
    repo: Option<String>,
    /// Take it although the site trusts keys: unsigned, older or replayed
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    allow: Vec<String>,
    /// Read and check, say what would appear, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Put tags back as they were before an import
#[derive(Debug, Args)]
pub struct Rollback {
    /// Which import [default: the last one that was not put back]
    id: Option<i64>,
    /// Show the imports there were
    #[arg(long, conflicts_with = "id")]
    list: bool,
}

impl ImportVerb {
    pub fn run(self, common: &Common) -> Result<()> {
        let naming = Naming::parse(self.name.as_deref(), self.repo.as_deref())?;
        let allow = Allow::parse(&self.allow)?;
        let ask = ImportAsk { naming, allow, dry_run: self.dry_run, ..ImportAsk::default() };
        let registry = common.open()?;
        if let Some(dir) = self.folder {
            return take_folder(common, &registry, dir, allow);
        }
        for source in &self.source {
            let outcome = import(&registry, source, ask.clone());
            let arrived = outcome.map_err(|error| match self.source.len() {
                1 => error,
                // Which of them; those before it are done.
                _ => error.kind.because(format!("{}: {}", source.display(), error.detail())),
            })?;
            if arrived.is_bundle && !self.dry_run && source.is_file() {
                receipt(&registry, source, &arrived);
            }
            let shown = json!({"source": source, "dry_run": self.dry_run, "imported": arrived});
            common.say(&shown, || sentences(&arrived, self.dry_run));
        }
        Ok(())
    }
}

/// Takes in what lies in a directory; fails if some of it was refused.
fn take_folder(common: &Common, registry: &Registry, dir: PathBuf, allow: Allow) -> Result<()> {
    let looked = Folder::new(dir, allow.unsigned).look_once(registry)?;
    common.say(&looked, || {
        let taken = looked.imported.iter().map(|name| format!("{name} was taken in"));
        let refused = looked.refused.iter().map(|(name, why)| format!("{name} was not taken in: {why}"));
        let mut lines: Vec<String> = taken.chain(refused).collect();
        if lines.is_empty() {
            lines.push("There is no bundle without a receipt.".into());
        }
        lines.join("\n")
    });
    match looked.refused.len() {
        0 => Ok(()),
        refused => {
            Err(Kind::Denied.because(format!("{refused} bundles were not taken in; their receipts say why")))
        }
    }
}

/// Leaves a receipt beside a bundle. A stick that cannot be written to is no failure.
#[expect(clippy::print_stderr, reason = "a command line says what it could not do")]
fn receipt(registry: &Registry, source: &Path, arrived: &Arrived) {
    if let Err(error) = folder::leave_receipt(source, arrived.clone(), registry) {
        eprintln!("outport: no receipt could be left beside {}: {}", source.display(), error);
    }
}

fn import(registry: &Registry, source: &Path, ask: ImportAsk) -> Result<Arrived> {
    let all = match source.as_os_str() == "-" || source.is_dir() {
        true => None,
        false => Some(bytes_of(source)?),
    };
    let mut progress = Progress::default();
    let mut come = 0;
    let told = |bytes| {
        come += bytes;
        match all {
            Some(all) => progress.show(come, all),
            None => progress.count(come),
        }
    };
    let mut import = registry.import_begin(ask, told)?;
    let outcome = match source.as_os_str() == "-" {
        true => archive::read(std::io::stdin(), &mut import),
        false => archive::read_path(source, &mut import),
    };
    let label = source.file_name().unwrap_or(source.as_os_str()).to_string_lossy().into_owned();
    let outcome = outcome.and_then(|archive| import.finish(&archive, &label, |_| Ok(())));
    progress.clear();
    outcome
}

/// How many bytes a file has, or all its volumes.
fn bytes_of(source: &Path) -> Result<u64> {
    let bytes =
        |path: &PathBuf| std::fs::metadata(path).map(|found| found.len()).map_err(|e| unreadable(path, &e));
    archive::volumes(source)?.iter().map(bytes).sum()
}

fn sentences(arrived: &Arrived, dry_run: bool) -> String {
    let brought = &arrived.brought;
    let mut text: Vec<String> = arrived.tags.iter().map(|moved| line(moved, &moved.digest)).collect();
    text.extend(arrived.absent.iter().map(|digest| {
        format!("{} is listed and not in the archive: an image for another platform", short(digest))
    }));
    text.push(match (dry_run, arrived.id) {
        (true, _) => format!("Would bring {} images. Nothing was changed.", arrived.images),
        (false, id) => {
            let back = id.map_or(String::new(), |id| format!(" `outport rollback {id}` puts the tags back."));
            format!(
                "Imported {} images: {} blobs of {} bytes are new, {} of {} bytes were here.{back}",
                arrived.images, brought.blobs_new, brought.bytes_new, brought.blobs_here, brought.bytes_here
            )
        }
    });
    text.join("\n")
}

fn line(moved: &TagMoved, now: &crate::names::Digest) -> String {
    let TagMoved { repo, tag, before, .. } = moved;
    match before {
        Some(before) if before == now => format!("{repo}:{tag} is {}, as before", short(now)),
        Some(before) => format!("{repo}:{tag} is {}; it was {}", short(now), short(before)),
        None => format!("{repo}:{tag} is {}", short(now)),
    }
}

impl Rollback {
    pub fn run(self, common: &Common) -> Result<()> {
        let registry = common.open()?;
        if self.list {
            for row in registry.imports()? {
                common.say(&row, || row_line(&row));
            }
            return Ok(());
        }
        let done = registry.rollback(self.id)?;
        common.say(&json!({"rolled_back": done}), || back_lines(&done));
        match done.left.len() {
            0 => Ok(()),
            left => Err(Kind::InUse(Thing::Tag)
                .because(format!("{left} tags were left as they are, because others moved them since or their former image is gone"))),
        }
    }
}

fn row_line(row: &ImportRow) -> String {
    let sender = match (&row.sender, row.sequence) {
        (Some(sender), Some(sequence)) => format!(", number {sequence} of {sender}"),
        (Some(sender), None) => format!(", of {sender}"),
        _ => String::new(),
    };
    let back = row.rolled_back_us.map_or(String::new(), |us| format!(", put back {}", when(us)));
    format!("{}  {}  {}{sender}: {} tags{back}", row.id, when(row.imported_us), row.source, row.tags)
}

fn back_lines(done: &RolledBack) -> String {
    let mut text: Vec<String> = Vec::new();
    for moved in &done.back {
        text.push(match &moved.before {
            Some(before) => format!("{}:{} is {} again", moved.repo, moved.tag, short(before)),
            None => format!("{}:{} is gone; it came with the import", moved.repo, moved.tag),
        });
    }
    text.extend(done.left.iter().map(|moved| format!("{}:{} is left as it is", moved.repo, moved.tag)));
    text.push(format!("Put back {} tags of import {}.", done.back.len(), done.id));
    text.join("\n")
}
