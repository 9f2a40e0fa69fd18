//! The gateway: requests go to Klavi with the product's token, responses come back.

use std::{cmp::Reverse, sync::Arc};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware::from_fn_with_state};
use http::{Method, StatusCode, Uri, Version, header, request::Parts};
use http_body_util::Limited;
use klavi_auth::{
    BoxError, Credentials, Error, KlaviApi, KlaviAuth, KlaviAuthLayer, RecordBody, TokenCache,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tracing::warn;

use crate::failure::{broken, chain, failure, without_token};
use crate::upstream::{self, Http};
use crate::{exchange, headers, operations, options::Options};

/// A gateway to one Klavi, for one or more of its products.
pub struct Gateway {
    pub(crate) options: Options,
    /// Klavi's base URL. Its path is the prefix of every path.
    pub(crate) base: Uri,
    /// For the paths of no product.
    http: Http,
    pub(crate) products: Vec<Product>,
    pub(crate) metrics: Option<PrometheusHandle>,
}

pub(crate) struct Product {
    pub(crate) name: String,
    /// The prefix of its paths.
    prefix: String,
    klavi: KlaviAuth<Http, RecordBody<Body>>,
}

impl Gateway {
    /// A gateway for these products, which are all at one base URL.
    ///
    /// # Errors
    ///
    /// If a certificate or a key cannot be read, or there is no product.
    pub fn new(
        options: Options,
        products: Vec<(KlaviApi, Credentials)>,
        metrics: Option<PrometheusHandle>,
    ) -> Result<Arc<Self>, BoxError> {
        let (first, _) = products.first().ok_or("no product")?;
        let base = first.base_url().parse()?;
        let http = upstream::client(&options)?;
        let mut gateway = Self {
            options,
            base,
            http,
            products: Vec::new(),
            metrics,
        };
        for (api, keys) in products {
            let name = api.product().to_string();
            let prefix = format!("{}/{name}/", gateway.base_path());
            let auth = KlaviAuthLayer::builder(api, keys)
                .transport(gateway.http.clone())
                .background_refresh(true)
                .name(&name)
                .build()?;
            let klavi = auth.replay_with(Body::new).layer(gateway.http.clone());
            gateway.products.push(Product {
                name,
                prefix,
                klavi,
            });
        }
        // The longest prefix first.
        let products = &mut gateway.products;
        products.sort_by_key(|product| Reverse(product.prefix.len()));
        Ok(Arc::new(gateway))
    }

    pub(crate) fn router(self: &Arc<Self>) -> Router {
        let company = ServiceBuilder::new()
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(from_fn_with_state(self.clone(), exchange::log));
        let router = Router::new().fallback(forward).layer(company);
        router.merge(operations::router()).with_state(self.clone())
    }

    /// The request for Klavi. The layer adds the token, if the request is for its product.
    fn outbound(&self, request: Request) -> Result<Request, http::Error> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        // From parts, so that no input of a caller becomes a part of the host.
        let mut uri = self.base.clone().into_parts();
        uri.path_and_query = Some(format!("{}{path}", self.base_path()).parse()?);
        head.uri = Uri::from_parts(uri)?;
        head.version = Version::HTTP_11;
        headers::next_hop(&mut head.headers, self.options.via);
        if self.options.x_forwarded {
            headers::add_forwarded(&mut head);
        }
        head.headers.remove(header::HOST);
        // This gateway's own server responds.
        head.headers.remove(header::EXPECT);
        let body = Body::new(Limited::new(body, self.options.max_body));
        Ok(Request::from_parts(head, body))
    }

    fn base_path(&self) -> &str {
        self.base.path().trim_end_matches('/')
    }

    /// Whether the request is not from a web page. A page's request has an `Origin`, or, after DNS
    /// rebinding, the page's own host.
    fn is_of_a_program(&self, head: &Parts) -> bool {
        const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
        let is_allowed = |host: String| {
            let mut allowed = self.options.allow_host.iter();
            LOOPBACK.contains(&&*host) || allowed.any(|other| host.eq_ignore_ascii_case(other))
        };
        headers::host(head).is_some_and(is_allowed) && !head.headers.contains_key(header::ORIGIN)
    }
}

async fn forward(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if !gateway.is_of_a_program(&head) {
        return failure(StatusCode::FORBIDDEN, "not for web pages, see --allow-host");
    }
    if headers::wants_upgrade(&head) || head.method == Method::TRACE {
        return failure(StatusCode::NOT_IMPLEMENTED, "no tunnels and no upgrades");
    }
    if body.size_hint().lower() > gateway.options.max_body as u64 {
        return failure(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    }
    let Ok(request) = gateway.outbound(Request::from_parts(head, body)) else {
        return failure(StatusCode::BAD_REQUEST, "this is no path at Klavi");
    };
    // Its layer still decides whether the token may be sent.
    let is_for = |product: &&Product| request.uri().path().starts_with(&product.prefix);
    let product = gateway.products.iter().find(is_for);
    let response = match product {
        Some(product) => product.klavi.clone().oneshot(request).await,
        None => gateway.http.request(request).await.map_err(Into::into),
    };
    let no_token = |error: &Error| without_token(error, product.map(Product::cache));
    let mut response = match response {
        Ok(response) => response,
        Err(error) => {
            let own = error.downcast_ref();
            return own.map_or_else(|| broken(&error), no_token);
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return failure(StatusCode::BAD_GATEWAY, "Klavi switched protocols");
    }
    // A rejected token that could not be replaced is not the caller's fault, so it is not a 401.
    // Over budget, it is the path that rejects every token.
    let error = response.extensions().get::<Error>();
    if let Some(error) = error.filter(|error| !error.is_over_budget()) {
        return no_token(error);
    }
    headers::next_hop(response.headers_mut(), gateway.options.via);
    response.into_response()
}

impl Product {
    pub(crate) fn cache(&self) -> &TokenCache {
        self.klavi.layer().cache()
    }

    /// Fetches the first token, so that the first request does not wait.
    pub(crate) fn warm_up(&self) {
        let (cache, product) = (self.cache().clone(), self.name.clone());
        tokio::spawn(async move {
            if let Err(error) = cache.warm_up().await {
                warn!(product, "no token: {}", chain(&error));
            }
        });
    }
}
