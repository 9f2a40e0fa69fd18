//! The server: connections, their limits, and the shutdown.

use std::{future::pending, io, sync::Arc, time::Duration};

use axum::{Extension, Router, body::Body};
use http::Request;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::{server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::gateway::{Gateway, Product};
use crate::{operations, options::Options};

/// Serves until `stop` is ready, then until the open requests end or their time is over.
///
/// # Errors
///
/// If the address of a listener is not known.
pub async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    admin: Option<TcpListener>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    info!("listening on http://{address}, for {}", gateway.base);
    if !address.ip().is_loopback() {
        warn!("{address} is not loopback: every program that can connect to it can use the keys");
    }
    gateway.products.iter().for_each(Product::warm_up);
    if let Some(admin) = admin {
        let (gateway, router) = (gateway.clone(), operations::router());
        let router = router.with_state(gateway.clone());
        // Until the process ends, so that probes get responses during the shutdown too.
        tokio::spawn(async move { accept(admin, router, &gateway.options, pending()).await });
    }
    accept(listener, gateway.router(), &gateway.options, stop).await;
    Ok(())
}

async fn accept(
    listener: TcpListener,
    router: Router,
    options: &Options,
    stop: impl Future<Output = ()>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(options.head_timeout))
        .max_buf_size(options.max_head as usize);
    let room = Arc::new(Semaphore::new(options.max_connections as usize));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let next = async { (room.clone().acquire_owned().await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        let accepted = accepted.inspect_err(|error| warn!("no connection accepted: {error}"));
        let Ok((tcp, peer)) = accepted else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = tcp.set_nodelay(true);
        let mut tcp = TimeoutStream::new(tcp);
        tcp.set_write_timeout(Some(Duration::from_secs(options.idle_timeout)));
        let service = router.clone().layer(Extension(peer));
        let service = service.map_request(|request: Request<Incoming>| request.map(Body::new));
        let tcp = TokioIo::new(Box::pin(tcp));
        let connection = http.serve_connection(tcp, TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let ended = connection.await;
            debug!("the connection of {peer} has ended: {ended:?}");
            drop(place);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(Duration::from_secs(options.grace)) => warn!("requests in progress were cut off"),
    }
}
