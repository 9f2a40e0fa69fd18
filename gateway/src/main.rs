//! The program.

use std::io::{self, IsTerminal};
use std::{process::ExitCode, time::Duration};

use clap::Parser;
use klavi_auth::BoxError;
use klavi_gateway::{Gateway, Options, chain, serve};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::signal::{ctrl_c, unix::SignalKind, unix::signal};
use tokio::{net::TcpListener, time::sleep};
use tracing::{Level, error};
use tracing_subscriber::EnvFilter;

/// Upper bounds of the histograms, in seconds.
const BUCKETS: [f64; 10] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::builder().with_default_directive(Level::INFO.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let Err(error) = run(&options) else {
        return ExitCode::SUCCESS;
    };
    error!("{}", chain(&*error));
    ExitCode::FAILURE
}

#[tokio::main]
async fn run(options: &Options) -> Result<(), BoxError> {
    let metrics = PrometheusBuilder::new()
        .set_buckets(&BUCKETS)?
        .install_recorder()?;
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    let bind = async |address| {
        let listener = TcpListener::bind(address).await;
        listener.map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    let gateway = Gateway::new(options.clone(), options.products()?, Some(metrics))?;
    let listener = bind(options.bind).await?;
    let admin = match options.admin_bind {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async {
        tokio::select! {
            _ = ctrl_c() => {}
            _ = terminated.recv() => {}
        }
    };
    Ok(serve(gateway, listener, admin, stop).await?)
}
