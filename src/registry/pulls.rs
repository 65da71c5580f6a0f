//! How often images were pulled: counted in memory and written beside commits that
//! somebody waits for anyway, for a pull writes nothing. A crash may forget some.

use std::collections::HashMap;
use std::sync::Mutex;

use super::db::lock;
use super::repos::Repo;

/// Most repositories whose pulls wait to be written; those of others are not counted until
/// something is.
const WAITING_MAX: usize = 10_000;

/// Pulls that are not written down yet, by a repository's id.
#[derive(Default)]
pub(super) struct Pulls {
    waiting: Mutex<HashMap<i64, u64>>,
}

impl Pulls {
    pub fn add(&self, repo: i64, pulls: u64) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() < WAITING_MAX || waiting.contains_key(&repo) {
            *waiting.entry(repo).or_default() += pulls;
        }
    }

    /// All that wait. What is then not written is to be added again.
    pub fn take(&self) -> HashMap<i64, u64> {
        std::mem::take(&mut *lock(&self.waiting))
    }

    /// Adds what waits to what rows say.
    pub fn show<'a>(&self, repos: impl IntoIterator<Item = &'a mut Repo>) {
        let waiting = lock(&self.waiting);
        if !waiting.is_empty() {
            for repo in repos {
                repo.pulls += waiting.get(&repo.id).copied().unwrap_or(0);
            }
        }
    }
}
