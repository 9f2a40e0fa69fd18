//! Errors of every kind, each caused as in production.

use std::{collections::HashSet, convert::Infallible, fmt, future::ready, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use klavi_auth::{
    Backoff, BoxError, Budget, ClientCredentials, ConfigError, Credentials, Environment, Error,
    KlaviApi, KlaviAuthLayer, KlaviSource, NewToken, Predecessor, Product, RefreshPolicy,
    TokenCache, TokenRequest, TokenSource, source_fn,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    book,
    clients::observed,
    fleet,
    needles::{ACCESS, BEARER, SECRET, TOKENS},
    support::{LIFETIME, api::get, runtime, secs},
};

/// An error of a transport that prints the request it was for.
struct Talkative(HeaderMap, Bytes);

impl fmt::Display for Talkative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot send {:?} with {:?}",
            String::from_utf8_lossy(&self.1),
            self.0
        )
    }
}

impl fmt::Debug for Talkative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bearer = self
            .0
            .get("authorization")
            .map(|value| value.as_bytes().escape_ascii().to_string());
        f.debug_tuple("Talkative")
            .field(&self.1)
            .field(&bearer)
            .finish()
    }
}

impl std::error::Error for Talkative {}

/// An error without a secret, whose cause has one.
struct Quiet(Option<Talkative>);

impl fmt::Debug for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quiet")
    }
}

impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("quiet")
    }
}

impl std::error::Error for Quiet {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|cause| cause as _)
    }
}

/// A transport whose error repeats the request, of `/auth` or of both.
pub(crate) fn a_transport_that_prints_what_it_was_to_send() {
    for credentials in [
        Credentials::new(ACCESS, SECRET),
        Credentials::bearer(BEARER, LIFETIME),
    ] {
        runtime().block_on(async {
            let transport = service_fn(async |request: Request<Full<Bytes>>| {
                let (head, body) = request.into_parts();
                let body = http_body_util::BodyExt::collect(body)
                    .await
                    .unwrap()
                    .to_bytes();
                let cause = Some(Talkative(head.headers, body));
                Err::<Response<Full<Bytes>>, BoxError>(Box::new(Quiet(cause)))
            });
            let api = KlaviApi::production(Product::Monitor);
            let builder = KlaviAuthLayer::builder(api, credentials.unwrap());
            let layer = observed(builder).transport(transport).build().unwrap();
            let outcome = layer.cache().get().await;
            match outcome {
                Err(error) => book::error("a transport that talks", &error),
                Ok(token) => {
                    layer.cache().invalidate(&token);
                    book::error(
                        "a transport that talks",
                        &layer.cache().get().await.unwrap_err(),
                    );
                }
            }
            book::show("that failed", layer.cache());
            book::show("that failed", &layer.cache().snapshot());
        });
    }
    // The chain and the rest of its text stay.
    for text in [
        "quiet",
        r#"cannot send "{\"accessKey\":\"***\",\"secretKey\":\"***\"}" with {"#,
        r#"Talkative(b"{\"accessKey\":\"***\",\"secretKey\":\"***\"}", None)"#,
        r#"Some("Bearer ***")"#,
    ] {
        assert!(book::has_printed(text), "{text}");
    }
}

/// The same under an OAuth2 source, and a server that repeats the request.
pub(crate) fn client_credentials() {
    runtime().block_on(async {
        for (is_basic, is_received) in [(false, false), (true, false), (false, true), (true, true)]
        {
            let transport = service_fn(move |request: Request<Full<Bytes>>| async move {
                let (mut head, body) = request.into_parts();
                let body = http_body_util::BodyExt::collect(body)
                    .await
                    .unwrap()
                    .to_bytes();
                head.headers
                    .values_mut()
                    .for_each(|value| value.set_sensitive(false));
                if !is_received {
                    return Err(BoxError::from(Talkative(head.headers, body)));
                }
                let said = format!(
                    "{:?} {body:?} {ACCESS} {SECRET}",
                    head.headers.get("authorization")
                );
                let said =
                    serde_json::json!({ "error": "invalid_client", "error_description": said });
                Ok(Response::builder()
                    .status(401)
                    .body(Full::<Bytes>::from(said.to_string()))
                    .unwrap())
            });
            let source =
                ClientCredentials::new("https://id.example.com/token", ACCESS, SECRET, transport);
            let source = if is_basic {
                source.unwrap().basic()
            } else {
                source.unwrap()
            };
            let error = source.fetch(TokenRequest::default()).await.unwrap_err();
            book::error("of client credentials", &error);
            assert_eq!(error.is_keys_rejected(), is_received);
        }
    });
    for text in [
        "client_id=***&client_secret=***",
        "invalid_client: Some(\\\"***\\\")",
    ] {
        assert!(book::has_printed(text), "{text}");
    }
}

