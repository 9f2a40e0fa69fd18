//! Token endpoints whose responses have a head and a body that never arrives.

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

use super::secs;

/// The paths that were called.
pub type Calls = Arc<Mutex<Vec<String>>>;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

pub fn token(number: usize) -> Body {
    Full::from(format!(
        r#"{{"accessToken":"token-{number}","expireIn":1800}}"#
    ))
    .boxed_unsync()
}

pub fn silence() -> Body {
    StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()).boxed_unsync()
}

/// A cache whose token endpoints respond with these statuses: 200 with a token, all others with
/// silence after the head. A call may take 5 s.
pub fn silent_bodies(statuses: &'static [u16]) -> (TokenCache, Calls) {
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

pub async fn failure(cache: &TokenCache) -> Error {
    let start = Instant::now();
    let error = cache.get().await.unwrap_err();
    assert_eq!(start.elapsed(), secs(5));
    error
}
