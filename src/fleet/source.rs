//! A token source around a token source: one process of the fleet fetches for all.
//!
//! The layer does not know that there is a fleet. The cache calls `fetch` when it has no token, or
//! when its token is due for a refresh, has expired or was rejected. While it may not fetch, it
//! calls `adopt_only`. A request with a fresh token never touches the store.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{
    held_token::HeldToken,
    member::Member,
    record::Limits,
    seen_value::SeenValue,
    steps::{Asked, Caller, Found},
    token_conversions::without_refresh,
    trouble::Trouble,
    update_record::{Access, Done},
    wait::Wait,
};
use crate::{
    cache::budget::Budget,
    error::Error,
    events::{
        Events,
        event::Event,
        fleet::{AloneReason, DenyReason, FleetEvent},
    },
    token::{
        new_token::NewToken,
        shared_source::{AdoptFuture, SharedSource, Sharing},
        source::{FetchFuture, Predecessor, TokenRequest, TokenSource},
    },
};

/// How long a source may take to read its identity.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct FleetSource {
    pub(super) inner: Box<dyn TokenSource>,
    pub(super) member: Member,
    events: Arc<Events>,
    limits: Limits,
    /// The owner in the leases of this source.
    // Not of the process: two caches with one identity would both take a lease for their own.
    pub(super) me: u64,
    /// The name of the record, by the identity that was read last.
    name: Mutex<Option<Arc<str>>>,
    pub(super) held: HeldToken,
    seen: SeenValue,
    pub(super) is_alone: AtomicBool,
    /// Whether the store failed when this process may have had the lease.
    pub(super) may_hold_lease: AtomicBool,
}

impl FleetSource {
    pub(super) fn new(
        member: Member,
        source: Box<dyn TokenSource>,
        events: Arc<Events>,
        budget: Budget,
    ) -> Self {
        let (burst, interval) = budget.limits();
        Self {
            me: (member.draw)(),
            inner: source,
            member,
            events,
            limits: Limits { burst, interval },
            name: Mutex::default(),
            held: HeldToken::default(),
            seen: SeenValue::default(),
            is_alone: AtomicBool::new(false),
            may_hold_lease: AtomicBool::new(false),
        }
    }

    async fn fetch_or_adopt(&self, request: TokenRequest) -> Result<NewToken, Error> {
        let Some(name) = self.name().await else {
            let trouble = Trouble {
                reason: AloneReason::Identity,
                error: None,
            };
            return self.go_alone(None, request, &trouble).await;
        };
        let access = self.member.access(&name, self.limits, &self.seen);
        let caller = self.caller(&request);
        let mut wait = Wait::until(&request);
        loop {
            let done = match access.step(|record, _| record.ask(&caller)).await {
                Ok(done) => done,
                Err(trouble) => return self.go_alone(Some(&access), request, &trouble).await,
            };
            // The store responds again, so its next failure is a first one, which warns.
            self.is_alone.store(false, Ordering::Relaxed);
            if let Asked::Wait(left) = done.outcome {
                // Nothing notifies the process of a publication: it reads the record again.
                if !wait.is_over() {
                    wait.pause(left, &access).await;
                    continue;
                }
            }
            if let Some(wait) = wait.take() {
                self.emit(FleetEvent::Waited { wait });
            }
            match done.outcome {
                Asked::Adopt { as_suspect } => return self.adopt(&done, as_suspect),
                Asked::Wait(_) => return self.end_wait(&access, &caller).await,
                Asked::Paused { left, is_refresh } => {
                    let reason = DenyReason::RetryAfter;
                    return Err(self.denied(reason, left, Error::paused(left, is_refresh)));
                }
                Asked::Denied(left) => {
                    return Err(self.denied(DenyReason::Budget, left, Error::over_budget(left)));
                }
                Asked::Fetch {
                    permit,
                    may_refresh,
                } => {
                    let request = match may_refresh {
                        true => request.clone(),
                        false => without_refresh(request.clone()),
                    };
                    let until = wait.ends_at;
                    // `None`: the issuer repeated a token that is rejected or published already.
                    // The next round asks again.
                    if let Some(result) = self
                        .fetch_for_all(&access, &caller, permit, request, until)
                        .await
                    {
                        return result;
                    }
                }
            }
        }
    }