/// A fetched token that cannot be used.
const UNUSABLE: &str = TOKENS[8];

/// A message that repeats one secret and no other, for each that the call could be about.
pub(crate) fn one_secret_at_a_time() {
    runtime().block_on(async {
        let cache = TokenCache::new(source_fn(async |_| NewToken::new(TOKENS[7], LIFETIME)));
        let old = cache.get().await.unwrap();
        for predecessor in
            [Predecessor::Live(old.clone()), Predecessor::Rejected(old.clone()), Predecessor::Expired(old)]
        {
            for secret in [ACCESS, SECRET, TOKENS[7], UNUSABLE] {
                let message = format!("not known: {secret}");
                let fields =
                    serde_json::json!({ "accessToken": UNUSABLE, "expireIn": -1, "message": message });
                let json = fields.to_string();
                let transport = service_fn(move |_: Request<Full<Bytes>>| {
                    ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(json.clone()))))
                });
                let credentials = Credentials::new(ACCESS, SECRET).unwrap();
                let source = KlaviSource::new(KlaviApi::production(Product::Monitor), credentials, transport);
                let error = source.fetch(TokenRequest::new(predecessor.clone())).await.unwrap_err();
                book::error("of a message with one secret", &error);
                assert_eq!(error.message(), Some("not known: ***"));
            }
        }
    });
}

/// The failures of a source, except for a secret in the text of its error.
pub(crate) fn sources() {
    runtime().block_on(async {
        let cache = TokenCache::new(source_fn(async |_| panic!("{}", TOKENS[0])));
        book::error("a source that panics", &cache.get().await.unwrap_err());
        let cache = TokenCache::new(source_fn(async |_| std::future::pending().await));
        book::error("a source that is silent", &cache.get().await.unwrap_err());
        let cache = TokenCache::new(source_fn(async |_| {
            NewToken::new(&format!("{}\n", TOKENS[0]), LIFETIME)
        }));
        book::error("a token that is none", &cache.get().await.unwrap_err());
        let cache = TokenCache::new(source_fn(async |_| {
            NewToken::new(TOKENS[0], secs(1)).map(|it| it.with_age(secs(2)))
        }));
        book::error("a token that is over", &cache.get().await.unwrap_err());
        book::error(
            "a source of a user's",
            &Error::permanent("no").with_retry_after(secs(1)),
        );
        book::error("a source of a user's", &Error::transient("not now"));
    });
    // There is no runtime here.
    let cache = TokenCache::new(source_fn(async |_| NewToken::new(TOKENS[0], LIFETIME)));
    book::error(
        "without a runtime",
        &crate::support::at_once(&cache).unwrap_err(),
    );
}

/// Requests that are not sent.
pub(crate) fn requests() {
    runtime().block_on(async {
        let api = KlaviApi::production(Product::Monitor);
        let inner = service_fn(|_: Request<Full<Bytes>>| {
            ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
        });
        let source = source_fn(async |_| NewToken::new(TOKENS[0], LIFETIME));
        let own = KlaviAuthLayer::new(&api, TokenCache::new(source));
        let none = KlaviAuthLayer::without_cache(&api);
        let mut full = get("/monitor/x");
        for number in 0..24_576 {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            full.headers_mut().insert(name, TOKENS[1].parse().unwrap());
        }
        for (layer, request) in [
            (&own, get("http://api.klavi.ai/monitor/x")),
            (&none, get("/monitor/x")),
            (&own, full),
        ] {
            let error = layer.layer(inner).oneshot(request).await.unwrap_err();
            book::error(
                "of a request that stays",
                error.downcast_ref::<Error>().unwrap(),
            );
        }
    });
}

