//! Which uploads are on their way: a commit waits a moment for them, and they share its syncs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::db::lock;
use crate::names::UploadId;

/// An upload that was heard of so recently is on its way.
const HEARD_WITHIN: Duration = Duration::from_millis(20);
/// One that takes longer than this in all is not waited for.
const ARRIVES_WITHIN: Duration = Duration::from_millis(100);

/// Uploads that arrive: when each began, and when it was last heard of.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<Mutex<HashMap<UploadId, (Duration, Duration)>>>);

impl Arrivals {
    /// Something came of an upload.
    pub fn heard(&self, id: &UploadId, now: Duration) {
        let mut all = lock(&self.0);
        if let Some((_, heard)) = all.get_mut(id) {
            *heard = now;
        } else {
            // Whoever is not waited for any more need not be remembered.
            all.retain(|_, (_, heard)| now.saturating_sub(*heard) < ARRIVES_WITHIN);
            all.insert(id.clone(), (now, now));
        }
    }

    /// It waits for a commit itself now, or will never.
    pub fn over(&self, id: &UploadId) {
        lock(&self.0).remove(id);
    }

    /// Whether there are any.
    pub fn any(&self, now: Duration) -> bool {
        lock(&self.0).values().any(|(began, heard)| {
            now.saturating_sub(*heard) < HEARD_WITHIN && now.saturating_sub(*began) < ARRIVES_WITHIN
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Arrivals;
    use crate::names::UploadId;
    use std::time::Duration;

    #[test]
    fn an_upload_arrives_until_it_is_over_or_silent_or_takes_too_long() {
        let (arrivals, at) = (Arrivals::default(), Duration::from_millis);
        let (one, two) = (UploadId::from_random([1; 16]), UploadId::from_random([2; 16]));
        arrivals.heard(&one, at(0));
        arrivals.heard(&two, at(0));
        arrivals.over(&one);
        assert!(arrivals.any(at(10)));
        assert!(!arrivals.any(at(30)), "silent");
        arrivals.heard(&two, at(90));
        assert!(arrivals.any(at(95)));
        assert!(!arrivals.any(at(105)), "too long");
        arrivals.over(&two);
        assert!(!arrivals.any(at(95)), "over");
    }
}
