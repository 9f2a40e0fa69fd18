//! Keys and tokens are wiped from the heap: no block is freed with a piece of one in it, and no
//! block with a piece in it is left once everything is dropped.

#[cfg(feature = "fleet")]
mod fleet;
mod heap;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Full, StreamBody};
use klavi_auth::{
    BoxError, ClientCredentials, Credentials, Error, KlaviApi, KlaviAuth, KlaviAuthLayer, NewToken,
    Product, TokenRequest, TokenSource,
};
use secrecy::zeroize::Zeroizing;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::heap::Left;

const ACCESS: &str = r#"aK7"Zx4Vn2Kw9Tj3Hd8\Rb5Qm6Yp1"#;
const SECRET: &str = r#"sK1Gf8Xc3Lz7"Bq2Wd9Jk4Nh5\Tv0Rs6Pg1Mx8Qb"#;
const FIRST: &str = "t1F5hR2wE9kU3zN7cB4vX8mL6qJ0dG1sT5yP2aH9";
/// The API responds with 401 to it.
const REVOKED: &str = "t2D8/bM4gW7nK1xS5/fV9rZ3tC6jQ0/lH2pY7eA4uN8";
const THIRD: &str = "t3Q6yJ1mV8bT4hX0nC7kR2wP9sF5gL3zD6aE1uK8";
const UNUSABLE: &str = "t4W2cN9pH5xB7jM3vS0qY6tG8rK1fZ4dL2eU9aJ5 \n";
const BEARER: &str = "t5P7vK3rX9dC1nT6mH4bW8sZ2yG0fQ5jL7aR3eM9";
/// The 32 bytes of the key that seals the record of a fleet.
const SEALING: &str = "s6E1yK9wB4pX7mT2cV5hN8zR3qJ0dL6g";

const SECRETS: [(&str, &str); 8] = [
    ("access key", ACCESS),
    ("secret key", SECRET),
    ("first", FIRST),
    ("revoked", REVOKED),
    ("third", THIRD),
    ("unusable", UNUSABLE),
    ("bearer", BEARER),
    ("sealing key", SEALING),
];

/// Runs the scene on a current-thread runtime and drops both.
fn left_by(scene: impl Future<Output = ()>) -> Left {
    heap::left_by(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(scene);
    })
}

fn nothing() -> Left {
    Left::default()
}

/// The secret as a caller may have read it from a file: in a buffer longer than the text.
fn owned(secret: &str) -> String {
    let mut text = String::with_capacity(200);
    text.push_str(secret);
    text
}

// ## The token endpoints

type ResponseBody = StreamBody<BoxStream<'static, Result<Frame<Bytes>, BoxError>>>;

/// What follows the frames of a response.
#[derive(Clone, Copy)]
enum End {
    Whole,
    Broken,
    Silent,
}

/// A frame that is wiped when it is dropped.
fn frame(bytes: &[u8]) -> Frame<Bytes> {
    let mut copy = Zeroizing::new(Vec::with_capacity(bytes.len()));
    copy.extend_from_slice(bytes);
    Frame::data(Bytes::from_owner(copy))
}

