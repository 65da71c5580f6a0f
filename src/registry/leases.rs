//! Which blobs clients were told of lately: what keeps a collection from taking a blob
//! between "it is here" and the manifest that names it. In memory, for nothing is
//! written for a HEAD; a restart forgets them, and collects nothing for a while.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use super::db::lock;
use crate::names::Digest;

/// Most leases of one generation. Two of them take some 2 MiB; beyond that the older
/// one is forgotten early, and a client whose blob was collected is told to push it.
const GENERATION_MAX: usize = 32_768;
/// How long a generation lasts, in service seconds.
const GENERATION_SECS: i64 = 3_600;

#[derive(Default)]
pub(super) struct Leases {
    keys: RandomState,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each blob was told of last, in service seconds.
    young: HashMap<u64, i64>,
    old: HashMap<u64, i64>,
    young_since: i64,
    /// Being taken away by the transaction that is open: absent to whoever asks now.
    dying: HashSet<u64>,
}

impl Leases {
    /// A blob in one repository. Two that share a key are kept longer, no worse.
    fn key(&self, repo: &str, digest: &Digest) -> u64 {
        self.keys.hash_one((repo, digest.as_str()))
    }

    /// Takes a lease, before the blob is looked for. False while a collection takes it
    /// away: it is then answered as absent, which it is in a moment.
    pub fn take(&self, repo: &str, digest: &Digest, now_secs: i64) -> bool {
        let key = self.key(repo, digest);
        let mut state = lock(&self.state);
        if state.dying.contains(&key) {
            return false;
        }
        if state.young.len() >= GENERATION_MAX || now_secs - state.young_since > GENERATION_SECS {
            state.old = std::mem::take(&mut state.young);
            state.young_since = now_secs;
        }
        state.young.insert(key, now_secs);
        true
    }

    /// Gives a blob up to a collection, unless somebody was told of it after `cut_secs`.
    /// Whoever asks for it until [`Leases::settled`] is told that it is not here.
    pub fn give_up(&self, repo: &str, digest: &Digest, cut_secs: i64) -> bool {
        let key = self.key(repo, digest);
        let mut state = lock(&self.state);
        let told = state.young.get(&key).or_else(|| state.old.get(&key));
        if told.is_some_and(|told| *told > cut_secs) {
            return false;
        }
        state.dying.insert(key);
        true
    }

    /// A push or a mount brings back what may just have been given up: at the end of its own
    /// write, so that whoever asks once it is acknowledged is not told of the collection.
    pub fn is_back(&self, repo: &str, digest: &Digest) {
        let key = self.key(repo, digest);
        lock(&self.state).dying.remove(&key);
    }

    /// The collection's transaction is over, either way.
    pub fn settled(&self) {
        lock(&self.state).dying.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u32) -> Digest {
        Digest::parse(&format!("sha256:{n:08x}{:056}", 0)).expect("parses")
    }

    #[test]
    fn what_was_told_of_lately_is_not_given_up_and_what_is_given_up_is_not_told_of() {
        let leases = Leases::default();
        assert!(leases.take("a/b", &digest(1), 100));
        assert!(!leases.give_up("a/b", &digest(1), 99));
        assert!(leases.give_up("a/b", &digest(1), 100));
        assert!(!leases.take("a/b", &digest(1), 101));
        assert!(leases.take("a/c", &digest(1), 101), "the same bytes elsewhere");
        assert!(leases.take("a/b", &digest(2), 101));
        leases.settled();
        assert!(leases.take("a/b", &digest(1), 101));
    }

    #[test]
    fn what_is_pushed_again_is_told_of_before_the_collection_that_took_it_has_settled() {
        let leases = Leases::default();
        assert!(leases.give_up("a/b", &digest(1), 0) && leases.give_up("a/b", &digest(2), 0));
        leases.is_back("a/b", &digest(1));
        assert!(leases.take("a/b", &digest(1), 1));
        assert!(!leases.take("a/b", &digest(2), 1));
    }

    #[test]
    fn a_lease_outlives_its_generation_once_and_memory_is_bounded() {
        let leases = Leases::default();
        assert!(leases.take("a/b", &digest(1), 0));
        assert!(leases.take("a/b", &digest(2), GENERATION_SECS + 1));
        assert!(!leases.give_up("a/b", &digest(1), -1));
        for n in 0..3 * u32::try_from(GENERATION_MAX).expect("fits") {
            leases.take("a/b", &digest(n), GENERATION_SECS + 2);
        }
        let state = lock(&leases.state);
        assert!(state.young.len() + state.old.len() <= 2 * GENERATION_MAX);
    }
}
