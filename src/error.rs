//! One error for the whole product: a kind that decides the answer, a detail for
//! the client, a cause for the log.
//!
//! Kinds are few. Each dialect turns a kind into its own status, code and body in
//! one exhaustive `match`, so a new kind must earn its place by changing some answer.

use std::borrow::Cow;
use std::fmt;

/// What an error speaks of. Dialects choose their code by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    Repo,
    Manifest,
    Tag,
    Blob,
    Upload,
    Digest,
    User,
    /// A page request: `n` or `last`.
    Page,
    /// The request itself: its head, its framing, its query, its JSON.
    Request,
    /// A path no row of any route table fits.
    Route,
}

impl Thing {
    pub const ALL: [Thing; 10] = [
        Thing::Repo,
        Thing::Manifest,
        Thing::Tag,
        Thing::Blob,
        Thing::Upload,
        Thing::Digest,
        Thing::User,
        Thing::Page,
        Thing::Request,
        Thing::Route,
    ];

    /// The word people read.
    pub fn word(self) -> &'static str {
        match self {
            Thing::Repo => "repository",
            Thing::Manifest => "manifest",
            Thing::Tag => "tag",
            Thing::Blob => "blob",
            Thing::Upload => "upload",
            Thing::Digest => "digest",
            Thing::User => "user",
            Thing::Page => "page",
            Thing::Request => "request",
            Thing::Route => "address",
        }
    }
}

/// What went wrong, as far as an answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is not here, or not for this caller.
    NotFound(Thing),
    /// What the client sent does not parse or contradicts itself.
    Invalid(Thing),
    /// It is here already and may not be made twice.
    Exists(Thing),
    /// The bytes do not have the digest the client named.
    DigestMismatch,
    /// The bytes are not as many as the client said.
    LengthMismatch,
    /// A manifest names a blob or manifest that this repository does not hold.
    BlobMissing,
    /// A chunk that does not begin where the upload ends; holds where it does end, in bytes.
    OutOfOrder { offset: u64 },
    /// A byte range outside the blob; holds the blob's size in bytes.
    RangeOutside { size: u64 },
    /// The body is longer than this registry takes.
    TooLarge(Thing),
    /// The request line is longer than this registry reads.
    UriTooLong,
    /// More or longer header fields than this registry reads.
    HeadTooLarge,
    /// No credentials, or wrong ones.
    Unauthorized,
    /// A token that was good once or was never good.
    TokenInvalid,
    /// A good token that does not cover this action.
    TokenTooNarrow,
    /// Known, but not allowed.
    Denied,
    /// Known, but an administrator has not activated the account, or no longer wants it.
    Inactive,
    /// A manifest still needs it, so it stays.
    InUse(Thing),
    /// The address exists, the method does not.
    Method,
    /// The registry does not do this.
    Unsupported,
    /// The client stopped sending.
    Slow,
    /// Too much at once from one caller; holds the seconds to wait.
    TooMany { retry_secs: u64 },
    /// The disk is full, or nearly.
    Full,
    /// The store takes no writes, or is stopping.
    Unavailable,
    /// Ours: a bug, a broken disk, a broken database.
    Internal,
}

impl Kind {
    /// Every kind once, with sample values: the rows of the error matrix.
    pub fn all() -> Vec<Kind> {
        let mut all = Vec::new();
        all.extend(Thing::ALL.map(Kind::NotFound));
        all.extend(Thing::ALL.map(Kind::Invalid));
        all.extend(Thing::ALL.map(Kind::Exists));
        all.extend([
            Kind::DigestMismatch,
            Kind::LengthMismatch,
            Kind::BlobMissing,
            Kind::OutOfOrder { offset: 7 },
            Kind::RangeOutside { size: 7 },
        ]);
        all.extend(Thing::ALL.map(Kind::TooLarge));
        all.extend([
            Kind::UriTooLong,
            Kind::HeadTooLarge,
            Kind::Unauthorized,
            Kind::TokenInvalid,
            Kind::TokenTooNarrow,
            Kind::Denied,
            Kind::Inactive,
        ]);
        all.extend(Thing::ALL.map(Kind::InUse));
        all.extend([
            Kind::Method,
            Kind::Unsupported,
            Kind::Slow,
            Kind::TooMany { retry_secs: 7 },
            Kind::Full,
            Kind::Unavailable,
            Kind::Internal,
        ]);
        all
    }

