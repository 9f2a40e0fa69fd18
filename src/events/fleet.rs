//! What a process does as a member of a fleet.

use std::{error::Error as StdError, fmt, time::Duration};

/// What happened between a cache and the store that its fleet shares.
///
/// [The page on fleets](crate::docs::fleet) has the details. Without a fleet there are no such
/// events.
///
/// ```
/// use klavi_auth::{Event, FleetEvent};
///
/// /// The text of an alert, if the event deserves one.
/// fn alert(event: &Event<'_>) -> Option<String> {
///     match event {
///         Event::Fleet(FleetEvent::Alone { reason, first: true, .. }) => {
///             Some(format!("the token is not shared: {reason}"))
///         }
///         _ => None,
///     }
/// }
/// # let _ = alert;
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum FleetEvent<'a> {
    /// The cache took over a token that another process had fetched.
    #[non_exhaustive]
    Adopted {
        /// Whether the API has rejected the token, and it is used because there is no better one.
        as_suspect: bool,
        /// How long the token still lives, by the store's clock.
        remaining: Duration,
    },
    /// This process fetched a token for the whole fleet.
    #[non_exhaustive]
    Published {
        /// How long the token lives.
        remaining: Duration,
    },
    /// The cache waited for the fetch of another process.
    #[non_exhaustive]
    Waited {
        /// For how long.
        wait: Duration,
    },
    /// The fleet does not fetch now.
    #[non_exhaustive]
    Denied {
        /// Why not.
        reason: DenyReason,
        /// How long until it may fetch.
        retry_in: Duration,
    },
    /// This process fetched for itself alone, as without a fleet.
    #[non_exhaustive]
    Alone {
        /// Why.
        reason: AloneReason,
        /// Whether it shared before.
        first: bool,
        /// The store's error, if there was one.
        error: Option<&'a (dyn StdError + Send + Sync + 'static)>,
    },
    /// This process fetched a token, but another token was published in the meantime.
    #[non_exhaustive]
    PublicationLost {},
    /// The lease of this process ended before its fetch did: the process stood still, or the store
    /// lost its data.
    #[non_exhaustive]
    LeaseLapsed {},
}

/// Why a fleet does not fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DenyReason {
    /// The fleet's budget for replacing rejected tokens is used up.
    Budget,
    /// The token endpoint named a `Retry-After`, to this or to another process.
    RetryAfter,
}

impl DenyReason {
    /// The name in trace fields and metric labels.
    ///
    /// ```
    /// assert_eq!(klavi_auth::DenyReason::RetryAfter.as_str(), "retry_after");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::RetryAfter => "retry_after",
        }
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a process of a fleet fetches for itself alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AloneReason {
    /// The store fails, does not respond in time, or did so in the last seconds.
    Store,
    /// The record in the store is of a newer version of this crate, or is sealed with a key that
    /// this process does not have.
    Record,
    /// The keys that identify the fleet cannot be read.
    Identity,
}

impl AloneReason {
    /// The name in trace fields and metric labels.
    ///
    /// ```
    /// assert_eq!(klavi_auth::AloneReason::Store.as_str(), "store");
    /// ```
    pub fn as_str(self) -> &'static str {
        // Not the names of the variants: dashboards depend on these.
        match self {
            Self::Store => "store",
            Self::Record => "record",
            Self::Identity => "identity",
        }
    }
}

impl fmt::Display for AloneReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
