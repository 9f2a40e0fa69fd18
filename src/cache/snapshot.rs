//! The state of a cache at one moment, for health endpoints.

use std::time::Duration;

use tokio::time::Instant;

use super::policy::Freshness;
use super::{current::Status, state::State};
use crate::error::Error;

/// The state of a [`TokenCache`](crate::TokenCache) at one moment. Taking it fetches nothing.
///
/// Two are equal if they say the same, and if their errors are clones of one error.
#[derive(Clone, Debug)]
pub struct Snapshot {
    token: Option<TokenTimes>,
    is_ready: bool,
    fetching: bool,
    last_error: Option<Error>,
    retry_in: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct TokenTimes {
    generation: u64,
    status: Status,
    freshness: Freshness,
    age: Duration,
    refresh_in: Duration,
    expires_in: Duration,
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            token,
            is_ready,
            fetching,
            last_error,
            retry_in,
        } = self;
        let has_same_error = match (last_error, &other.last_error) {
            (Some(error), Some(other)) => error.is_clone_of(other),
            (None, None) => true,
            _ => false,
        };
        has_same_error
            && (token, is_ready, fetching, retry_in)
                == (
                    &other.token,
                    &other.is_ready,
                    &other.fetching,
                    &other.retry_in,
                )
    }
}

impl Snapshot {
    pub(super) fn of(state: &State, now: Instant) -> Self {
        let token = state.current.as_ref().map(|current| TokenTimes {
            generation: current.token.generation(),
            status: current.status,
            freshness: current.schedule.freshness(now),
            age: current.schedule.age(now),
            refresh_in: current.schedule.refresh_at.saturating_duration_since(now),
            expires_in: current.schedule.expires_at.saturating_duration_since(now),
        });
        let failures = state.failures(now);
        let retry_in = failures
            .retry_at(state.fetch_mode(now))
            .map(|at| at.saturating_duration_since(now));
        Self {
            token,
            is_ready: state.valid_token(now, None).is_some(),
            fetching: state.waiter().is_some(),
            last_error: failures
                .last_error()
                .or_else(|| state.backoffs.refresh.last_error())
                .cloned(),
            retry_in: retry_in.filter(|wait| !wait.is_zero()),
        }
    }

    /// There is a token that can be sent now: the answer for a readiness probe.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Where the token stands in its life, `None` if there never was one.
    pub fn freshness(&self) -> Option<Freshness> {
        self.token.map(|token| token.freshness)
    }

    /// The token was rejected by the API, or invalidated, and is out of use; a new one is needed.
    pub fn is_rejected(&self) -> bool {
        self.token
            .is_some_and(|token| matches!(token.status, Status::Rejected | Status::Invalidated))
    }

    /// The token was rejected by the API, and is in use again because its replacement failed.
    pub fn is_suspect(&self) -> bool {
        self.token
            .is_some_and(|token| token.status == Status::Suspect)
    }

    /// The token's number in this cache, counted from 1.
    pub fn generation(&self) -> Option<u64> {
        self.token.map(|token| token.generation)
    }

    /// How old the token is.
    pub fn age(&self) -> Option<Duration> {
        self.token.map(|token| token.age)
    }

    /// The time until its renewal is due; zero if it is.
    pub fn refresh_in(&self) -> Option<Duration> {
        self.token.map(|token| token.refresh_in)
    }

    /// The time until it expires; zero if it has.
    pub fn expires_in(&self) -> Option<Duration> {
        self.token.map(|token| token.expires_in)
    }

    /// A fetch is under way.
    pub fn is_fetching(&self) -> bool {
        self.fetching
    }

    /// Why the last fetch failed; `None` after a success.
    pub fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// After a failure, the time until the token source is asked again.
    pub fn retry_in(&self) -> Option<Duration> {
        self.retry_in
    }
}
