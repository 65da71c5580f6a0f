//! A disk behind a page cache: what was done to it, and what is left of that when the
//! power goes.
//!
//! A [`Disk`] takes one [`Op`] after the other and keeps, for every file and directory,
//! what processes see, what was synced, and what was done since. [`Disk::image`] says
//! what a [`Model`] of the hardware leaves of it at that moment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::random::Random;

/// A file or directory, whatever it is called.
pub type Ino = u64;
/// The directory everything is below.
pub const ROOT: Ino = 1;
/// Longer files of zeros are made of holes.
const SPARSE_BYTES: usize = 1 << 20;
/// Deepest directory that is materialised.
const DEPTH_MAX: usize = 12;

/// One change, or one promise that changes are kept.
#[derive(Debug, Clone)]
pub enum Op {
    Make {
        ino: Ino,
        dir: Ino,
        name: String,
        is_dir: bool,
    },
    /// `mapped`: from a page that a process has mapped, when the kernel found time for it.
    Write {
        ino: Ino,
        at: usize,
        bytes: Arc<[u8]>,
        mapped: bool,
    },
    Truncate {
        ino: Ino,
        len: usize,
    },
    /// Room, and zeros up to `len` if the file was shorter.
    Allocate {
        ino: Ino,
        len: usize,
    },
    Link {
        ino: Ino,
        dir: Ino,
        name: String,
    },
    Remove {
        dir: Ino,
        name: String,
    },
    Rename {
        from: (Ino, String),
        to: (Ino, String),
    },
    /// `fsync` or `fdatasync`, of a file or a directory.
    Sync {
        ino: Ino,
    },
    /// A sync that failed. The kernel forgets what it could not write: it stays readable
    /// until the power goes, and no later sync writes it.
    SyncFailed {
        ino: Ino,
    },
    /// `sync`: everything is on the disk.
    SyncAll,
}

/// What hardware and file system make of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// The process is killed, the machine goes on: everything is there.
    Kill,
    /// ext4 with `data=ordered` and delayed allocation: names and truncations up to the
    /// last commit of the journal, which any sync of something new brings about; bytes
    /// where the file itself was synced.
    Ordered,
    /// The journal was committed just now: every name and every truncation, but bytes
    /// only where the file was synced.
    Truncates,
    /// What POSIX promises and no more: bytes of files that were synced, names in
    /// directories that were synced.
    Strict,
    /// Every name; every file as it was when it was synced last.
    Names,
    /// Every name and every length; bytes that were not synced are zero.
    Zeros,
    /// Every byte, but names only in directories that were synced.
    Bytes,
    /// What was not synced is there by halves: sectors of 512 bytes or 4 KiB, and names,
    /// in any order.
    Torn(u64),
}

impl Model {
    pub fn word(self) -> &'static str {
        match self {
            Model::Kill => "kill",
            Model::Ordered => "ordered",
            Model::Truncates => "truncates",
            Model::Strict => "strict",
            Model::Names => "names",
            Model::Zeros => "zeros",
            Model::Bytes => "bytes",
            Model::Torn(_) => "torn",
        }
    }
}

/// Which syncs are answered and not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    None,
    /// Every sync of a directory.
    Dirs,
    /// Every sync of a file.
    Files,
    /// One to three in four, by a seed.
    Some(u64),
}

impl Lies {
    fn tells(self, op: u64, is_dir: bool) -> bool {
        match self {
            Lies::None => false,
            Lies::Dirs => is_dir,
            Lies::Files => !is_dir,
            Lies::Some(seed) => {
                let mut random = Random::of(&[seed]);
                let often = 1 + random.below(3);
                Random::of(&[seed, op]).chance(often, 4)
            }
        }
    }
}

type Names = BTreeMap<String, Ino>;

/// A change to a file since it was synced.
#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Arc<[u8]> },
    Truncate { len: usize },
    Allocate { len: usize },
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => write(content, *at, bytes),
            Change::Truncate { len } => content.resize(*len, 0),
            Change::Allocate { len } => content.resize(content.len().max(*len), 0),
        }
    }
}

fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

