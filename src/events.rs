//! What operators are told: every tracing event of the crate, with its level.
//!
//! INFO is quiet on a healthy day. WARN says that something failed or was refused.

use std::{error::Error as StdError, fmt, time::Duration};

use crate::Error;

/// An error with its causes, on one line.
struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

pub(crate) fn fetched(generation: u64, first: bool, lifetime: Duration, latency: Duration) {
    if first {
        tracing::info!(generation, ?lifetime, ?latency, "access token fetched");
    } else {
        tracing::debug!(generation, ?lifetime, ?latency, "access token renewed");
    }
}

pub(crate) fn token_call(endpoint: &'static str, reason: &'static str) {
    tracing::debug!(endpoint, reason, "calling the token endpoint");
}

pub(crate) fn retried(error: &Error, attempt: u32, wait: Duration) {
    tracing::debug!(error = %Chain(error), attempt, ?wait, "token fetch failed, trying again");
}

pub(crate) fn failed(error: &Error, serving: bool, retry_in: Duration) {
    if serving {
        tracing::warn!(error = %Chain(error), ?retry_in, "token renewal failed, serving the current token");
    } else {
        tracing::warn!(error = %Chain(error), ?retry_in, "token fetch failed, there is no token");
    }
}

pub(crate) fn rejected(generation: u64) {
    tracing::info!(generation, "access token rejected by the API");
}

pub(crate) fn budget_exhausted(generation: u64, error: &Error) {
    tracing::warn!(generation, error = %Chain(error), "access token rejected once too often, keeping it");
}

pub(crate) fn invalidated(generation: u64) {
    tracing::info!(generation, "access token invalidated");
}

pub(crate) fn resent(generation: u64) {
    tracing::debug!(generation, "request resent with a new token");
}

pub(crate) fn resend_given_up(generation: u64, reason: &'static str) {
    tracing::debug!(generation, reason, "request not resent, the 401 goes to the caller");
}
