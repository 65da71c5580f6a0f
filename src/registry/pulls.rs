//! How often images were pulled: counted in memory, shown at once, and written beside
//! commits that somebody waits for anyway, for a pull writes nothing. A crash forgets what
//! was not written yet.

use std::collections::HashMap;
use std::sync::Mutex;

use super::db::lock;
use super::repos::Repo;

/// Most repositories whose pulls wait to be written: half a MiB. Those of others are not
/// counted until some are.
const WAITING_MAX: usize = 4_096;

/// Pulls that are not written down yet.
#[derive(Default)]
pub(super) struct Pulls {
    /// By the repository's UUID: names and row ids are given again once one is deleted, and
    /// perhaps by another process.
    waiting: Mutex<HashMap<String, u64>>,
}

impl Pulls {
    pub fn count(&self, repo: &str) {
        let mut waiting = lock(&self.waiting);
        if let Some(pulls) = waiting.get_mut(repo) {
            *pulls += 1;
        } else if waiting.len() < WAITING_MAX {
            waiting.insert(repo.to_owned(), 1);
        }
    }

    /// Some of those that wait. They go on waiting until they are settled: a commit that fails
    /// loses none, and whoever looks meanwhile sees them.
    pub fn due(&self, most: usize) -> Vec<(String, u64)> {
        lock(&self.waiting).iter().take(most).map(|(repo, pulls)| (repo.clone(), *pulls)).collect()
    }

    /// These are on the disk.
    pub fn settle(&self, written: &[(String, u64)]) {
        let mut waiting = lock(&self.waiting);
        for (repo, pulls) in written {
            if let Some(left) = waiting.get_mut(repo) {
                *left = left.saturating_sub(*pulls);
                if *left == 0 {
                    waiting.remove(repo);
                }
            }
        }
    }

    /// Adds what waits to what rows say.
    pub fn show<'a>(&self, repos: impl IntoIterator<Item = &'a mut Repo>) {
        let waiting = lock(&self.waiting);
        for repo in repos {
            repo.pulls = repo.pulls.saturating_add(waiting.get(&repo.uuid).copied().unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_while_it_is_written_is_written_next_time() {
        let pulls = Pulls::default();
        pulls.count("a");
        let due = pulls.due(10);
        pulls.count("a");
        assert_eq!(
            (due.as_slice(), pulls.due(10)),
            ([("a".to_owned(), 1)].as_slice(), vec![("a".into(), 2)])
        );
        pulls.settle(&due);
        assert_eq!(pulls.due(10), [("a".to_owned(), 1)]);
        pulls.settle(&due);
        assert_eq!(pulls.due(10), []);
    }

    #[test]
    fn memory_is_bounded_and_those_that_are_in_it_go_on_counting() {
        let pulls = Pulls::default();
        for n in 0..2 * WAITING_MAX {
            pulls.count(&n.to_string());
            pulls.count("0");
        }
        let waiting = lock(&pulls.waiting).clone();
        assert_eq!((waiting.len(), waiting["0"]), (WAITING_MAX, 2 * WAITING_MAX as u64 + 1));
        assert_eq!(pulls.due(5).len(), 5);
    }
}