#[derive(Debug, Clone, Default)]
struct File {
    links: u32,
    now: Arc<Vec<u8>>,
    synced: Arc<Vec<u8>>,
    /// As of the journal's last commit.
    committed: Arc<Vec<u8>>,
    pending: Vec<Change>,
    /// Has a name or a length the journal does not know.
    uncommitted: bool,
}

#[derive(Debug, Clone, Default)]
struct Dir {
    now: Names,
    synced: Names,
    committed: Names,
    /// Each whole or not at all: names with what they were given, or nothing.
    pending: Vec<Vec<(String, Option<Ino>)>>,
    uncommitted: bool,
}

#[derive(Debug, Clone)]
enum Node {
    File(File),
    Dir(Dir),
}

/// Everything there is at one moment, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub dirs: Vec<PathBuf>,
    pub files: Vec<(PathBuf, Arc<Vec<u8>>)>,
}

impl Image {
    /// Writes it into an empty directory.
    pub fn write(&self, into: &Path) -> std::io::Result<()> {
        for dir in &self.dirs {
            std::fs::create_dir(into.join(dir))?;
        }
        for (path, content) in &self.files {
            // Room that is kept is not filled.
            match content.len() > SPARSE_BYTES && is_zero(content) {
                true => std::fs::File::create(into.join(path))?.set_len(content.len() as u64)?,
                false => std::fs::write(into.join(path), &content[..])?,
            }
        }
        Ok(())
    }
}

fn is_zero(content: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    content.chunks(ZEROS.len()).all(|part| *part == ZEROS[..part.len()])
}

#[derive(Debug, Clone)]
pub struct Disk {
    nodes: BTreeMap<Ino, Node>,
    lies: Lies,
    /// Operations taken so far.
    ops: u64,
}

