//! A row of the table: a fault at one place, with one client.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::LocalBoxFuture};
use klavi_auth::{Error, TokenEndpoint};
use tokio::time::Instant;

use crate::{
    clients::{Client, End, Seen},
    list::{self, Fault, Kind},
    server::Place,
    stack::{FaultyStack, back_off, landed},
    wire::Wire,
};

/// A cell of the table.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    /// It must be this in every run.
    Same(String),
    /// It was this in one run.
    Measured(String),
}

use Cell::{Measured, Same};

/// A row of the table, for one of its clients.
pub(crate) struct Row {
    pub(crate) section: Section,
    /// Equal for the same row of several clients.
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) client: &'static str,
    pub(crate) run: Box<dyn Fn() -> LocalBoxFuture<'static, Vec<Cell>> + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Section {
    Raw(Place),
    Sandbox,
}

impl Section {
    pub(crate) const ALL: [Self; 4] = [
        Self::Raw(Place::Auth),
        Self::Raw(Place::Refresh),
        Self::Raw(Place::Api),
        Self::Sandbox,
    ];

    /// Those in italics are measured.
    pub(crate) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Raw(Place::Auth) => &[
                "the caller sees",
                "*cause*",
                "attempts",
                "*took*",
                "next request",
                "left behind",
            ],
            Self::Raw(Place::Refresh) => &[
                "the caller sees",
                "*took*",
                "the refresh",
                "*cause*",
                "the third in a row",
                "next request",
                "left behind",
            ],
            Self::Raw(Place::Api) => &[
                "the caller sees",
                "*cause*",
                "*took*",
                "next request",
                "left behind",
            ],
            Self::Sandbox => &[
                "at",
                "the caller sees",
                "*took*",
                "the fetch",
                "next request",
                "left behind",
            ],
        }
    }
}

/// The faults of the server by hand.
pub(crate) fn raw() -> Vec<Row> {
    let mut rows = Vec::new();
    for place in [Place::Auth, Place::Refresh, Place::Api] {
        for (number, fault) in list::all().into_iter().map(Arc::new).enumerate() {
            for client in Client::OVER_HTTP_1
                .into_iter()
                .filter(|client| fault.concerns(place, *client))
            {
                let fault = Arc::clone(&fault);
                rows.push(Row {
                    section: Section::Raw(place),
                    number,
                    name: fault.name.to_owned(),
                    client: client.name(),
                    run: Box::new(move || run(Arc::clone(&fault), place, client).boxed_local()),
                });
            }
        }
    }
    rows
}

async fn run(fault: Arc<Fault>, place: Place, client: Client) -> Vec<Cell> {
    let (fault, stack) = (&*fault, FaultyStack::new(&fault, place, client).await);
    match place {
        Place::Auth => at_auth(fault, stack).await,
        Place::Refresh => at_refresh(fault, stack).await,
        Place::Api => at_api(fault, stack).await,
    }
}

impl Fault {
    /// Whether it can be shown at this place with this client.
    pub(crate) fn concerns(&self, place: Place, client: Client) -> bool {
        match self.kind {
            // The reqwest of these tests has no TLS.
            Kind::Tls(_) => client == Client::HyperUtil,
            Kind::Compressed(_) => client == Client::HyperUtil && place != Place::Api,
            // Rejected keys are cached for 5 s; other tests show that.
            Kind::Rejection(_) => place != Place::Auth,
            _ => true,
        }
    }
}

/// There is no token yet, the caller waits for it, and every call fails.
async fn at_auth(fault: &Fault, stack: FaultyStack) -> Vec<Cell> {
    stack.strike(fault, Place::Auth);
    let (seen, took) = timed(stack.ask(&stack.layered)).await;
    let (text, cause) = match token_error(&seen) {
        None => (seen.describe_fine(), String::new()),
        Some(error) => (describe(&error), cause(&error)),
    };
    let attempts = stack.attempts(fault);
    let [_, refresh, api] = stack.calls();
    assert_eq!((refresh, api), (0, usize::from(seen.is_fine())));
    stack.heal();
    back_off(&stack.layer).await;
    stack.invalidate().await;
    let next = stack.next(fault, Place::Auth).await;
    let left = stack.leave().await;
    vec![
        Same(text),
        Measured(cause),
        Same(attempts.to_string()),
        Measured(took),
        Same(next),
        Same(left),
    ]
}

/// There is a token, its refresh is due, and fails.
async fn at_refresh(fault: &Fault, stack: FaultyStack) -> Vec<Cell> {
    if fault.is_before_the_request() {
        stack.server.one_request_each();
    }
    stack.layer.cache().warm_up().await.unwrap();
    assert_eq!(stack.calls(), [1, 0, 0]);
    stack.strike(fault, Place::Refresh);
    let (seen, took) = timed(stack.ask(&stack.layered)).await;
    assert!(seen.is_fine(), "the caller noticed: {seen:?}");
    let is_denied = matches!(fault.kind, Kind::Rejection(_));
    let error = landed(&stack.layer).await;
    let text = error
        .as_ref()
        .map_or_else(|| "succeeds".to_owned(), describe);
    let text = if is_denied {
        format!("{text}, at `/auth`")
    } else {
        text
    };
    let cause = error.as_ref().map_or_else(String::new, cause);
    let reaches = usize::from(!fault.is_before_the_request());
    assert_eq!(stack.calls(), [1 + usize::from(is_denied), reaches, 1]);
    let generation = || stack.layer.cache().snapshot().generation();
    assert_eq!(generation(), Some(if error.is_some() { 1 } else { 2 }));
    let third = if error.is_some() {
        third_refresh(fault, &stack).await
    } else {
        String::new()
    };
    let before = generation().unwrap();
    stack.heal();
    back_off(&stack.layer).await;
    let next = stack.next(fault, Place::Refresh).await;
    assert_eq!(generation(), Some(before + 1));
    let left = stack.leave().await;
    let seen = seen.describe_fine();
    vec![
        Same(seen),
        Measured(took),
        Same(text),
        Measured(cause),
        Same(third),
        Same(next),
        Same(left),
    ]
}