    /// Ends a wait that took too long, with any token that there is.
    async fn end_wait(&self, access: &Access<'_>, caller: &Caller) -> Result<NewToken, Error> {
        match access
            .step(|record, _| record.failed(caller, None, None))
            .await
        {
            Ok(done) => self.adopt_or(&done, Error::timeout()),
            // Not alone: there is no time left for a fetch.
            Err(_) => Err(Error::timeout()),
        }
    }

    async fn find_and_adopt(&self, request: TokenRequest) -> Option<NewToken> {
        let name = self.name().await?;
        let access = self.member.access(&name, self.limits, &self.seen);
        let caller = self.caller(&request);
        let mut wait = Wait::until(&request);
        loop {
            let find = access.step(|record, _| record.find_adoptable(&caller));
            // A store that fails has no token to adopt. Nobody goes alone, so there is no event.
            let done = find.await.ok()?;
            match done.outcome {
                Found::Adopt { as_suspect } => return self.adopt(&done, as_suspect).ok(),
                Found::Wait(left) if !wait.is_over() => wait.pause(left, &access).await,
                Found::Wait(_) | Found::Nothing => return None,
            }
        }
    }

    /// Uses the token of the record if it can be adopted, or fails with `error`.
    pub(super) fn adopt_or(
        &self,
        done: &Done<Option<bool>>,
        error: Error,
    ) -> Result<NewToken, Error> {
        match done.outcome {
            Some(as_suspect) => self.adopt(done, as_suspect),
            None => Err(error),
        }
    }

    /// Uses the token of the record.
    pub(super) fn adopt<T>(&self, done: &Done<T>, as_suspect: bool) -> Result<NewToken, Error> {
        // The steps adopt a token only if there is one.
        let Some(token) = &done.record.token else {
            return Err(Error::interrupted("the fleet has no token"));
        };
        // The age in the record is that of the moment at which the store was read.
        let age = token.age() + done.loaded_at.elapsed();
        let remaining = token.lifetime.saturating_sub(age);
        let mut new = NewToken::new(&token.text, token.lifetime)?;
        new.is_suspect = as_suspect;
        let publication = Some((done.record.epoch, token.seq));
        self.held.remember(
            token.id,
            publication,
            Instant::now() + remaining,
            token.lifetime,
        );
        // This token is the fleet's, so the process is with the others again.
        self.is_alone.store(false, Ordering::Relaxed);
        self.emit(FleetEvent::Adopted {
            as_suspect,
            remaining,
        });
        Ok(new.with_age(age))
    }

    fn denied(&self, reason: DenyReason, retry_in: Duration, error: Error) -> Error {
        self.emit(FleetEvent::Denied { reason, retry_in });
        error
    }

    pub(super) fn emit(&self, event: FleetEvent<'_>) {
        self.events.emit(&Event::Fleet(event));
    }

    fn caller(&self, request: &TokenRequest) -> Caller {
        Caller {
            me: self.me,
            held: self.held.of(request.predecessor()),
            is_rejected: matches!(request.predecessor(), Predecessor::Rejected(_)),
            limits: self.limits,
        }
    }

    /// The name of the record. If the identity cannot be read now, that of the last one.
    async fn name(&self) -> Option<Arc<str>> {
        // Read each time: with keys that are replaced while the program runs, the record changes.
        let identity = match self.inner.identity() {
            Some(identity) => timeout(IDENTITY_TIMEOUT, identity)
                .await
                .ok()
                .and_then(Result::ok),
            None => self.member.identity.clone(),
        };
        let mut name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = identity {
            *name = Some(self.member.name(&identity).into());
        }
        // The last one will do: without its keys a process cannot fetch, but it can still adopt.
        name.clone()
    }
}

impl TokenSource for FleetSource {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        Box::pin(self.fetch_or_adopt(request))
    }
}

impl SharedSource for FleetSource {
    fn adopt_only(&self, request: TokenRequest) -> AdoptFuture<'_> {
        Box::pin(self.find_and_adopt(request))
    }

    fn sharing(&self) -> Sharing {
        match self.is_alone.load(Ordering::Relaxed) {
            true => Sharing::Alone,
            false => Sharing::Shared,
        }
    }
}
