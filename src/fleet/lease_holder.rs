//! The process that fetches for all: it extends its lease while the fetch runs, and publishes the
//! token.
//!
//! Fetch and heartbeat are one future. If it is dropped, both stop, and the lease ends by itself
//! within three seconds.

use std::{convert::Infallible, pin::pin, sync::atomic::Ordering, time::Duration};

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    record::Record,
    source::FleetSource,
    steps::{Caller, Permit, Published},
    token_conversions::{aged, id, publication},
    update_record::Access,
};
use crate::{
    error::{Error, token_endpoint::TokenEndpoint},
    events::fleet::FleetEvent,
    token::{new_token::NewToken, source::TokenRequest},
};

/// How often the holder extends its lease.
const HEARTBEAT: Duration = Duration::from_secs(1);

impl FleetSource {
    /// Fetches under a permit. `None`: ask again.
    pub(super) async fn fetch_for_all(
        &self,
        access: &Access<'_>,
        caller: &Caller,
        permit: Permit,
        request: TokenRequest,
        until: Instant,
    ) -> Option<Result<NewToken, Error>> {
        let started = Instant::now();
        let fetched = self.fetch_with_heartbeat(access, caller, permit, request, until);
        match fetched.await {
            Ok(new) if new.expires_at(started) > Instant::now() => {
                self.publish(access, caller, permit, new, started).await
            }
            // Not published: every process would adopt it and fail.
            Ok(_expired) => {
                let message = "the new access token has already expired";
                let error = Error::invalid_response(message);
                Some(self.fail(access, caller, permit, error).await)
            }
            Err(error) => Some(self.fail(access, caller, permit, error).await),
        }
    }

    async fn fetch_with_heartbeat(
        &self,
        access: &Access<'_>,
        caller: &Caller,
        permit: Permit,
        request: TokenRequest,
        until: Instant,
    ) -> Result<NewToken, Error> {
        let fetch = self.inner.fetch(request);
        let heartbeat = pin!(self.heartbeat(access, caller, permit));
        // Ends before the cache drops the fetch, so that the lease can still be released.
        match timeout_at(until, select(fetch, heartbeat)).await {
            Ok(Either::Left((result, _))) => result,
            Ok(Either::Right((never, _))) => match never {},
            Err(_elapsed) => Err(Error::timeout()),
        }
    }

    /// Extends the lease every second. The store may fail for half a second each time: the next
    /// heartbeat comes before the lease ends.
    async fn heartbeat(&self, access: &Access<'_>, caller: &Caller, permit: Permit) -> Infallible {
        let extend = |record: &mut Record, _| {
            record.epoch == permit.epoch && record.extend(caller.me, permit.seq)
        };
        loop {
            sleep(HEARTBEAT).await;
            // A failure is ignored: the next heartbeat may succeed, and a fetch without a lease can
            // still be published. Without the breaker, which would stop the heartbeats for 5 s.
            let _ = access.run(&extend, HEARTBEAT / 2).await;
        }
    }

    async fn publish(
        &self,
        access: &Access<'_>,
        caller: &Caller,
        permit: Permit,
        new: NewToken,
        started: Instant,
    ) -> Option<Result<NewToken, Error>> {
        let (id, expires_at) = (id(new.text()), new.expires_at(started));
        let lifetime = new.lifetime();
        let published = access.end(|record, is_empty| {
            // Measured in each attempt, because a store that fails delays the last one.
            let left = expires_at.saturating_duration_since(Instant::now());
            record.publish(caller, permit, &publication(&new, left), is_empty)
        });
        let done = match published.await {
            Ok(done) => done,
            Err(trouble) => {
                // The token is good for this process, even if the others do not get it.
                self.may_hold_lease.store(true, Ordering::Relaxed);
                self.report_alone(&trouble);
                self.held.remember(id, None, expires_at, lifetime);
                return Some(Ok(aged(new, started)));
            }
        };
        let current = done.record.token.as_ref();
        // If the response to the swap was lost, the other publication is this one.
        let is_own = current.is_some_and(|token| token.id == id);
        match done.outcome {
            Published::AskAgain => return None,
            Published::Adopt if is_own => {}
            Published::Accepted { lapsed } => {
                if lapsed {
                    self.emit(FleetEvent::LeaseLapsed {});
                }
            }
            Published::Adopt => {
                self.emit(FleetEvent::PublicationLost {});
                return Some(self.adopt(&done, false));
            }
            Published::Lost => {
                self.emit(FleetEvent::PublicationLost {});
                self.held.remember(id, None, expires_at, lifetime);
                return Some(Ok(aged(new, started)));
            }
        }
        let number = current.map(|token| (done.record.epoch, token.seq));
        self.held.remember(id, number, expires_at, lifetime);
        self.emit(FleetEvent::Published {
            remaining: expires_at.saturating_duration_since(Instant::now()),
        });
        Some(Ok(aged(new, started)))
    }

    /// Ends a fetch that failed. Shares the `Retry-After` of the issuer, and nothing else: a
    /// process whose network fails must not stop the others.
    async fn fail(
        &self,
        access: &Access<'_>,
        caller: &Caller,
        permit: Permit,
        error: Error,
    ) -> Result<NewToken, Error> {
        let is_refresh = error.endpoint() == Some(TokenEndpoint::Refresh);
        let pause = error.retry_after().map(|pause| (pause, is_refresh));
        match access
            .end(|record, _| record.failed(caller, Some(permit), pause))
            .await
        {
            Ok(done) => self.adopt_or(&done, error),
            Err(_) => {
                self.may_hold_lease.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}
