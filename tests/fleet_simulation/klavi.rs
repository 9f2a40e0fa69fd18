//! A simulated Klavi: its token endpoints as a source, and its API.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use klavi_auth::{
    Error, FetchFuture, Identity, IdentityFuture, NewToken, Predecessor, TokenRequest, TokenSource,
};
use tokio::time::{Instant, sleep};

use crate::{
    chance::Chance,
    process::Life,
    schedule::{Fault, Schedule},
};

pub(crate) struct Klavi {
    pub(crate) schedule: Schedule,
    pub(crate) start: Instant,
    pub(crate) chance: Chance,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    issued: usize,
    /// The tokens that the API accepts.
    living: Vec<(usize, Instant)>,
    pub(crate) fetches: Vec<Fetch>,
    open: usize,
}

/// One call of a token endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fetch {
    pub(crate) at: Duration,
    /// When it ended, with or without a result. Zero if it has not.
    pub(crate) until: Duration,
    pub(crate) process: usize,
    /// How many calls were under way when it began, with itself.
    pub(crate) open: usize,
    pub(crate) outcome: Option<usize>,
}

impl Klavi {
    pub(crate) fn new(schedule: &Schedule) -> Arc<Self> {
        Arc::new(Self {
            schedule: schedule.clone(),
            start: Instant::now(),
            chance: Chance::new(schedule.seed ^ 0xABCD),
            state: Mutex::default(),
        })
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn revoke(&self) {
        self.state().living.clear();
    }

    /// Whether the API accepts a request with this token now.
    pub(crate) fn accepts(&self, token: &str) -> bool {
        let (now, schedule) = (self.now(), &self.schedule);
        let is_spurious = schedule.is_on(Fault::Spurious, now) && self.chance.part() < 0.2;
        if is_spurious || schedule.is_on(Fault::RejectsAll, now) {
            return false;
        }
        let token: usize = token.trim_start_matches('t').parse().unwrap();
        let alive = |&(number, expires_at): &(usize, Instant)| {
            token == number && Instant::now() < expires_at
        };
        self.state().living.iter().any(alive)
    }

    fn issue(&self, may_repeat: bool) -> (usize, Duration) {
        let Schedule {
            revokes,
            repeats,
            life,
            ..
        } = self.schedule;
        let (mut state, now) = (self.state(), Instant::now());
        state.living.retain(|&(_, expires_at)| now < expires_at);
        if let Some(&(number, expires_at)) = state.living.last().filter(|_| repeats && may_repeat) {
            return (number, expires_at - now);
        }
        state.issued += 1;
        if revokes {
            state.living.clear();
        }
        let number = state.issued;
        state.living.push((number, now + life));
        (number, life)
    }

    async fn call(&self, process: usize, request: TokenRequest) -> Result<NewToken, Error> {
        let index = {
            let mut state = self.state();
            state.open += 1;
            let fetch = Fetch {
                at: self.now(),
                until: Duration::ZERO,
                process,
                open: state.open,
                outcome: None,
            };
            state.fetches.push(fetch);
            state.fetches.len() - 1
        };
        let _open = Open(self, index);
        let is_slow = self.schedule.is_on(Fault::IssuerSlow, self.now());
        let latency = self.chance.within(20, 200) + if is_slow { 4_000 } else { 0 };
        sleep(Duration::from_millis(latency / 2)).await;
        if self.schedule.is_on(Fault::IssuerDown, self.now()) {
            return Err(Error::transient("connection refused"));
        }
        if self.schedule.is_on(Fault::Throttled, self.now()) {
            let error = Error::transient("too many requests");
            return Err(error.with_retry_after(Duration::from_secs(2)));
        }
        let is_refresh = matches!(request.predecessor(), Predecessor::Live(_));
        let (number, left) = self.issue(!is_refresh);
        self.state().fetches[index].outcome = Some(number);
        sleep(Duration::from_millis(latency / 2)).await;
        self.schedule.while_cut_off(process, self.start).await;
        NewToken::new(&format!("t{number}"), left)
    }
}

/// A call that is under way, until it is dropped.
struct Open<'a>(&'a Klavi, usize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let (now, mut state) = (self.0.now(), self.0.state());
        state.open -= 1;
        state.fetches[self.1].until = now;
    }
}

/// The token endpoints, as one process calls them.
pub(crate) struct Endpoints {
    pub(crate) klavi: Arc<Klavi>,
    pub(crate) process: usize,
    pub(crate) life: Life,
}

impl TokenSource for Endpoints {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        Box::pin(async move {
            let call = self.klavi.call(self.process, request);
            self.life.of(call).await
        })
    }

    fn identity(&self) -> Option<IdentityFuture<'_>> {
        Some(Box::pin(async { Ok(Identity::new("simulation")) }))
    }
}
