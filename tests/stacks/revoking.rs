//! A hundred calls, five at a time, while tokens are revoked at random moments.

use std::{collections::BTreeSet, future::Future, sync::Mutex};

use futures_util::{StreamExt, stream};
use klavi_auth::TokenCache;

pub(crate) const CALLS: usize = 100;
const AT_ONCE: usize = 5;

/// Makes the calls 0 to 99, each in a task of its own, and returns how often tokens were revoked
/// meanwhile.
///
/// No call meets two revocations: after each, the next one waits until there is a new token, and
/// until all calls that began before that are over.
pub(crate) async fn a_hundred_calls<Fut>(
    seed: u64,
    tokens: &TokenCache,
    revoke: impl Fn(),
    call: impl Fn(usize) -> Fut,
) -> usize
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let pace = Mutex::new(Pace {
        random: seed,
        ..Pace::default()
    });
    let calls = stream::iter(0..CALLS).map(|number| {
        pace.lock().unwrap().running.insert(number);
        let call = tokio::spawn(call(number));
        let (pace, revoke) = (&pace, &revoke);
        async move {
            call.await.unwrap();
            let mut pace = pace.lock().unwrap();
            pace.running.remove(&number);
            if pace.is_time(tokens.snapshot().generation()) {
                revoke();
            }
        }
    });
    // In order, so that a slow call holds the others up, and revocations do not wait for it for
    // long.
    calls.buffered(AT_ONCE).collect::<()>().await;
    pace.into_inner().unwrap().revoked
}

/// When to revoke the next time.
#[derive(Default)]
struct Pace {
    random: u64,
    running: BTreeSet<usize>,
    revoked: usize,
    /// The generation that was revoked and not replaced yet.
    dead: Option<u64>,
    /// The calls that may have met the last revocation.
    touched: BTreeSet<usize>,
    /// How many more calls are to end before.
    more: usize,
}

impl Pace {
    /// Asked whenever a call has ended.
    fn is_time(&mut self, generation: Option<u64>) -> bool {
        if self.dead.is_some() && generation > self.dead {
            self.dead = None;
            self.touched.clone_from(&self.running);
            self.more = draw(&mut self.random, 4);
        }
        if self.dead.is_some() || !self.touched.is_disjoint(&self.running) {
            return false;
        }
        if self.more > 0 {
            self.more -= 1;
            return false;
        }
        self.dead = generation;
        self.revoked += 1;
        true
    }
}

/// A JSON object of 1 KiB, another one for every number.
pub(crate) fn kibibyte(number: usize) -> String {
    let head = format!(r#"{{"name":"monitor {number}","filler":""#);
    format!("{head}{}\"}}", "x".repeat(1024 - head.len() - 2))
}

/// Every body of [`kibibyte`] that the calls have.
pub(crate) fn all_of_them() -> Vec<String> {
    let mut all: Vec<_> = (0..CALLS).map(kibibyte).collect();
    all.sort();
    all
}

/// Less than `limit`.
fn draw(state: &mut u64, limit: usize) -> usize {
    // xorshift64: the same moments for the same seed.
    for (left, shift) in [(true, 13), (false, 7), (true, 17)] {
        *state ^= if left {
            *state << shift
        } else {
            *state >> shift
        };
    }
    usize::try_from(*state >> 33).unwrap() % limit
}
