//! Lists: repositories, tags, referrers. Each page costs the same in any store.

use serde::Serialize;

use super::people::User;
use super::repos::RepoChange;
use super::{Registry, sql};
use crate::error::{Kind, Result, Thing};
use crate::names::{Digest, RepoName};

/// Longest page, in names; also the page of who asks for none. Scripts that never heard
/// of pages get every list they can expect in one piece, and 10,000 names of the longest
/// kind are 2.5 MB.
pub const PAGE_MAX: u32 = 10_000;
/// Longest page of referrers, in manifests, and in bytes of what is shown of them:
/// annotations alone may have 4 MiB each.
const REFERRERS_MAX: u32 = 1_000;
const REFERRERS_BYTES_MAX: usize = 2 << 20;

/// Some names in ASCII order, and whether there are more.
#[derive(Debug)]
pub struct Page {
    pub names: Vec<String>,
    pub more: bool,
}

/// A manifest as a referrers list shows it.
#[derive(Debug)]
pub struct Referrer {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: u64,
    pub artifact_type: Option<String>,
    /// JSON.
    pub annotations: Option<String>,
}

#[derive(Debug)]
pub struct ReferrersPage {
    pub referrers: Vec<Referrer>,
    pub more: bool,
}

/// A repository as its administrator sees it.
#[derive(Debug, Serialize)]
pub struct RepoRow {
    pub name: String,
    pub private: bool,
    pub tags: u64,
    pub images: u64,
    /// Blobs it holds; those it shares with others count here as well.
    pub blob_bytes: u64,
    pub created_us: i64,
}

/// Cuts a list that was read one name too far.
fn page(mut names: Vec<String>, limit: u32) -> Page {
    let limit = limit as usize;
    let more = names.len() > limit;
    names.truncate(limit);
    Page { names, more }
}

impl Registry {
    /// Tags after `last`, at most `limit` of them. `NotFound(Repo)` if there is no such
    /// repository.
    pub fn tags(&self, repo: &RepoName, last: &str, limit: u32) -> Result<Page> {
        let limit = limit.min(PAGE_MAX);
        self.db.read(|tx| {
            let repo = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            Ok(page(sql::tags(tx, repo.id, last, limit + 1)?, limit))
        })
    }

    /// Repositories that hold an image and that this caller may read, after `last`.
    pub fn catalog(&self, user: Option<&User>, last: &str, limit: u32) -> Result<Page> {
        let limit = limit.min(PAGE_MAX);
        let id = user.map_or(0, |user| user.id);
        self.db.read(|tx| {
            let seen = sql::sight(tx, id)?;
            Ok(page(sql::names_seen(tx, &seen, sql::Which::Holding, last, limit + 1)?, limit))
        })
    }

    /// Manifests about `subject`, after the digest `last`; none for a repository that
    /// does not exist.
    pub fn referrers(
        &self,
        repo: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: &str,
        limit: u32,
    ) -> Result<ReferrersPage> {
        let limit = limit.min(REFERRERS_MAX);
        let mut page = ReferrersPage { referrers: Vec::new(), more: false };
        let mut bytes = 0;
        self.db.read(|tx| {
            sql::referrers(tx, repo, subject, artifact_type, last, |referrer| {
                if page.referrers.len() >= limit as usize || bytes >= REFERRERS_BYTES_MAX {
                    page.more = true;
                    return false;
                }
                bytes += referrer.annotations.as_ref().map_or(0, String::len);
                page.referrers.push(referrer);
                true
            })
        })?;
        Ok(page)
    }

    /// Repositories with their sums, after `last`, for the administrator.
    pub fn repo_rows(&self, last: &str, limit: u32) -> Result<Vec<RepoRow>> {
        self.db.read(|tx| sql::repo_rows(tx, last, limit.min(PAGE_MAX)))
    }

    /// Makes a repository public or private; makes it, if it is new.
    pub fn repo_set_private(&self, repo: &RepoName, private: bool) -> Result<()> {
        self.repo_set(repo, RepoChange { private: Some(private), ..RepoChange::default() })
    }

    /// The bytes of blobs that no other repository holds: what comes back when it is deleted
    /// and collected.
    pub fn repo_frees(&self, repo: &RepoName) -> Result<u64> {
        self.db.read(|tx| {
            let key = sql::repo(tx, repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            sql::repo_frees(tx, key.id)
        })
    }

    /// Deletes a repository with its tags and manifests. Blobs nobody else holds are
    /// garbage from then on.
    pub fn repo_remove(&self, repo: &RepoName) -> Result<()> {
        let repo = repo.clone();
        self.db.write(move |write| {
            let key = sql::repo(write.tx, &repo)?.ok_or(Kind::NotFound(Thing::Repo))?;
            repo_bury(write.tx, key.id, &repo)
        })
    }
}

/// Deletes a repository, and what was granted in it: one of the same name starts without.
pub(super) fn repo_bury(tx: &rusqlite::Connection, id: i64, name: &RepoName) -> Result<()> {
    sql::repo_delete(tx, id)?;
    sql::grants_delete(tx, name)
}
