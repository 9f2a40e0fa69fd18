//! Cases 52 to 54 over sockets: the 401 comes while the body is still being sent. A body that is
//! backed up is resent whole, a longer one gets its 401, and nothing hangs.
//!
//! A server that closes an HTTP/1.1 connection before it has read the body can lose its own 401:
//! hyper's client then gets a broken pipe or a reset while it writes, before it has read the
//! response. The caller gets that as a transport error, nothing is resent and no token is fetched,
//! because the layer never sees the 401. The tests here tell the two apart.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use klavi_auth::BoxError;
use tower::Layer;

use crate::support::{
    early::{After, Early, Kind},
    sockets::{Body, Caller, http_clients, through_each},
};

const SMALL: u32 = 10 * 1024;

fn body(len: u32) -> Bytes {
    (0..len).map(|n| n.to_le_bytes()[n as usize % 3]).collect()
}

type Outcome = Result<StatusCode, BoxError>;

/// An upload's outcome for its caller, and how often it was handled. What was handled is whole.
async fn upload(
    after: After,
    read_first: usize,
    kind: Kind,
    http2: bool,
    len: u32,
) -> (Outcome, usize) {
    let (server, body) = (Early::start(after, read_first).await, body(len));
    let upload = server.upload(kind, http2, &body);
    let outcome = tokio::time::timeout(Duration::from_secs(30), upload)
        .await
        .expect("an end");
    let handled = server.handled();
    assert!(
        handled.iter().all(|handled| *handled == body),
        "{after:?} {kind:?}: handled, and not whole"
    );
    (outcome, handled.len())
}

async fn is_resent(after: After, read_first: usize, kind: Kind, http2: bool, len: u32) {
    let (outcome, handled) = upload(after, read_first, kind, http2, len).await;
    assert_eq!(
        (outcome.unwrap(), handled),
        (StatusCode::OK, 1),
        "{after:?} {kind:?}"
    );
}

#[tokio::test]
async fn case_52_53_a_small_upload_survives_a_server_that_stops() {
    for after in [After::KeepOpen, After::Close] {
        for kind in [Kind::Whole, Kind::Sized, Kind::Chunked, Kind::Late] {
            is_resent(after, 0, kind, false, SMALL).await;
        }
    }
}

#[tokio::test]
async fn case_52_53_a_small_upload_is_resent_whole_over_http_2() {
    for kind in [Kind::Whole, Kind::Sized, Kind::Chunked, Kind::Late] {
        is_resent(After::Hyper, 0, kind, true, SMALL).await;
    }
}

#[tokio::test]
async fn case_52_a_small_upload_sent_at_once_survives_a_reset() {
    for kind in [Kind::Whole, Kind::Sized] {
        is_resent(After::Reset, 0, kind, false, SMALL).await;
    }
}

/// How much of a big body is read before a 401 in the middle.
const MIDDLE: usize = 1024 * 1024;

const BIG: u32 = 10 * 1024 * 1024;

async fn is_rejected(after: After, read_first: usize, kind: Kind, http2: bool) {
    let (outcome, handled) = upload(after, read_first, kind, http2, BIG).await;
    assert_eq!(
        (outcome.unwrap(), handled),
        (StatusCode::UNAUTHORIZED, 0),
        "{after:?} {kind:?}"
    );
}

#[tokio::test]
async fn case_54_a_big_stream_gets_the_401_of_a_server_that_stops() {
    for after in [After::KeepOpen, After::Close] {
        is_rejected(after, 0, Kind::Sized, false).await;
        is_rejected(after, MIDDLE, Kind::Sized, false).await;
        is_rejected(after, MIDDLE, Kind::Chunked, false).await;
    }
}

#[tokio::test]
async fn case_54_a_big_stream_gets_its_401_over_http_2() {
    is_rejected(After::Hyper, 0, Kind::Sized, true).await;
    is_rejected(After::Hyper, MIDDLE, Kind::Sized, true).await;
    is_rejected(After::Hyper, MIDDLE, Kind::Chunked, true).await;
}

#[tokio::test]
async fn case_52_a_big_body_that_can_be_cloned_is_resent_whole() {
    for read_first in [0, MIDDLE] {
        is_resent(After::KeepOpen, read_first, Kind::Whole, false, BIG).await;
        is_resent(After::Close, read_first, Kind::Whole, false, BIG).await;
        is_resent(After::Hyper, read_first, Kind::Whole, true, BIG).await;
    }
}

/// How much of it was read before the 401 varies.
#[tokio::test]
async fn case_53_54_a_big_unsized_stream_is_resent_or_gets_its_401() {
    for (after, http2) in [
        (After::KeepOpen, false),
        (After::Close, false),
        (After::Hyper, true),
    ] {
        for kind in [Kind::Chunked, Kind::Late] {
            let (outcome, handled) = upload(after, 0, kind, http2, BIG).await;
            let outcome = (outcome.unwrap().as_u16(), handled);
            assert!(
                [(200, 1), (401, 0)].contains(&outcome),
                "{after:?} {kind:?}: {outcome:?}"
            );
        }
    }
}

const STREAMS: [Kind; 3] = [Kind::Sized, Kind::Chunked, Kind::Late];

/// Whether that is the error of a connection which the server has closed.
fn is_broken_off(error: &BoxError) -> bool {
    let error = format!("{error:?}");
    // The last is what it looks like if the second try went over the connection that was about to
    // be closed.
    ["BrokenPipe", "ConnectionReset", "IncompleteMessage"]
        .iter()
        .any(|kind| error.contains(kind))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_52_a_closed_connection_acts_as_a_401_or_transport_error() {
    for after in [After::Reset, After::Hyper] {
        for kind in STREAMS {
            for (len, read_first) in [(SMALL, 0), (BIG, MIDDLE)] {
                if (kind, read_first) == (Kind::Late, MIDDLE) {
                    continue;
                }
                let (outcome, handled) = upload(after, read_first, kind, false, len).await;
                match outcome {
                    Ok(status) if len == BIG => {
                        assert_eq!((status.as_u16(), handled), (401, 0), "{kind:?}")
                    }
                    Ok(status) => assert_eq!((status.as_u16(), handled), (200, 1), "{kind:?}"),
                    Err(error) => {
                        assert!(is_broken_off(&error) && handled == 0, "{kind:?}: {error:?}")
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn case_52_a_request_without_a_body_is_resent_without_one() {
    through_each(async |stack| {
        for (http, _) in http_clients() {
            let client = stack.layer().layer(http);
            let delete = || {
                let uri = stack.get("echo").uri().clone();
                Request::delete(uri).body(Body::default()).unwrap()
            };
            assert_eq!(client.status(delete()).await, 200);
            stack.sandbox.revoke_all();
            stack.sandbox.clear_log();
            assert_eq!(client.status(delete()).await, 200);
            let log = stack.sandbox.log();
            for sent in [&log[0], &log[2]] {
                assert!(!sent.headers().contains_key("content-length"));
                assert!(!sent.headers().contains_key("transfer-encoding"));
                assert_eq!((sent.method(), sent.body_len()), (&Method::DELETE, 0));
            }
        }
    })
    .await;
}
