//! Any response of the token endpoints, given to a source through its transport: what the caller
//! gets must be what [`reading`](super::reading) says, and nothing secret may be in an error.
//!
//! An input is a line, `keys`, `live` or `bearer`, that says how the source comes to ask, and
//! responses in the order of the calls, with a line `%%` between them. The last one goes on.

use std::{
    collections::HashSet,
    error::Error as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use klavi_auth::{
    Credentials, Error, FetchFuture, KlaviApi, KlaviSource, NewToken, Product, TokenCache,
    TokenRequest, TokenSource,
};
use tokio::time::{Instant, advance};
use tower::service_fn;

use super::{
    reading::{self, Failure, Kind, Token, Wait},
    response::{TokenResponse, split_once},
};

const ACCESS: &str = "q7Zx4Vn2Kw9Tj3Hd8Rb5";
const SECRET: &str = "m6Yp1Gf8Xc3Lz7Bq2Wd9Jk4Nh5Tv0Rs6Pg1Mx8Qb";
const BEARER: &str = "b3Fw8Ht5Dk2Sn7Vc4Zr9Lp6";
const AGE: Duration = Duration::from_secs(1400);
const LEFT: Duration = Duration::from_secs(400);
const FLIGHT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The first token, for keys.
    Keys,
    /// The refresh of a live token, with keys to fall back on.
    Live,
    /// The same without keys.
    Bearer,
}

struct Asked {
    is_auth: bool,
    request: Request<Bytes>,
}

type Seen<T> = Arc<Mutex<Vec<T>>>;

/// Shows what the source gives to the cache.
struct Spy {
    source: KlaviSource,
    seen: Seen<Result<NewToken, Error>>,
}

impl TokenSource for Spy {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        Box::pin(async move {
            let outcome = self.source.fetch(request).await;
            self.seen.lock().unwrap().push(outcome.clone());
            outcome
        })
    }
}

