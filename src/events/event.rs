//! The events that operators count.

use std::{fmt, sync::Arc, time::Duration};

use super::fleet::FleetEvent;
use crate::error::{Error, token_endpoint::TokenEndpoint};

/// Something that happened to a token or a request.
///
/// An [`Observer`] gets each event. The same events go to `tracing` and to the `metrics` facade:
/// see [the page on signals](crate::docs::signals) for names, levels and labels.
///
/// No event contains a secret.
///
/// ```
/// use klavi_auth::Event;
///
/// /// The text of an alert, if the event deserves one.
/// fn alert(event: &Event<'_>) -> Option<String> {
///     match event {
///         Event::Failed { error, serving: false, retry_in, .. } => {
///             Some(format!("no token ({error}), next fetch in {retry_in:.0?}"))
///         }
///         Event::OverBudget { first: true, .. } => Some("the API rejects fresh tokens".into()),
///         _ => None,
///     }
/// }
/// # let _ = alert;
/// ```
// It borrows, so an event costs no allocation where nobody listens.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
// Variants with fields are `non_exhaustive` too, since later versions may add fields.
pub enum Event<'a> {
    /// A fetch succeeded while there was no valid token.
    Fetched(FetchedToken),
    /// A fetch succeeded while the previous token was still valid.
    Refreshed(FetchedToken),
    /// An attempt of a fetch failed with a transient error and will be repeated.
    #[non_exhaustive]
    Retrying {
        /// Why it failed.
        error: &'a Error,
        /// The attempt that failed, counted from 1.
        attempt: u32,
        /// The delay before the next attempt.
        wait: Duration,
    },
    /// A fetch failed, after all of its attempts.
    #[non_exhaustive]
    Failed {
        /// Why it failed.
        error: &'a Error,
        /// Why a token was fetched.
        reason: FetchReason,
        /// How many attempts were made.
        attempts: u32,
        /// From the start of the first attempt to the end of the last.
        latency: Duration,
        /// Whether the current token is still valid, so that requests continue with it.
        serving: bool,
        /// How long until the next fetch may start.
        retry_in: Duration,
    },
    /// A request, or a call to [`TokenCache::get`](crate::TokenCache::get), got a token that could
    /// not be replaced in time: its refresh failed, or the API rejected it and the fetch failed.
    #[non_exhaustive]
    ServedWhileFailing {
        /// The generation of the token.
        generation: u64,
    },
    /// The API responded with 401 to a request with the token, within the budget.
    #[non_exhaustive]
    Rejected {
        /// The generation of the token.
        generation: u64,
        /// Whether this 401 rejected the token. Otherwise the token was already rejected or
        /// replaced.
        first: bool,
        /// The age of the token that this 401 rejected. `None` if not `first`.
        ///
        /// If tokens are rejected seconds after they were issued, again and again, another program
        /// uses the same keys, and each new token revokes the other's.
        age: Option<Duration>,
    },
    /// The API responded with 401 to a request with the token, and the budget for replacing
    /// rejected tokens is used up: nothing is fetched.
    #[non_exhaustive]
    OverBudget {
        /// The generation of the token, which stays in use.
        generation: u64,
        /// Whether this is the first such 401 since the last one within the budget.
        first: bool,
    },
    /// [`TokenCache::invalidate`](crate::TokenCache::invalidate) invalidated a token.
    #[non_exhaustive]
    Invalidated {
        /// The generation of the token.
        generation: u64,
    },
    /// A request is resent.
    #[non_exhaustive]
    Resent {
        /// The generation of the new token.
        generation: u64,
    },
    /// A request is not resent. Its 401, or the error that prevented the resend, goes to the
    /// caller.
    #[non_exhaustive]
    ResendSkipped {
        /// The generation of the rejected token.
        generation: u64,
        /// Why the request is not resent.
        reason: SkipReason,
    },
    /// Something happened between the cache and the store that its fleet shares.
    Fleet(FleetEvent<'a>),
}

