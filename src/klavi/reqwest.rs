//! The token transport over reqwest.

use std::{error::Error as StdError, fmt};

use bytes::Bytes;
use http::{Request, Response};
use tower::service_fn;

use super::transport::{Transport, erase};
use crate::{BoxError, ConfigError};

/// A client of reqwest's as a transport.
pub(crate) fn over_reqwest(client: ::reqwest::Client) -> Transport {
    erase(service_fn(move |request: Request<Bytes>| {
        let client = client.clone();
        async move {
            let response = client.execute(::reqwest::Request::try_from(request)?).await.map_err(explain)?;
            Ok::<_, BoxError>(Response::<::reqwest::Body>::from(response))
        }
    }))
}

/// A client without TLS only says that the scheme of an `https` URL is wrong.
fn explain(error: ::reqwest::Error) -> BoxError {
    let https = error.url().is_some_and(|url| url.scheme() == "https");
    if https && root(&error).to_string().contains("scheme is not http") {
        return Box::new(NoTls(error));
    }
    error.into()
}

fn root<'a>(mut error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

#[derive(Debug)]
struct NoTls(::reqwest::Error);

impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reqwest was built without TLS: turn on one of its TLS features")
    }
}

impl StdError for NoTls {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// A client with no redirects, built here and now.
pub(crate) fn default_transport() -> Result<Transport, ConfigError> {
    // Without a crypto provider, rustls panics inside of `build`.
    let client = std::panic::catch_unwind(|| {
        ::reqwest::Client::builder().redirect(::reqwest::redirect::Policy::none()).build()
    });
    match client {
        Ok(Ok(client)) => Ok(over_reqwest(client)),
        _ => Err(ConfigError::Transport),
    }
}
