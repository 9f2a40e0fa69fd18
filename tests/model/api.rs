//! The API: it panics without readiness, reads whole requests, and responds when an op says so.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body::Body;
use http_body_util::BodyExt;
use klavi_auth::BoxError;
use tower_service::Service;

use crate::{
    callers::{API_BROKE, NOT_READY, text},
    ops::{Call, Kind, Mark, Readiness, Reply, What},
    requests::{Number, OWN, Streamed, frames_of, request, show},
    shared::Shared,
};

pub(crate) struct Api {
    shared: Arc<Shared>,
    table: Arc<Mutex<Table>>,
    ready: Option<Readied>,
}

impl Clone for Api {
    /// A clone is not ready.
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            table: Arc::clone(&self.table),
            ready: None,
        }
    }
}

/// An instance that is ready and was neither called nor dropped.
struct Readied(Arc<Shared>);

impl Readied {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.readied.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Readied {
    fn drop(&mut self) {
        self.0.readied.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Table {
    /// The callers that wait for readiness.
    waiting: Vec<Waker>,
    sendings: Vec<Sending>,
}

struct Sending {
    caller: usize,
    /// The first or the second of its caller: 1 or 2.
    number: usize,
    bearer: Option<u32>,
    body: Option<Streamed>,
    got: Vec<String>,
    waker: Option<Waker>,
    /// It has no response yet.
    open: bool,
    /// The future of the response is there.
    alive: bool,
}

impl Api {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            table: Arc::default(),
            ready: None,
        }
    }

