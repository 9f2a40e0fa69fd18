//! A source that many caches share, as the token endpoints of one Klavi.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use klavi_auth::{
    Error, FetchFuture, Fleet, FleetStore, Identity, IdentityFuture, NewToken, Predecessor,
    TokenCache, TokenCacheBuilder, TokenRequest, TokenSource,
};
use tokio::time::sleep;

use crate::support::LIFETIME;

/// Tokens `t1`, `t2`, …, each after `latency`.
#[derive(Clone)]
pub(crate) struct Issuer(Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) latency: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) error: Option<Error>,
    /// Why each fetch was asked for.
    pub(crate) asked: Vec<&'static str>,
    issued: usize,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            latency: Duration::from_millis(100),
            lifetime: LIFETIME,
            error: None,
            asked: Vec::new(),
            issued: 0,
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn fetches(&self) -> usize {
        self.state().asked.len()
    }

    /// A member of the fleet, in the configuration of one process.
    pub(crate) fn builder(&self, fleet: Fleet) -> TokenCacheBuilder {
        TokenCache::builder(self.clone())
            .randomness(|| 0.5)
            .fleet(fleet)
    }

    pub(crate) fn cache(&self, store: &Arc<impl FleetStore>) -> TokenCache {
        self.builder(Fleet::new(Arc::clone(store))).build().unwrap()
    }
}

impl TokenSource for Issuer {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        let latency = {
            let mut state = self.state();
            state.asked.push(match request.predecessor() {
                Predecessor::None => "none",
                Predecessor::Live(_) => "live",
                Predecessor::Expired(_) => "expired",
                Predecessor::Rejected(_) => "rejected",
                _ => "other",
            });
            state.latency
        };
        Box::pin(async move {
            sleep(latency).await;
            let mut state = self.state();
            if let Some(error) = &state.error {
                return Err(error.clone());
            }
            state.issued += 1;
            NewToken::new(&format!("t{}", state.issued), state.lifetime)
        })
    }

    fn identity(&self) -> Option<IdentityFuture<'_>> {
        Some(Box::pin(async { Ok(Identity::new("issuer")) }))
    }
}
