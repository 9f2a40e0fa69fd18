//! The watched system: a sandbox, the layer in front of it, callers, and a sample of all of them
//! twice a second.

use std::{error, iter::successors, sync::Arc, time::Duration};

use axum::{body::Body, response::IntoResponse};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{Backoff, BoxError, KlaviAuthLayer, Product, sandbox::Sandbox};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower::{ServiceBuilder, util::BoxCloneSyncService};

use super::{
    history::{EVERY, History, percentile},
    load::{self, Callers, Klavi},
    scenario::Scenario,
    tally::Tally,
};

/// The timeout of every caller.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pace of the demonstration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) phase: Duration,
    /// Shorter than a phase, so that each phase has a refresh.
    pub(crate) token_lifetime: Duration,
    pub(crate) per_second: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            phase: Duration::from_secs(12),
            token_lifetime: Duration::from_secs(10),
            per_second: 40,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Dashboard {
    pub(super) pace: Pace,
    pub(super) prometheus: PrometheusHandle,
    pub(super) history: Arc<History>,
    sandbox: Sandbox,
    auth: KlaviAuthLayer,
    klavi: Klavi,
    scenario: Arc<Scenario>,
    tally: Arc<Tally>,
    callers: Arc<Callers>,
}

impl Dashboard {
    pub(crate) async fn start(prometheus: PrometheusHandle, pace: Pace) -> Result<Self, BoxError> {
        let sandbox = Sandbox::builder()
            .token_lifetime(pace.token_lifetime)
            .start()
            .await?;
        let http = Client::builder(TokioExecutor::new()).build_http::<Body>();
        let tally = Arc::new(Tally::default());
        let observer = Arc::clone(&tally);
        let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
            .transport(http.clone())
            // Short, as the tokens' lives are. Callers wait longer than the fetch may take.
            .flight_timeout(PATIENCE / 2)
            .backoff(
                Backoff::default()
                    .first(PATIENCE / 10)
                    .longest(PATIENCE / 2),
            )
            .name("dashboard")
            .observer(observer)
            .build()?;
        let klavi = ServiceBuilder::new()
            .layer(BoxCloneSyncService::layer())
            .timeout(PATIENCE)
            .map_response(IntoResponse::into_response)
            .layer(auth.clone().replay_with(Body::new))
            .service(http);
        Ok(Self {
            pace,
            prometheus,
            sandbox,
            auth,
            klavi,
            tally,
            history: Arc::default(),
            scenario: Arc::default(),
            callers: Arc::default(),
        })
    }

    /// Runs load, failures and samples until `stop` is ready and the last request and fetch ended.
    pub(crate) async fn live_until(&self, stop: impl Future<Output = ()>) {
        let start = Instant::now();
        let load = load::run(
            &self.klavi,
            self.sandbox.base_url(),
            &self.callers,
            self.pace.per_second,
            stop,
        );
        tokio::select! {
            () = load => {}
            () = self.scenario.play(&self.sandbox, self.pace.phase) => {}
            () = self.watch(start) => {}
        }
        // A fetch continues without the callers that started it. The last sample has its result.
        while self.auth.cache().snapshot().is_fetching() {
            sleep(EVERY / 10).await;
        }
        self.history
            .push(self.sample(start, self.callers.take_latencies()));
    }

    async fn watch(&self, start: Instant) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut before = Vec::new();
        loop {
            ticks.tick().await;
            // Two samples are one second.
            let latest = self.callers.take_latencies();
            let second = [before, latest.clone()].concat();
            before = latest;
            self.history.push(self.sample(start, second));
            // The exporter needs regular upkeep.
            self.prometheus.run_upkeep();
        }
    }

    fn sample(&self, start: Instant, mut latencies: Vec<Duration>) -> Value {
        latencies.sort_unstable();
        let token = self.auth.cache().snapshot();
        let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
        json!({
            "seconds": start.elapsed().as_secs_f64(),
            "phase": self.scenario.current(),
            "token": {
                "usable": token.is_ready(),
                "rejected": token.is_rejected(),
                "suspect": token.is_suspect(),
                "generation": token.generation(),
                "age": seconds(token.age()),
                "refreshIn": seconds(token.refresh_in()),
                "expiresIn": seconds(token.expires_in()),
                "retryIn": seconds(token.retry_in()),
                "lastError": token.last_error().map(|error| chain(error)),
            },
            "counts": self.tally.to_json(),
            "callers": self.callers.to_json(),
            "latency": { "p50": percentile(&latencies, 50), "p99": percentile(&latencies, 99) },
        })
    }
}

/// An error and its causes. The layer's errors show no secrets.
fn chain(error: &(dyn error::Error + 'static)) -> String {
    successors(Some(error), |e| e.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
