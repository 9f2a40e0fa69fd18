//! The token transport over reqwest.

use std::any::Any;

use ::reqwest::{Body, Client, redirect::Policy};
use bytes::Bytes;
use http::{Request, Response};
use tower::service_fn;
use tower_service::Service;

use super::transport::{Transport, erase};
use crate::error::{BoxError, config::ConfigError, source_chain::Chain};

/// A `reqwest::Client` as a service of the `http` crate's types.
pub(crate) fn over_reqwest(
    client: Client,
) -> impl Service<Request<Bytes>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    service_fn(move |request: Request<Bytes>| {
        let client = client.clone();
        async move {
            let response = client.execute(request.try_into()?).await?;
            Ok(response.into())
        }
    })
}

/// A new client, which does not follow redirects.
pub(crate) fn default_transport() -> Result<Transport, ConfigError> {
    // Without a crypto provider, rustls panics inside `build`.
    let built = std::panic::catch_unwind(|| {
        Client::builder()
            // A redirect would carry the keys or the bearer to its target.
            .redirect(Policy::none())
            .build()
    });
    let failed = |cause: String| ConfigError::Transport(cause.into());
    let client = built.map_err(|panic| failed(panic_message(&*panic)))?;
    let client = client.map_err(|error| failed(Chain(&error).to_string()))?;
    Ok(erase(over_reqwest(client)))
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
