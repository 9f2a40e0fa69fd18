//! Callers: a steady stream of requests, and their results.

use std::{
    convert::Infallible,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use klavi_auth::{BoxError, Error};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tower::{ServiceExt, timeout::error::Elapsed, util::BoxCloneSyncService};

/// The client of the callers, with its type erased.
pub(crate) type Klavi = BoxCloneSyncService<Request<Body>, Response, BoxError>;

/// The limit of concurrent requests.
const MOST_AT_ONCE: usize = 400;

/// More than the layer records of a body (64 KiB), in one chunk: it cannot be resent.
const LARGE: usize = 80 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<Ledger>);

#[derive(Debug, Default)]
struct Ledger {
    responded: u64,
    unauthorized: u64,
    without_token: u64,
    timed_out: u64,
    failed: u64,
    latencies: Vec<Duration>,
}

impl Callers {
    pub(crate) fn to_json(&self) -> Value {
        let ledger = self.ledger();
        json!({
            "responded": ledger.responded,
            "unauthorized": ledger.unauthorized,
            "withoutToken": ledger.without_token,
            "timedOut": ledger.timed_out,
            "failed": ledger.failed,
        })
    }

    /// Takes the latencies of the requests that ended since the last call.
    pub(crate) fn take_latencies(&self) -> Vec<Duration> {
        mem::take(&mut self.ledger().latencies)
    }

    fn ended(&self, outcome: &Result<StatusCode, BoxError>, latency: Duration) {
        let mut ledger = self.ledger();
        ledger.latencies.push(latency);
        let count = match outcome {
            Ok(status) if status.is_success() => &mut ledger.responded,
            Ok(StatusCode::UNAUTHORIZED) => &mut ledger.unauthorized,
            // The type distinguishes the layer's errors from the client's.
            Err(error) if error.is::<Error>() => &mut ledger.without_token,
            Err(error) if error.is::<Elapsed>() => &mut ledger.timed_out,
            _ => &mut ledger.failed,
        };
        *count += 1;
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends requests at a steady pace until `stop` is ready, then waits for those in flight.
pub(crate) async fn run(
    klavi: &Klavi,
    base_url: &str,
    callers: &Arc<Callers>,
    per_second: u32,
    stop: impl Future<Output = ()>,
) {
    let mut under_way = JoinSet::new();
    let sending = async {
        let mut ticks = interval(Duration::from_secs(1) / per_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for number in 0_u64.. {
            ticks.tick().await;
            while under_way.try_join_next().is_some() {}
            if under_way.len() < MOST_AT_ONCE {
                under_way.spawn(call(
                    klavi.clone(),
                    request(base_url, number),
                    Arc::clone(callers),
                ));
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = stop => {}
    }
    while under_way.join_next().await.is_some() {}
}

async fn call(klavi: Klavi, request: Request<Body>, callers: Arc<Callers>) {
    let start = Instant::now();
    let outcome = async {
        let response = klavi.oneshot(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Ok(status)
    };
    let outcome = outcome.await;
    callers.ended(&outcome, start.elapsed());
}

/// Of ten requests, eight read, one sends a small body, and one a body too large for a backup.
fn request(base_url: &str, number: u64) -> Request<Body> {
    let request = match number % 10 {
        3 => Request::post(format!("{base_url}/monitor/v1/echo")).body(streamed(100)),
        7 => Request::post(format!("{base_url}/monitor/v1/echo/raw")).body(streamed(LARGE)),
        _ => Request::get(format!("{base_url}/monitor/v1/monitors")).body(Body::empty()),
    };
    request.expect("a URL made of a URL")
}

/// A body that cannot be cloned.
fn streamed(length: usize) -> Body {
    Body::from_stream(stream::iter([Ok::<_, Infallible>(Bytes::from(vec![
        b'.';
        length
    ]))]))
}
