//! How the files that this process may have open are shared out.

/// Uploads that are open at once, where the system allows it: each holds its file until it is
/// finished, given up or forgotten.
const UPLOADS_MAX: usize = 1_024;
/// Pulls that are under way at once, where the system allows it. Others wait.
const PULLS_MAX: usize = 4_096;
/// What we need for ourselves: the database and its readers, listeners, the log.
const OWN: usize = 64;

/// How many of each may be open at once. Together they are no more than the limit, so strangers
/// who only connect take nothing that others' pushes and pulls need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    pub connections: usize,
    pub uploads: usize,
    pub pulls: usize,
}

impl OpenFiles {
    /// By the limit of this process.
    pub fn here() -> OpenFiles {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        OpenFiles::of(limit.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX))
    }

    fn of(limit: usize) -> OpenFiles {
        let free = limit.saturating_sub(OWN);
        let share = |most: usize| (free / 4).min(most).max(1);
        let (uploads, pulls) = (share(UPLOADS_MAX), share(PULLS_MAX));
        OpenFiles { connections: free.saturating_sub(uploads + pulls).max(1), uploads, pulls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_at_once_is_within_the_limit() {
        for limit in [0, 64, 67, 70, 128, 256, 1_024, 20_000, 524_288, usize::MAX] {
            let OpenFiles { connections, uploads, pulls } = OpenFiles::of(limit);
            assert!(connections.min(uploads).min(pulls) >= 1, "{limit}");
            assert!(limit < OWN + 3 || connections + uploads + pulls + OWN <= limit, "{limit}");
        }
    }

    #[test]
    fn ten_thousand_connections_fit_into_twenty_thousand_files() {
        assert!(OpenFiles::of(20_000).connections >= 10_000);
    }
}
