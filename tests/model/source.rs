//! The token source: every fetch is ended by an op, at once if one has said so, or never.

use std::{
    collections::BTreeMap,
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use klavi_auth::{Error, FetchFuture, NewToken, TokenRequest, TokenSource};

use crate::{
    cache::{Cause, Nature},
    ops::Token,
    shared::Shared,
};

#[derive(Clone, Debug)]
pub(crate) struct Source {
    shared: Arc<Shared>,
    /// The fetches that are open, and who waits for them.
    open: Arc<Mutex<BTreeMap<usize, Waker>>>,
}

impl Source {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            open: Arc::default(),
        }
    }

    /// Ends the oldest fetch that is open.
    pub(crate) fn respond(&self, reply: Token) {
        let waker = {
            let open = self.open.lock().unwrap();
            let mut model = self.shared.model();
            let Some((&fetch, waker)) = open
                .iter()
                .find(|&(&fetch, _)| model.replies[fetch].is_none())
            else {
                return;
            };
            model.replies[fetch] = Some(reply);
            waker.clone()
        };
        waker.wake();
    }

    /// Nobody waits for a fetch that the reference knows nothing of, and the other way round.
    /// [23] There is one, or one more for a stalled runtime.
    pub(crate) fn check(&self, most: usize) {
        let open: Vec<_> = self.open.lock().unwrap().keys().copied().collect();
        let expected: Vec<_> = self
            .shared
            .model()
            .cache
            .open_fetches()
            .into_keys()
            .collect();
        self.shared.check(open.len() <= most, || {
            format!("the fetches {open:?} are open at once")
        });
        self.shared.check(open == expected, || {
            format!("the fetches {open:?} are open, not {expected:?}")
        });
    }
}

impl TokenSource for Source {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        let number = self.shared.asked(&request);
        let mut fetch = Fetch {
            source: self.clone(),
            number,
            over: false,
        };
        if matches!(self.shared.model().replies[number], Some(Token::Panic)) {
            // Before there is a future at all.
            fetch.panic();
        }
        self.open
            .lock()
            .unwrap()
            .insert(number, Waker::noop().clone());
        Box::pin(fetch)
    }
}

struct Fetch {
    source: Source,
    number: usize,
    over: bool,
}

impl Fetch {
    /// Without the message that a panic prints: there are thousands.
    fn panic(&mut self) -> ! {
        let _no_token = self.respond(Token::Panic);
        resume_unwind(Box::new("the source panics"));
    }

    fn respond(&mut self, reply: Token) -> Result<NewToken, Error> {
        self.over = true;
        self.source.shared.model().reply(self.number, reply)
    }
}

impl Future for Fetch {
    type Output = Result<NewToken, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = self.source.shared.model().replies[self.number];
        match reply {
            None => {
                let waker = cx.waker().clone();
                drop(self.source.open.lock().unwrap().insert(self.number, waker));
                Poll::Pending
            }
            Some(Token::Panic) => self.panic(),
            Some(reply) => Poll::Ready(self.respond(reply)),
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let waker = self.source.open.lock().unwrap().remove(&self.number);
        drop(waker);
        self.source.shared.happened();
        if !self.over {
            // Dropped by the timeout, or with its runtime.
            self.source
                .shared
                .model()
                .ended(self.number, Cause::TimedOut, Nature::Transient);
        }
    }
}
