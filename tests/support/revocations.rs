//! A test for every stack: a hundred POSTs while tokens are revoked at random.

use std::{collections::BTreeSet, future::Future};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::StatusCode;
use klavi_auth::sandbox::Sandbox;
use tokio::task::yield_now;

const POSTS: u64 = 100;
const AT_ONCE: u64 = 8;

/// A kibibyte of JSON, a different one for each number.
fn monitor(number: u64) -> Bytes {
    let body = format!(
        r#"{{"name":"monitor {number:03}","filler":"{}"}}"#,
        "x".repeat(990)
    );
    assert_eq!(body.len(), 1024);
    body.into()
}

/// Random numbers that are the same each time (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// POSTs a hundred monitors, up to eight at a time, and revokes the token at random moments, `most`
/// times at the most. `post` sends a body to `/monitor/v1/monitors` and says what status the caller
/// sees.
///
/// No request is revoked twice: the next revocation waits until there is a new token, and then
/// until all the requests that were under way at that time are done.
pub async fn a_hundred_posts<F>(sandbox: &Sandbox, seed: u64, most: u64, post: impl Fn(Bytes) -> F)
where
    F: Future<Output = StatusCode> + Send + 'static,
{
    let mut draw = Draw(seed);
    let (mut started, mut revoked) = (0, 0);
    let (mut under_way, mut open) = (FuturesUnordered::new(), BTreeSet::new());
    // The requests that may be rejected because of the last revocation, once that is known.
    let mut exposed = Some(BTreeSet::new());
    while started < POSTS || !open.is_empty() {
        for _ in 0..(1 + draw.below(8))
            .min(POSTS - started)
            .min(AT_ONCE - open.len() as u64)
        {
            let (number, call) = (started, tokio::spawn(post(monitor(started))));
            under_way.push(async move { (number, call.await.unwrap()) });
            open.insert(number);
            started += 1;
        }
        for _ in 0..draw.below(12) {
            yield_now().await;
        }
        if exposed.is_none() && sandbox.live_tokens() == 1 {
            exposed = Some(open.clone());
        }
        let is_safe =
            exposed.as_ref().is_some_and(BTreeSet::is_empty) && sandbox.live_tokens() == 1;
        if is_safe && revoked < most && started < POSTS {
            sandbox.revoke_all();
            (revoked, exposed) = (revoked + 1, None);
        }
        for _ in 0..1 + draw.below(open.len() as u64) {
            let (number, status) = under_way.next().await.unwrap();
            assert_eq!(
                status,
                StatusCode::CREATED,
                "request {number}, seed {seed}, {revoked} revocations"
            );
            open.remove(&number);
            if let Some(exposed) = &mut exposed {
                exposed.remove(&number);
            }
        }
    }

    assert!(revoked >= most.min(4), "seed {seed}: {revoked} revocations");
    let counts = sandbox.counts();
    assert_eq!(
        (counts.auth, counts.refresh),
        (1 + revoked, 0),
        "seed {seed}"
    );
    assert!(counts.unauthorized >= revoked, "seed {seed}");
    assert_eq!(counts.resource, POSTS + counts.unauthorized, "seed {seed}");
    let log = sandbox
        .log()
        .into_iter()
        .filter(|entry| entry.status() == Some(StatusCode::CREATED));
    let handled: Vec<_> = log
        .map(|entry| Bytes::copy_from_slice(entry.body()))
        .collect();
    assert_eq!(
        handled.len() as u64,
        POSTS,
        "seed {seed}: none was handled twice"
    );
    assert_eq!(
        BTreeSet::from_iter(handled),
        (0..POSTS).map(monitor).collect(),
        "seed {seed}"
    );
}
