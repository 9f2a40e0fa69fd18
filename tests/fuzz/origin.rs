//! Any URI through the layer: the token goes to the product's paths at the API's own origin and to
//! the origins that were added, and nowhere else.
//!
//! An input is three lines: the base URL, an origin that is added (or nothing), the URI of a
//! request. What they mean is read from their text alone, without the `Uri` that the layer looks
//! at; hosts are normalized by the `url` crate.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::Full;
use klavi_auth::{
    BoxError, ConfigError, Error, KlaviApi, KlaviAuthLayer, NewToken, Product, SendOnce,
    TokenCache, source_fn,
};
use tower::{Layer, ServiceExt, service_fn};

/// Scheme, normalized host, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    is_secure: bool,
    host: String,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Leads {
    To(Place),
    /// No scheme and no authority: where the client is bound to.
    Home,
    /// No place that the token could go to.
    Nowhere,
}

/// The `Authorization` of every request that came through.
type Seen = Arc<Mutex<Vec<Option<http::HeaderValue>>>>;

/// A path of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtHome {
    Product,
    TokenCall,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    WithToken,
    WithoutToken,
    Rejected,
}

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (base, extra, target) = (line(), line(), line());
    let Some((api, home)) = base_url(base) else {
        return;
    };
    let (layer, more) = added(fuzzed_layer(&api), extra);
    let allowed: Vec<_> = [home].into_iter().chain(more).collect();
    let Ok(uri) = target.parse::<Uri>() else {
        return;
    };

    let expected = expectation(&allowed, target, &uri, &api);
    let layer = layer.send_once(); // so that one call is one look
    let got = send(&layer, &uri);
    assert_eq!(got, expected, "cases 57 to 59");
    if got == Outcome::WithToken && uri.scheme().is_some() {
        never_in_the_clear(target);
        #[cfg(feature = "reqwest")]
        another_parser_agrees(target, &allowed);
    }
    #[cfg(feature = "reqwest")]
    through_reqwest(target, &allowed, &api);
}

/// Where a URL leads to, by its letters. `None` for the port: none is written.
fn place(url: &str) -> Option<Place> {
    let (scheme, rest) = url.split_once("://")?;
    let is_secure = match &*scheme.to_ascii_lowercase() {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit('@').next()?;
    // An IPv6 address is in brackets, with colons of its own.
    let end = match host_and_port.strip_prefix('[') {
        Some(address) => address.find(']')? + 2,
        None => host_and_port.find(':').unwrap_or(host_and_port.len()),
    };
    let (host, port) = host_and_port.split_at(end);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => {
            if is_secure {
                443
            } else {
                80
            }
        }
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    Some(Place {
        is_secure,
        host: normalized_host(host)?,
        port,
    })
}

/// `None` for what looks like an address and is none.
fn normalized_host(host: &str) -> Option<String> {
    if let Ok(url) = url::Url::parse(&format!("https://{host}/")) {
        if !matches!(url.host(), None | Some(url::Host::Domain(_))) {
            return url.host_str().map(str::to_owned);
        }
    }
    let last = host
        .strip_suffix('.')
        .unwrap_or(host)
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let is_number = match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
    };
    (!is_number && !host.starts_with('[')).then(|| host.to_ascii_lowercase())
}

/// The path of a URL, by its letters.
fn path(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => url,
    }
}

/// Whether a path is one of the product's, and a server cannot read it as another one's.
fn is_products(path: &str, api: &KlaviApi) -> bool {
    let product = api
        .auth_uri()
        .path()
        .strip_suffix("/v1/auth")
        .expect("that is where it is");
    if path != product && !path.starts_with(&format!("{product}/")) {
        return false;
    }
    let mut path = path.as_bytes()[product.len()..].to_vec();
    for _ in 0..=5 {
        let leads_up = path.split(|b| matches!(b, b'/' | b'\\')).any(|segment| {
            segment.starts_with(b"..")
                && (segment.len() == 2 || matches!(segment[2], b';' | b'?' | b'#'))
        });
        let decoded = decoded(&path);
        if leads_up || decoded == path {
            return !leads_up;
        }
        path = decoded;
    }
    false
}

fn decoded(path: &[u8]) -> Vec<u8> {
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let digits = path
            .get(at + 1..at + 3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits
            .filter(|digits| path[at] == b'%' && digits.bytes().all(|b| b.is_ascii_hexdigit()));
        decoded.push(digits.map_or(path[at], |digits| u8::from_str_radix(digits, 16).unwrap()));
        at += if digits.is_some() { 3 } else { 1 };
    }
    decoded
}

