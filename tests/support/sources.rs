//! Token sources: one whose every fetch the test ends, one that responds from a list, and one that
//! notes when it was called.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use klavi_auth::{Error, FetchFuture, NewToken, Predecessor, TokenRequest, TokenSource};
use tokio::{sync::oneshot, time::Instant};

use super::{settle, token};

/// A source whose every fetch the test ends by hand.
#[derive(Clone, Default)]
pub struct ManualSource(Arc<ManualSourceInner>);

#[derive(Default)]
struct ManualSourceInner {
    fetches: AtomicUsize,
    open: Mutex<VecDeque<Fetch>>,
}

/// A running fetch.
pub struct Fetch {
    pub predecessor: Predecessor,
    pub failures: u32,
    pub last_error: Option<Error>,
    response: oneshot::Sender<Result<NewToken, Error>>,
}

impl Fetch {
    pub fn respond(self, result: Result<NewToken, Error>) {
        let _ = self.response.send(result);
    }

    /// The cache no longer waits for this fetch.
    pub fn is_dropped(&self) -> bool {
        self.response.is_closed()
    }

    /// Ends it with a panic inside of the source.
    pub fn panic(self) {
        drop(self.response);
    }
}

impl ManualSource {
    /// How many fetches were begun.
    pub fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::SeqCst)
    }

    /// The oldest fetch that was not looked at yet. Lets other tasks run first.
    pub async fn next(&self) -> Fetch {
        settle().await;
        self.0
            .open
            .lock()
            .unwrap()
            .pop_front()
            .expect("a fetch is under way")
    }

    /// Ends the oldest fetch and lets its flight end.
    pub async fn respond(&self, result: Result<NewToken, Error>) {
        self.next().await.respond(result);
        settle().await;
    }

    pub fn is_idle(&self) -> bool {
        self.0.open.lock().unwrap().is_empty()
    }
}

impl TokenSource for ManualSource {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        let (response, result) = oneshot::channel();
        let (failures, last_error) = (request.failures(), request.last_error().cloned());
        let predecessor = request.predecessor().clone();
        self.0.open.lock().unwrap().push_back(Fetch {
            predecessor,
            failures,
            last_error,
            response,
        });
        Box::pin(async {
            result
                .await
                .expect("the test dropped the fetch: the source panics")
        })
    }
}

/// A source that responds at once from a list; the last response is repeated.
#[derive(Clone)]
pub struct ScriptedSource {
    fetches: Arc<AtomicUsize>,
    responses: Arc<Mutex<VecDeque<Result<NewToken, Error>>>>,
}

impl ScriptedSource {
    pub fn new(responses: impl IntoIterator<Item = Result<NewToken, Error>>) -> Self {
        Self {
            fetches: Arc::default(),
            responses: Arc::new(Mutex::new(responses.into_iter().collect())),
        }
    }

    /// Tokens `t1`, `t2`, … of 1800 s.
    pub fn tokens() -> Self {
        Self::new((1..=100).map(|n| token(&format!("t{n}"))))
    }

    pub fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl TokenSource for ScriptedSource {
    fn fetch(&self, _: TokenRequest) -> FetchFuture<'_> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let mut responses = self.responses.lock().unwrap();
        let response = match responses.len() {
            0 => panic!("the script has no response"),
            1 => responses[0].clone(),
            _ => responses.pop_front().unwrap(),
        };
        Box::pin(async move { response })
    }
}

/// A source that responds at once, by number of the fetch (from 1), and notes when it was called.
#[derive(Clone)]
pub struct LoggedSource(Arc<LoggedSourceInner>);

struct LoggedSourceInner {
    asked: Mutex<Vec<Instant>>,
    response: Box<dyn Fn(usize) -> Result<NewToken, Error> + Send + Sync>,
}

impl LoggedSource {
    pub fn new(
        response: impl Fn(usize) -> Result<NewToken, Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(LoggedSourceInner {
            asked: Mutex::default(),
            response: Box::new(response),
        }))
    }

    /// Tokens `t1`, `t2`, … of 1800 s.
    pub fn tokens() -> Self {
        Self::new(|n| token(&format!("t{n}")))
    }

    pub fn fetches(&self) -> usize {
        self.0.asked.lock().unwrap().len()
    }

    /// When it was called, in seconds after `start`; earlier calls are left out.
    pub fn seconds_after(&self, start: Instant) -> Vec<f64> {
        let asked = self.0.asked.lock().unwrap();
        asked
            .iter()
            .filter(|&&at| at >= start)
            .map(|&at| (at - start).as_secs_f64())
            .collect()
    }
}

impl TokenSource for LoggedSource {
    fn fetch(&self, _: TokenRequest) -> FetchFuture<'_> {
        let number = {
            let mut asked = self.0.asked.lock().unwrap();
            asked.push(Instant::now());
            asked.len()
        };
        Box::pin(async move { (self.0.response)(number) })
    }
}