    pub(crate) fn set_readiness(&self, readiness: Readiness) {
        self.shared.model().env.readiness = readiness;
        if readiness != Readiness::Busy {
            let waiting = std::mem::take(&mut self.table.lock().unwrap().waiting);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Responds to one of the requests that wait for it.
    pub(crate) fn respond(&self, which: u8, reply: Reply) -> bool {
        let waker = {
            let mut model = self.shared.model();
            let mut table = self.table.lock().unwrap();
            let mut open: Vec<_> = table
                .sendings
                .iter_mut()
                .filter(|it| {
                    it.open
                        && model.callers[it.caller].sendings[it.number - 1]
                            .reply
                            .is_none()
                })
                .collect();
            if open.is_empty() {
                return false;
            }
            let index = usize::from(which) % open.len();
            let Sending {
                caller,
                number,
                waker,
                ..
            } = &mut *open[index];
            let sending = &model.callers[*caller].sendings[*number - 1];
            let reply = model.env.settle(reply, sending.bearer);
            model.callers[*caller].sendings[*number - 1].reply = Some(reply);
            waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Continues to read the body of a request that got its response: the same body may be resent
    /// meanwhile.
    pub(crate) fn read_on(&self, which: u8) {
        let mut model = self.shared.model();
        let mut table = self.table.lock().unwrap();
        let mut lingering: Vec<_> = table
            .sendings
            .iter_mut()
            .filter(|it| it.number == 1 && !it.open && it.body.is_some())
            .filter(|it| matches!(model.callers[it.caller].call.kind, Kind::Stream(..)))
            .collect();
        if lingering.is_empty() {
            return;
        }
        let index = usize::from(which) % lingering.len();
        let sending = &mut lingering[index];
        let caller = &mut model.callers[sending.caller];
        let read = caller.read + 1;
        let fault = sending.read(caller.call, read).err();
        self.shared.check(fault.is_some() == caller.taken_over, || {
            format!(
                "reading on in the body of caller {}: {fault:?}, {caller:?}",
                sending.caller
            )
        });
        if fault.is_some() {
            sending.body = None;
        } else {
            caller.read = read.min(caller.frames().len());
        }
    }

    /// How often a caller's request was sent, and whether the response is waited for.
    pub(crate) fn state_of(&self, caller: usize) -> (usize, bool) {
        let table = self.table.lock().unwrap();
        let sendings = || {
            table
                .sendings
                .iter()
                .filter(|sending| sending.caller == caller)
        };
        (sendings().count(), sendings().any(|sending| sending.alive))
    }

    /// The token that a caller sent last.
    pub(crate) fn last_bearer(&self, caller: usize) -> Option<u32> {
        let table = self.table.lock().unwrap();
        table
            .sendings
            .iter()
            .rev()
            .find(|sending| sending.caller == caller)?
            .bearer
    }

    /// The API forgets a request with its connection.
    pub(crate) fn forget_bodies(&self) {
        let mut table = self.table.lock().unwrap();
        table
            .sendings
            .iter_mut()
            .for_each(|sending| sending.body = None);
    }

    fn received(&self, head: &http::request::Parts, body: Streamed) -> Responding {
        let shared = &self.shared;
        let number = head.extensions.get::<Number>().copied();
        let Number(caller) = number.expect("the number of the caller");
        let mut model = shared.model();
        let mut table = self.table.lock().unwrap();
        let number = 1 + table
            .sendings
            .iter()
            .filter(|sending| sending.caller == caller)
            .count();
        let call = model.callers[caller].call;

        let authorization: Vec<_> = head.headers.get_all(AUTHORIZATION).iter().collect();
        let expected = model.callers[caller].sendings.get(number - 1).cloned();
        let wanted = expected
            .as_ref()
            .map(|sending| match (call.mark, sending.bearer) {
                (Mark::OwnAuthorization, _) => vec![OWN.to_owned()],
                (_, bearer) => bearer
                    .iter()
                    .map(|bearer| format!("Bearer {}", text(*bearer)))
                    .collect(),
            });
        let seen: Vec<_> = authorization
            .iter()
            .map(|it| it.to_str().unwrap().to_owned())
            .collect();
        shared.check(wanted.as_ref() == Some(&seen), || {
            format!("caller {caller} sends {seen:?}, not {wanted:?}")
        });
        let bearer = number_of(&authorization);
        if let Err(fault) = self.audit(&mut model.audit, call, number, authorization.len(), bearer)
        {
            shared.fault(format!("caller {caller}: {fault}"));
        }
        let mut plain = request(caller, call);
        plain.headers_mut().remove(AUTHORIZATION);
        let mut headers = head.headers.clone();
        headers.remove(AUTHORIZATION);
        let same = plain.method() == head.method
            && plain.uri() == &head.uri
            && plain.version() == head.version
            && plain.headers() == &headers;
        shared.check(same, || {
            format!("caller {caller} sends something else: {head:?}")
        });

        table.sendings.push(Sending {
            caller,
            number,
            bearer,
            body: Some(body),
            got: Vec::new(),
            waker: None,
            open: true,
            alive: true,
        });
        Responding {
            api: self.clone(),
            index: table.sendings.len() - 1,
        }
    }

    /// Checks every request that arrives.
    fn audit(
        &self,
        audit: &mut crate::audit::Audit,
        call: Call,
        number: usize,
        authorizations: usize,
        bearer: Option<u32>,
    ) -> Result<(), String> {
        if number > 2 {
            return Err(format!("sent {number} times"));
        }
        if matches!(call.mark, Mark::SkipAuth | Mark::OwnAuthorization) {
            return if number == 1 {
                Ok(())
            } else {
                Err("sent again".to_owned())
            };
        }
        if authorizations != 1 {
            return Err(format!("sent with {authorizations} tokens"));
        }
        audit.sent(
            bearer.ok_or("sent with what is no token")?,
            self.shared.now(),
        )
    }
}

fn number_of(authorization: &[&http::HeaderValue]) -> Option<u32> {
    authorization
        .first()?
        .to_str()
        .ok()?
        .strip_prefix("Bearer token-")?
        .parse()
        .ok()
}

impl Api {
    fn poll_readiness(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let readiness = self.shared.model().env.readiness;
        match readiness {
            Readiness::Broken => return Poll::Ready(Err(NOT_READY.into())),
            Readiness::Ready => self.ready = Some(Readied::new(&self.shared)),
            Readiness::Busy => {
                self.table.lock().unwrap().waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn use_readiness(&mut self) {
        let ready = self.ready.take().is_some();
        self.shared.check(ready, || {
            "the API was called without having been polled ready".to_owned()
        });
    }

    /// A request of reqwest's, from a middleware, which has no readiness.
    #[cfg(feature = "reqwest")]
    pub(crate) fn receive(&self, request: reqwest::Request) -> OfReqwest {
        let (head, body) = Request::<reqwest::Body>::try_from(request)
            .unwrap()
            .into_parts();
        OfReqwest(self.received(&head, body.map_err(Into::into).boxed_unsync()))
    }
}

impl<B> Service<Request<B>> for Api
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Responding;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.poll_readiness(cx)
    }

    fn call(&mut self, request: Request<B>) -> Responding {
        self.use_readiness();
        let (head, body) = request.into_parts();
        self.received(&head, body.map_err(Into::into).boxed_unsync())
    }
}

#[cfg(feature = "reqwest")]
impl Service<reqwest::Request> for Api {
    type Response = reqwest::Response;
    type Error = BoxError;
    type Future = OfReqwest;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.poll_readiness(cx)
    }

    fn call(&mut self, request: reqwest::Request) -> OfReqwest {
        self.use_readiness();
        self.receive(request)
    }
}

/// The future of a response in reqwest's types.
#[cfg(feature = "reqwest")]
pub(crate) struct OfReqwest(Responding);

#[cfg(feature = "reqwest")]
impl Future for OfReqwest {
    type Output = Result<reqwest::Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = Pin::new(&mut self.0).poll(cx);
        response.map_ok(|response| response.map(|()| Bytes::new()).into())
    }
}

/// The future of a response.
pub(crate) struct Responding {
    api: Api,
    index: usize,
}

impl Future for Responding {
    type Output = Result<Response<()>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = &self.api.shared;
        let model = shared.model();
        let mut table = self.api.table.lock().unwrap();
        let sending = &mut table.sendings[self.index];
        let caller = &model.callers[sending.caller];
        let expected = caller.sendings.get(sending.number - 1);
        let Some(reply) = expected.and_then(|sending| sending.reply) else {
            sending.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        // A response that lets the request through has read all of it.
        let read = if reply.what == What::Status(200) {
            u8::MAX
        } else {
            reply.read
        };
        if let Err(fault) = sending.read(caller.call, read.into()) {
            shared.fault(format!(
                "caller {}, sending {}: {fault}",
                sending.caller, sending.number
            ));
        }
        sending.open = false;
        Poll::Ready(match reply.what {
            What::Status(status) => {
                let response = Response::builder()
                    .status(status)
                    .header("x-sending", sending.number);
                Ok(response.body(()).unwrap())
            }
            What::TransportError | What::Honest => Err(API_BROKE.into()),
        })
    }
}

impl Drop for Responding {
    fn drop(&mut self) {
        let mut table = self.api.table.lock().unwrap();
        let sending = &mut table.sendings[self.index];
        let body = if sending.open {
            sending.body.take()
        } else {
            None
        };
        (sending.open, sending.alive) = (false, false);
        let waker = sending.waker.take();
        drop(table);
        drop((body, waker));
    }
}

impl Sending {
    /// Reads until `frames` of the body were read, or to its end.
    fn read(&mut self, call: Call, frames: usize) -> Result<(), String> {
        let Some(body) = &mut self.body else {
            return Ok(());
        };
        let all = frames_of(self.caller, call);
        let mut cx = Context::from_waker(Waker::noop());
        while self.got.len() < frames {
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Pending => return Err("the body stands still".to_owned()),
                Poll::Ready(Some(Err(error))) => return Err(error.to_string()),
                Poll::Ready(Some(Ok(frame))) => self.got.push(show(frame)),
                Poll::Ready(None) if self.got == all => return Ok(()),
                Poll::Ready(None) => {
                    return Err(format!("the body was {:?}, not {all:?}", self.got));
                }
            }
            if !all.starts_with(&self.got) {
                return Err(format!(
                    "the body begins with {:?}, not with {all:?}",
                    self.got
                ));
            }
        }
        Ok(())
    }
}
