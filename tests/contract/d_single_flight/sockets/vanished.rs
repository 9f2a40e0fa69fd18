//! Case 29 over a connection whose other end has vanished: the calls after it, in real
//! time.

use std::{
    convert::Infallible,
    iter,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper_util::{
    client::legacy::{
        Builder, Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use klavi_auth::{Error, KlaviApi, KlaviAuthLayer, Product, sandbox::Sandbox};
use tokio::net::TcpListener;
use tower::service_fn;

use crate::support::sockets::{Body, drawing, secs, soon};

/// Accepts connections and sends nothing.
async fn abyss() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, accepted) = (
        listener.local_addr().unwrap(),
        Arc::new(AtomicUsize::new(0)),
    );
    let counted = Arc::clone(&accepted);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (addr, accepted)
}

/// What the first fetch ends in if a call may take so long, over a connection that swallows
/// everything; how many connections it took; and what the next one ends in, when new connections
/// would be good.
async fn fetches(
    limit: Duration,
    http: impl FnOnce(&mut Builder),
) -> (Error, usize, Result<(), Error>) {
    let (abyss, accepted) = abyss().await;
    let leads_to = Arc::new(Mutex::new(abyss));
    let there = Arc::clone(&leads_to);
    let resolver = service_fn(move |_: Name| {
        let addr = *there.lock().unwrap();
        async move { Ok::<_, Infallible>(iter::once(addr)) }
    });
    let mut client = Client::builder(TokioExecutor::new());
    http(&mut client);
    let sandbox = Sandbox::start().await.unwrap();
    let api = KlaviApi::at_insecure("http://klavi.invalid", Product::Monitor).unwrap();
    let builder = KlaviAuthLayer::builder(api, sandbox.credentials())
        .transport(client.build::<_, Body>(HttpConnector::new_with_resolver(resolver)))
        .token_call_timeout(limit);
    let tokens = drawing(builder, &[0.0]).build().unwrap().cache().clone();

    let first = soon(tokens.get()).await.unwrap_err();
    let connections = accepted.load(Ordering::SeqCst);
    let sandbox_addr = sandbox
        .base_url()
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    *leads_to.lock().unwrap() = sandbox_addr;
    (first, connections, soon(tokens.get()).await.map(drop))
}

#[tokio::test]
async fn case_29_over_http_1_a_timeout_closes_the_connection() {
    let (first, connections, next) = fetches(secs(1), |_| {}).await;
    assert!(first.is_timeout(), "{first:?}");
    assert_eq!(connections, 3);
    next.unwrap();
}

/// Not ideal, but all HTTP/2 clients behave so, and only they can detect a dead connection.
#[tokio::test]
async fn case_29_over_http_2_calls_stay_on_the_vanished_connection() {
    let (first, connections, next) = fetches(secs(1), |http| _ = http.http2_only(true)).await;
    assert!(first.is_timeout(), "{first:?}");
    assert_eq!(connections, 1);
    assert!(next.unwrap_err().is_timeout());
}

#[tokio::test]
async fn case_29_http_2_pings_close_the_vanished_connection() {
    let (first, _, next) = fetches(secs(6), |http| {
        let interval = Duration::from_millis(300);
        http.http2_only(true).timer(TokioTimer::new());
        http.http2_keep_alive_interval(interval)
            .http2_keep_alive_timeout(interval);
    })
    .await;
    assert!(first.is_transport(), "{first:?}");
    next.unwrap();
}
