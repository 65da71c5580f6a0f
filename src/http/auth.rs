//! Who is asking: headers to a credential to a user, and how to ask for one.
//!
//! A password costs 7 MiB and tens of milliseconds to check, so checked ones are
//! remembered for minutes, one is checked at a time, few may wait, and whoever guesses
//! wrong waits longer and longer. A remembered credential passes all of that by: one bad
//! device does not lock out a fleet behind the same address.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::AUTHORIZATION;
use ring::hmac;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

use super::App;
use super::route::Asked;
use super::token::{self, Scope};
use crate::error::{Kind, Result};
use crate::names::RepoName;
use crate::registry::{Access, Clock, GENERATED_PREFIX, Registry, TOKEN_PREFIX, TokenScope, User, Workspace};

/// How long a checked password is believed, and how many are.
const REMEMBER_FOR: Duration = Duration::from_secs(300);
const REMEMBERED_MAX: usize = 1_024;
/// Requests that may wait for their password's check.
const WAITING_MAX: usize = 16;
/// Wrong passwords before the waiting begins, and the longest wait.
const FREE_FAILURES: u32 = 10;
const WAIT_SECS_MAX: u64 = 60;
/// An address or account that was quiet for this long starts afresh.
const FORGET_AFTER: Duration = Duration::from_secs(900);
/// Addresses and accounts whose failures are counted.
const COUNTED_MAX: usize = 4_096;

/// Whoever asks: nobody, a user, or the bearer of a token.
#[derive(Debug, Default, Clone)]
pub struct Caller {
    pub user: Option<User>,
    /// What a token was made for. None: no token, so whatever the user may do.
    pub scopes: Option<Vec<Scope>>,
    /// What a robot token, a service client, or a client's certificate may at the most.
    pub limit: Option<Limit>,
    /// The namespace this request is about, if it names one: nothing outside it is reached.
    pub within: Option<Workspace>,
}

/// What a credential may at the most that does less than its user.
#[derive(Debug, Clone)]
pub struct Limit {
    pub scope: TokenScope,
    /// By what a robot token is found again. None: a service client, or a certificate.
    pub token: Option<i64>,
}

impl Caller {
    /// A token is enough: an anonymous one says that its bearer asked for it.
    pub fn is_known(&self) -> bool {
        self.user.is_some() || self.scopes.is_some()
    }

    /// A user by password, or a token that was asked for with lists in mind.
    pub fn may_list(&self) -> bool {
        match &self.scopes {
            Some(scopes) => scopes.iter().any(Scope::covers_catalog),
            None => self.user.is_some() && self.scope().is_none_or(TokenScope::is_for_all),
        }
    }

    /// A user by a password or a robot token that pushes: what comes in an archive has no name yet
    /// that a Bearer token could be for.
    pub fn may_bring(&self) -> bool {
        self.user.is_some()
            && self.scopes.is_none()
            && self.scope().is_none_or(|scope| scope.access >= Access::Push)
    }

    /// Whoever holds a token for this much of one repository; nobody, if `user` is None.
    pub fn narrowed(user: Option<User>, repo: &RepoName, access: &[Access]) -> Caller {
        Caller { user, scopes: Some(vec![Scope::of_repo(repo, access)]), ..Caller::default() }
    }

    /// The user, if they brought their password: no token changes passwords or makes
    /// another token, for that could outlive it.
    pub fn by_password(&self) -> Option<&User> {
        self.user.as_ref().filter(|_| self.scopes.is_none() && self.limit.is_none())
    }

    /// The most that a robot token or a service client may, if it is one.
    pub fn scope(&self) -> Option<&TokenScope> {
        self.limit.as_ref().map(|limit| &limit.scope)
    }

    /// The robot token that what is issued to this caller shall end with. A service client, or
    /// a certificate, is issued nothing more: it could not be found again by that.
    pub fn robot(&self) -> Result<Option<i64>> {
        match &self.limit {
            None => Ok(None),
            Some(limit) => Ok(Some(limit.token.ok_or(Kind::Denied)?)),
        }
    }

    /// Whether the credential, and the request, reach this far.
    pub fn reaches(&self, access: Access, repo: &RepoName) -> bool {
        self.scope().is_none_or(|scope| scope.covers(access, repo))
            && self.within.as_ref().is_none_or(|workspace| workspace.name == repo.namespace())
    }
}

impl Limit {
    /// What a user's robot token that was good a while ago may now; None if it has ended.
    pub fn still(app: &App, user: &User, token: i64) -> Result<Option<Limit>> {
        let scope = app.registry.token_still(user, token)?;
        Ok(scope.map(|scope| Limit { scope, token: Some(token) }))
    }
}

