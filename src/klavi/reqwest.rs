//! The token transport over reqwest.

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
            let response = client.execute(::reqwest::Request::try_from(request)?).await?;
            Ok::<_, BoxError>(Response::<::reqwest::Body>::from(response))
        }
    }))
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