/// A response in several frames: `before`, the secret, `after`. Slashes are escaped, as some
/// encoders do.
fn response(
    status: u16,
    before: &str,
    secret: &str,
    after: &str,
    end: End,
) -> Result<Response<ResponseBody>, BoxError> {
    let mut json = Zeroizing::new(String::with_capacity(2 * secret.len()));
    for c in secret.chars() {
        match c {
            '/' | '"' | '\\' => json.extend(['\\', c]),
            '\n' => json.push_str("\\n"),
            _ => json.push(c),
        }
    }
    let parts = [before, &json[..10], &json[10..], after];
    let frames = stream::iter(parts.map(|part| Ok(frame(part.as_bytes()))));
    let body = match end {
        End::Whole => frames.boxed(),
        End::Broken => frames.chain(stream::iter([Err("cut off".into())])).boxed(),
        End::Silent => frames.chain(stream::pending()).boxed(),
    };
    let mut response = Response::new(StreamBody::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    Ok(response)
}

/// A response with a valid token.
fn valid(token: &str) -> Result<Response<ResponseBody>, BoxError> {
    let rest = format!(r#"","expireIn":1800,"note":"{}"}}"#, "x".repeat(2000));
    response(200, r#"{"accessToken":""#, token, &rest, End::Whole)
}

/// The outcome of a token call, by its number.
type Script = fn(usize) -> Result<Response<ResponseBody>, BoxError>;

// ## The client

type Outgoing = Request<Full<Bytes>>;

trait Inner: Service<Outgoing, Response = Response<Full<Bytes>>, Error = BoxError> + Clone {}
impl<S: Service<Outgoing, Response = Response<Full<Bytes>>, Error = BoxError> + Clone> Inner for S {}

struct Client<S> {
    klavi: KlaviAuth<S>,
    calls: Arc<AtomicUsize>,
}

fn client(credentials: Credentials, script: Script) -> Client<impl Inner> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let transport = service_fn(move |_: Outgoing| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move { script(number) }
    });
    let api = service_fn(|request: Outgoing| async move {
        let revoked = request.headers()[AUTHORIZATION]
            .as_bytes()
            .ends_with(REVOKED.as_bytes());
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = if revoked {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        Ok::<_, BoxError>(response)
    });
    let layer = KlaviAuthLayer::builder(KlaviApi::production(Product::Monitor), credentials)
        .transport(transport)
        .randomness(|| 0.0)
        .build();
    Client {
        klavi: layer.unwrap().layer(api),
        calls,
    }
}

fn with_keys(script: Script) -> Client<impl Inner> {
    client(
        Credentials::new(owned(ACCESS), owned(SECRET)).unwrap(),
        script,
    )
}

impl<S: Inner> Client<S> {
    async fn send(&self) -> Result<u16, Error> {
        let request =
            Request::get("https://api.klavi.ai/monitor/v1/monitors").body(Full::default());
        let response = self.klavi.clone().oneshot(request.unwrap()).await;
        let response = response.map_err(|error| *error.downcast::<Error>().unwrap())?;
        Ok(response.status().as_u16())
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn keys_and_tokens_are_wiped_and_replaced_tokens_at_once() {
    let left = left_by(async {
        let client = with_keys(|number| valid([FIRST, REVOKED, THIRD][number]));
        assert_eq!(client.send().await.unwrap(), 200);
        assert_eq!(heap::held(), ["access key", "secret key", "first"]);

        // Refreshed, then rejected: `/auth` is called, and the request is resent.
        pass(1400).await;
        assert_eq!(client.send().await.unwrap(), 200);
        pass(0).await;
        assert_eq!(client.calls(), 2);
        assert_eq!(client.send().await.unwrap(), 200);
        assert_eq!(client.calls(), 3);

        // The service drops its own copy of a token with the first request that finds a newer one
        // and need not wait.
        assert_eq!(client.send().await.unwrap(), 200);
        assert_eq!(heap::held(), ["access key", "secret key", "third"]);
    });
    assert_eq!(left, nothing());
}

#[test]
fn keys_from_files_are_wiped_when_others_are_read() {
    let folder = std::env::temp_dir().join(format!("klavi-auth-wiping-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let files = ["access-key", "secret-key"].map(|name| folder.join(name));
    let write = |keys: [&str; 2]| {
        for (file, key) in files.iter().zip(keys) {
            std::fs::write(file, key).unwrap();
        }
    };
    let left = left_by(async {
        write([ACCESS, SECRET]);
        let client = client(Credentials::from_files(&files[0], &files[1]), |number| {
            valid([FIRST, REVOKED, THIRD][number])
        });
        assert_eq!(client.send().await.unwrap(), 200);
        assert_eq!(heap::held(), ["access key", "secret key", "first"]);

        write(["another", "another\n"]);
        pass(1400).await;
        assert_eq!(client.send().await.unwrap(), 200);
        pass(0).await;
        // Rejected: the keys are read again, for `/auth`.
        assert_eq!(
            (client.send().await.unwrap(), client.send().await.unwrap()),
            (200, 200)
        );
        assert_eq!((client.calls(), heap::held()), (3, vec!["third"]));
    });
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(left, nothing());
}

#[test]
fn a_bearer_without_keys_is_wiped() {
    let left = left_by(async {
        let bearer = Credentials::bearer(BEARER, Duration::from_secs(1800)).unwrap();
        let client = client(bearer, |number| match number {
            0 => valid(REVOKED),
            _ => response(
                401,
                r#"{"message":"no such bearer: "#,
                REVOKED,
                r#""}"#,
                End::Whole,
            ),
        });
        assert_eq!(client.send().await.unwrap(), 200);
        assert_eq!((client.calls(), heap::held()), (0, vec!["bearer"]));
        pass(1400).await;
        assert_eq!(client.send().await.unwrap(), 200);
        pass(0).await;
        assert_eq!((client.calls(), client.send().await.unwrap()), (1, 401));
        assert_eq!(client.calls(), 2);
    });
    assert_eq!(left, nothing());
}

#[test]
fn what_a_failed_call_carried_is_wiped() {
    let scripts: [(&str, Script); 11] = [
        ("keys rejected", |_| {
            response(
                401,
                r#"{"message":"no customer \" has "#,
                SECRET,
                r#""}"#,
                End::Whole,
            )
        }),
        ("a list", |_| {
            response(
                400,
                r#"{"message":["no key", ""#,
                SECRET,
                r#""]}"#,
                End::Whole,
            )
        }),
        ("server error", |_| {
            response(503, r#"{"message":"retry "#, ACCESS, r#""}"#, End::Whole)
        }),
        ("no life", |_| {
            response(
                200,
                r#"{"accessToken":""#,
                THIRD,
                r#"","expireIn":-1}"#,
                End::Whole,
            )
        }),
        ("no number", |_| {
            response(
                200,
                r#"{"accessToken":"t-o-k","expireIn":""#,
                FIRST,
                r#""}"#,
                End::Whole,
            )
        }),
        ("no header", |_| {
            response(200, r#"{"accessToken":""#, UNUSABLE, r#""}"#, End::Whole)
        }),
        ("no JSON", |_| {
            response(200, "<html>", FIRST, "</html>", End::Whole)
        }),
        ("too long", |_| {
            response(
                200,
                r#"{"accessToken":""#,
                FIRST,
                &"x".repeat(70_000),
                End::Whole,
            )
        }),
        ("cut off", |_| {
            response(200, r#"{"accessToken":""#, FIRST, r#"","#, End::Broken)
        }),
        ("silent", |_| {
            response(200, r#"{"accessToken":""#, FIRST, r#"","#, End::Silent)
        }),
        ("transport", |_| Err(Repeating.into())),
    ];
    for (name, script) in scripts {
        let left = left_by(async {
            let client = with_keys(script);
            let error = client.send().await.expect_err(name);
            // The text of the error is freed, and so checked.
            drop(format!("{error} {error:?} {error:#?}"));
        });
        assert_eq!(left, nothing(), "{name}");
    }
}

/// A transport error that repeats a secret.
#[derive(Debug)]
struct Repeating;

impl std::fmt::Display for Repeating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "could not send {SECRET}: no route to the host")
    }
}

impl std::error::Error for Repeating {}

#[test]
fn what_a_call_of_client_credentials_carried_is_wiped() {
    let scripts: [(&str, Script); 4] = [
        ("succeeds", |_| {
            response(
                200,
                r#"{"expires_in":1800,"access_token":""#,
                FIRST,
                r#""}"#,
                End::Whole,
            )
        }),
        ("client rejected", |_| {
            response(
                401,
                r#"{"error":"invalid_client","error_description":"no \" has "#,
                SECRET,
                r#""}"#,
                End::Whole,
            )
        }),
        ("no lifetime", |_| {
            response(200, r#"{"access_token":""#, THIRD, r#""}"#, End::Whole)
        }),
        ("transport", |_| Err(Repeating.into())),
    ];
    for (name, script) in scripts {
        for is_basic in [false, true] {
            let left = left_by(async {
                let transport = service_fn(move |_: Outgoing| async move { script(0) });
                let url = "https://id.example.com/token";
                let source =
                    ClientCredentials::new(url, owned(ACCESS), owned(SECRET), transport).unwrap();
                let source = if is_basic { source.basic() } else { source };
                match source.fetch(TokenRequest::default()).await {
                    Ok(token) => assert_eq!((name, token.lifetime().as_secs()), ("succeeds", 1800)),
                    Err(error) => drop(format!("{error} {error:?} {error:#?}")),
                }
                ClientCredentials::new(
                    "nowhere",
                    owned(ACCESS),
                    owned(SECRET),
                    service_fn(script_of_none),
                )
                .unwrap_err();
            });
            assert_eq!(left, nothing(), "{name}");
        }
    }
}

async fn script_of_none(_: Outgoing) -> Result<Response<ResponseBody>, BoxError> {
    Err("no".into())
}

#[test]
fn what_a_call_under_way_carries_is_wiped_with_its_runtime() {
    let left = left_by(async {
        let client =
            with_keys(|_| response(200, r#"{"accessToken":""#, FIRST, r#"","#, End::Silent));
        let second = Duration::from_secs(1);
        tokio::time::timeout(second, client.send())
            .await
            .unwrap_err();
        assert_eq!(heap::held(), ["access key", "secret key", "first"]);
    });
    assert_eq!(left, nothing());
}

#[test]
fn what_cannot_be_a_key_or_a_token_is_wiped() {
    let left = left_by(async {
        Credentials::new(owned(ACCESS), "").unwrap_err();
        Credentials::new("\n", owned(SECRET)).unwrap_err();
        Credentials::new(ACCESS, "\n").unwrap_err();
        Credentials::bearer(UNUSABLE, Duration::from_secs(9)).unwrap_err();
        Credentials::bearer(BEARER, Duration::ZERO).unwrap_err();
        NewToken::new(UNUSABLE, Duration::from_secs(9)).unwrap_err();
    });
    assert_eq!(left, nothing());
}

#[test]
fn the_heap_shows_what_is_freed_what_moves_and_what_stays() {
    let piece = &BEARER.as_bytes()[7..7 + heap::PIECE];
    let mut kept = Vec::new();
    let left = heap::left_by(|| {
        drop(Zeroizing::new(owned(THIRD)));
        drop(owned(FIRST));
        let mut grown = Zeroizing::new(ACCESS.as_bytes().to_vec());
        grown.reserve_exact(1000);
        drop(piece[1..].to_vec());
        kept.push([b"before", piece, b"after"].concat());
    });
    assert_eq!(
        left,
        Left {
            freed: vec!["access key", "first"],
            held: vec!["bearer"]
        }
    );

    // Nothing carries over. Blocks older than the scene are searched too when it frees them.
    assert_eq!(heap::left_by(|| ()), nothing());
    assert_eq!(
        heap::left_by(|| drop(kept)),
        Left {
            freed: vec!["bearer"],
            held: vec![]
        }
    );
}

/// A body that is longer than it says, as behind a layer that decompresses it and keeps the hint.
struct Understated(ResponseBody);

impl Body for Understated {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(60)
    }
}

#[test]
fn a_response_that_is_longer_than_it_says_is_wiped() {
    let left = left_by(async {
        let transport = service_fn(|_: Outgoing| async {
            let rest = format!(r#"","expires_in":1800,"note":"{}"}}"#, "x".repeat(2000));
            let response = response(200, r#"{"access_token":""#, FIRST, &rest, End::Whole)?;
            Ok::<_, BoxError>(response.map(Understated))
        });
        let url = "https://id.example.com/token";
        let source = ClientCredentials::new(url, owned(ACCESS), owned(SECRET), transport).unwrap();
        source.fetch(TokenRequest::default()).await.unwrap();
    });
    assert_eq!(left, nothing());
}
