//! What the tests of 401s share: layers, and APIs that reject tokens.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::Response;
use klavi_auth::{Budget, Error, KlaviApi, KlaviAuthLayer, Product, TokenCache, TokenSource};
use tokio::sync::watch;

use crate::support::{
    api::{Api, Body, ok, status},
    secs,
};

/// The path to which [`picky`] answers 401.
pub(crate) const BAD: &str = "/monitor/bad";
/// A path that is always fine.
pub(crate) const GOOD: &str = "/monitor/good";

pub(crate) fn layer(source: impl TokenSource) -> KlaviAuthLayer {
    layer_of(TokenCache::new(source))
}

pub(crate) fn layer_of(cache: TokenCache) -> KlaviAuthLayer {
    KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache)
}

/// A cache whose draws are all 1 and whose budget is `burst`; nothing is refilled while a test
/// runs.
pub(crate) fn frugal(burst: u32, source: impl TokenSource) -> TokenCache {
    let year = secs(365 * 24 * 60 * 60);
    TokenCache::builder(source)
        .randomness(|| 1.0)
        .budget(Budget::default().burst(burst).full_refill(year))
        .build()
        .unwrap()
}

pub(crate) fn only(bearer: &'static str) -> Api {
    Api::accepting(move |seen| seen == bearer)
}

/// Answers 401 to [`BAD`], unless the bearer is `accepted`, and 200 to all other paths.
pub(crate) fn picky(accepted: &'static str) -> Api {
    Api::new(move |seen| {
        let is_rejected = seen.uri.path() == BAD && seen.authorization() != [accepted];
        std::future::ready(if is_rejected {
            status(401, "no")
        } else {
            ok("fine")
        })
    })
}

/// Answers 401 to everything but `bearer`, and not before the test says so.
pub(crate) fn gated(bearer: &'static str) -> (Api, watch::Sender<bool>) {
    let (open, gate) = watch::channel(false);
    let count = Arc::new(AtomicUsize::new(0));
    let api = Api::new(move |seen| {
        let (mut gate, number) = (gate.clone(), count.fetch_add(1, Ordering::SeqCst));
        async move {
            if seen.authorization() == [bearer] {
                return ok("fine");
            }
            gate.wait_for(|open| *open).await?;
            status(401, ["a", "b", "c", "d"][number % 4])
        }
    });
    (api, open)
}

/// Why there was no resend.
pub(crate) fn error_of(response: &Response<Body>) -> Option<&Error> {
    response.extensions().get()
}
