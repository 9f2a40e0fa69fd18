//! A cache of one token that does not change.

use klavi_auth::{ConfigError, TokenCache};

use crate::support::{pass, secs};

#[tokio::test(start_paused = true)]
async fn a_fixed_token_never_expires() {
    let cache = TokenCache::fixed("a-token").unwrap();
    for years in 0..3 {
        let token = cache.get().await.unwrap();
        assert_eq!(
            (token.expose(), token.header_value().to_str().unwrap()),
            ("a-token", "Bearer a-token")
        );
        assert!(cache.snapshot().is_ready(), "after {years} years");
        pass(secs(366 * 86_400)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fixed_token_is_lost_once_it_is_invalidated() {
    let cache = TokenCache::fixed("a-token").unwrap();
    cache.invalidate(&cache.get().await.unwrap());
    for _ in 0..3 {
        let error = cache.get().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the access token was rejected and no new one could be fetched"
        );
        pass(secs(3600)).await;
    }
}

#[test]
fn case_7_a_fixed_token_that_cannot_be_a_header_is_an_error() {
    for (token, why) in [
        ("", "is empty"),
        ("a b", "has characters that a header cannot have"),
        ("a\n", "has characters"),
    ] {
        let error = TokenCache::fixed(token).unwrap_err();
        assert!(matches!(error, ConfigError::InvalidCredential("token", _)));
        assert!(
            error
                .to_string()
                .starts_with(&format!("the token cannot be used: the access token {why}"))
        );
    }
}
