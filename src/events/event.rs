//! What happens to tokens and requests, in the words of operators.

use std::{fmt, sync::Arc, time::Duration};

use crate::error::{Error, token_endpoint::TokenEndpoint};

/// Something that operators count. See [the page on signals](crate::docs::signals) for what each
/// one means and how it is traced and counted.
///
/// No event has a secret in it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A token came in, and there was none before it that could be used.
    Fetched(FetchedToken),
    /// A token came in while the one before was still good.
    Refreshed(FetchedToken),
    /// An attempt of a fetch failed in a way that may pass; it is made again.
    #[non_exhaustive]
    Retrying {
        /// What it failed of.
        error: &'a Error,
        /// The attempt that failed, counted from 1.
        attempt: u32,
        /// How long until the next one.
        wait: Duration,
    },
    /// A fetch failed, after all of its attempts.
    #[non_exhaustive]
    Failed {
        /// What it failed of.
        error: &'a Error,
        /// Why a token was wanted.
        reason: FetchReason,
        /// How often the source was asked.
        attempts: u32,
        /// From the beginning of the first attempt to the end of the last.
        latency: Duration,
        /// The current token is still good: requests go on with it.
        serving: bool,
        /// The earliest moment of the next fetch, from now.
        retry_in: Duration,
    },
    /// A request, or a call of [`TokenCache::get`](crate::TokenCache::get), got a token that should
    /// have been replaced: its refresh is due and failed, or the API rejected it and it could not
    /// be replaced.
    #[non_exhaustive]
    ServedWhileFailing {
        /// The token's.
        generation: u64,
    },
    /// The API answered 401 to a token, and was believed.
    #[non_exhaustive]
    Rejected {
        /// The token's.
        generation: u64,
        /// This answer took the token out of use. Else it was out already, or there is a newer one.
        first: bool,
    },
    /// The API answered 401 to a token, and nothing was fetched for it: the budget is used up.
    #[non_exhaustive]
    OverBudget {
        /// The token's. It stays in use.
        generation: u64,
        /// The first since a 401 was believed.
        first: bool,
    },
    /// A token was taken out of use by [`TokenCache::invalidate`](crate::TokenCache::invalidate).
    #[non_exhaustive]
    Invalidated {
        /// The token's.
        generation: u64,
    },
    /// A request is sent for the second time.
    #[non_exhaustive]
    Resent {
        /// The new token's.
        generation: u64,
    },
    /// A 401 goes to the caller, or the error that came between it and the resend.
    #[non_exhaustive]
    ResendSkipped {
        /// The generation of the token that was rejected.
        generation: u64,
        /// Why the request is not sent again.
        reason: SkipReason,
    },
}

/// A token that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedToken {
    /// Which token of its cache it is. One whose life was extended keeps its number.
    pub generation: u64,
    /// Why it was wanted.
    pub reason: FetchReason,
    /// Who gave it. `None` if that was none of Klavi's endpoints.
    pub endpoint: Option<TokenEndpoint>,
    /// How often the source was asked.
    pub attempts: u32,
    /// How long it lives.
    pub lifetime: Duration,
    /// From the beginning of the first attempt to the end of the last.
    pub latency: Duration,
    /// The fetch before this one had failed.
    pub recovered: bool,
}

/// Why a token is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchReason {
    /// There is none yet.
    First,
    /// The current one is still good, and renewal is due.
    Refresh,
    /// The current one has expired.
    Expired,
    /// The API answered 401 to the current one.
    Rejected,
    /// The current one was invalidated.
    Invalidated,
}

impl FetchReason {
    /// As in the fields of traces and the labels of metrics.
    pub fn as_str(self) -> &'static str {
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

/// Why a request that got a 401 is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// It was sent twice already.
    RejectedAgain,
    /// The layer, or the request, has resending switched off.
    Disabled,
    /// Its body cannot be sent twice, or is longer than what is kept.
    NoBackup,
    /// A new token could not be had, or was lost again before the request could be sent.
    NoToken,
    /// The inner service failed while it was readied.
    NotReady,
    /// The budget for replacing rejected tokens is used up.
    OverBudget,
}

impl SkipReason {
    /// As in the fields of traces and the labels of metrics.
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

/// Hears of every [`Event`] of a cache and of the layers that use it: for those who use neither
/// `tracing` nor the `metrics` facade. Any closure over an event is one.
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
/// It is called where the event happens, in the fetch's task or in the poll of a request, while no
/// lock is held: it should be quick. The event of a fetch comes before its waiters are woken.
///
/// # Recursion
///
/// An observer may call the cache, but what that call causes is an event too, and comes to the same
/// observer before the call returns: an observer that asks for a token whenever one was served
/// while failing never returns. Send the event to a task of your own (a channel, `tokio::spawn`)
/// and call the cache there.
///
/// # Panics
///
/// A panic of an observer reaches the request that it was called for. In the fetch's task it loses
/// nothing but the rest of that task: the waiters look at the cache again.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// For an observer that its owner asks later what it has heard.
impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }
}
