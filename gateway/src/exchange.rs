//! One request and its response: the end of the upload, the access log, and the metrics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::{pin::Pin, time::Duration};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::{middleware::Next, response::Response};
use http::{HeaderValue, Method};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use klavi_auth::BoxError;
use metrics::{counter, gauge, histogram};
use tokio::time::{Instant, timeout};
use tower_http::timeout::TimeoutBody;
use tracing::info;

use crate::gateway::Gateway;

/// Logged when it is dropped: at the end of the response, or when the caller has hung up.
struct Exchange {
    started: Instant,
    method: Method,
    /// Without the query, which may contain personal data.
    path: String,
    id: Option<HeaderValue>,
    status: u16,
    sent: u64,
    upload: Upload,
}

pub(crate) async fn log(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let (head, body) = request.into_parts();
    let upload = Upload::new(body, &gateway);
    gauge!("klavi_gateway_requests_in_flight").increment(1);
    let mut exchange = Exchange {
        started: Instant::now(),
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        id: head.headers.get("x-request-id").cloned(),
        // nginx's status for a caller that hung up before there was a response.
        status: 499,
        sent: 0,
        upload: upload.clone(),
    };
    let response = next.run(Request::from_parts(head, Body::new(upload))).await;
    exchange.status = response.status().as_u16();
    let count = move |frame: Frame<Bytes>| {
        let exchange = &mut exchange;
        exchange.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        frame
    };
    response.map(|body| Body::new(body.map_frame(count)))
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let (took, received) = (self.started.elapsed(), self.upload.drain());
        let id = self.id.as_ref().and_then(|id| id.to_str().ok());
        gauge!("klavi_gateway_requests_in_flight").decrement(1);
        counter!("klavi_gateway_requests_total", "status" => self.status.to_string()).increment(1);
        counter!("klavi_gateway_received_bytes_total").increment(received);
        counter!("klavi_gateway_sent_bytes_total").increment(self.sent);
        histogram!("klavi_gateway_request_duration_seconds").record(took);
        info!(
            target: "klavi_gateway::access",
            id, method = %self.method, path = self.path, status = self.status,
            received, sent = self.sent, ms = took.as_millis() as u64,
        );
    }
}

/// The body of a request, as it is sent to Klavi. A clone is the same body.
///
/// The caller may still send when its response is complete: Klavi rejected the request from its
/// head, or cannot be reached. A server that closes then takes the response along, since many
/// clients read it after their upload only. So [`drain`](Self::drain) reads the rest.
#[derive(Clone)]
struct Upload(Arc<Mutex<Received>>);

struct Received {
    /// `None` when it is being drained.
    body: Option<Pin<Box<TimeoutBody<Body>>>>,
    /// Its length, if that is known by now.
    length: Option<u64>,
    received: u64,
    /// For the rest of it.
    limit: Duration,
}

impl Upload {
    fn new(body: Body, gateway: &Gateway) -> Self {
        let idle = Duration::from_secs(gateway.options.idle_timeout);
        Self(Arc::new(Mutex::new(Received {
            length: body.size_hint().exact(),
            body: Some(Box::pin(TimeoutBody::new(idle, body))),
            received: 0,
            limit: Duration::from_secs(gateway.options.drain_timeout),
        })))
    }

    /// Ends the upload to Klavi, and discards what the caller still sends, for a limited time.
    /// Returns how many bytes there were.
    fn drain(&self) -> u64 {
        let mut state = self.state();
        let body = state.body.take();
        if let Some(mut body) = body.filter(|_| state.length != Some(state.received)) {
            let discard = async move { while let Some(Ok(_)) = body.frame().await {} };
            tokio::spawn(timeout(state.limit, discard));
        }
        state.received
    }

    fn state(&self) -> MutexGuard<'_, Received> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let state = &mut *self.state();
        let Some(body) = &mut state.body else {
            return Poll::Ready(Some(Err("the response has ended".into())));
        };
        let frame = body.as_mut().poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                state.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(None) => state.length = Some(state.received),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state();
        let rest = state
            .length
            .map(|length| length.saturating_sub(state.received));
        rest.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
