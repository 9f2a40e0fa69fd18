//! The clients of reqwest-middleware: the layer's middleware around a middleware that plays the
//! API.

use std::{fmt, sync::OnceLock};

use http::Extensions;
use klavi_auth::{Error, KlaviAuthLayer, KlaviAuthMiddleware, RecordBody};
use reqwest::{Body, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};

use crate::{
    api::Api,
    caller_task::{Running, describe},
    callers::Outcome,
    ops::{Call, Kind},
    requests::of_reqwest,
    stack::AnyResponse,
};

pub(crate) struct Clients {
    clonable: ClientWithMiddleware,
    recorded: ClientWithMiddleware,
}

impl Clients {
    pub(crate) fn new(
        clonable: &KlaviAuthLayer,
        recorded: &KlaviAuthLayer<RecordBody<Body>>,
        api: &Api,
    ) -> Self {
        Self {
            clonable: client(KlaviAuthMiddleware::from(clonable), api),
            recorded: client(KlaviAuthMiddleware::from(recorded), api),
        }
    }

    pub(crate) fn run(&self, number: usize, call: Call) -> Running {
        let is_stream = matches!(call.kind, Kind::Stream(..));
        let client = if is_stream {
            &self.recorded
        } else {
            &self.clonable
        };
        // The options of the request are in either place.
        let (request, mut extensions) = if number % 2 == 0 {
            (of_reqwest(number, call), Extensions::new())
        } else {
            (
                of_reqwest(
                    number,
                    Call {
                        mark: call.mark.in_head(),
                        ..call
                    },
                ),
                call.mark.extensions(),
            )
        };
        let client = client.clone();
        Box::pin(async move {
            match client
                .execute_with_extensions(request, &mut extensions)
                .await
            {
                Ok(response) => response.outcome(),
                Err(reqwest_middleware::Error::Middleware(error)) => {
                    Outcome::Failed(match error.downcast_ref::<Error>() {
                        Some(error) => describe(error),
                        None => error.to_string(),
                    })
                }
                Err(error) => Outcome::Failed(error.to_string()),
            }
        })
    }
}

fn client(auth: impl Middleware, api: &Api) -> ClientWithMiddleware {
    // It is never called. Making one takes long.
    static UNUSED: OnceLock<reqwest::Client> = OnceLock::new();
    let client = UNUSED.get_or_init(|| reqwest::Client::builder().no_proxy().build().unwrap());
    ClientBuilder::new(client.clone())
        .with(auth)
        .with(Responder(api.clone()))
        .build()
}

/// Responds, instead of passing the request on.
struct Responder(Api);

#[async_trait::async_trait]
impl Middleware for Responder {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let response = self.0.receive(request).await;
        response.map_err(|error| reqwest_middleware::Error::middleware(Broke(error.to_string())))
    }
}

#[derive(Debug)]
struct Broke(String);

impl fmt::Display for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broke {}
