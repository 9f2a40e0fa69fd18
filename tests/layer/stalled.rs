//! BEHAVIOUR E: answers of the token endpoints whose head is there and whose body never comes.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, header::RETRY_AFTER};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use klavi_auth::{Credentials, Error, KlaviApi, KlaviAuthLayer, Product, TokenCache};
use tokio::time::Instant;
use tower::service_fn;

use crate::support::{LIFETIME, secs};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The paths that were called.
type Calls = Arc<Mutex<Vec<String>>>;

/// A cache whose token endpoints answer with these statuses: 200 with a token, all others with
/// silence after the head. A call may take 5 s.
fn answering(statuses: &'static [u16]) -> (TokenCache, Calls) {
    let calls = Calls::default();
    let log = Arc::clone(&calls);
    let transport = service_fn(move |request: Request<Full<Bytes>>| {
        let mut log = log.lock().unwrap();
        let status = statuses[log.len()];
        log.push(request.uri().path().rsplit('/').next().unwrap().to_owned());
        let response = Response::builder()
            .status(status)
            .header(RETRY_AFTER, "200");
        let body = if status == 200 {
            token(log.len())
        } else {
            silence()
        };
        async move { Ok::<_, Infallible>(response.body(body).unwrap()) }
    });
    let credentials = Credentials::new("access-4711", "secret-0815").unwrap();
    let layer = KlaviAuthLayer::builder(KlaviApi::sandbox(Product::Monitor), credentials)
        .transport(transport)
        .randomness(|| 0.0)
        .build();
    (layer.unwrap().cache().clone(), calls)
}

fn token(number: usize) -> Body {
    Full::from(format!(
        r#"{{"accessToken":"token-{number}","expireIn":1800}}"#
    ))
    .boxed_unsync()
}

fn silence() -> Body {
    StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()).boxed_unsync()
}

async fn failure(cache: &TokenCache) -> Error {
    let start = Instant::now();
    let error = cache.get().await.unwrap_err();
    assert_eq!(start.elapsed(), secs(5));
    error
}

#[tokio::test(start_paused = true)]
async fn case_36_retry_after_is_honoured() {
    for statuses in [&[429], &[503]] {
        let (cache, calls) = answering(statuses);
        let error = failure(&cache).await;
        assert!(error.is_throttled() && !error.is_timeout(), "{error:?}");
        assert_eq!(error.retry_after(), Some(secs(200)));
        assert!(cache.get().await.unwrap_err().is_throttled());
        assert_eq!(calls.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn case_35_rejected_keys_are_not_tried_again() {
    for statuses in [&[401], &[403]] {
        let (cache, calls) = answering(statuses);
        let error = failure(&cache).await;
        assert!(error.is_keys_rejected() && !error.is_timeout(), "{error:?}");
        assert_eq!(calls.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn case_35_a_bad_request_is_not_tried_again_and_says_nothing_about_the_keys() {
    let (cache, calls) = answering(&[400]);
    let error = failure(&cache).await;
    assert!(
        error.is_bad_request() && !error.is_keys_rejected() && !error.is_timeout(),
        "{error:?}"
    );
    assert_eq!(error.status().unwrap(), 400);
    assert!(
        cache.get().await.unwrap_err().is_bad_request(),
        "the cached error"
    );
    assert_eq!(*calls.lock().unwrap(), ["auth"]);
}

#[tokio::test(start_paused = true)]
async fn case_18_a_denied_refresh_is_followed_by_auth() {
    for statuses in [&[200, 401, 200], &[200, 403, 200], &[200, 404, 200]] {
        let (cache, calls) = answering(statuses);
        cache.get().await.unwrap();
        tokio::time::advance(LIFETIME.mul_f64(0.8)).await;
        cache.get().await.unwrap();
        tokio::time::sleep(secs(6)).await;
        assert_eq!(cache.snapshot().generation(), Some(2));
        assert_eq!(*calls.lock().unwrap(), ["auth", "refresh", "auth"]);
    }
}
