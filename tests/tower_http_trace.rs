//! The layer between traces that show all they can. The only test in its process: what a subscriber
//! gets to see depends on what other threads have done to the same events.

mod support;

use std::{
    future::ready,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::header::AUTHORIZATION;
use klavi_auth::{KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
use support::{
    LIFETIME,
    api::{Api, get, ok, status},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::{
    classify::{ServerErrorsAsFailures, SharedClassifier},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
    trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer},
};
use tracing::Level;

const MONITORS: &str = "https://api.klavi.ai/monitor/v1/monitors";

/// What a subscriber writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Everything from now on, on this thread.
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let writer = move || log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false);
        tracing::subscriber::set_default(subscriber.with_writer(writer).finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// With everything that it can show.
fn trace() -> TraceLayer<SharedClassifier<ServerErrorsAsFailures>, DefaultMakeSpan> {
    TraceLayer::new_for_http()
        .make_span_with(
            DefaultMakeSpan::new()
                .level(Level::TRACE)
                .include_headers(true),
        )
        .on_request(DefaultOnRequest::new().level(Level::TRACE))
        .on_response(
            DefaultOnResponse::new()
                .level(Level::TRACE)
                .include_headers(true),
        )
}

#[tokio::test(start_paused = true)]
async fn case_61_traces_on_either_side_show_no_token() {
    const SECRETS: [&str; 3] = ["q7Zx4Vn2Kw9T", "m6Yp1Gf8Xc3L", "linkToken8Qb"];
    let log = Log::default();
    let _guard = log.start();
    let fetches = AtomicUsize::new(0);
    let source = source_fn(move |_| {
        let fetch = fetches.fetch_add(1, Ordering::SeqCst);
        ready(NewToken::new(SECRETS[fetch], LIFETIME))
    });
    let api = Api::new(async |seen| {
        if seen.authorization() == [format!("Bearer {}", SECRETS[0])] {
            status(401, "")
        } else {
            ok("fine")
        }
    });
    let service = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
        .layer(trace())
        .layer(KlaviAuthLayer::new(
            &KlaviApi::production(Product::Monitor),
            TokenCache::new(source),
        ))
        .layer(trace())
        .service(api.clone());
    let mut own = get(MONITORS);
    own.headers_mut().insert(
        AUTHORIZATION,
        format!("Bearer {}", SECRETS[2]).parse().unwrap(),
    );
    for request in [get(MONITORS), own] {
        assert_eq!(
            service.clone().oneshot(request).await.unwrap().status(),
            200
        );
    }
    let bearers = [0, 1, 2].map(|n| format!("Bearer {}", SECRETS[n]));
    assert_eq!(api.bearers(), bearers);

    let text = log.text();
    // Outside: the second request has one of its own. Inside: both sends of the first, and that
    // one.
    assert_eq!(text.matches("started processing request").count(), 5);
    assert!(
        text.matches(r#""authorization": Sensitive"#).count() >= 4,
        "{text}"
    );
    assert!(text.contains("klavi_auth"), "{text}");
    for secret in SECRETS {
        for piece in secret.as_bytes().windows(5) {
            assert!(
                !text.contains(std::str::from_utf8(piece).unwrap()),
                "{text}"
            );
        }
    }
}