/// What an Authorization header says.
pub enum Credential {
    None,
    Password { login: String, password: String },
    Bearer(String),
}

/// Reads a header; schemes are case-insensitive. `Basic` of an empty name and an empty
/// password is what skopeo sends for nobody.
pub fn credential(header: Option<&str>) -> Result<Credential> {
    let Some(header) = header else { return Ok(Credential::None) };
    let invalid = |why: &'static str| Kind::Unauthorized.because(why);
    let (scheme, value) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    let value = value.trim();
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => {
            let text = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or_else(|| invalid("the Basic credentials do not parse"))?;
            let (login, password) =
                text.split_once(':').ok_or_else(|| invalid("the Basic credentials do not parse"))?;
            if login.is_empty() && password.is_empty() {
                return Ok(Credential::None);
            }
            Ok(Credential::Password { login: login.to_owned(), password: password.to_owned() })
        }
        "bearer" if !value.is_empty() => Ok(Credential::Bearer(value.to_owned())),
        _ => Err(invalid("this registry takes Basic and Bearer credentials")),
    }
}

/// Who sent a request. Wrong credentials are `Unauthorized` even where none are needed.
pub async fn identify(app: &App, asked: &Asked) -> Result<Caller> {
    let header = match asked.head.headers.get(AUTHORIZATION) {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| Kind::Unauthorized)?),
    };
    match credential(header)? {
        Credential::None => match &asked.peer.certified {
            None => Ok(Caller::default()),
            Some(name) => certified(app, name),
        },
        Credential::Password { login, password } => check(app, asked.peer.address, &login, &password).await,
        Credential::Bearer(token) => token::verify(app, &token),
    }
}

/// Who brings a certificate, and no header: the user of that name, as far as their password would
/// reach, but to change that or to make tokens, which would outlive the certificate.
fn certified(app: &App, name: &str) -> Result<Caller> {
    match app.registry.user_named(name)? {
        Some(user) if user.active => {
            let scope = TokenScope { access: Access::Delete, pattern: "*".into() };
            let limit = Some(Limit { scope, token: None });
            Ok(Caller { user: Some(user), limit, ..Caller::default() })
        }
        Some(_) => Err(Kind::Inactive.into()),
        None => Err(Kind::Unauthorized.because("the certificate's common name is no user's here")),
    }
}

/// Whether a caller may: by a token's scope, and by the rights of the user behind it as
/// they are now. `Unauthorized` where credentials could help, `Denied` where not.
pub fn permit(app: &App, caller: &Caller, access: Access, repo: &RepoName) -> Result<()> {
    if let Some(scopes) = &caller.scopes
        && !scopes.iter().any(|scope| scope.covers(access, repo))
    {
        return Err(Kind::TokenTooNarrow.into());
    }
    let reaches = caller.reaches(access, repo);
    match reaches && app.registry.may(caller.user.as_ref(), access, repo)? {
        true => Ok(()),
        false if caller.user.is_none() => Err(Kind::Unauthorized.into()),
        false => Err(Kind::Denied.into()),
    }
}

/// Who brings a name and a password, or a name and a robot token. `Inactive` only after
/// the password was found to be right.
pub async fn check(app: &App, address: IpAddr, login: &str, password: &str) -> Result<Caller> {
    let caller = check_any(app, address, login, password).await?;
    match &caller.user {
        Some(user) if !user.active => Err(Kind::Inactive.into()),
        _ => Ok(caller),
    }
}

async fn check_any(app: &App, address: IpAddr, login: &str, password: &str) -> Result<Caller> {
    let generated = password.starts_with(GENERATED_PREFIX);
    if generated || password.starts_with(TOKEN_PREFIX) {
        // Random, so that there is nothing to guess and nothing to remember.
        let found = match generated {
            true => app.registry.password_generated(login, password)?,
            false => app.registry.token_verify(login, password)?,
        };
        return match found {
            Some((user, id, scope)) => {
                let limit = Some(Limit { scope, token: Some(id) });
                Ok(Caller { user: Some(user), limit, ..Caller::default() })
            }
            None => Err(Kind::Unauthorized.because(WRONG)),
        };
    }
    let user = check_password(app, address, login, password).await?;
    Ok(Caller { user: Some(user), ..Caller::default() })
}

const WRONG: &str = "the user name or the password is wrong";