impl Disk {
    pub fn new() -> Disk {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]);
        Disk { nodes, lies: Lies::None, ops: 0 }
    }

    /// The same disk, on hardware that says "done" when it is not.
    pub fn lying(&self, lies: Lies) -> Disk {
        Disk { lies, ..self.clone() }
    }

    /// A number that no file has.
    pub fn next_ino(&self) -> Ino {
        self.nodes.last_key_value().map_or(ROOT, |(ino, _)| *ino) + 1
    }

    pub fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.nodes.get(&ino), Some(Node::Dir(_)))
    }

    /// What a directory holds, as processes see it. None if it is no directory.
    pub fn names(&self, dir: Ino) -> Option<&BTreeMap<String, Ino>> {
        match self.nodes.get(&dir)? {
            Node::Dir(dir) => Some(&dir.now),
            Node::File(_) => None,
        }
    }

    /// What a file holds, as processes see it. None if it is no file.
    pub fn content(&self, ino: Ino) -> Option<&Arc<Vec<u8>>> {
        match self.nodes.get(&ino)? {
            Node::File(file) => Some(&file.now),
            Node::Dir(_) => None,
        }
    }

    pub fn links(&self, ino: Ino) -> u32 {
        match self.nodes.get(&ino) {
            Some(Node::File(file)) => file.links,
            _ => 2,
        }
    }

    /// Bytes that files with a name take, in blocks of 4 KiB.
    pub fn used(&self) -> u64 {
        let of = |node: &Node| match node {
            Node::File(file) if file.links > 0 => file.now.len().next_multiple_of(4096) as u64,
            _ => 0,
        };
        self.nodes.values().map(of).sum()
    }

    /// Does one operation, which is possible.
    pub fn apply(&mut self, op: &Op) {
        self.ops += 1;
        match op {
            Op::Make { ino, dir, name, is_dir } => {
                let node = match is_dir {
                    true => Node::Dir(Dir { uncommitted: true, ..Dir::default() }),
                    false => Node::File(File { links: 1, uncommitted: true, ..File::default() }),
                };
                self.nodes.insert(*ino, node);
                self.rename(*dir, vec![(name.clone(), Some(*ino))]);
            }
            Op::Write { ino, at, bytes, .. } => {
                self.change(*ino, Change::Write { at: *at, bytes: bytes.clone() });
            }
            Op::Truncate { ino, len } => self.change(*ino, Change::Truncate { len: *len }),
            Op::Allocate { ino, len } => self.change(*ino, Change::Allocate { len: *len }),
            Op::Link { ino, dir, name } => {
                self.count(Some(*ino), 1);
                self.rename(*dir, vec![(name.clone(), Some(*ino))]);
            }
            Op::Remove { dir, name } => {
                self.count(self.find(*dir, name), -1);
                self.rename(*dir, vec![(name.clone(), None)]);
            }
            Op::Rename { from, to } => {
                let ino = self.find(from.0, &from.1);
                self.count(self.find(to.0, &to.1), -1);
                let (gone, come) = ((from.1.clone(), None), (to.1.clone(), ino));
                if from.0 == to.0 {
                    self.rename(from.0, vec![gone, come]);
                } else {
                    self.rename(from.0, vec![gone]);
                    self.rename(to.0, vec![come]);
                }
            }
            Op::Sync { ino } => {
                if !self.lies.tells(self.ops, self.is_dir(*ino)) {
                    self.sync(*ino);
                }
            }
            Op::SyncFailed { ino } => match self.nodes.get_mut(ino) {
                Some(Node::File(file)) => file.pending.clear(),
                Some(Node::Dir(dir)) => dir.pending.clear(),
                None => {}
            },
            Op::SyncAll => {
                let all: Vec<Ino> = self.nodes.keys().copied().collect();
                for ino in all {
                    self.sync(ino);
                }
            }
        }
    }

    pub fn find(&self, dir: Ino, name: &str) -> Option<Ino> {
        self.names(dir)?.get(name).copied()
    }

    fn count(&mut self, ino: Option<Ino>, by: i32) {
        if let Some(Node::File(file)) = ino.and_then(|ino| self.nodes.get_mut(&ino)) {
            file.links = file.links.saturating_add_signed(by);
            file.uncommitted = true;
        }
    }

    fn rename(&mut self, dir: Ino, entries: Vec<(String, Option<Ino>)>) {
        let Some(Node::Dir(dir)) = self.nodes.get_mut(&dir) else { return };
        enter(&mut dir.now, &entries);
        dir.pending.push(entries);
        dir.uncommitted = true;
    }

    fn change(&mut self, ino: Ino, change: Change) {
        let Some(Node::File(file)) = self.nodes.get_mut(&ino) else { return };
        let content = Arc::make_mut(&mut file.now);
        let len = content.len();
        change.apply(content);
        file.uncommitted |= len != content.len() || !matches!(change, Change::Write { .. });
        file.pending.push(change);
    }

    fn sync(&mut self, ino: Ino) {
        let uncommitted = match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => {
                if !file.pending.is_empty() {
                    let synced = Arc::make_mut(&mut file.synced);
                    for change in file.pending.drain(..) {
                        change.apply(synced);
                    }
                }
                file.committed = file.synced.clone();
                file.uncommitted
            }
            Some(Node::Dir(dir)) => {
                for entries in dir.pending.drain(..) {
                    enter(&mut dir.synced, &entries);
                }
                dir.uncommitted
            }
            None => false,
        };
        if uncommitted {
            self.commit();
        }
    }

    /// The journal writes down every name and every truncation there is.
    fn commit(&mut self) {
        for node in self.nodes.values_mut() {
            match node {
                Node::Dir(dir) if dir.uncommitted => {
                    dir.committed.clone_from(&dir.now);
                    dir.uncommitted = false;
                }
                Node::File(file) if file.uncommitted => {
                    file.committed = file.truncated();
                    file.uncommitted = false;
                }
                _ => {}
            }
        }
    }

    /// What is left if the power goes now. `at` seeds what is random about it.
    pub fn image(&self, model: Model, at: u64) -> Image {
        let mut random = match model {
            Model::Torn(seed) => Random::of(&[seed, at]),
            _ => Random::new(0),
        };
        let mut image = Image::default();
        self.gather(ROOT, Path::new(""), model, &mut random, &mut image);
        image
    }

    fn gather(&self, dir: Ino, path: &Path, model: Model, random: &mut Random, image: &mut Image) {
        let Some(Node::Dir(dir)) = self.nodes.get(&dir) else { return };
        for (name, ino) in dir.left(model, random) {
            let path = path.join(name);
            match self.nodes.get(&ino) {
                Some(Node::Dir(_)) if path.components().count() < DEPTH_MAX => {
                    image.dirs.push(path.clone());
                    self.gather(ino, &path, model, random, image);
                }
                Some(Node::File(file)) => image.files.push((path, file.left(model, random))),
                _ => {}
            }
        }
    }

    /// An operation in words, with the paths of this moment.
    pub fn say(&self, op: &Op) -> String {
        let path = |ino: Ino| self.path(ROOT, ino, 0).unwrap_or_else(|| format!("#{ino}"));
        let below = |dir: Ino, name: &str| format!("{}/{name}", path(dir));
        match op {
            Op::Make { dir, name, is_dir: true, .. } => format!("mkdir {}", below(*dir, name)),
            Op::Make { dir, name, .. } => format!("create {}", below(*dir, name)),
            Op::Write { ino, at, bytes, mapped } => {
                let how = if *mapped { " (mapped)" } else { "" };
                format!("write {} {at}+{}{how}", path(*ino), bytes.len())
            }
            Op::Truncate { ino, len } => format!("truncate {} {len}", path(*ino)),
            Op::Allocate { ino, len } => format!("fallocate {} {len}", path(*ino)),
            Op::Link { ino, dir, name } => format!("link {} {}", path(*ino), below(*dir, name)),
            Op::Remove { dir, name } => format!("unlink {}", below(*dir, name)),
            Op::Rename { from, to } => format!("rename {} {}", below(from.0, &from.1), below(to.0, &to.1)),
            Op::Sync { ino } => format!("fsync {}", path(*ino)),
            Op::SyncFailed { ino } => format!("fsync {} FAILED", path(*ino)),
            Op::SyncAll => "sync".into(),
        }
    }

    fn path(&self, dir: Ino, wanted: Ino, depth: usize) -> Option<String> {
        if dir == wanted {
            return Some(String::new());
        }
        let names = self.names(dir).filter(|_| depth < DEPTH_MAX)?;
        names
            .iter()
            .find_map(|(name, ino)| self.path(*ino, wanted, depth + 1).map(|rest| format!("/{name}{rest}")))
    }
}

