//! The check before the measurement: every variant does what it claims.

use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use tokio::runtime::Runtime;

use super::{
    api::{Api, HEADERS, Watch},
    variants::{self, Claim, Variant, bearer},
};

/// Checks that every request has its seven headers and exactly one `Authorization`, the right one,
/// and that a variant that claims to resend does so exactly once.
///
/// # Panics
///
/// If a variant does not.
pub fn check(length: usize, runtime: &Runtime) {
    let watch = Watch::leaked();
    for variant in variants::all(Api::watched(watch), length, runtime) {
        one(&variant, watch, length, runtime);
    }
}

fn one(variant: &Variant, watch: &Watch, length: usize, runtime: &Runtime) {
    let mut client = variant.client();
    let mut send = |rejections: u32| {
        watch.reject(rejections);
        let status = runtime.block_on(client.send()).expect("a response");
        (status, watch.take())
    };
    let name = variant.name;
    let (fine, rejected) = (StatusCode::OK, StatusCode::UNAUTHORIZED);
    // The tokens of an accepted request, and of a request that is rejected once.
    let (first, second, sent) = (send(0), send(1), |numbers: &[u32]| numbers.to_vec());
    let tokens = |seen: &[HeaderMap]| {
        seen.iter()
            .map(|headers| number(headers, length))
            .collect::<Vec<_>>()
    };
    let expected = match variant.claim {
        Claim::NoToken => [(fine, sent(&[0])), (rejected, sent(&[0]))],
        Claim::Token => [(fine, sent(&[1])), (rejected, sent(&[1]))],
        Claim::Again => [(fine, sent(&[1])), (fine, sent(&[1, 1]))],
        Claim::Replaced => [(fine, sent(&[1])), (fine, sent(&[1, 2]))],
    };
    assert_eq!(
        [(first.0, tokens(&first.1)), (second.0, tokens(&second.1))],
        expected,
        "{name}"
    );
    // A request that is always rejected is not sent a third time.
    let (status, seen) = send(u32::MAX);
    let resends = matches!(variant.claim, Claim::Again | Claim::Replaced);
    assert_eq!(
        (status, seen.len()),
        (rejected, if resends { 2 } else { 1 }),
        "{name}"
    );
}

/// The number of the token in these headers, 0 for none.
fn number(headers: &HeaderMap, length: usize) -> u32 {
    for (name, value) in HEADERS {
        assert_eq!(headers.get(name).expect("the caller's own header"), value);
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return 0 };
    assert!(values.next().is_none(), "one `Authorization` header");
    let number = (1..9).find(|number| *value == bearer(number, length));
    number.expect("a token that was issued")
}
