//! The token transport over reqwest.

use std::any::Any;

use bytes::Bytes;
use http::{Request, Response};
use tower::service_fn;

use super::transport::{Transport, erase};
use crate::error::{BoxError, config::ConfigError, source_chain::Chain};

/// A `reqwest::Client` as a transport.
pub(crate) fn over_reqwest(client: ::reqwest::Client) -> Transport {
    erase(service_fn(move |request: Request<Bytes>| {
        let client = client.clone();
        async move {
            let response = client
                .execute(::reqwest::Request::try_from(request)?)
                .await?;
            Ok::<_, BoxError>(Response::<::reqwest::Body>::from(response))
        }
    }))
}

/// A new client, which does not follow redirects.
pub(crate) fn default_transport() -> Result<Transport, ConfigError> {
    // Without a crypto provider, rustls panics inside `build`.
    let built = std::panic::catch_unwind(|| {
        ::reqwest::Client::builder()
            // A redirect would carry the keys or the bearer to its target.
            .redirect(::reqwest::redirect::Policy::none())
            .build()
    });
    let failed = |cause: String| ConfigError::Transport(cause.into());
    let client = built.map_err(|panic| failed(panic_message(&*panic)))?;
    let client = client.map_err(|error| failed(Chain(&error).to_string()))?;
    Ok(over_reqwest(client))
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("reqwest panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_panic_is_kept() {
        let panics: [(fn(), &str); 3] = [
            (|| panic!("no provider"), "no provider"),
            (|| panic!("no provider for {}", 7), "no provider for 7"),
            (|| std::panic::panic_any(7), "reqwest panicked"),
        ];
        for (panic, text) in panics {
            assert_eq!(
                panic_message(&*std::panic::catch_unwind(panic).unwrap_err()),
                text
            );
        }
    }
}