fn enter(names: &mut Names, entries: &[(String, Option<Ino>)]) {
    for (name, ino) in entries {
        match ino {
            Some(ino) => names.insert(name.clone(), *ino),
            None => names.remove(name),
        };
    }
}

impl Dir {
    fn left(&self, model: Model, random: &mut Random) -> Names {
        match model {
            Model::Kill | Model::Truncates | Model::Names | Model::Zeros => self.now.clone(),
            Model::Ordered => self.committed.clone(),
            Model::Strict | Model::Bytes => self.synced.clone(),
            Model::Torn(_) => {
                let mut names = self.synced.clone();
                let part = Part::some(self.pending.len(), random);
                for (n, entries) in self.pending.iter().enumerate() {
                    if part.has(n, random) {
                        enter(&mut names, entries);
                    }
                }
                names
            }
        }
    }
}

impl File {
    fn left(&self, model: Model, random: &mut Random) -> Arc<Vec<u8>> {
        match model {
            Model::Kill | Model::Bytes => self.now.clone(),
            Model::Ordered => self.committed.clone(),
            Model::Truncates => self.truncated(),
            Model::Strict | Model::Names => self.synced.clone(),
            Model::Zeros => {
                let mut content = self.synced.clone();
                if content.len() != self.now.len() {
                    Arc::make_mut(&mut content).resize(self.now.len(), 0);
                }
                content
            }
            Model::Torn(_) if self.pending.is_empty() => self.synced.clone(),
            Model::Torn(_) => Arc::new(self.torn(random)),
        }
    }

    /// What was synced, cut where it was truncated since.
    fn truncated(&self) -> Arc<Vec<u8>> {
        if self.pending.iter().all(|change| matches!(change, Change::Write { .. })) {
            return self.synced.clone();
        }
        let mut content = self.synced.to_vec();
        for change in self.pending.iter().filter(|change| !matches!(change, Change::Write { .. })) {
            change.apply(&mut content);
        }
        Arc::new(content)
    }