/// The first refresh has failed, and so does the second. The third goes to `/auth`. No caller
/// notices.
async fn third_refresh(fault: &Fault, stack: &FaultyStack) -> String {
    let mut outcome = None;
    for _ in 0..2 {
        back_off(&stack.layer).await;
        stack.struck_is_gone(fault).await;
        let seen = stack.ask(&stack.layered).await;
        assert!(seen.is_fine(), "the caller noticed: {seen:?}");
        outcome = landed(&stack.layer).await;
    }
    let reaches = usize::from(!fault.is_before_the_request());
    assert_eq!(stack.calls(), [1 + reaches, 2 * reaches, 3]);
    let Some(error) = outcome else {
        return "succeeds, at `/auth`".to_owned();
    };
    assert_eq!(error.endpoint(), Some(TokenEndpoint::Auth));
    format!("{}, at `/auth`", describe(&error))
}

/// There is a fresh token, and the request itself fails: with the layer as without.
async fn at_api(fault: &Fault, stack: FaultyStack) -> Vec<Cell> {
    stack.layer.cache().warm_up().await.unwrap();
    stack.strike(fault, Place::Api);
    let (seen, took);
    let after = if matches!(fault.kind, Kind::Rejection(_)) {
        (seen, took) = timed(stack.ask(&stack.layered)).await;
        [2, 0, 2]
    } else {
        let expected = stack.ask(&stack.bare).await;
        let [.., calls] = stack.calls();
        (seen, took) = timed(stack.ask(&stack.layered)).await;
        seen.assert_same(&expected);
        [1, 0, 2 * calls]
    };
    assert_eq!(stack.calls(), after);
    stack.heal();
    let next = stack.next(fault, Place::Api).await;
    assert_eq!(stack.calls(), [after[0], 0, after[2] + 1]);
    let left = stack.leave().await;
    let cause = seen
        .errors()
        .last()
        .map_or_else(String::new, |line| quoted(line));
    vec![
        Same(seen.describe()),
        Measured(cause),
        Measured(took),
        Same(next),
        Same(left),
    ]
}

impl Fault {
    pub(crate) fn leaves_the_connection_open(&self) -> bool {
        match &self.kind {
            Kind::Wire(wire) | Kind::Compressed(wire) | Kind::Rejection(wire) => {
                matches!(wire, Wire::Respond(_))
            }
            Kind::Redirect(_) => true,
            _ => false,
        }
    }

    pub(crate) fn is_before_the_request(&self) -> bool {
        matches!(
            self.kind,
            Kind::Tls(_) | Kind::NobodyListens | Kind::NoSuchName | Kind::NoNameServer
        )
    }
}

pub(crate) async fn timed(seen: impl Future<Output = Seen>) -> (Seen, String) {
    let start = Instant::now();
    let seen = seen.await;
    (seen, in_ms(start.elapsed()))
}

fn in_ms(took: Duration) -> String {
    format!("{:.0} ms", took.as_secs_f64() * 1000.0)
}

/// The layer's own error, if there is one: then it is all that there is.
pub(crate) fn token_error(seen: &Seen) -> Option<Error> {
    let End::Error(error) = &seen.end else {
        return None;
    };
    let error = error
        .downcast_ref::<Error>()
        .expect("an error of the layer's own");
    assert!(seen.status.is_none() && error.is_no_token());
    Some(error.clone())
}

/// What an error must say, apart from its text.
pub(crate) fn describe(error: &Error) -> String {
    let kinds = [
        ("is_transport", error.is_transport()),
        ("is_timeout", error.is_timeout()),
        ("is_invalid_response", error.is_invalid_response()),
        ("is_server_error", error.is_server_error()),
        ("is_throttled", error.is_throttled()),
        ("is_bad_request", error.is_bad_request()),
        ("is_keys_rejected", error.is_keys_rejected()),
        ("is_keys_needed", error.is_keys_needed()),
        ("is_interrupted", error.is_interrupted()),
    ];
    let kinds: Vec<_> = kinds
        .iter()
        .filter(|(_, holds)| *holds)
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    match error.status() {
        Some(status) => format!("{}, status {}", kinds.join(", "), status.as_u16()),
        None => kinds.join(", "),
    }
}

fn cause(error: &Error) -> String {
    let first: &(dyn std::error::Error + 'static) = error;
    let last = std::iter::successors(Some(first), |error| error.source()).last();
    quoted(&last.unwrap_or(first).to_string())
}

fn quoted(line: &str) -> String {
    line.replace('|', "\\|").replace('<', "\\<")
}
