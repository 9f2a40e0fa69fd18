//! Errors of the user whose `Drop` panics.

use std::{error::Error as StdError, fmt, future::ready, time::Duration};

use crate::{
    cache::token_cache::TokenCache,
    error::Error,
    token::{new_token::NewToken, source::source_fn},
};

/// An error whose `Drop` panics.
#[derive(Debug)]
struct PanicsWhenDropped;

impl fmt::Display for PanicsWhenDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error of the user")
    }
}

impl StdError for PanicsWhenDropped {}

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("the drop of a user's error");
    }
}

#[tokio::test(start_paused = true)]
async fn case_64_a_panic_in_the_drop_of_an_error_loses_no_flight() {
    let token = || NewToken::new("token", Duration::from_secs(1800));
    let cache = TokenCache::new(source_fn(move |_| ready(token())));
    let error = Error::transient(PanicsWhenDropped);
    // As if a stalled flight had failed with it before: the next lookup displaces it.
    let displaced = Box::new(error);
    cache.core().state.lock().displaced.push(displaced);
    assert_eq!(cache.get().await.unwrap().generation(), 1);
}
