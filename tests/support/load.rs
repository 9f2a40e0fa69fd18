//! Requests at a steady rate, each with a timeout, and their outcomes. Paused time.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "every test file uses its own part of it"
)]

use std::{future::poll_fn, pin::pin, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{Request, Uri};
use klavi_auth::{Error, TokenCache};
use tokio::time::{sleep_until, timeout};
use tower_service::Service;

use crate::klavi::{Body, HEALTHY, Klavi, Number, POISONED};

/// The timeout of every request.
pub const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy)]
pub struct Load {
    /// How many healthy requests.
    pub requests: u64,
    /// One each.
    pub every: Duration,
    /// How often a path is called, besides, that always responds 401.
    pub poisoned: Option<Duration>,
}

/// The outcomes of the healthy requests.
#[derive(Default)]
pub struct Report {
    pub failed: Vec<Failed>,
    pub longest_success: Duration,
    pub longest_failure: Duration,
}

#[derive(Debug)]
pub struct Failed {
    pub number: u64,
    pub start: Duration,
    pub end: Duration,
    pub why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An error instead of a response.
    Error,
    /// The API's 401.
    Unauthorized,
    /// The API's 401, while the budget is used up.
    OverBudget,
    /// No response before the timeout.
    Patience,
}

impl Load {
    /// 10 requests a second.
    pub fn seconds(seconds: u64) -> Self {
        Self {
            requests: seconds * 10,
            every: Duration::from_millis(100),
            poisoned: None,
        }
    }

    pub async fn run(self, klavi: &Klavi, cache: &TokenCache) -> Report {
        let mut client = klavi.client(cache);
        let (healthy, poisoned) = (Uri::from_static(HEALTHY), Uri::from_static(POISONED));
        let (start, epoch) = (tokio::time::Instant::now(), klavi.now());
        let (mut under_way, mut report) = (FuturesUnordered::new(), Report::default());
        let mut next_poisoned = self.poisoned;
        let mut tick = pin!(sleep_until(start));
        for number in 0..self.requests {
            let due = self.every * u32::try_from(number).unwrap();
            tick.as_mut().reset(start + due);
            loop {
                tokio::select! {
                    biased;
                    Some(end) = under_way.next(), if !under_way.is_empty() => report.add(end),
                    () = &mut tick => break,
                }
            }
            poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
            if let (Some(at), Some(every)) = (next_poisoned, self.poisoned) {
                if at <= due {
                    next_poisoned = Some(at + every);
                    under_way.push(request(
                        klavi,
                        None,
                        epoch + due,
                        client.call(get(&poisoned)),
                    ));
                    poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
                }
            }
            let mut healthy = get(&healthy);
            healthy.extensions_mut().insert(Number(number));
            under_way.push(request(
                klavi,
                Some(number),
                epoch + due,
                client.call(healthy),
            ));
        }
        while let Some(end) = under_way.next().await {
            report.add(end);
        }
        report
    }
}

fn get(uri: &Uri) -> Request<Body> {
    let mut request = Request::default();
    *request.uri_mut() = uri.clone();
    request
}

/// The outcome of a healthy request; the others are not counted.
type End = Option<Result<Duration, Failed>>;

async fn request(
    klavi: &Klavi,
    number: Option<u64>,
    start: Duration,
    call: impl Future<Output = Result<http::Response<Body>, klavi_auth::BoxError>>,
) -> End {
    let why = match timeout(PATIENCE, call).await {
        Err(_) => Some(Why::Patience),
        Ok(Err(_)) => Some(Why::Error),
        Ok(Ok(response)) if response.status() == 200 => None,
        Ok(Ok(response)) => {
            let error = response.extensions().get::<Error>();
            let over_budget = error.is_some_and(Error::is_over_budget);
            Some(if over_budget {
                Why::OverBudget
            } else {
                Why::Unauthorized
            })
        }
    };
    let (number, end) = (number?, klavi.now());
    Some(match why {
        None => Ok(end - start),
        Some(why) => Err(Failed {
            number,
            start,
            end,
            why,
        }),
    })
}

impl Report {
    fn add(&mut self, end: End) {
        match end {
            None => {}
            Some(Ok(took)) => self.longest_success = self.longest_success.max(took),
            Some(Err(failed)) => {
                self.longest_failure = self.longest_failure.max(failed.end - failed.start);
                self.failed.push(failed);
            }
        }
    }
}