/// The user of a name and password.
async fn check_password(app: &App, address: IpAddr, login: &str, password: &str) -> Result<User> {
    let auth = &app.auth;
    let fingerprint = auth.fingerprint(login, password);
    if let Some(user) = remembered(app, &fingerprint)? {
        return Ok(user);
    }
    let wrong = || Kind::Unauthorized.because(WRONG);
    if password.is_empty() {
        return Err(wrong());
    }
    // One look at each password, however many requests bring it at once.
    let same = auth.same(&fingerprint);
    let _alone = same.lock().await;
    if let Some(user) = remembered(app, &fingerprint)? {
        return Ok(user);
    }
    let busy = || Kind::TooMany { retry_secs: 1 }.because("too many passwords to check; try again");
    let _place = auth.waiting.try_acquire().map_err(|_| busy())?;
    let _turn = auth.turn.acquire().await.map_err(|_| busy())?;
    auth.throttle.check(address, login)?;
    let (name, secret) = (login.to_owned(), password.to_owned());
    match app.run(move |registry| registry.user_verify(&name, &secret)).await? {
        Some(user) => {
            auth.throttle.succeeded(address, login);
            auth.remember(fingerprint, &user);
            Ok(user)
        }
        None => {
            auth.throttle.failed(address, login);
            tracing::warn!(%address, login, "wrong user name or password");
            Err(wrong())
        }
    }
}

/// Runs a verb that hashes a new password: in the queue of those that are checked, for it
/// costs as much.
pub async fn hashing<T: Send + 'static>(
    app: &App,
    verb: impl FnOnce(&Registry) -> Result<T> + Send + 'static,
) -> Result<T> {
    let busy = || Kind::TooMany { retry_secs: 1 }.because("too many passwords to check; try again");
    let _place = app.auth.waiting.try_acquire().map_err(|_| busy())?;
    let _turn = app.auth.turn.acquire().await.map_err(|_| busy())?;
    app.run(verb).await
}

/// Makes a stranger's account. One address makes a few at once, and then waits longer and
/// longer, like one that guesses: each costs a hash, and a row.
pub async fn sign_up(
    app: &App,
    address: IpAddr,
    verb: impl FnOnce(&Registry) -> Result<()> + Send + 'static,
) -> Result<()> {
    let makers = &app.auth.makers;
    makers
        .check(address, "")
        .map_err(|error| error.kind.because("too many accounts at once; try again later"))?;
    hashing(app, verb).await?;
    makers.failed(address, "");
    Ok(())
}

/// The user of a credential that was checked minutes ago, if nothing has changed since.
fn remembered(app: &App, fingerprint: &Fingerprint) -> Result<Option<User>> {
    match app.auth.recall(fingerprint) {
        Some(user) => {
            let still = app.registry.user_still(&user)?;
            if still.is_none() {
                app.auth.forget(fingerprint);
            }
            Ok(still)
        }
        None => Ok(None),
    }
}

type Fingerprint = [u8; 32];

/// What the process remembers of credentials. Nothing here is needed after a restart.
pub struct Auth {
    /// Made anew by each process, so that what is remembered is worth nothing elsewhere.
    key: hmac::Key,
    clock: Clock,
    checked: Mutex<HashMap<Fingerprint, (User, Duration)>>,
    /// Passwords being checked, so that equal ones wait for one check.
    checking: Mutex<HashMap<Fingerprint, Weak<tokio::sync::Mutex<()>>>>,
    throttle: Throttle,
    /// Counts accounts that strangers made.
    makers: Throttle,
    waiting: Semaphore,
    turn: Semaphore,
}

impl Auth {
    pub fn new(clock: &Clock) -> Result<Auth> {
        let mut key = [0; 32];
        crate::registry::random(&mut key)?;
        Ok(Auth {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            clock: clock.clone(),
            checked: Mutex::default(),
            checking: Mutex::default(),
            throttle: Throttle::new(clock),
            makers: Throttle::new(clock),
            waiting: Semaphore::new(WAITING_MAX),
            turn: Semaphore::new(1),
        })
    }