pub(crate) fn run(data: &[u8]) {
    let (way, mut rest) = split_once(data, b"\n");
    let way = match way {
        b"live" => Way::Live,
        b"bearer" => Way::Bearer,
        _ => Way::Keys,
    };
    let mut responses = Vec::new();
    while responses.is_empty() || (!rest.is_empty() && responses.len() < 4) {
        let (response, others) = split_once(rest, b"\n%%\n");
        responses.push(TokenResponse::parse(response));
        rest = others;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(converse(way, Arc::new(responses)));
}

async fn converse(way: Way, responses: Arc<Vec<TokenResponse>>) {
    let (asked, seen) = (Seen::<Asked>::default(), Seen::default());
    let transport = {
        let (responses, asked) = (Arc::clone(&responses), Arc::clone(&asked));
        service_fn(move |request: Request<Bytes>| {
            let mut asked = asked.lock().unwrap();
            asked.push(Asked {
                is_auth: request.uri().path().ends_with("/auth"),
                request,
            });
            let response = match (way, asked.len()) {
                (Way::Live, 1) => TokenResponse::parse(
                    format!("200\n\n{{\"accessToken\":\"{BEARER}\"}}").as_bytes(),
                ),
                (Way::Live, calls) => responses[(calls - 2).min(responses.len() - 1)].clone(),
                (_, calls) => responses[(calls - 1).min(responses.len() - 1)].clone(),
            };
            std::future::ready(Ok::<_, std::io::Error>(response.to_http()))
        })
    };
    let credentials = match way {
        Way::Bearer => Credentials::bearer(BEARER, AGE + LEFT),
        _ => Credentials::new(ACCESS, SECRET),
    };
    let source = KlaviSource::new(
        KlaviApi::production(Product::Monitor),
        credentials.unwrap(),
        transport,
    );
    let spy = Spy {
        source,
        seen: Arc::clone(&seen),
    };
    // Neither jitter nor backoff: what is waited is what was asked for.
    let cache = TokenCache::builder(spy).randomness(|| 0.0).build().unwrap();
    match way {
        Way::Keys => first_token(&cache, &responses, &asked).await,
        Way::Live | Way::Bearer => refreshed(way, &cache, &responses, &asked, &seen).await,
    }
}

async fn first_token(cache: &TokenCache, responses: &[TokenResponse], asked: &Seen<Asked>) {
    let start = Instant::now();
    let got = cache.get().await;
    let waited = start.elapsed();
    let (calls, expected, expected_wait) = retried(responses);
    let is_exact = expected_wait.is_some();
    if is_exact {
        assert_eq!(
            asked.lock().unwrap().len(),
            calls,
            "case 35: how often it was asked"
        );
        // The clock of timers ticks in milliseconds.
        assert!(
            waited.abs_diff(expected_wait.unwrap()) < Duration::from_millis(10),
            "case 36: {waited:?}"
        );
    }
    for call in asked.lock().unwrap().iter() {
        is_auth_call(call);
    }
    let snapshot = cache.snapshot();
    match (got, expected) {
        (Ok(token), Ok(Token { value, lifetime })) => {
            assert_eq!(token.header_value(), format!("Bearer {value}").as_str());
            assert!(token.header_value().is_sensitive());
            let left = snapshot.expires_in().unwrap();
            assert!(
                left.abs_diff(lifetime) < Duration::from_millis(1),
                "case 12: {left:?}"
            );
            assert!(
                snapshot.is_ready()
                    && snapshot.last_error().is_none()
                    && snapshot.retry_in().is_none()
            );
        }
        (Err(error), Err(failure)) => {
            assert!(error.is_no_token() && !snapshot.is_ready());
            says(&error, &failure, true);
            shows_nothing(&error, &[ACCESS, SECRET], responses);
            let held = match &failure.wait {
                _ if matches!(failure.status, 400 | 401 | 403) => Duration::from_secs(5),
                wait => wait
                    .map_or(Duration::ZERO, Wait::duration)
                    .min(LONGEST_WAIT),
            };
            let got = snapshot.retry_in().unwrap_or_default();
            assert!(
                !is_exact || got.abs_diff(held) < Duration::from_secs(5),
                "case 36: {got:?}, not {held:?}"
            );
        }
        (got, expected) => panic!("got {got:?}, and the response says {expected:?}"),
    }
}

/// The attempts of a flight for which callers wait: how many, what comes of it, and after how long;
/// `None` for that if it depends on the date.
fn retried(responses: &[TokenResponse]) -> (usize, Result<Token, Failure>, Option<Duration>) {
    let (mut now, mut exact) = (Duration::ZERO, true);
    for call in 1.. {
        let failure = match reading::read(
            &responses[(call - 1).min(responses.len() - 1)],
            &[ACCESS, SECRET],
        ) {
            Ok(token) => return (call, Ok(token), exact.then_some(now)),
            Err(failure) => failure,
        };
        let wait = failure
            .wait
            .map_or(Duration::ZERO, Wait::duration)
            .min(LONGEST_WAIT);
        exact &=
            !matches!(failure.wait, Some(Wait::Date(_))) || wait.is_zero() || wait > FLIGHT * 2;
        if call == 3 || !failure.is_transient() || now + wait >= FLIGHT {
            return (call, Err(failure), exact.then_some(now));
        }
        now += wait;
    }
    unreachable!("the third call is the last");
}

async fn refreshed(
    way: Way,
    cache: &TokenCache,
    responses: &[TokenResponse],
    asked: &Seen<Asked>,
    seen: &Seen<Result<NewToken, Error>>,
) {
    assert_eq!(cache.get().await.unwrap().expose(), BEARER);
    advance(AGE).await;
    let before = asked.lock().unwrap().len();
    assert_eq!(
        cache.get().await.unwrap().expose(),
        BEARER,
        "case 16: nobody waits for a refresh"
    );
    for _ in 0..1000 {
        if !cache.snapshot().is_fetching() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let snapshot = cache.snapshot();
    assert!(!snapshot.is_fetching() && snapshot.is_ready(), "case 33");
    let asked = asked.lock().unwrap();
    let (first, second) = (&responses[0], responses.get(1).unwrap_or(&responses[0]));
    let denied = matches!(first.status.as_u16(), 401 | 403 | 404);
    let falls_back = denied && way == Way::Live;
    assert_eq!(asked.len() - before, 1 + usize::from(falls_back), "case 18");
    is_refresh_call(&asked[before]);
    if falls_back {
        is_auth_call(&asked[before + 1]);
    }

    let last = if falls_back { second } else { first };
    let secrets: &[&str] = match (way, falls_back) {
        (Way::Live, true) => &[ACCESS, SECRET],
        (Way::Live, false) => &[BEARER, ACCESS, SECRET],
        _ => &[BEARER],
    };
    match (
        seen.lock().unwrap().last().unwrap(),
        reading::read(last, secrets),
    ) {
        (Ok(new), Ok(Token { value, lifetime })) => {
            assert_eq!(new.lifetime(), lifetime, "case 9");
            // Another token is taken if it does not end before the present one; the same one must
            // end a good deal later.
            let is_same = value == BEARER;
            let is_taken = lifetime >= if is_same { LEFT + lifetime / 10 } else { LEFT };
            let generation = if is_taken && !is_same { 2 } else { 1 };
            assert_eq!(snapshot.generation(), Some(generation), "cases 14 and 15");
            assert_eq!(
                snapshot
                    .last_error()
                    .is_some_and(Error::is_invalid_response),
                !is_taken,
                "case 14"
            );
            let left = if is_taken { lifetime } else { LEFT };
            assert!(
                snapshot.expires_in().unwrap().abs_diff(left) < Duration::from_millis(1),
                "cases 14 and 15"
            );
        }
        (Err(error), Err(failure)) => {
            assert_eq!(snapshot.generation(), Some(1), "case 33");
            assert!(!error.is_no_token());
            let keys_needed = way == Way::Bearer && denied;
            assert_eq!(error.is_keys_needed(), keys_needed, "case 22");
            says(error, &failure, falls_back);
            shows_nothing(error, secrets, responses);
            shows_nothing(snapshot.last_error().unwrap(), secrets, responses);
        }
        (got, expected) => panic!("got {got:?}, and the response says {expected:?}"),
    }
}

/// Cases 35 and 63: the error says what the response says, and nothing else.
fn says(error: &Error, failure: &Failure, is_of_auth: bool) {
    let Failure {
        kind,
        status,
        message,
        wait,
    } = failure;
    let rejected = is_of_auth && matches!(status, 401 | 403);
    let bad_request = is_of_auth && *status == 400;
    assert_eq!(error.is_keys_rejected(), rejected, "case 35");
    assert_eq!(error.is_bad_request(), bad_request, "case 35");
    assert_eq!(error.is_throttled(), *kind == Kind::Throttled);
    assert_eq!(error.is_server_error(), *kind == Kind::Server);
    assert_eq!(error.is_transport(), *kind == Kind::Transport);
    assert_eq!(
        error.is_invalid_response(),
        *kind == Kind::InvalidResponse && !rejected && !bad_request
    );
    assert!(!error.is_timeout() && !error.is_interrupted() && !error.is_over_budget());
    assert_eq!(error.status().map(|status| status.as_u16()), Some(*status));
    match (error.message(), message) {
        (Some(shown), Some(message)) => {
            assert!(message.is_shown_as(shown), "{shown:?} of {message:?}")
        }
        (shown, message) => assert!(
            shown.is_none() && message.is_none(),
            "case 39: {shown:?}, {message:?}"
        ),
    }
    match wait {
        None => assert_eq!(error.retry_after(), None),
        Some(Wait::Seconds(seconds)) => {
            assert_eq!(error.retry_after(), Some(Duration::from_secs(*seconds)))
        }
        Some(Wait::Date(away)) => {
            assert!(error.retry_after().unwrap().abs_diff(*away) < Duration::from_secs(5))
        }
    }
}

/// Cases 39 and 61: what is printed has no piece of a secret that was sent, and nothing of the
/// response but its message.
fn shows_nothing(error: &Error, sent: &[&str], responses: &[TokenResponse]) {
    let mut printed = format!("{error:?} {error:#?}");
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = next {
        printed.push_str(&format!(" {cause}"));
        next = cause.source();
    }
    assert!(
        error.source().is_none() || error.to_string() != error.source().unwrap().to_string(),
        "case 63"
    );
    // Pretty-printing breaks lines; nothing else may.
    assert!(
        printed.chars().all(|c| c == '\n' || !c.is_control()),
        "a control character: {printed:?}"
    );
    for secret in sent {
        assert!(
            !reading::shows(&printed, secret),
            "a piece of a key: {printed}"
        );
    }
    if let Some(message) = error.message() {
        printed = printed
            .replace(message, " ")
            .replace(&format!("{message:?}"), " ");
    }
    let printed: HashSet<_> = printed
        .as_bytes()
        .windows(5)
        .filter(|piece| is_telling(piece))
        .collect();
    for response in responses {
        let leak = response
            .body
            .windows(5)
            .find(|piece| printed.contains(*piece));
        assert!(
            leak.is_none(),
            "{:?} of the response: {error:?}",
            leak.map(String::from_utf8_lossy)
        );
    }
}

/// Letters and digits mixed, as they are in no word of ours; a duration (`120.5s`) is no word.
fn is_telling(piece: &[u8]) -> bool {
    let is_time = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b's' | b'm' | b'n' | b',');
    piece.iter().any(u8::is_ascii_digit)
        && piece.iter().any(u8::is_ascii_alphabetic)
        && piece.iter().all(u8::is_ascii_graphic)
        && !piece.iter().all(is_time)
}

fn is_auth_call(call: &Asked) {
    let request = &call.request;
    assert!(
        call.is_auth && request.method() == Method::POST,
        "{request:?}"
    );
    assert_eq!(request.uri(), "https://api.klavi.ai/monitor/v1/auth");
    assert!(!request.headers().contains_key("authorization"));
    let keys = format!(r#"{{"accessKey":"{ACCESS}","secretKey":"{SECRET}"}}"#);
    assert_eq!(request.body(), keys.as_bytes());
}

/// Case 17: the keys stay home.
fn is_refresh_call(call: &Asked) {
    let request = &call.request;
    assert!(
        !call.is_auth && request.method() == Method::GET,
        "{request:?}"
    );
    assert_eq!(request.uri(), "https://api.klavi.ai/monitor/v1/refresh");
    assert_eq!(
        request.headers()["authorization"],
        format!("Bearer {BEARER}")
    );
    assert!(request.body().is_empty());
}