/// A token that a fetch returned.
///
/// ```
/// use klavi_auth::Event;
///
/// /// Worth a line in the log: a token that took long.
/// fn is_slow(event: &Event<'_>) -> bool {
///     match event {
///         Event::Fetched(token) | Event::Refreshed(token) => token.latency.as_secs() >= 1,
///         _ => false,
///     }
/// }
/// # let _ = is_slow;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedToken {
    /// The number of the token in its cache. A token whose lifetime was extended keeps its number.
    pub generation: u64,
    /// Why it was fetched.
    pub reason: FetchReason,
    /// The endpoint that issued it. `None` if the source did not name one.
    pub endpoint: Option<TokenEndpoint>,
    /// How many attempts were made.
    pub attempts: u32,
    /// How long it is valid.
    pub lifetime: Duration,
    /// From the start of the first attempt to the end of the last.
    pub latency: Duration,
    /// Whether the previous fetch failed.
    pub recovered: bool,
}

/// Why a token is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchReason {
    /// There is no token yet.
    First,
    /// The current token is valid, and its refresh is due.
    Refresh,
    /// The current token has expired.
    Expired,
    /// The API responded with 401 to a request with the current token.
    Rejected,
    /// The current token was invalidated.
    Invalidated,
}

impl FetchReason {
    /// The name in trace fields and metric labels.
    ///
    /// ```
    /// assert_eq!(klavi_auth::FetchReason::Expired.as_str(), "expired");
    /// ```
    pub fn as_str(self) -> &'static str {
        // Not the names of the variants: dashboards depend on these.
        match self {
            Self::First => "first",
            Self::Refresh => "refresh",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Invalidated => "invalidated",
        }
    }
}

impl fmt::Display for FetchReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request that got a 401 is not resent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// The resend got a 401 too.
    RejectedAgain,
    /// Resending is switched off, for the layer or for this request.
    Disabled,
    /// The body cannot be sent twice, or exceeds the limit for recorded bodies.
    NoBackup,
    /// The fetch failed, or the new token became invalid before the resend.
    NoToken,
    /// The inner service failed to become ready.
    NotReady,
    /// The budget for replacing rejected tokens is used up.
    OverBudget,
}

impl SkipReason {
    /// The name in trace fields and metric labels.
    ///
    /// ```
    /// assert_eq!(klavi_auth::SkipReason::NoBackup.as_str(), "no_backup");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RejectedAgain => "rejected_again",
            Self::Disabled => "disabled",
            Self::NoBackup => "no_backup",
            Self::NoToken => "no_token",
            Self::NotReady => "not_ready",
            Self::OverBudget => "over_budget",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Receives every [`Event`] of a cache and of the layers that use it.
///
/// Implement it, or pass a closure, to count events without `tracing` or the `metrics` facade:
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use klavi_auth::{Event, TokenCache};
/// # use std::time::Duration;
/// # use klavi_auth::{NewToken, source_fn};
/// # let source = source_fn(async |_| NewToken::new("token", Duration::from_secs(1800)));
///
/// let resent = Arc::new(AtomicU64::new(0));
/// let count = Arc::clone(&resent);
/// let cache = TokenCache::builder(source)
///     .observer(move |event: &Event<'_>| {
///         if let Event::Resent { .. } = event {
///             count.fetch_add(1, Ordering::Relaxed);
///         }
///     })
///     .build()?;
/// # let _ = cache;
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
///
/// The observer runs where the event happens, in the task of the fetch or in the poll of a request,
/// and under no lock. It should return quickly, since the event of a fetch comes before its waiters
/// are woken.
///
/// # Recursion
///
/// An observer may call the cache. The events of that call reach the same observer before the call
/// returns: an observer that gets a token on every [`Event::ServedWhileFailing`] never returns.
/// Send the event to a task of your own (a channel, `tokio::spawn`) and call the cache there.
///
/// # Panics
///
/// A panic of an observer is caught, and costs neither the request nor the fetch. The observer gets
/// the events that follow.
pub trait Observer: Send + Sync + 'static {
    /// Receives one event.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Shares an observer with code that reads its state later.
impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn on_event(&self, event: &Event<'_>) {
        // Not `self.on_event`, which is this very function.
        (**self).on_event(event);
    }
}
