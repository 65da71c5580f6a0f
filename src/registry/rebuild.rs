//! A registry made again from its files when the database is lost: blobs say by their names
//! what they hold, and the log of manifests says what named them.

use std::path::Path;

use super::blobs;
use super::journal::{self, Replayed};
use super::{Clock, Mode, Options, Registry, digest_of, failures, sql};
use crate::error::{Kind, Result, Thing};
use crate::manifest;
use crate::names::{Algorithm, Digest, RepoName, Tag};

/// Rows made in one transaction.
const SLICE: usize = 100;

/// What was found again.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rebuilt {
    pub repositories: u64,
    pub images: u64,
    pub tags: u64,
    pub blobs: u64,
    /// Of those blobs.
    pub bytes: u64,
    /// Files that did not have their digest: in quarantine.
    pub damaged: u64,
    /// Blobs that images name and that are not there: out of service until they are pushed.
    pub missing: u64,
    /// Images that could not be made again.
    pub lost_images: u64,
}

impl Registry {
    /// Makes the database of a directory again. One that is there is put aside, under the name
    /// `registry.db.lost`; nothing is deleted.
    ///
    /// Reads every blob. Users, passwords, organisations and grants are not found again: there
    /// is a new administrator to be made. Fails with `Unavailable` while a server runs, and
    /// with `NotFound` where there is nothing to rebuild from.
    pub fn rebuild(
        dir: &Path,
        options: Options,
        clock: Clock,
        mut progress: impl FnMut(&Rebuilt),
    ) -> Result<(Registry, Rebuilt)> {
        if !dir.join("blobs").is_dir() {
            return Err(Kind::NotFound(Thing::Repo)
                .because("there are no blobs to rebuild from; name the data directory with --data"));
        }
        if super::is_served(dir)? {
            return Err(Kind::Unavailable.because("a server runs on this directory; stop it first"));
        }
        let log = journal::open_log(dir)?;
        put_aside(dir)?;
        failures::forget(dir);
        let registry = Registry::open(dir, &Mode::Tool, options, clock)?;
        let mut rebuilt = Rebuilt::default();
        registry.rebuild_blobs(&mut rebuilt, &mut progress)?;
        if let Some(log) = log {
            let replayed = journal::replay(&log)?;
            registry.rebuild_images(&log, &replayed, &mut rebuilt, &mut progress)?;
        }
        journal::renew(dir, &registry.db)?;
        Ok((registry, rebuilt))
    }

    /// A row for every file that has its digest; the others go to quarantine.
    fn rebuild_blobs(&self, rebuilt: &mut Rebuilt, progress: &mut impl FnMut(&Rebuilt)) -> Result<()> {
        for algorithm in Algorithm::ALL {
            self.blobs.walk(algorithm, |digests| {
                for digests in digests.chunks(SLICE) {
                    let mut good = Vec::new();
                    for digest in digests {
                        match self.blobs.checksums(digest)? {
                            Some((bytes, crcs)) => good.push((digest.clone(), bytes, crcs)),
                            None => {
                                rebuilt.damaged += 1;
                                let (digest, blobs) = (digest.clone(), self.blobs.clone());
                                self.db.write(move |write| match blobs.inode(&digest) {
                                    Some(inode) => write.shelf.quarantine(&digest, inode),
                                    None => Ok(()),
                                })?;
                            }
                        }
                    }
                    rebuilt.blobs += good.len() as u64;
                    rebuilt.bytes += good.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
                    self.db.write(move |write| {
                        for (digest, bytes, crcs) in &good {
                            let blob = sql::blob_upsert(write.tx, digest, *bytes, crcs)?;
                            // Nobody may name it any more.
                            sql::candidate_insert(
                                write.tx,
                                sql::Candidate { since_secs: write.service_secs, blob },
                            )?;
                        }
                        Ok(())
                    })?;
                    progress(rebuilt);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn rebuild_images(
        &self,
        log: &std::fs::File,
        replayed: &Replayed,
        rebuilt: &mut Rebuilt,
        progress: &mut impl FnMut(&Rebuilt),
    ) -> Result<()> {
        let mut names = std::collections::HashMap::new();
        for (id, (name, private)) in &replayed.repos {
            let Ok(name) = RepoName::parse(name) else { continue };
            self.repo_set_private(&name, *private)?;
            names.insert(*id, name);
            rebuilt.repositories += 1;
        }
        // By its id in the log: where it is now.
        let mut made = std::collections::HashMap::new();
        for (id, found) in &replayed.manifests {
            let Some(name) = names.get(&found.repo).cloned() else { continue };
            let body = journal::read_body(log, found.body)?;
            let digest = Digest::parse(&found.digest)
                .ok()
                .filter(|digest| digest_of(digest.algorithm(), &body) == *digest);
            let (Some(digest), Ok(read)) = (digest, manifest::read(&body, Some(&found.media_type))) else {
                rebuilt.lost_images += 1;
                continue;
            };
            let (key, missing) = self.db.write(move |write| {
                let (tx, stamp) = (write.tx, write.stamp(None));
                let repo = sql::repo(tx, &name)?.ok_or(Kind::NotFound(Thing::Repo))?.id;
                let manifest = sql::manifest_upsert(tx, repo, &digest, &read, &body, stamp)?;
                let mut missing = 0;
                for blob in &read.blobs {
                    let row = match sql::blob(tx, blob)? {
                        Some(known) => known.id,
                        None => {
                            missing += 1;
                            let row = sql::blob_upsert(tx, blob, 0, b"")?;
                            sql::blob_set_bad(tx, blob)?;
                            row
                        }
                    };
                    sql::repo_blob_set(tx, repo, row, write.service_secs)?;
                    sql::edge_insert(tx, manifest, row)?;
                }
                for child in &read.children {
                    sql::child_insert(tx, manifest, child)?;
                }
                sql::repo_set_pushed(tx, repo, write.now_us)?;
                Ok(((repo, manifest), missing))
            })?;
            made.insert(*id, key);
            rebuilt.images += 1;
            rebuilt.missing += missing;
            progress(rebuilt);
        }
        for (_, name, manifest) in replayed.tags.values() {
            let (Some((repo, manifest)), Ok(tag)) = (made.get(manifest).copied(), Tag::parse(name)) else {
                continue;
            };
            self.db.write(move |write| sql::tag_set(write.tx, repo, &tag, manifest, write.stamp(None)))?;
            rebuilt.tags += 1;
        }
        Ok(())
    }
}

/// Gives the database and its log other names; those of an earlier rebuild are replaced.
fn put_aside(dir: &Path) -> Result<()> {
    for end in ["", "-wal", "-shm"] {
        let from = dir.join(format!("registry.db{end}"));
        match std::fs::rename(&from, dir.join(format!("registry.db.lost{end}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    blobs::sync_dir(dir)
}