    fn fingerprint(&self, login: &str, password: &str) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(login.as_bytes());
        context.update(&[0]);
        context.update(password.as_bytes());
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.sign().as_ref());
        fingerprint
    }

    fn same(&self, fingerprint: &Fingerprint) -> Arc<tokio::sync::Mutex<()>> {
        let mut checking = lock(&self.checking);
        if let Some(same) = checking.get(fingerprint).and_then(Weak::upgrade) {
            return same;
        }
        checking.retain(|_, same| same.strong_count() > 0);
        let same = Arc::default();
        checking.insert(*fingerprint, Arc::downgrade(&same));
        same
    }

    /// Each use prolongs it: that the user has not changed is looked up every time.
    fn recall(&self, fingerprint: &Fingerprint) -> Option<User> {
        let now = (self.clock.monotonic)();
        let mut checked = lock(&self.checked);
        let (user, until) = checked.get_mut(fingerprint).filter(|(_, until)| now < *until)?;
        *until = now + REMEMBER_FOR;
        Some(user.clone())
    }

    fn remember(&self, fingerprint: Fingerprint, user: &User) {
        let now = (self.clock.monotonic)();
        let mut checked = lock(&self.checked);
        if checked.len() >= REMEMBERED_MAX {
            checked.retain(|_, (_, until)| now < *until);
        }
        if checked.len() < REMEMBERED_MAX {
            checked.insert(fingerprint, (user.clone(), now + REMEMBER_FOR));
        }
    }

    fn forget(&self, fingerprint: &Fingerprint) {
        lock(&self.checked).remove(fingerprint);
    }
}

/// Counts wrong passwords by address and by account, and makes guessers wait.
///
/// An account that once got in from an address is counted there by itself from then on: a
/// bad device does not lock out the good ones behind the same address, nor does a stranger
/// who guesses at an account lock its owner out.
struct Throttle {
    clock: Clock,
    addresses: Mutex<HashMap<IpAddr, Failures>>,
    accounts: Mutex<HashMap<String, Failures>>,
    at_home: Mutex<HashMap<(IpAddr, String), Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Duration,
}

impl Failures {
    /// When the next guess is taken: at once for the first few, then after 1, 2, 4 … 60 s.
    fn open_at(&self) -> Duration {
        let over = self.count.saturating_sub(FREE_FAILURES);
        let wait = match over {
            0 => 0,
            over => 1u64.checked_shl(over - 1).unwrap_or(WAIT_SECS_MAX).min(WAIT_SECS_MAX),
        };
        self.last + Duration::from_secs(wait)
    }
}

impl Throttle {
    fn new(clock: &Clock) -> Throttle {
        Throttle {
            clock: clock.clone(),
            addresses: Mutex::default(),
            accounts: Mutex::default(),
            at_home: Mutex::default(),
        }
    }

