//! What is left of keys and tokens in memory once everything that held them is dropped: nothing that this crate made.
//! The test reads the memory of its own process, and no other test runs in it.
#![cfg(target_os = "linux")]

use std::{
    collections::HashSet,
    convert::Infallible,
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use klavi_auth::{BoxError, Credentials, Error, KlaviApi, KlaviAuth, KlaviAuthLayer, Product};
use secrecy::zeroize::{Zeroize, Zeroizing};
use tower::{Layer, Service, ServiceExt, service_fn};

/// A secret as it stands in this program: nowhere, other than in a form that the search does not find.
type Hidden = &'static [u8];

const MASK: u8 = 0xA5;

const fn hide<const N: usize>(mut text: [u8; N]) -> [u8; N] {
    let mut n = 0;
    while n < N {
        text[n] ^= MASK;
        n += 1;
    }
    text
}

const ACCESS: Hidden = &hide(*b"aK7\"Zx4Vn2Kw9Tj3Hd8\\Rb5Qm6Yp1");
const SECRET: Hidden = &hide(*b"sK1Gf8Xc3Lz7\"Bq2Wd9Jk4Nh5\\Tv0Rs6Pg1Mx8Qb");
const FIRST: Hidden = &hide(*b"t1F5hR2wE9kU3zN7cB4vX8mL6qJ0dG1sT5yP2aH9");
const SLASHED: Hidden = &hide(*b"t2D8/bM4gW7nK1xS5/fV9rZ3tC6jQ0/lH2pY7eA4uN8");
const THIRD: Hidden = &hide(*b"t3Q6yJ1mV8bT4hX0nC7kR2wP9sF5gL3zD6aE1uK8");
const UNUSABLE: Hidden = &hide(*b"t4W2cN9pH5xB7jM3vS0qY6tG8rK1fZ4dL2eU9aJ5");
const BEARER: Hidden = &hide(*b"t5P7vK3rX9dC1nT6mH4bW8sZ2yG0fQ5jL7aR3eM9");
const ALL: [Hidden; 7] = [ACCESS, SECRET, FIRST, SLASHED, THIRD, UNUSABLE, BEARER];

fn reveal(hidden: Hidden) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(hidden.iter().map(|byte| byte ^ MASK).collect())
}

/// As a caller has it that read it from somewhere: in a buffer that is longer than the text.
fn owned(hidden: Hidden) -> String {
    let mut text = String::with_capacity(200);
    text.extend(hidden.iter().map(|byte| char::from(byte ^ MASK)));
    text
}

// ## The search

/// The search sees 8 bytes at a time.
fn pieces(hidden: Hidden) -> HashSet<u64> {
    // As it is, and as it is compared with a message: only letters and digits, in lower case.
    let plain = hidden.iter().map(|byte| byte ^ MASK).filter(u8::is_ascii_alphanumeric);
    let folded: Vec<_> = plain.map(|byte| byte.to_ascii_lowercase() ^ MASK).collect();
    let windows = hidden.windows(8).chain(folded.windows(8));
    windows.map(|window| u64::from_le_bytes(window.try_into().unwrap())).collect()
}

/// The search. It has all of its memory beforehand, so as not to write over what it looks for.
struct Search {
    pieces: [HashSet<u64>; ALL.len()],
    all: HashSet<u64>,
    /// Whether a piece may begin with these two bytes: a quick no, which is the rule.
    likely: Vec<bool>,
    memory: File,
    maps: String,
    buffer: Vec<u8>,
    found: HashSet<u64>,
}

impl Search {
    fn new() -> Self {
        let pieces = ALL.map(pieces);
        let all: HashSet<_> = pieces.iter().flatten().copied().collect();
        let memory = File::open("/proc/self/mem").expect("Linux lets a process read its own memory");
        let found = HashSet::with_capacity(all.len());
        let mut likely = vec![false; 1 << 16];
        all.iter().for_each(|&piece| likely[usize::from(piece as u16)] = true);
        Self {
            pieces,
            all,
            likely,
            memory,
            maps: String::with_capacity(1 << 20),
            buffer: vec![0; 64 * 1024],
            found,
        }
    }

