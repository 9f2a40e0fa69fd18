//! The ops: small steps that print well.

use crate::backoff::Asker;

/// One history of a cache and its callers.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The random numbers of jitter, backoff and budget, in quarters, repeated.
    pub(crate) draws: Vec<u8>,
    /// The burst of the budget.
    pub(crate) burst: u32,
    pub(crate) background_refresh: bool,
    /// Only [`SMALL_LIMIT`] bytes of a body are recorded.
    pub(crate) small_limit: bool,
    pub(crate) ops: Vec<Op>,
}

/// Two chunks of a body.
pub(crate) const SMALL_LIMIT: usize = 12;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// So many callers at once.
    Call(u8, Call),
    /// The oldest fetch that is open ends.
    Source(Token),
    /// All fetches end so from now on, as soon as they start.
    SourceAlways(Option<Token>),
    /// One of the requests that the API has gets its response.
    Api(u8, Reply),
    /// All requests get it from now on, as soon as they arrive.
    ApiAlways(Option<Reply>),
    /// The API's own readiness.
    Readiness(Readiness),
    /// Milliseconds.
    Pass(u64),
    PassTo(Moment, Edge),
    /// One of the waiting callers is dropped.
    Drop(u8),
    /// One is not polled, although it may be woken.
    Hold(u8),
    /// All that were held are polled again.
    Release,
    /// One is polled by another task, which nothing has woken.
    Move(u8),
    /// A token that some caller got is invalidated: the newest, or an older one.
    Invalidate(u8),
    /// The API no longer accepts the token that it saw last. The cache does not know.
    Revoke,
    /// The API continues to read the body of a request that it has responded to.
    ReadOn(u8),
    /// The runtime is dropped; another continues at the same instant.
    Restart,
    /// The runtime is stalled, and the stalled one runs again.
    Switch,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) face: Face,
    /// Which of the long-lived services; from 2 on a clone made for this request.
    pub(crate) client: u8,
    pub(crate) mark: Mark,
    /// Polls in the very moment it is woken, not soon after.
    pub(crate) eager: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `cache.get()`.
    Token,
    /// A request without a body.
    Bare,
    /// A body that is backed up as a clone.
    Clonable,
    /// A body that is recorded: so many chunks, and trailers or not.
    Stream(u8, bool),
}

/// The client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// A service of the `http` crate's types.
    Http,
    /// A service of reqwest's types.
    #[cfg(feature = "reqwest")]
    Reqwest,
    /// A client of reqwest-middleware's.
    #[cfg(feature = "reqwest-middleware")]
    Middleware,
}

pub(crate) const FACES: &[Face] = &[
    Face::Http,
    Face::Http,
    #[cfg(feature = "reqwest")]
    Face::Reqwest,
    #[cfg(feature = "reqwest-middleware")]
    Face::Middleware,
];

impl Face {
    /// It has no readiness, and sends what it is given.
    pub(crate) fn is_middleware(self) -> bool {
        match self {
            Self::Http => false,
            #[cfg(feature = "reqwest")]
            Self::Reqwest => false,
            #[cfg(feature = "reqwest-middleware")]
            Self::Middleware => true,
        }
    }

    /// Its requests have absolute URIs.
    pub(crate) fn is_absolute(self) -> bool {
        self != Self::Http
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    None,
    SkipAuth,
    NoResend,
    OwnAuthorization,
}

/// What the token source returns. Times are milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {
    New {
        life: u64,
        age: Option<u64>,
    },
    /// The current string again.
    Same {
        life: u64,
        age: Option<u64>,
    },
    /// The current string with the same end, or one that is a tenth of its life later.
    Again(Later),
    /// An earlier string.
    Former {
        back: u8,
        life: u64,
    },
    /// Not a token.
    Bad,
    Transient {
        retry_after: Option<u64>,
    },
    Permanent {
        retry_after: Option<u64>,
    },
    Panic,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Later {
    Never,
    Tenth(Edge),
}

/// How the API responds, and how many frames of the body it reads before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) what: What,
    pub(crate) read: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// 200, or 401 if the token was revoked.
    Honest,
    Status(u16),
    TransportError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    Busy,
    Broken,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    Refresh,
    Expiring,
    End,
    /// The source may be asked again.
    RefreshBackoffOver(Asker),
    FetchBackoffOver(Asker),
    /// Callers no longer wait for the flight.
    Release,
    FlightTimeout,
    NextAttempt,
    FlightOverdue,
    Refill,
}

/// Just before, at, or just after a moment: a nanosecond, or a millisecond where a timer of tokio's
/// decides.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edge {
    Before,
    At,
    After,
}

impl Edge {
    /// So far from the moment.
    pub(crate) fn of(self, moment: u64, step: u64) -> u64 {
        match self {
            Self::Before => moment.saturating_sub(step),
            Self::At => moment,
            Self::After => moment + step,
        }
    }
}
