//! A gateway to Klavi for programs in any language: it listens on this machine, attaches the token,
//! and streams both ways.
//!
//! ```sh
//! cargo run --example gateway --features sandbox
//! curl -i http://127.0.0.1:8484/monitor/v1/monitors
//! ```
//!
//! Offline, in front of a simulated Klavi in this process.
//!
//! Set `KLAVI_ACCESS_KEY` and `KLAVI_SECRET_KEY` for Klavi's sandbox, and `KLAVI_ENV` or
//! `KLAVI_API_URL` for another environment. `KLAVI_PRODUCT` (default: `monitor`) is the product of
//! the token, `KLAVI_GATEWAY_PORT` (default: 8484) the port of the gateway.
//!
//! * A request without `Authorization` gets the token if it is for the product. A request with its
//!   own `Authorization`, such as a `linkToken`, passes through unchanged.
//! * Any process that can connect can use the keys. So the gateway binds to 127.0.0.1, and rejects
//!   requests that a web page could make a browser send (403).
//! * Without a token the response is 502 if an operator must fix it (keys rejected, an invalid call
//!   or response), 504 if Klavi was too slow, else 503, with `Retry-After` if it is known. It is
//!   502 too if Klavi's API cannot be reached.
//! * A 401 comes from Klavi: it rejected a new token, or the body was too long for a backup (64
//!   KiB). In the second case, retry.
#![allow(clippy::print_stdout, reason = "it says how to call it")]

mod proxy;

use std::{env, io, net::Ipv4Addr, time::Duration};

use klavi_auth::{BoxError, Credentials, KlaviApi, Product, sandbox::Sandbox};
use tokio::{net::TcpListener, signal, sync::oneshot, time::sleep};
use tracing::{Level, warn};

pub(crate) use self::proxy::Gateway;

/// The time for open requests at shutdown.
const GRACE: Duration = Duration::from_secs(30);

#[tokio::main]
pub(crate) async fn main() -> Result<(), BoxError> {
    let filter =
        tracing_subscriber::EnvFilter::builder().with_default_directive(Level::INFO.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .init();

    let product =
        Product::other(&env::var("KLAVI_PRODUCT").unwrap_or_else(|_| "monitor".to_owned()))?;
    let port = env::var("KLAVI_GATEWAY_PORT").map_or(Ok(8484), |port| port.parse())?;
    let keys = ["KLAVI_ACCESS_KEY", "KLAVI_SECRET_KEY"];
    let sandbox = match keys.iter().any(|name| env::var_os(name).is_some()) {
        true => None,
        false => Some(Sandbox::start().await?),
    };
    let gateway = match &sandbox {
        Some(sandbox) => Gateway::new(&sandbox.api(product), sandbox.credentials())?,
        None => Gateway::new(&KlaviApi::from_env(product)?, Credentials::from_env()?)?,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let at = listener.local_addr()?;
    println!("In front of {}, try:\n", gateway.base());
    println!("curl -i http://{at}{}v1/monitors", gateway.product());
    println!("curl -i http://{at}/healthz\n");
    Ok(serve(gateway, listener, told_to_stop()).await?)
}

/// Serves until `stop` is ready, then until the open requests end or their time is over.
pub(crate) async fn serve(
    gateway: Gateway,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    gateway.warm_up();
    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, gateway.router()).with_graceful_shutdown(async {
        stop.await;
        let _ = stopping.send(());
    });
    let overdue = async {
        let _ = stopped.await;
        sleep(GRACE).await;
    };
    tokio::select! {
        done = server.into_future() => done?,
        () = overdue => warn!("requests in progress were cut off"),
    }
    Ok(())
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
