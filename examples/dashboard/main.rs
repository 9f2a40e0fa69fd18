//! The layer as operators see it: a page with live charts, and metrics for Prometheus.
//!
//! ```sh
//! cargo run -p examples --example dashboard --features dashboard
//! ```
//!
//! Then open <http://127.0.0.1:8080>. Offline: a bounded load goes to a simulated Klavi in this
//! process, which fails in phases (see `scenario.rs`). `KLAVI_DASHBOARD_PORT` sets the port
//! (default: 8080; 0: any free one), `KLAVI_DASHBOARD_SECONDS` the duration (default: until
//! ctrl-c).
//!
//! The example shows the same events in three ways: an [`Observer`](klavi_auth::Observer) counts
//! them for the page (`tally.rs`), the feature `metrics` counts them for `/metrics`, and
//! `RUST_LOG=klavi_auth=debug` shows them on the terminal. The age of the token comes from
//! [`TokenCache::snapshot`](klavi_auth::TokenCache::snapshot) (`dashboard.rs`).
#![allow(clippy::print_stdout, reason = "it says where the page is")]

mod dashboard;
mod history;
mod load;
mod pages;
mod scenario;
mod tally;

use std::{env, io, net::Ipv4Addr, time::Duration};

use klavi_auth::BoxError;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use tokio::{net::TcpListener, signal, sync::oneshot, time::sleep};
use tracing::{Level, warn};

pub(crate) use self::{
    dashboard::{Dashboard, Pace},
    scenario::Phase,
};

/// The time for open requests of a browser at shutdown.
const GRACE: Duration = Duration::from_secs(2);

#[tokio::main]
pub(crate) async fn main() -> Result<(), BoxError> {
    let filter =
        tracing_subscriber::EnvFilter::builder().with_default_directive(Level::WARN.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .init();

    let port = env::var("KLAVI_DASHBOARD_PORT").map_or(Ok(8080), |port| port.parse())?;
    let seconds = env::var("KLAVI_DASHBOARD_SECONDS")
        .ok()
        .map(|seconds| seconds.parse())
        .transpose()?;
    // Before the cache is built, since that describes the metrics.
    let prometheus = prometheus()?.install_recorder()?;
    let dashboard = Dashboard::start(prometheus, Pace::default()).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let at = listener.local_addr()?;
    println!("Open http://{at}/ in a browser; for Prometheus there is http://{at}/metrics");
    serve(dashboard, listener, async move {
        tokio::select! {
            () = told_to_stop() => {}
            () = time_is_over(seconds) => {}
        }
    })
    .await?;
    Ok(())
}

/// A recorder with buckets, so that durations of several processes can be added up.
pub(crate) fn prometheus() -> Result<PrometheusBuilder, BuildError> {
    const SECONDS: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0];
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &SECONDS)
}

/// Serves the pages, with load and failures behind them, until `stop` is ready.
pub(crate) async fn serve(
    dashboard: Dashboard,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (ending, ended) = oneshot::channel();
    let pages = dashboard.router();
    let server = axum::serve(listener, pages).with_graceful_shutdown(async move {
        dashboard.live_until(stop).await;
        let _ = ending.send(());
    });
    let overdue = async {
        let _ = ended.await;
        sleep(GRACE).await;
    };
    tokio::select! {
        done = server.into_future() => done?,
        () = overdue => warn!("a browser was cut off"),
    }
    Ok(())
}

async fn time_is_over(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

/// Waits for ctrl-c or SIGTERM.
async fn told_to_stop() {
    #[cfg(unix)]
    let terminated = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<Option<()>>();
    tokio::select! {
        _ = signal::ctrl_c() => {}
        _ = terminated => {}
    }
}