fn has_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#'])
        .next()
        .is_some_and(|authority| authority.contains('@'))
}

fn is_this_machine(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(host) => host.parse() == Ok(Ipv6Addr::LOCALHOST),
        None => {
            host == "localhost"
                || host
                    .parse::<Ipv4Addr>()
                    .is_ok_and(|ip| ip.octets()[0] == 127)
        }
    }
}

/// What is wrong with a URL.
#[derive(Debug, PartialEq)]
enum Wrong {
    Url,
    Insecure,
}

impl Wrong {
    fn of(error: &ConfigError) -> Self {
        match error {
            ConfigError::InvalidUrl(_) => Self::Url,
            ConfigError::InsecureUrl(_) => Self::Insecure,
            other => panic!("{other:?}"),
        }
    }
}

/// A URL that tokens may be configured for.
fn is_acceptable(url: &str) -> Result<Place, Wrong> {
    let place = place(url)
        .filter(|place| !place.host.is_empty())
        .ok_or(Wrong::Url)?;
    let query = url.split('#').next().is_some_and(|url| url.contains('?'));
    if has_user(url) || query {
        return Err(Wrong::Url);
    }
    if !place.is_secure && !is_this_machine(&place.host) {
        return Err(Wrong::Insecure);
    }
    Ok(place)
}

fn base_url(url: &str) -> Option<(KlaviApi, Place)> {
    let got = KlaviApi::at(url, Product::Monitor).map_err(|error| Wrong::of(&error));
    if url.parse::<Uri>().is_err() {
        assert_eq!(got, Err(Wrong::Url));
        return None;
    }
    let expected = is_acceptable(url).and_then(|place| match url.contains('#') {
        true => Err(Wrong::Url),
        false => Ok(place),
    });
    match (got, expected) {
        (Ok(api), Ok(place)) => Some((api, place)),
        (Err(Wrong::Url), Err(_)) => None,
        (Err(got), Err(expected)) => {
            assert_eq!(got, expected, "case 58");
            None
        }
        (got, expected) => panic!("{url:?}: {got:?}, and {expected:?} was expected"),
    }
}

fn added(layer: KlaviAuthLayer, extra: &str) -> (KlaviAuthLayer, Option<Place>) {
    if extra.is_empty() || extra.parse::<Uri>().is_err() {
        return (layer, None);
    }
    let acceptable = is_acceptable(extra).and_then(|place| match path(extra) {
        "" | "/" if !extra.contains('#') => Ok(place),
        _ => Err(Wrong::Url),
    });
    match (layer.clone().allow_origin(extra), acceptable) {
        (Ok(layer), Ok(place)) => (layer, Some(place)),
        (Err(_), Err(_)) => (layer, None),
        (got, expected) => panic!("{extra:?}: {got:?}, and {expected:?} was expected"),
    }
}

fn leads(target: &str) -> Leads {
    // `http` takes an authority without a scheme for what `CONNECT` has.
    match place(target) {
        Some(place) => Leads::To(place),
        None if target.starts_with('/') || target == "*" => Leads::Home,
        None => Leads::Nowhere,
    }
}

fn expectation(allowed: &[Place], target: &str, uri: &Uri, api: &KlaviApi) -> Outcome {
    // In the base URL's own words, all the API's paths are allowed if its origin was added.
    let is_whole = allowed[1..].contains(&allowed[0]);
    judge(
        allowed,
        &leads(target),
        path_at_home(uri.path(), is_whole, api),
    )
}

/// What becomes of a path at the API.
fn path_at_home(path: &str, is_whole: bool, api: &KlaviApi) -> AtHome {
    if [api.auth_uri(), api.refresh_uri()]
        .iter()
        .any(|call| call.path() == path)
    {
        return AtHome::TokenCall;
    }
    if is_whole || is_products(path, api) {
        AtHome::Product
    } else {
        AtHome::Other
    }
}

fn judge(allowed: &[Place], leads: &Leads, path: AtHome) -> Outcome {
    let at_home = if path == AtHome::Product {
        Outcome::WithToken
    } else {
        Outcome::WithoutToken
    };
    match leads {
        Leads::Home => at_home,
        Leads::Nowhere => Outcome::WithoutToken,
        Leads::To(place) if *place == allowed[0] => at_home,
        Leads::To(place) if allowed.contains(place) => Outcome::WithToken,
        Leads::To(place) => {
            let allowed = if path == AtHome::Other {
                &allowed[1..]
            } else {
                allowed
            };
            let downgraded =
                !place.is_secure && allowed.iter().any(|a| a.is_secure && a.host == place.host);
            if downgraded {
                Outcome::Rejected
            } else {
                Outcome::WithoutToken
            }
        }
    }
}