/// Mistakes in the configuration, with a secret where it was not expected.
pub(crate) fn configuration() {
    let api = KlaviApi::production(Product::Monitor);
    let layer = || {
        KlaviAuthLayer::new(
            &api,
            TokenCache::new(source_fn(async |_| Err(Error::transient("no")))),
        )
    };
    let builder = || TokenCache::builder(source_fn(async |_| Err(Error::transient("no"))));
    let policy = |policy| builder().refresh_policy(policy).build().unwrap_err();
    let mut errors = vec![
        Credentials::new(format!("{ACCESS}\n"), SECRET).unwrap_err(),
        Credentials::new(ACCESS, format!("{SECRET}\n")).unwrap_err(),
        Credentials::bearer(&format!("{BEARER}\n"), LIFETIME).unwrap_err(),
        Credentials::bearer(BEARER, Duration::ZERO).unwrap_err(),
        client_error(
            "https://id.example.com/token",
            ACCESS,
            &format!("{SECRET}\n"),
        ),
        client_error(
            "https://id.example.com/token",
            &format!("{ACCESS}\n"),
            SECRET,
        ),
        SECRET.parse::<Product>().unwrap_err(),
        SECRET.parse::<Environment>().unwrap_err(),
        builder()
            .flight_timeout(Duration::ZERO)
            .build()
            .unwrap_err(),
        builder().attempts(0).build().unwrap_err(),
        builder()
            .backoff(Backoff::default().first(secs(0)))
            .build()
            .unwrap_err(),
        builder()
            .budget(Budget::default().full_refill(Duration::ZERO))
            .build()
            .unwrap_err(),
        policy(RefreshPolicy::default().refresh_after(2.0)),
        policy(RefreshPolicy::default().jitter(-1.0)),
        policy(RefreshPolicy::default().expiry_margin(secs(1_000_000))),
    ];
    for url in [
        format!("https://user:{}@api.klavi.ai", TOKENS[1]),
        format!("https://api.klavi.ai/?key={}", TOKENS[1]),
        format!("https://api.klavi.ai/#{}", TOKENS[1]),
        format!("{SECRET}://api.klavi.ai"),
        format!("http://{}@gw.example/{}", TOKENS[1], TOKENS[2]),
        format!("http://gw.example/{}", TOKENS[1]),
        SECRET.to_owned(),
        TOKENS[1].to_owned(),
    ] {
        errors.push(KlaviApi::at(&url, Product::Monitor).unwrap_err());
        errors.push(layer().allow_origin(&url).unwrap_err());
        errors.push(client_error(&url, ACCESS, SECRET));
    }
    errors.extend(fleet::configuration());
    // What only other features, or another machine, can bring about.
    errors.extend([ConfigError::MissingTransport, ConfigError::MissingEnv("A")]);
    errors.push(ConfigError::InvalidEnv("A", "it is empty".into()));
    errors.push(ConfigError::Transport("no TLS".into()));
    let mut kinds = HashSet::new();
    for error in &errors {
        book::error("of a configuration", error);
        kinds.insert(std::mem::discriminant(error));
    }
    let all = book::variants(include_str!("../../src/error/config.rs"), "ConfigError");
    assert_eq!(kinds.len(), all.len());
}

fn client_error(token_url: &str, id: &str, secret: &str) -> ConfigError {
    let transport = service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Full<Bytes>>, _>(BoxError::from("no"))
    });
    ClientCredentials::new(token_url, id, secret, transport).unwrap_err()
}

/// Checks that every kind of error was printed.
pub(crate) fn are_complete() {
    for kind in book::variants(include_str!("../../src/error/mod.rs"), "Kind") {
        assert!(
            book::has_printed(&format!("kind: {kind}")),
            "no error of this kind was printed: {kind}"
        );
    }
    let without_token = include_str!("../../src/cache/state.rs");
    let messages = book::texts(without_token, "without_token");
    assert!(messages.len() >= 3, "{messages:?}");
    for message in messages {
        assert!(
            book::has_printed(&format!("NoToken({message:?})")),
            "no error with this message was printed: {message}"
        );
    }
    // No other function has a message of this kind.
    assert_eq!(book::callers("Error::no_token("), ["src/cache/state.rs"]);
}

const CHILD: &str = "KLAVI_TEST_SECRETS_CHILD";

/// What is read from the environment, in a process of its own, by the next test.
#[test]
#[expect(clippy::print_stdout, reason = "its parent reads it")]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    println!(
        "read: {:?} {:?}",
        Credentials::from_env(),
        KlaviApi::from_env(Product::Monitor)
    );
    for error in [
        Credentials::from_env().err(),
        KlaviApi::from_env(Product::Monitor).err(),
    ]
    .into_iter()
    .flatten()
    {
        println!("{error}");
    }
}

#[test]
fn case_61_what_the_environment_says_is_not_repeated() {
    let url = format!("https://user:{}@api.klavi.ai", TOKENS[1]);
    let breaks = format!("{SECRET}\n");
    for (access, secret, url, read) in [
        (ACCESS, SECRET, "https://api.klavi.ai", "Keys(***)"),
        (ACCESS, "", "https://api.klavi.ai", "ConfigError("),
        (
            ACCESS,
            breaks.as_str(),
            url.as_str(),
            "ConfigError(environment variable KLAVI_API_URL: ",
        ),
        (
            breaks.as_str(),
            SECRET,
            url.as_str(),
            "ConfigError(environment variable KLAVI_ACCESS_KEY: ",
        ),
    ] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "failures::child", "--nocapture"])
            .env(CHILD, "1")
            .env_remove("KLAVI_ENV");
        child.envs([
            ("KLAVI_ACCESS_KEY", access),
            ("KLAVI_SECRET_KEY", secret),
            ("KLAVI_API_URL", url),
        ]);
        let output = child.output().unwrap();
        let said = [output.stdout, output.stderr]
            .map(|said| String::from_utf8(said).unwrap())
            .concat();
        assert!(said.contains(read), "{said}");
        assert_eq!(crate::needles::in_text(&said), [""; 0]);
    }
}
