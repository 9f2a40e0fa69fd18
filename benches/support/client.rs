//! The caller of a service: with one instance for all requests, or with a clone for each.

use std::{
    future::Future,
    hint,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    thread,
};

use http::{Request, Response, StatusCode};
use klavi_auth::BoxError;
use tower::{Service, ServiceExt};

use super::api::Recycler;

/// How a service is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One instance, readied and called for every request.
    LongLived,
    /// `service.clone().oneshot(request)`.
    Cloned,
}

impl Style {
    pub const ALL: [Self; 2] = [Self::LongLived, Self::Cloned];

    pub fn name(self) -> &'static str {
        match self {
            Self::LongLived => "long-lived",
            Self::Cloned => "cloned",
        }
    }
}

/// A service and its next request, with their types erased.
pub trait Client {
    /// Sends `calls` requests, one after the other.
    fn run(&mut self, calls: u32, style: Style);

    /// Sends one request, on a runtime.
    fn send(&mut self) -> Pin<Box<dyn Future<Output = Result<StatusCode, BoxError>> + '_>>;
}

pub struct Caller<S, B> {
    service: S,
    recycler: Recycler<B>,
    request: Option<Request<B>>,
}

impl<S, B> Caller<S, B> {
    pub fn new(service: S, recycler: Recycler<B>) -> Self {
        Self {
            service,
            request: Some(recycler.first()),
            recycler,
        }
    }
}

impl<S, B> Client for Caller<S, B>
where
    S: Service<Request<B>, Response = Response<()>, Error = BoxError> + Clone,
{
    fn run(&mut self, calls: u32, style: Style) {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut request = self.request.take().unwrap_or_else(|| self.recycler.first());
        for _ in 0..calls {
            let response = match style {
                Style::LongLived => {
                    assert!(self.service.poll_ready(cx).is_ready());
                    finish(self.service.call(request), cx)
                }
                Style::Cloned => finish(self.service.clone().oneshot(request), cx),
            };
            request = self.recycler.next(response);
        }
        self.request = Some(request);
    }

    fn send(&mut self) -> Pin<Box<dyn Future<Output = Result<StatusCode, BoxError>> + '_>> {
        let request = self.recycler.first();
        Box::pin(async {
            let response = self.service.ready().await?.call(request).await?;
            Ok(response.status())
        })
    }
}

/// Polls until there is a response. Uses no executor, so that none is measured. Nothing here waits
/// for more than another thread's lock, which is released as soon as that thread runs.
fn finish<F>(future: F, cx: &mut Context<'_>) -> Response<()>
where
    F: Future<Output = Result<Response<()>, BoxError>>,
{
    let mut future = pin!(future);
    for poll in 1_u32.. {
        if let Poll::Ready(response) = future.as_mut().poll(cx) {
            return response.expect("the inner service does not fail");
        }
        if poll % 100 == 0 {
            thread::yield_now()
        } else {
            hint::spin_loop()
        }
    }
    unreachable!("a lock is held for good")
}
