//! What callers call: the cache itself, the layer's services, and the clients of
//! reqwest-middleware.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Poll, ready},
};

use http::Response;
use http_body_util::combinators::UnsyncBoxBody;
use klavi_auth::{
    AccessToken, BoxError, Error, KlaviApi, KlaviAuth, KlaviAuthLayer, Product, RecordBody,
    TokenCache,
};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    api::Api,
    caller_task::{Running, describe},
    callers::Outcome,
    ops::{Call, Face, Kind, SMALL_LIMIT},
    requests::{self, Streamed},
};

/// The tokens that callers have got, by generation.
pub(crate) type Handles = Arc<Mutex<BTreeMap<u64, AccessToken>>>;

/// Two long-lived clones of a service.
type Pair<S> = [Arc<Mutex<S>>; 2];

pub(crate) struct Stack {
    pub(crate) cache: TokenCache,
    pub(crate) handles: Handles,
    clonable: Pair<KlaviAuth<Api>>,
    recorded: Pair<KlaviAuth<Api, RecordBody<Streamed>>>,
    #[cfg(feature = "reqwest")]
    reqwest: Pair<KlaviAuth<Api, RecordBody<reqwest::Body>>>,
    #[cfg(feature = "reqwest-middleware")]
    middleware: crate::middleware::Clients,
}

impl Stack {
    pub(crate) fn new(cache: TokenCache, api: &Api, small_limit: bool) -> Self {
        let layer = KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache.clone());
        let recorded = limited(layer.clone().replay_with(UnsyncBoxBody::new), small_limit);
        #[cfg(feature = "reqwest")]
        let reqwest = limited(layer.clone().replay_with(reqwest::Body::wrap), small_limit);
        Self {
            cache,
            handles: Handles::default(),
            #[cfg(feature = "reqwest-middleware")]
            middleware: crate::middleware::Clients::new(&layer, &reqwest, api),
            clonable: pair(&layer, api),
            recorded: pair(&recorded, api),
            #[cfg(feature = "reqwest")]
            reqwest: pair(&reqwest, api),
        }
    }

    pub(crate) fn run(&self, number: usize, call: Call) -> Running {
        match (call.face, call.kind) {
            (_, Kind::Token) => token(self.cache.clone(), Arc::clone(&self.handles)),
            (Face::Http, Kind::Bare | Kind::Clonable) => {
                let body = requests::clonable(number, call);
                request(
                    of(&self.clonable, call),
                    requests::request(number, call).map(|()| body),
                )
            }
            (Face::Http, Kind::Stream(..)) => {
                let body = requests::streamed(number, call);
                request(
                    of(&self.recorded, call),
                    requests::request(number, call).map(|()| body),
                )
            }
            #[cfg(feature = "reqwest")]
            (Face::Reqwest, Kind::Bare | Kind::Clonable) => {
                request(of(&self.clonable, call), requests::of_reqwest(number, call))
            }
            #[cfg(feature = "reqwest")]
            (Face::Reqwest, Kind::Stream(..)) => {
                request(of(&self.reqwest, call), requests::of_reqwest(number, call))
            }
            #[cfg(feature = "reqwest-middleware")]
            (Face::Middleware, _) => self.middleware.run(number, call),
        }
    }
}

fn limited<B>(
    layer: KlaviAuthLayer<RecordBody<B>>,
    small_limit: bool,
) -> KlaviAuthLayer<RecordBody<B>> {
    if small_limit {
        layer.replay_limit(SMALL_LIMIT)
    } else {
        layer
    }
}

fn pair<L: Layer<Api>>(layer: &L, api: &Api) -> Pair<L::Service> {
    [0, 1].map(|_| Arc::new(Mutex::new(layer.layer(api.clone()))))
}

/// One of the two, or a clone for this request alone.
fn of<S: Clone>(pair: &Pair<S>, call: Call) -> Arc<Mutex<S>> {
    let client = usize::from(call.client);
    let shared = &pair[client % 2];
    if client < 2 {
        Arc::clone(shared)
    } else {
        Arc::new(Mutex::new(shared.lock().unwrap().clone()))
    }
}

/// `cache.get()`.
fn token(cache: TokenCache, handles: Handles) -> Running {
    Box::pin(async move {
        match cache.get().await {
            Err(error) => Outcome::Failed(describe(&error)),
            Ok(token) => {
                let (text, generation) = (token.expose().to_owned(), token.generation());
                handles.lock().unwrap().insert(generation, token);
                Outcome::Token { text, generation }
            }
        }
    })
}

/// A request, through a service that others use too.
fn request<S, Q>(service: Arc<Mutex<S>>, request: Q) -> Running
where
    S: Service<Q, Response: AnyResponse, Error = BoxError> + Send + 'static,
    S::Future: Send,
    Q: Send + 'static,
{
    let mut request = Some(request);
    Box::pin(async move {
        let call = poll_fn(|cx| {
            let mut service = service.lock().unwrap();
            ready!(service.poll_ready(cx))?;
            Poll::Ready(Ok::<_, BoxError>(
                service.call(request.take().expect("ready once")),
            ))
        });
        let response = match call.await {
            Ok(response) => response.await,
            Err(error) => Err(error),
        };
        match response {
            Ok(response) => response.outcome(),
            Err(error) => Outcome::Failed(match error.downcast_ref::<Error>() {
                Some(error) => describe(error),
                None => error.to_string(),
            }),
        }
    })
}

/// A response.
pub(crate) trait AnyResponse {
    fn outcome(&self) -> Outcome;
}

fn outcome(
    status: http::StatusCode,
    headers: &http::HeaderMap,
    extensions: &http::Extensions,
) -> Outcome {
    Outcome::Response {
        status: status.as_u16(),
        sending: headers["x-sending"].to_str().unwrap().parse().unwrap(),
        reason: extensions.get::<Error>().map(describe),
    }
}

impl AnyResponse for Response<()> {
    fn outcome(&self) -> Outcome {
        outcome(self.status(), self.headers(), self.extensions())
    }
}

#[cfg(feature = "reqwest")]
impl AnyResponse for reqwest::Response {
    fn outcome(&self) -> Outcome {
        outcome(self.status(), self.headers(), self.extensions())
    }
}
