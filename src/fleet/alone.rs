//! The process that fetches for itself alone, because the store fails.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep};

use super::{
    record::Record,
    source::FleetSource,
    token_conversions::{aged, id},
    trouble::Trouble,
    update_record::Access,
};
use crate::{
    error::Error,
    events::fleet::{AloneReason, FleetEvent},
    token::{new_token::NewToken, source::TokenRequest},
};

/// How often a process that is alone tries to drop its lease.
const RELEASE_PAUSE: Duration = Duration::from_millis(100);

/// The patience with the store in one such attempt.
const RELEASE_PATIENCE: Duration = Duration::from_millis(250);

impl FleetSource {
    /// The inner source alone, as without a fleet.
    pub(super) async fn go_alone(
        &self,
        access: Option<&Access<'_>>,
        request: TokenRequest,
        trouble: &Trouble,
    ) -> Result<NewToken, Error> {
        self.report_alone(trouble);
        // An error with a cause: the store was asked, and may have given the lease.
        if trouble.reason == AloneReason::Store && trouble.error.is_some() {
            self.may_hold_lease.store(true, Ordering::Relaxed);
        }
        let started = Instant::now();
        let new = self.fetch_alone(access, request).await?;
        // Without a publication: the others do not know this token.
        self.held.remember(
            id(new.text()),
            None,
            new.expires_at(started),
            new.lifetime(),
        );
        Ok(aged(new, started))
    }

    pub(super) fn report_alone(&self, trouble: &Trouble) {
        let first = !self.is_alone.swap(true, Ordering::Relaxed);
        self.emit(FleetEvent::Alone {
            reason: trouble.reason,
            first,
            error: trouble.error.as_deref(),
        });
    }

    /// Fetches alone. Meanwhile drops a lease that the process may have, because the others would
    /// wait until it ends.
    async fn fetch_alone(
        &self,
        access: Option<&Access<'_>>,
        request: TokenRequest,
    ) -> Result<NewToken, Error> {
        let fetch = self.inner.fetch(request);
        let is_needed = self.may_hold_lease.load(Ordering::Relaxed);
        let Some(access) = access.filter(|_| is_needed) else {
            return fetch.await;
        };
        // At the same time: the store fails, so dropping the lease first would delay the caller.
        match select(fetch, pin!(self.release(access))).await {
            // The lease ends by itself, or the next fetch alone drops it.
            Either::Left((result, _)) => result,
            Either::Right(((), fetch)) => fetch.await,
        }
    }

    /// Drops the lease of this process as soon as the store responds.
    async fn release(&self, access: &Access<'_>) {
        let release = |record: &mut Record, _| record.release(self.me);
        // Not `end`: with each attempt that fails, the break of 5 s would start again.
        while let Err(trouble) = access.run(&release, RELEASE_PATIENCE).await {
            // A record that this process cannot read has none of its leases.
            if trouble.reason != AloneReason::Store {
                return;
            }
            sleep(RELEASE_PAUSE).await;
        }
        self.may_hold_lease.store(false, Ordering::Relaxed);
    }
}