    /// Which of the secrets are somewhere in this process's writable memory, in pieces of 8 bytes.
    fn run(&mut self) -> Vec<usize> {
        self.found.clear();
        self.maps.clear();
        File::open("/proc/self/maps").unwrap().read_to_string(&mut self.maps).unwrap();
        for line in self.maps.lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            if !rest.starts_with("rw") {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let [mut at, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            while at < end {
                let wanted = self.buffer.len().min((end - at) as usize);
                // The kernel keeps some mappings to itself.
                let Ok(read) = self.memory.read_at(&mut self.buffer[..wanted], at) else { break };
                for window in self.buffer[..read].windows(8) {
                    let piece =
                        u64::from_le_bytes(window.try_into().unwrap()) ^ u64::from_le_bytes([MASK; 8]);
                    if self.likely[usize::from(piece as u16)] && self.all.contains(&piece) {
                        self.found.insert(piece);
                    }
                }
                // What was read is not to be found here again.
                self.buffer[..read].zeroize();
                if read < 8 {
                    break;
                }
                at += if at + read as u64 == end { read } else { read - 7 } as u64;
            }
        }
        (0..ALL.len()).filter(|&n| !self.found.is_disjoint(&self.pieces[n])).collect()
    }
}

// ## The world

/// A frame that leaves no copy of itself.
fn frame(bytes: &[u8]) -> Frame<Bytes> {
    let mut copy = Zeroizing::new(Vec::with_capacity(bytes.len()));
    copy.extend_from_slice(bytes);
    Frame::data(Bytes::from_owner(copy))
}

/// An answer in several frames: `before`, the secret, `after`. A slash in it is escaped, as some encoders do.
fn answer(status: u16, before: &str, secret: Hidden, after: &str) -> Response<Answer> {
    let secret = reveal(secret);
    let mut json = Zeroizing::new(Vec::with_capacity(4 * secret.len()));
    for &byte in secret.iter() {
        if matches!(byte, b'/' | b'"' | b'\\') {
            json.push(b'\\');
        }
        json.push(byte);
    }
    let frames = [before.as_bytes(), &json[..10], &json[10..], after.as_bytes()].map(|part| Ok(frame(part)));
    let frames: Box<dyn Iterator<Item = _> + Send> = Box::new(frames.into_iter());
    let mut response = Response::new(StreamBody::new(stream::iter(frames)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

type Frames = Box<dyn Iterator<Item = Result<Frame<Bytes>, Infallible>> + Send>;
type Answer = StreamBody<stream::Iter<Frames>>;

/// What the token endpoints answer, call by call.
fn token_call(number: usize) -> Response<Answer> {
    let token = r#"{"accessToken":""#;
    let lives = format!(r#"","expireIn":1800,"note":"{}"}}"#, "x".repeat(2000));
    match number {
        0 => answer(200, token, FIRST, &lives),
        1 => answer(200, token, SLASHED, &lives),
        2 => answer(401, r#"{"message":"no customer \" has "#, SECRET, r#""}"#),
        3 => answer(200, token, UNUSABLE, r#"","expireIn":-1}"#),
        _ => answer(200, token, THIRD, &lives),
    }
}

type Request_ = Request<Full<Bytes>>;

/// The layer around an API that answers 401 to the requests with the tag `Revoked`.
fn client(credentials: Credentials, calls: &Arc<AtomicUsize>) -> KlaviAuth<impl Inner> {
    let calls = Arc::clone(calls);
    let transport = service_fn(move |_: Request_| {
        let number = calls.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, Infallible>(token_call(number)) }
    });
    let api = service_fn(|request: Request_| async move {
        let revoked = request.extensions().get::<Revoked>().is_some();
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = if revoked { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
        Ok::<_, BoxError>(response)
    });
    let layer = KlaviAuthLayer::builder(KlaviApi::production(Product::Monitor), credentials)
        .transport(transport)
        .configure_tokens(|tokens| tokens.randomness(|| 0.0))
        .build();
    layer.unwrap().layer(api)
}

trait Inner: Service<Request_, Response = Response<Full<Bytes>>, Error = BoxError> + Clone {}
impl<S: Service<Request_, Response = Response<Full<Bytes>>, Error = BoxError> + Clone> Inner for S {}

#[derive(Clone)]
struct Revoked;

async fn send(client: &KlaviAuth<impl Inner>, request: Request_) -> Result<u16, Error> {
    let answer = client.clone().oneshot(request).await;
    let answer = answer.map_err(|error| *error.downcast::<Error>().unwrap())?;
    Ok(answer.status().as_u16())
}

fn get() -> Request_ {
    Request::get("https://api.klavi.ai/monitor/v1/monitors").body(Full::default()).unwrap()
}

fn revoked() -> Request_ {
    let mut request = get();
    request.extensions_mut().insert(Revoked);
    request
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn keys_tokens_and_what_carried_them_are_wiped() {
    let mut search = Search::new();
    assert_eq!(search.run(), [] as [usize; 0], "before they are there");

    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let client = client(Credentials::new(owned(ACCESS), owned(SECRET)).unwrap(), &calls);
        assert_eq!(send(&client, get()).await.unwrap(), 200);
        pass(1400).await;
        assert_eq!(send(&client, get()).await.unwrap(), 200);
        pass(0).await;
        assert_eq!(calls.load(Ordering::SeqCst), 2, "renewed");

        // The keys are not taken, and the answer repeats one. Then there is a token that cannot be used.
        assert_eq!(send(&client, revoked()).await.unwrap(), 401);
        assert!(send(&client, get()).await.unwrap_err().is_keys_rejected());
        pass(5).await;
        assert!(send(&client, get()).await.unwrap_err().is_bad_answer());
        assert_eq!(send(&client, get()).await.unwrap(), 200);
        assert_eq!(calls.load(Ordering::SeqCst), 5);
        // The service's own copy of a token gives way with the first request that finds a newer one and need not wait.
        assert_eq!(send(&client, get()).await.unwrap(), 200);

        // Who has only one of the keys, or one that cannot be a key.
        Credentials::new(owned(ACCESS), "").unwrap_err();
        Credentials::new("\n", owned(SECRET)).unwrap_err();
        let both = Credentials::bearer(std::str::from_utf8(&reveal(BEARER)).unwrap(), Duration::from_secs(9));
        let bearer = self::client(both.unwrap(), &calls);
        assert_eq!(send(&bearer, get()).await.unwrap(), 200);

        // What is in use is there, so the search works; what was replaced is gone by now.
        assert_eq!(search.run(), [0, 1, 4, 6]);
    });
    drop(runtime);
    assert_eq!(search.run(), [] as [usize; 0], "after everything was dropped");
}