    fn torn(&self, random: &mut Random) -> Vec<u8> {
        let sector = if random.chance(1, 2) { 512 } else { 4096 };
        let mut content = self.synced.to_vec();
        let sectors = |change: &Change| match change {
            Change::Write { at, bytes } => (at + bytes.len()).div_ceil(sector) - at / sector,
            _ => 1,
        };
        let part = Part::some(self.pending.iter().map(sectors).sum(), random);
        let mut n = 0;
        for change in &self.pending {
            let Change::Write { at, bytes } = change else {
                if part.has(n, random) {
                    change.apply(&mut content);
                }
                n += 1;
                continue;
            };
            let (mut from, end) = (*at, at + bytes.len());
            while from < end {
                let to = end.min((from / sector + 1) * sector);
                if part.has(n, random) {
                    write(&mut content, from, &bytes[from - at..to - at]);
                }
                n += 1;
                from = to;
            }
        }
        content
    }
}

/// Which of several pending things reached the disk.
enum Part {
    First(usize),
    /// So many out of eight, each for itself.
    Eighths(usize),
}

impl Part {
    fn some(len: usize, random: &mut Random) -> Part {
        match random.below(4) {
            0 => Part::First(random.below(len + 1)),
            _ => Part::Eighths(random.below(9)),
        }
    }