    fn check(&self, address: IpAddr, account: &str) -> Result<()> {
        let now = (self.clock.monotonic)();
        let (address, account) = (whole(address), account.to_lowercase());
        let at_home = lock(&self.at_home).get(&(address, account.clone())).map(Failures::open_at);
        let opens = match at_home {
            Some(at) => Some(at),
            None => {
                let by_address = lock(&self.addresses).get(&address).map(Failures::open_at);
                by_address.max(lock(&self.accounts).get(&account).map(Failures::open_at))
            }
        };
        match opens {
            Some(at) if at > now => {
                let retry_secs = (at - now).as_secs() + 1;
                Err(Kind::TooMany { retry_secs }
                    .because(format!("too many wrong passwords; try again in {retry_secs} s")))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, address: IpAddr, account: &str) {
        let now = (self.clock.monotonic)();
        let address = whole(address);
        // No user's name is longer, and what is not one needs no counting.
        let account = account.get(..254).unwrap_or(account).to_lowercase();
        let mut at_home = lock(&self.at_home);
        if at_home.contains_key(&(address, account.clone())) {
            count(&mut at_home, (address, account), now);
        } else {
            count(&mut lock(&self.addresses), address, now);
            // Sign-ups are counted by address alone.
            if !account.is_empty() {
                count(&mut lock(&self.accounts), account, now);
            }
        }
    }

    /// The account is at home here; the address may still be guessing at others.
    fn succeeded(&self, address: IpAddr, account: &str) {
        let now = (self.clock.monotonic)();
        let key = (whole(address), account.to_lowercase());
        let mut at_home = lock(&self.at_home);
        count(&mut at_home, key.clone(), now);
        if let Some(failures) = at_home.get_mut(&key) {
            failures.count = 0;
        }
    }
}

fn count<K: Hash + Eq + Clone>(table: &mut HashMap<K, Failures>, key: K, now: Duration) {
    if table.len() >= COUNTED_MAX && !table.contains_key(&key) {
        table.retain(|_, failures| now.saturating_sub(failures.last) < FORGET_AFTER);
        if table.len() >= COUNTED_MAX {
            let oldest = table.iter().min_by_key(|(_, failures)| failures.last).map(|(key, _)| key.clone());
            oldest.map(|key| table.remove(&key));
        }
    }
    let failures = table.entry(key).or_insert(Failures { count: 0, last: now });
    if now.saturating_sub(failures.last) >= FORGET_AFTER {
        failures.count = 0;
    }
    failures.count = failures.count.saturating_add(1);
    failures.last = now;
}

/// What one customer of a provider has: an IPv4 address, or an IPv6 /64.
fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in these tables can be half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn throttle() -> (Arc<AtomicU64>, Throttle) {
        let secs = Arc::new(AtomicU64::new(0));
        let now = secs.clone();
        let clock = Clock {
            monotonic: Arc::new(move || Duration::from_secs(now.load(Ordering::Relaxed))),
            ..Clock::system()
        };
        (secs, Throttle::new(&clock))
    }

    #[test]
    fn nobody_by_the_book_of_skopeo_is_nobody() {
        assert!(matches!(credential(Some("Basic Og==")), Ok(Credential::None)));
        assert!(matches!(credential(None), Ok(Credential::None)));
    }

    #[test]
    fn a_password_may_hold_colons_and_the_scheme_any_case() {
        let header = format!("bAsIc {}", STANDARD.encode("me@example.org:a:b"));
        match credential(Some(&header)) {
            Ok(Credential::Password { login, password }) => {
                assert_eq!((login.as_str(), password.as_str()), ("me@example.org", "a:b"));
            }
            _ => panic!("parses"),
        }
        for bad in ["Basic", "Basic !!", "Basic YQ==", "Digest x", "Bearer", ""] {
            assert!(credential(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn guessers_wait_longer_and_longer_but_never_for_ever() {
        let (secs, throttle) = throttle();
        let here: IpAddr = "192.0.2.1".parse().expect("an address");
        for _ in 0..FREE_FAILURES {
            assert!(throttle.check(here, "admin").is_ok());
            throttle.failed(here, "admin");
        }
        assert!(throttle.check(here, "admin").is_ok(), "the wait begins with the next failure");
        let mut waits = Vec::new();
        for _ in 0..10 {
            throttle.failed(here, "admin");
            match throttle.check(here, "admin").expect_err("must wait").kind {
                Kind::TooMany { retry_secs } => waits.push(retry_secs - 1),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        secs.fetch_add(61, Ordering::Relaxed);
        assert!(throttle.check(here, "admin").is_ok());
        secs.fetch_add(FORGET_AFTER.as_secs(), Ordering::Relaxed);
        throttle.failed(here, "admin");
        assert!(throttle.check(here, "admin").is_ok(), "quiet times are forgiven");
    }

    #[test]
    fn an_account_is_guarded_from_many_addresses_and_an_address_across_accounts() {
        let (_, throttle) = throttle();
        let address = |n: u8| IpAddr::from([198, 51, 100, n]);
        for n in 0..=10 {
            throttle.failed(address(n), "admin");
        }
        assert!(throttle.check(address(99), "admin").is_err());
        assert!(throttle.check(address(99), "other").is_ok());
        for n in 0..=10 {
            throttle.failed(address(200), &format!("user{n}"));
        }
        assert!(throttle.check(address(200), "someone").is_err());
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        for n in 0..=10 {
            throttle.failed(v6(n), &format!("six{n}"));
        }
        assert!(throttle.check(v6(999), "someone").is_err(), "one /64 is one guesser");
    }

    #[test]
    fn one_bad_device_locks_out_neither_its_neighbours_nor_an_account_its_owner() {
        let (_, throttle) = throttle();
        let home: IpAddr = "192.0.2.7".parse().expect("an address");
        let far: IpAddr = "198.51.100.7".parse().expect("an address");
        throttle.succeeded(home, "good");
        for n in 0..50 {
            throttle.failed(home, "bad-device");
            throttle.failed(IpAddr::from([203, 0, 113, n]), "Good");
        }
        assert!(throttle.check(home, "good").is_ok());
        assert!(throttle.check(home, "newcomer").is_err());
        assert!(throttle.check(far, "good").is_err());
        for _ in 0..11 {
            throttle.failed(home, "GOOD");
        }
        assert!(throttle.check(home, "good").is_err(), "at home one may not guess either");
    }

    #[test]
    fn what_is_counted_has_a_limit() {
        let mut table = HashMap::new();
        for n in 0..2 * COUNTED_MAX as u64 {
            count(&mut table, n, Duration::from_secs(n));
        }
        assert!(table.len() <= COUNTED_MAX);
    }
}
