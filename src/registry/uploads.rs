//! Open uploads: who grows which file, and how far it got.
//!
//! What is remembered here only makes things faster. A process that starts finds the
//! files again; the offset is the file's length, and the hash is computed anew.

use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::arrivals::Arrivals;
use super::blobs::{Blobs, Growing, UploadKey, discard};
use super::db::lock;
use super::{Clock, OpenFiles, random};
use crate::error::{Kind, Result, Thing};
use crate::names::{Algorithm, RepoName, UploadId};

/// An upload that nobody touched for this long makes room for another one of its user's.
const EVICT_AFTER: Duration = Duration::from_secs(600);
pub(super) struct Uploads {
    open: Mutex<HashMap<UploadId, Arc<Session>>>,
    open_max: usize,
    arrivals: Arrivals,
    clock: Clock,
}

struct Session {
    user: i64,
    /// Not set while there is no file, nor for one that an earlier process began until
    /// somebody asks for it whose it is.
    key: OnceLock<UploadKey>,
    path: Option<std::path::PathBuf>,
    /// When somebody last asked for it; None: not since this process started. Apart from
    /// the state, which is locked for as long as a file is being read again.
    touched: Mutex<Option<Duration>>,
    state: Mutex<State>,
}

struct State {
    growing: Option<Growing>,
    /// Counts those who took this upload up; only the last may write.
    holder: u64,
}

/// An upload in the hands of one request.
#[derive(Clone)]
pub struct Upload {
    id: UploadId,
    session: Arc<Session>,
    holder: u64,
    arrivals: Arrivals,
    clock: Clock,
}

impl Uploads {
    /// Takes stock of the files an earlier process of this boot left.
    pub fn open(blobs: &Blobs, clock: &Clock, arrivals: Arrivals) -> Result<Uploads> {
        let mut open = HashMap::new();
        for left in blobs.uploads_left()? {
            let Some(id) = left.id else { continue };
            let state = State { growing: None, holder: 0 };
            let session = Session {
                user: left.user,
                key: OnceLock::new(),
                path: Some(left.path),
                touched: Mutex::default(),
                state: Mutex::new(state),
            };
            open.insert(id, Arc::new(session));
        }
        let open_max = OpenFiles::here().uploads;
        Ok(Uploads { open: Mutex::new(open), open_max, arrivals, clock: clock.clone() })
    }

    pub fn begin(
        &self,
        blobs: &Blobs,
        user: i64,
        repo: &RepoName,
        algorithm: Algorithm,
        per_user: usize,
    ) -> Result<Upload> {
        let mut bytes = [0; 16];
        random(&mut bytes)?;
        let key = UploadKey::new(UploadId::from_random(bytes), user, repo);
        let id = key.id.clone();
        let session = Arc::new(Session {
            user,
            key: OnceLock::new(),
            path: None,
            touched: Mutex::new(Some((self.clock.monotonic)())),
            state: Mutex::new(State { growing: None, holder: 1 }),
        });
        // Before there is a file, so that uploads that begin at once are not more than may be.
        self.admit(&id, &session, per_user)?;
        match blobs.upload_new(&key, algorithm) {
            Ok(growing) => lock(&session.state).growing = Some(growing),
            Err(error) => {
                lock(&self.open).remove(&id);
                return Err(error);
            }
        }
        session.key.get_or_init(|| key);
        Ok(self.in_hand(id, session, 1))
    }

    fn in_hand(&self, id: UploadId, session: Arc<Session>, holder: u64) -> Upload {
        self.arrivals.heard(&id, (self.clock.monotonic)());
        Upload { id, session, holder, arrivals: self.arrivals.clone(), clock: self.clock.clone() }
    }

    /// Counts an upload among the open ones. Refuses one too many, unless abandoned ones can
    /// go instead.
    fn admit(&self, id: &UploadId, session: &Arc<Session>, per_user: usize) -> Result<()> {
        let now = (self.clock.monotonic)();
        let mut open = lock(&self.open);
        let full = open.len() >= self.open_max;
        let counted = || open.iter().filter(|(_, other)| full || other.user == session.user);
        let excess = (counted().count() + 1).saturating_sub(if full { self.open_max } else { per_user });
        let mut abandoned: Vec<_> = counted()
            .map(|(id, session)| (*lock(&session.touched), id.clone()))
            .filter(|(touched, _)| touched.is_none_or(|at| now.saturating_sub(at) >= EVICT_AFTER))
            .collect();
        if abandoned.len() < excess {
            return Err(
                Kind::TooMany { retry_secs: 60 }.because("too many uploads are open; finish or cancel some")
            );
        }
        // Those of an earlier process first: their clients have mostly started over.
        abandoned.sort_by_key(|(touched, _)| *touched);
        let evicted: Vec<_> = abandoned[..excess].iter().filter_map(|(_, id)| open.remove(id)).collect();
        open.insert(id.clone(), session.clone());
        drop(open);
        for session in evicted {
            session.discard();
        }
        Ok(())
    }