    fn has(&self, n: usize, random: &mut Random) -> bool {
        match self {
            Part::First(len) => n < *len,
            Part::Eighths(eighths) => random.chance(*eighths, 8),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Model::Torn(seed) => write!(f, "torn({seed})"),
            model => f.write_str(model.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = 2;
    const DIR: Ino = 3;

    fn make(ino: Ino, dir: Ino, name: &str, is_dir: bool) -> Op {
        Op::Make { ino, dir, name: name.into(), is_dir }
    }

    fn write(ino: Ino, at: usize, bytes: &[u8]) -> Op {
        Op::Write { ino, at, bytes: bytes.into(), mapped: false }
    }

    fn disk(ops: &[Op]) -> Disk {
        let mut disk = Disk::new();
        ops.iter().for_each(|op| disk.apply(op));
        disk
    }

    /// What a file holds in an image; None if it is not there.
    fn left(disk: &Disk, model: Model, path: &str) -> Option<Vec<u8>> {
        let image = disk.image(model, 0);
        image
            .files
            .into_iter()
            .find(|(found, _)| found == Path::new(path))
            .map(|(_, content)| content.to_vec())
    }

    const ALL: [Model; 7] = [
        Model::Kill,
        Model::Ordered,
        Model::Truncates,
        Model::Strict,
        Model::Names,
        Model::Zeros,
        Model::Bytes,
    ];

    fn everywhere(disk: &Disk, path: &str) -> Vec<Option<Vec<u8>>> {
        ALL.map(|model| left(disk, model, path)).to_vec()
    }

    #[test]
    fn what_nobody_synced_is_left_as_each_model_says() {
        let disk = disk(&[make(FILE, ROOT, "a", false), write(FILE, 0, b"bytes")]);
        let [bytes, empty, zeros] = [b"bytes".to_vec(), Vec::new(), vec![0; 5]].map(Some);
        let expected = [bytes, None, empty.clone(), None, empty, zeros, None];
        assert_eq!(everywhere(&disk, "a"), expected);
    }

    #[test]
    fn what_was_synced_with_its_name_is_left_in_every_model() {
        let ops = [
            make(FILE, ROOT, "a", false),
            write(FILE, 0, b"bytes"),
            Op::Sync { ino: FILE },
            Op::Sync { ino: ROOT },
        ];
        let mut models = ALL.to_vec();
        models.extend((0..50).map(Model::Torn));
        for model in models {
            assert_eq!(left(&disk(&ops), model, "a"), Some(b"bytes".to_vec()), "{model}");
        }
    }

    #[test]
    fn posix_keeps_no_name_for_a_files_own_sync_and_ext4_does() {
        let disk = disk(&[make(FILE, ROOT, "a", false), write(FILE, 0, b"bytes"), Op::Sync { ino: FILE }]);
        assert_eq!(left(&disk, Model::Strict, "a"), None);
        assert_eq!(left(&disk, Model::Ordered, "a"), Some(b"bytes".to_vec()));
    }

    #[test]
    fn ext4_keeps_the_names_before_any_sync_and_none_of_their_bytes() {
        let ops = [
            make(FILE, ROOT, "a", false),
            write(FILE, 0, b"bytes"),
            make(DIR, ROOT, "b", true),
            Op::Sync { ino: DIR },
            make(4, DIR, "c", false),
        ];
        let disk = disk(&ops);
        assert_eq!(left(&disk, Model::Ordered, "a"), Some(Vec::new()));
        assert_eq!(left(&disk, Model::Ordered, "b/c"), None);
    }

    #[test]
    fn a_rename_is_there_or_not_and_leaves_no_third_thing() {
        let mut ops = vec![make(FILE, ROOT, "a", false), write(FILE, 0, b"old"), Op::SyncAll];
        ops.extend([make(4, ROOT, "new", false), write(4, 0, b"new"), Op::Sync { ino: 4 }]);
        ops.push(Op::Rename { from: (ROOT, "new".into()), to: (ROOT, "a".into()) });
        let disk = disk(&ops);
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let content = left(&disk, Model::Torn(seed), "a").expect("one of them is there");
            // A name that was never synced may come without the one before it.
            if left(&disk, Model::Torn(seed), "new").is_some() {
                assert_eq!(content, b"old");
            }
            found.insert(content);
        }
        assert_eq!(found.len(), 2);
        assert_eq!(left(&disk, Model::Strict, "a"), Some(b"old".to_vec()));
        assert_eq!(left(&disk, Model::Kill, "a"), Some(b"new".to_vec()));
    }

    #[test]
    fn a_truncation_outlives_the_bytes_that_followed_it() {
        let mut ops = vec![make(FILE, ROOT, "a", false), write(FILE, 0, b"old"), Op::SyncAll];
        ops.extend([Op::Truncate { ino: FILE, len: 0 }, write(FILE, 0, b"new")]);
        let disk = disk(&ops);
        assert_eq!(left(&disk, Model::Truncates, "a"), Some(Vec::new()));
        assert_eq!(left(&disk, Model::Names, "a"), Some(b"old".to_vec()));
    }

    #[test]
    fn what_a_failed_sync_lost_is_readable_and_no_later_sync_brings_it_to_the_disk() {
        let mut ops = vec![make(FILE, ROOT, "a", false), Op::SyncAll, write(FILE, 0, b"lost")];
        ops.extend([Op::SyncFailed { ino: FILE }, write(FILE, 4, b"kept"), Op::Sync { ino: FILE }]);
        let mut disk = disk(&ops);
        assert_eq!(left(&disk, Model::Kill, "a"), Some(b"lostkept".to_vec()));
        assert_eq!(left(&disk, Model::Strict, "a"), Some(b"\0\0\0\0kept".to_vec()));
        disk.apply(&write(FILE, 0, b"lost"));
        disk.apply(&Op::Sync { ino: FILE });
        assert_eq!(left(&disk, Model::Strict, "a"), Some(b"lostkept".to_vec()), "unless it is written again");
    }

    #[test]
    fn each_sector_of_a_torn_write_is_the_old_one_or_the_new_one() {
        let ops = [
            make(FILE, ROOT, "a", false),
            write(FILE, 0, &[1; 8192]),
            Op::SyncAll,
            write(FILE, 0, &[2; 8192]),
        ];
        let disk = disk(&ops);
        let mut mixed = 0;
        for seed in 0..200 {
            let content = left(&disk, Model::Torn(seed), "a").expect("is there");
            assert_eq!(content.len(), 8192);
            let kinds: Vec<u8> = content.chunks(512).map(|sector| sector[0]).collect();
            assert!(content.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            mixed += u32::from(kinds.contains(&1) && kinds.contains(&2));
        }
        assert!(mixed > 50, "{mixed}");
    }

    #[test]
    fn a_disk_that_lies_about_directories_keeps_bytes_and_no_names() {
        let mut disk = Disk::new().lying(Lies::Dirs);
        for op in [make(FILE, ROOT, "a", false), write(FILE, 0, b"bytes")] {
            disk.apply(&op);
        }
        disk.apply(&Op::Sync { ino: FILE });
        disk.apply(&Op::Sync { ino: ROOT });
        assert_eq!(left(&disk, Model::Strict, "a"), None);
        assert_eq!(left(&disk, Model::Names, "a"), Some(b"bytes".to_vec()));
    }
}
