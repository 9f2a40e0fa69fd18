//! Layers in front of the API, and what travels with its responses.

use http::Response;
use klavi_auth::{Budget, Error, KlaviApi, KlaviAuthLayer, Product, TokenCache, TokenSource};

use crate::support::{api::Body, secs};

pub const MONITORS: &str = "https://api.klavi.ai/monitor/v1/monitors";

pub fn monitor_api() -> KlaviApi {
    KlaviApi::production(Product::Monitor)
}

pub fn data_api() -> KlaviApi {
    KlaviApi::production(Product::Data)
}

pub fn layer_of(cache: TokenCache) -> KlaviAuthLayer {
    KlaviAuthLayer::new(&monitor_api(), cache)
}

pub fn monitor_layer(source: impl TokenSource) -> KlaviAuthLayer {
    layer_of(TokenCache::new(source))
}

/// A cache whose draws are all 1 and whose budget is `burst`; nothing is refilled while a test
/// runs.
pub fn frugal(burst: u32, source: impl TokenSource) -> TokenCache {
    let year = secs(365 * 24 * 60 * 60);
    TokenCache::builder(source)
        .randomness(|| 1.0)
        .budget(Budget::default().burst(burst).full_refill(year))
        .build()
        .unwrap()
}

/// Why there was no resend.
pub fn error_of(response: &Response<Body>) -> Option<&Error> {
    response.extensions().get()
}