fn fuzzed_layer(api: &KlaviApi) -> KlaviAuthLayer {
    KlaviAuthLayer::new(api, tokens())
}

fn tokens() -> TokenCache {
    TokenCache::new(source_fn(async |_| {
        NewToken::new("the-token", Duration::from_secs(1800))
    }))
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
}

/// Sends to a service that responds with 401 to everything, and says what it saw; a 401 from a
/// foreign place starts nothing.
fn send(layer: &KlaviAuthLayer<SendOnce>, uri: &Uri) -> Outcome {
    let seen = Seen::default();
    let inner = {
        let seen = Arc::clone(&seen);
        service_fn(move |request: Request<Full<Bytes>>| {
            seen.lock()
                .unwrap()
                .push(request.headers().get(AUTHORIZATION).cloned());
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            std::future::ready(Ok::<_, Infallible>(response))
        })
    };
    let mut request = Request::new(Full::<Bytes>::default());
    *request.uri_mut() = uri.clone();
    let outcome = RUNTIME.with(|runtime| runtime.block_on(layer.layer(inner).oneshot(request)));
    understood(layer, outcome.map(drop), &seen)
}

fn understood(
    layer: &KlaviAuthLayer<SendOnce>,
    outcome: Result<(), BoxError>,
    seen: &Seen,
) -> Outcome {
    let seen = seen.lock().unwrap();
    let is_rejected = layer.cache().snapshot().is_rejected();
    assert_eq!(
        is_rejected,
        matches!(seen[..], [Some(_)]),
        "case 57: a 401 from elsewhere starts nothing"
    );
    match (outcome, &seen[..]) {
        (Ok(()), [None]) => Outcome::WithoutToken,
        (Ok(()), [Some(header)]) => {
            assert_eq!(header, "Bearer the-token");
            Outcome::WithToken
        }
        (Err(error), []) => {
            assert!(
                error
                    .downcast_ref::<Error>()
                    .is_some_and(Error::is_insecure_uri),
                "{error:?}"
            );
            Outcome::Rejected
        }
        (outcome, seen) => panic!("{outcome:?} after {seen:?}"),
    }
}

/// Case 58.
fn never_in_the_clear(target: &str) {
    let place = place(target).expect("it leads somewhere");
    assert!(
        place.is_secure || is_this_machine(&place.host),
        "in the clear"
    );
}

/// A client with another idea of URLs connects to the same place.
#[cfg(feature = "reqwest")]
fn another_parser_agrees(target: &str, allowed: &[Place]) {
    let Ok(url) = reqwest::Url::parse(target) else {
        return;
    };
    let agrees = allowed.iter().any(|place| {
        let scheme = if place.is_secure { "https" } else { "http" };
        let text = format!("{scheme}://{}:{}/", place.host, place.port);
        reqwest::Url::parse(&text).is_ok_and(|place| place.origin() == url.origin())
    });
    assert!(agrees, "WHATWG's URL leads to {:?}", url.origin());
}

/// The same through the layer around reqwest, which has URLs of its own.
#[cfg(feature = "reqwest")]
fn through_reqwest(target: &str, allowed: &[Place], api: &KlaviApi) {
    let Ok(url) = reqwest::Url::parse(target) else {
        return;
    };
    // With tokens of its own, so that the 401 of before is not in its way.
    let layer = KlaviAuthLayer::new(api, tokens()).send_once();
    let allowed = &allowed[..1];
    let seen = Seen::default();
    let inner = {
        let seen = Arc::clone(&seen);
        service_fn(move |request: reqwest::Request| {
            seen.lock()
                .unwrap()
                .push(request.headers().get(AUTHORIZATION).cloned());
            let mut response = Response::new("");
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            std::future::ready(Ok::<_, Infallible>(reqwest::Response::from(response)))
        })
    };
    let place = || {
        let is_secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Place {
            is_secure,
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    };
    let path = path_at_home(url.path(), false, api);
    let expected = judge(allowed, &place().map_or(Leads::Nowhere, Leads::To), path);
    let request = reqwest::Request::new(reqwest::Method::GET, url.clone());
    let outcome = RUNTIME.with(|runtime| runtime.block_on(layer.layer(inner).oneshot(request)));
    assert_eq!(
        understood(&layer, outcome.map(drop), &seen),
        expected,
        "{url}"
    );
}
