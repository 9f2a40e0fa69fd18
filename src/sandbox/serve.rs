//! Serves the connections of a sandbox.

use std::{convert::Infallible, sync::Arc};

use http::Request;
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};

use super::{
    handler::handle,
    listener::{Connection, Io, Socket, Stop},
    state::Server,
};

/// Accepts connections, and serves each in a task of its own.
pub(super) async fn serve(socket: Socket, stop: Stop, server: Arc<Server>) {
    loop {
        let stream = socket.accept().await;
        let connection = Connection::new();
        let io = TokioIo::new(Io::new(stream, connection.clone(), stop.clone()));
        let server = Arc::clone(&server);
        let service = service_fn(move |request: Request<Incoming>| {
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            let (server, connection) = (Arc::clone(&server), connection.clone());
            async move { Ok::<_, Infallible>(handle(&server, &connection, request).await) }
        });
        tokio::spawn(async move {
            let http = auto::Builder::new(TokioExecutor::new());
            // A client that disconnects is none of the sandbox's errors, nor is a reset on order.
            let _ = http.serve_connection(io, service).await;
        });
    }
}