    /// The sentence used when nobody said more.
    pub fn sentence(self) -> Cow<'static, str> {
        match self {
            Kind::NotFound(Thing::Route) => "nothing is served at this address".into(),
            Kind::NotFound(thing) => format!("{} not found", thing.word()).into(),
            Kind::Invalid(thing) => format!("invalid {}", thing.word()).into(),
            Kind::Exists(thing) => format!("the {} exists already", thing.word()).into(),
            Kind::DigestMismatch => "the content does not have the digest that was named".into(),
            Kind::LengthMismatch => "the content is not as long as was announced".into(),
            Kind::BlobMissing => "the manifest names content this repository does not hold".into(),
            Kind::OutOfOrder { offset } => {
                format!("the upload ends at byte {offset}; go on from there").into()
            }
            Kind::RangeOutside { size } => {
                format!("the range lies outside the content's {size} bytes").into()
            }
            Kind::TooLarge(thing) => format!("the {} is too large", thing.word()).into(),
            Kind::UriTooLong => "the request line is too long".into(),
            Kind::HeadTooLarge => "too many or too long header fields".into(),
            Kind::Unauthorized => "authentication required".into(),
            Kind::TokenInvalid => "the token is not valid or has expired; ask for a new one".into(),
            Kind::TokenTooNarrow => "the token does not cover this; ask for one that does".into(),
            Kind::Denied => "requested access to the resource is denied".into(),
            Kind::Inactive => "the account is not active; an administrator activates it".into(),
            Kind::InUse(thing) => {
                format!("the {} is in use; delete what names it first", thing.word()).into()
            }
            Kind::Method => "this address does not answer this method".into(),
            Kind::Unsupported => "this registry does not do that".into(),
            Kind::Slow => "the request body came too slowly; try again".into(),
            Kind::TooMany { retry_secs } => format!("too many requests; try again in {retry_secs} s").into(),
            Kind::Full => "the registry's disk is full; make room on it".into(),
            Kind::Unavailable => "the registry takes no writes just now; try again".into(),
            Kind::Internal => "internal error; the server's log has more under this request id".into(),
        }
    }

    /// True where the fault is the server's: logged with its cause, told without it.
    pub fn is_ours(self) -> bool {
        matches!(self, Kind::Internal | Kind::Unavailable | Kind::Full)
    }
}

/// What every fallible function of Outport returns when it fails.
///
/// `detail` is for the client: it never holds a path, SQL or the operating
/// system's words. `cause` is for the log.
pub struct Error {
    pub kind: Kind,
    detail: Option<Cow<'static, str>>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Kind {
    /// An error that says more to the client than its kind does.
    pub fn because(self, detail: impl Into<Cow<'static, str>>) -> Error {
        Error { kind: self, detail: Some(detail.into()), cause: None }
    }

    /// An error with a cause that only the log sees.
    pub fn from_cause(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error { kind: self, detail: None, cause: Some(cause.into()) }
    }
}

impl Error {
    /// What the client is told.
    pub fn detail(&self) -> Cow<'static, str> {
        match &self.detail {
            Some(detail) => detail.clone(),
            None => self.kind.sentence(),
        }
    }

    /// What the log is told besides.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    /// The same error, with the words a person at the command line needs.
    pub fn with_cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.cause = Some(cause.into());
        self
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Error {
        Error { kind, detail: None, cause: None }
    }
}

/// Operators act on a full disk and on a read-only one, so both keep their name.
impl From<std::io::Error> for Error {
    fn from(cause: std::io::Error) -> Error {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let kind = match cause.kind() {
            // Those that are open will be closed: try again.
            _ if matches!(cause.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => Kind::Unavailable,
            StorageFull | QuotaExceeded => Kind::Full,
            ReadOnlyFilesystem => Kind::Unavailable,
            _ => Kind::Internal,
        };
        kind.from_cause(cause)
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(cause: rustix::io::Errno) -> Error {
        std::io::Error::from(cause).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.detail())?;
        if let Some(cause) = &self.cause {
            write!(f, " ({cause})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}
