//! A fixed token that the API rejects: each request gets its own 401, and nobody is called more
//! often for it.

use klavi_auth::{Error, KlaviApi, KlaviAuthLayer, Product, TokenCache};
use tower::{Layer, ServiceExt};

use crate::support::{
    api::{Api, get},
    pass, secs,
};

#[tokio::test(start_paused = true)]
async fn a_rejected_fixed_token_stays_in_use_and_nothing_is_resent() {
    let api = Api::accepting(|_| false);
    let tokens = TokenCache::fixed("a-token").unwrap();
    let service = KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), tokens.clone())
        .layer(api.clone());
    for calls in 1..=100 {
        let response = service.clone().oneshot(get("/monitor/x")).await.unwrap();
        assert_eq!(response.status(), 401);
        let error = response.extensions().get::<Error>().expect("the reason");
        assert!(error.is_no_token(), "{error:?}");
        assert_eq!(api.calls(), calls, "each request is sent once");
        pass(secs(1)).await;
    }
    assert!(tokens.snapshot().is_suspect());
    assert_eq!(tokens.snapshot().generation(), Some(1));
}