    /// How many bytes an upload has. Whoever holds it goes on.
    pub fn stat(&self, blobs: &Blobs, user: i64, repo: &RepoName, id: &UploadId) -> Result<u64> {
        let (session, key) = self.find(user, repo, id)?;
        let bytes = lock(&session.state).open(blobs, &key)?.bytes();
        session.key.get_or_init(|| key);
        Ok(bytes)
    }

    /// Goes on with an upload. Whoever held it is cut off: a client whose line died comes
    /// back while its old request still waits for bytes that will not come.
    pub fn resume(&self, blobs: &Blobs, user: i64, repo: &RepoName, id: &UploadId) -> Result<Upload> {
        let (session, key) = self.find(user, repo, id)?;
        let holder = {
            let mut state = lock(&session.state);
            state.open(blobs, &key)?;
            state.holder += 1;
            state.holder
        };
        session.key.get_or_init(|| key);
        Ok(self.in_hand(id.clone(), session, holder))
    }

    /// Another user's upload, or another repository's, is one that does not exist.
    fn find(&self, user: i64, repo: &RepoName, id: &UploadId) -> Result<(Arc<Session>, UploadKey)> {
        let session = lock(&self.open).get(id).cloned();
        let key = UploadKey::new(id.clone(), user, repo);
        match session {
            Some(session) if session.user == user && session.key.get().is_none_or(|own| own.is_for(&key)) => {
                session.touch(&self.clock);
                Ok((session, key))
            }
            _ => Err(Kind::NotFound(Thing::Upload).into()),
        }
    }

    /// Takes the file out: the upload is over.
    pub fn take(&self, upload: &Upload) -> Result<Growing> {
        let growing = {
            let mut state = upload.state()?;
            state.holder += 1;
            state.growing.take()
        };
        lock(&self.open).remove(&upload.id);
        growing.ok_or(Kind::NotFound(Thing::Upload).into())
    }

    pub fn cancel(&self, upload: &Upload) {
        // One that was taken over meanwhile is the new holder's.
        if let Ok(growing) = self.take(upload) {
            growing.discard();
        }
    }

    pub fn expire(&self, after: Duration) -> usize {
        let now = (self.clock.monotonic)();
        let expired: Vec<_> = {
            let mut open = lock(&self.open);
            // The monotonic clock began with this process, and so the wait does for
            // uploads that are older.
            let old =
                |session: &Session| now.saturating_sub(lock(&session.touched).unwrap_or_default()) >= after;
            let ids: Vec<_> =
                open.iter().filter(|(_, session)| old(session)).map(|(id, _)| id.clone()).collect();
            ids.iter().filter_map(|id| open.remove(id)).collect()
        };
        for session in &expired {
            session.discard();
        }
        expired.len()
    }
}

impl State {
    /// The file; found again, if an earlier process began it.
    fn open(&mut self, blobs: &Blobs, key: &UploadKey) -> Result<&mut Growing> {
        match &mut self.growing {
            Some(growing) => Ok(growing),
            none => Ok(none.insert(blobs.upload_reopen(key)?)),
        }
    }
}

impl Session {
    fn touch(&self, clock: &Clock) {
        *lock(&self.touched) = Some((clock.monotonic)());
    }

    fn discard(&self) {
        let mut state = lock(&self.state);
        state.holder += 1;
        match (state.growing.take(), &self.path) {
            (Some(growing), _) => growing.discard(),
            (None, Some(path)) => discard(path),
            (None, None) => {}
        }
    }
}

impl Upload {
    /// Whose it is: a user's id.
    pub(super) fn user(&self) -> i64 {
        self.session.user
    }

    /// Its bytes are durable: it waits for a commit itself now.
    pub(super) fn arrived(&self) {
        self.arrivals.over(&self.id);
    }

    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// Bytes that have arrived.
    pub fn bytes(&self) -> Result<u64> {
        self.with(|growing| Ok(growing.bytes()))
    }

    /// Appends, and returns how many bytes there are now. Blocks.
    ///
    /// After a failed write the upload is gone: nobody knows where the file ends.
    pub fn write(&self, frames: &[Bytes]) -> Result<u64> {
        let mut state = self.state()?;
        self.session.touch(&self.clock);
        self.arrivals.heard(&self.id, (self.clock.monotonic)());
        let growing = state.growing.as_mut().ok_or(Kind::NotFound(Thing::Upload))?;
        match growing.write(frames) {
            Ok(()) => Ok(growing.bytes()),
            Err(error) => {
                if let Some(growing) = state.growing.take() {
                    growing.discard();
                }
                Err(error.into())
            }
        }
    }

    /// Says which algorithm the digest will be of, before the bytes come if possible.
    pub fn expect(&self, algorithm: Algorithm) -> Result<()> {
        self.with(|growing| growing.expect(algorithm))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Growing) -> Result<T>) -> Result<T> {
        act(self.state()?.growing.as_mut().ok_or(Kind::NotFound(Thing::Upload))?)
    }

    /// The state, if nobody took this upload over.
    fn state(&self) -> Result<std::sync::MutexGuard<'_, State>> {
        let state = lock(&self.session.state);
        if state.holder == self.holder {
            Ok(state)
        } else {
            Err(Kind::NotFound(Thing::Upload)
                .because("another request went on with this upload, or it was ended"))
        }
    }
}
