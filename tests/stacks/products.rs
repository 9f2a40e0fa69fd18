//! Layers for several products over one client: each serves its own paths, in whichever order they
//! stand.

use std::sync::Arc;

use crate::{
    requests,
    support::sockets::{Body, Caller, Http, TestStack, http1, soon},
};
use http::Request;
use klavi_auth::{
    BoxError, KlaviAuthLayer, KlaviAuthMiddleware, KlaviSource, Product, TokenCache,
    sandbox::Endpoint,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

type Klavi =
    BoxCloneSyncService<Request<Body>, <Http as Service<Request<Body>>>::Response, BoxError>;

/// One name is the beginning of another.
const PRODUCTS: [&str; 4] = ["monitor", "data", "monitoring", "data.v2"];

/// All orders of `0..n`.
fn orders(n: usize) -> Vec<Vec<usize>> {
    let Some(last) = n.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let insert =
        |order: Vec<usize>| (0..n).map(move |at| [&order[..at], &[last], &order[at..]].concat());
    orders(last).into_iter().flat_map(insert).collect()
}

fn layers(stack: &TestStack, products: &[&str]) -> Vec<KlaviAuthLayer> {
    let layer = |path: &&str| {
        let product = path.parse().unwrap();
        stack
            .builder_for(product, stack.sandbox.credentials())
            .build()
            .unwrap()
    };
    products.iter().map(layer).collect()
}

/// The client with these layers around it, the first one innermost.
fn around_client(layers: &[KlaviAuthLayer], order: &[usize]) -> Klavi {
    let client = Klavi::new(ServiceExt::<Request<Body>>::map_err(
        http1(),
        BoxError::from,
    ));
    order.iter().fold(client, |inner, layer| {
        Klavi::new(layers[*layer].layer(inner))
    })
}

fn get(stack: &TestStack, path: &str) -> Request<Body> {
    Request::get(format!("{}{path}", stack.sandbox.base_url()))
        .body(Body::default())
        .unwrap()
}

/// Calls every product twice, revokes all tokens, and calls every product again.
async fn each_product_has_its_own_token(products: &[&str]) {
    for order in orders(products.len()) {
        let stack = requests::default_stack().await;
        let klavi = around_client(&layers(&stack, products), &order);
        let call_all = async |stack: &TestStack| {
            for path in products {
                let status = klavi
                    .status(get(stack, &format!("/{path}/v1/monitors")))
                    .await;
                assert_eq!(status, 200, "{path} in {order:?}");
            }
        };
        let n = products.len() as u64;
        call_all(&stack).await;
        call_all(&stack).await;
        assert_eq!(stack.counts(), [n, 0, 2 * n, 0], "{order:?}");
        stack.sandbox.revoke_all();
        call_all(&stack).await;
        assert_eq!(stack.counts(), [2 * n, 0, 4 * n, n], "{order:?}");
    }
}

#[tokio::test]
async fn case_57_layers_of_two_products_serve_their_own_paths() {
    each_product_has_its_own_token(&PRODUCTS[..2]).await;
}

#[tokio::test]
async fn case_57_layers_of_three_products_serve_their_own_paths() {
    each_product_has_its_own_token(&PRODUCTS[..3]).await;
}

#[tokio::test]
async fn case_57_layers_of_four_products_serve_their_own_paths() {
    assert_eq!(orders(4).len(), 24);
    each_product_has_its_own_token(&PRODUCTS).await;
}

#[tokio::test]
async fn case_57_products_of_two_segments_serve_their_own_paths() {
    let payment = [
        Product::PaymentCustomer,
        Product::PaymentManagement,
        Product::Monitor,
    ];
    each_product_has_its_own_token(&payment.each_ref().map(Product::as_str)).await;
}

#[tokio::test]
async fn payments_with_a_cache_each_cost_an_auth_each_and_no_401() {
    let stack = requests::default_stack().await;
    let api = stack.sandbox.api(Product::PaymentCustomer);
    let source = Arc::new(KlaviSource::new(
        api.clone(),
        stack.sandbox.credentials(),
        http1(),
    ));
    let klavi = KlaviAuthLayer::without_cache(&api).layer(http1());
    for payments in 1..=3 {
        let mut request = get(&stack, "/payment/customer/v1/echo");
        request
            .extensions_mut()
            .insert(TokenCache::new(Arc::clone(&source)));
        assert_eq!(klavi.status(request).await, 200);
        assert_eq!(stack.counts(), [payments, 0, payments, 0]);
    }
}

#[tokio::test]
async fn case_57_a_path_of_no_layers_product_gets_no_token() {
    let stack = requests::default_stack().await;
    let layers = layers(&stack, &PRODUCTS);
    for order in orders(2) {
        let klavi = around_client(&layers, &order);
        for path in [
            "/links/v1/echo",
            "/monitoring/v1/echo",
            "/data.v2/v1/echo",
            "/monitor/../links/v1/echo",
        ] {
            assert_ne!(klavi.status(get(&stack, path)).await, 200, "{path}");
        }
    }
    assert_eq!(stack.counts()[0], 0);
    assert!(
        stack
            .log_of(Endpoint::Resource)
            .iter()
            .all(|entry| entry.token().is_none())
    );
}

#[tokio::test]
async fn case_57_a_layer_for_the_whole_origin_hides_those_inside() {
    let stack = requests::default_stack().await;
    let [monitor, data] = <[_; 2]>::try_from(layers(&stack, &PRODUCTS[..2])).unwrap();
    let outside = ServiceBuilder::new()
        .layer(monitor.clone().whole_origin())
        .layer(data.clone())
        .service(http1());
    assert_eq!(outside.status(get(&stack, "/monitor/v1/echo")).await, 200);
    assert_eq!(outside.status(get(&stack, "/data/v1/echo")).await, 401);
    let inside = ServiceBuilder::new()
        .layer(data)
        .layer(monitor.whole_origin())
        .service(http1());
    assert_eq!(inside.status(get(&stack, "/data/v1/echo")).await, 200);
    assert_eq!(inside.status(get(&stack, "/links/v1/echo")).await, 401);
}

#[tokio::test]
async fn case_57_a_customers_request_is_served_by_any_products_layer() {
    let stack = requests::default_stack().await;
    let monitor = KlaviAuthLayer::without_cache(&stack.sandbox.api(Product::Monitor));
    let customer = stack
        .builder_for(Product::Data, stack.sandbox.credentials())
        .build()
        .unwrap();
    let mut request = get(&stack, "/data/v1/echo");
    request.extensions_mut().insert(customer.cache().clone());
    assert_eq!(monitor.layer(http1()).status(request).await, 200);
}

/// These clients say which URL responded.
#[tokio::test]
async fn case_40_57_any_products_layer_resends_a_customers_request() {
    let stack = requests::default_stack().await;
    let monitor = KlaviAuthLayer::without_cache(&stack.sandbox.api(Product::Monitor));
    let customer = stack
        .builder_for(Product::Data, stack.sandbox.credentials())
        .build()
        .unwrap();
    let url = format!("{}/data/v1/echo", stack.sandbox.base_url());
    let middleware = ::reqwest_middleware::ClientBuilder::new(requests::http())
        .with(KlaviAuthMiddleware::from(&monitor))
        .build();
    let client = monitor.layer(requests::http());
    let cache = customer.cache();
    for _ in 0..2 {
        let request = client.get_ref().get(&url);
        let response = soon(client.send_with(request, cache.clone())).await;
        assert_eq!(response.unwrap().status(), 200);
        stack.sandbox.revoke_all();
        let request = middleware.get(&url).with_extension(cache.clone());
        assert_eq!(soon(request.send()).await.unwrap().status(), 200);
        stack.sandbox.revoke_all();
    }
    assert_eq!(stack.counts(), [4, 0, 7, 3]);
}

#[tokio::test]
async fn case_57_middleware_of_two_products_serve_their_own_paths() {
    for order in orders(2) {
        let stack = requests::default_stack().await;
        let layers = layers(&stack, &PRODUCTS);
        let client = order.iter().fold(
            ::reqwest_middleware::ClientBuilder::new(requests::http()),
            |client, layer| client.with(KlaviAuthMiddleware::from(&layers[*layer])),
        );
        let client = client.build();
        for revoked in [false, true] {
            if revoked {
                stack.sandbox.revoke_all();
            }
            for name in &PRODUCTS[..2] {
                let url = format!("{}/{name}/v1/monitors", stack.sandbox.base_url());
                assert_eq!(
                    soon(client.get(url).send()).await.unwrap().status(),
                    200,
                    "{name} in {order:?}"
                );
            }
        }
        assert_eq!(stack.counts(), [4, 0, 6, 2]);
    }
}
