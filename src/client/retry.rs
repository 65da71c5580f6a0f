//! When to try again, and how long to wait before.

use hyper::HeaderMap;
use hyper::header::RETRY_AFTER;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};

/// Most tries of one request that gets nowhere.
const TRIES_MAX: u32 = 6;
/// The first pause; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest that a server may ask us to wait. Docker Hub's limits last hours, and people
/// would rather be told.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Why a try failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The next one may do better: not before so long, if the server said.
    Passing(Error, Option<Duration>),
    /// It will not.
    Surely(Error),
}

impl Failed {
    pub fn into_error(self) -> Error {
        match self {
            Failed::Passing(error, _) | Failed::Surely(error) => error,
        }
    }
}

/// What a try gives.
pub(super) type Tried<T> = std::result::Result<T, Failed>;

/// What goes wrong on our side stays wrong.
impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Surely(error)
    }
}

/// How a client waits, with the reason; tests do not.
pub type Waiter = Arc<dyn Fn(Duration, &Error) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What is left of trying again.
pub(super) struct Patience {
    waiter: Waiter,
    tries: u32,
    tries_max: u32,
}

impl Patience {
    pub fn new(waiter: &Waiter) -> Patience {
        Patience { waiter: waiter.clone(), tries: 0, tries_max: TRIES_MAX }
    }

    /// None, for somebody beside whom there are others.
    pub fn none(waiter: &Waiter) -> Patience {
        Patience { tries_max: 1, ..Patience::new(waiter) }
    }

    /// There was progress: the next failure is the first again.
    pub fn renew(&mut self) {
        self.tries = 0;
    }

    /// Waits for the next try, or gives up.
    pub async fn after(&mut self, failed: Failed) -> Result<()> {
        let (error, asked) = match failed {
            Failed::Passing(error, asked) => (error, asked),
            Failed::Surely(error) => return Err(error),
        };
        self.tries += 1;
        if self.tries >= self.tries_max {
            return Err(error);
        }
        if let Some(secs) = asked.filter(|asked| *asked > RETRY_AFTER_MAX).map(|asked| asked.as_secs()) {
            return Err(error
                .kind
                .because(format!("{error}; it asks to wait {secs} seconds: try again then")));
        }
        let pause = PAUSE.saturating_mul(1 << (self.tries - 1)).min(PAUSE_MAX);
        // Many who were cut off together shall not come back together.
        let mut random = [0; 1];
        // If there is no randomness, they come together, and are told to wait again.
        let _ = getrandom::fill(&mut random);
        let pause = asked.unwrap_or_default().max(pause.mul_f32(0.75 + f32::from(random[0]) / 1024.0));
        (self.waiter)(pause, &error).await;
        Ok(())
    }
}

/// Tries until it is done, or patience ends.
pub(super) async fn persevere<T, Fut>(mut patience: Patience, mut work: impl FnMut() -> Fut) -> Result<T>
where
    Fut: Future<Output = Tried<T>>,
{
    loop {
        match work().await {
            Ok(done) => return Ok(done),
            Err(failed) => patience.after(failed).await?,
        }
    }
}

/// How long the server asks to wait: seconds, or until a date (RFC 9110 §10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(secs) => Some(Duration::from_secs(secs)),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            Some(at.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::sync::Mutex;

    fn recording() -> (Waiter, Arc<Mutex<Vec<Duration>>>) {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let seen = waits.clone();
        let waiter: Waiter = Arc::new(move |wait, _| {
            seen.lock().expect("nobody panics").push(wait);
            Box::pin(std::future::ready(()))
        });
        (waiter, waits)
    }

    fn passing(asked: Option<u64>) -> Failed {
        Failed::Passing(Kind::Unavailable.into(), asked.map(Duration::from_secs))
    }

    #[tokio::test]
    async fn pauses_double_and_end() {
        let (waiter, waits) = recording();
        let outcome: Result<()> = persevere(Patience::new(&waiter), || async { Err(passing(None)) }).await;
        assert_eq!(outcome.expect_err("gives up").kind, Kind::Unavailable);
        let waits = waits.lock().expect("nobody panics").clone();
        assert_eq!(waits.len(), 5);
        assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
    }

    #[tokio::test]
    async fn a_server_is_given_the_time_it_asks_for_unless_that_is_too_long() {
        let (waiter, waits) = recording();
        let mut patience = Patience::new(&waiter);
        patience.after(passing(Some(20))).await.expect("waits");
        assert_eq!(waits.lock().expect("nobody panics")[0].as_secs(), 20);
        let error = patience.after(passing(Some(3_600))).await.expect_err("will not wait");
        assert!(error.to_string().contains("3600 seconds"), "{error}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let asked = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, hyper::header::HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO), "it is over");
        assert!(asked("Wed, 21 Oct 2099 07:28:00 GMT").is_some_and(|wait| wait.as_secs() > 1 << 30));
        assert_eq!(asked("soon"), None);
    }
}
