//! Cases 53 to 55: bodies that cannot be cloned are recorded while they are sent, and replayed.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{
    BodyExt,
    combinators::{BoxBody, UnsyncBoxBody},
};
use klavi_auth::{BoxError, Error, KlaviAuthLayer, RecordBody, ReplayBody};
use tower::{Layer, ServiceExt};

use crate::support::{
    ManualSource, ScriptedSource,
    api::{Tag, ok, status, text},
    settle,
    streams::{Own, Parts, Streams, data, next, recording_layer, rest, stream, trailers},
    token,
};

fn parts() -> Parts {
    vec![data("one"), data("two"), data("three"), trailers()]
}

const PARTS: [&str; 4] = ["one", "two", "three", r#"{"grpc-status": "0"}"#];

fn post<B>(body: B) -> Request<B> {
    Request::post("/monitor/x")
        .header("x-mine", "kept")
        .extension(Tag("travels"))
        .body(body)
        .unwrap()
}

/// The API reads `frames` frames of the first request and says 401; then it reads all of the
/// second. The first body stays alive, as it does while a connection still has it.
async fn is_resent_whole_after<B>(frames: usize, construct: fn(ReplayBody<B>) -> B, body: B)
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let first = Arc::new(Mutex::new(None));
    let kept = first.clone();
    let inner = Streams::new(move |number, mut request: Request<B>| {
        let kept = kept.clone();
        async move {
            assert_eq!(request.headers()["x-mine"], "kept");
            assert_eq!(request.extensions().get(), Some(&Tag("travels")));
            if number == 2 {
                assert_eq!(rest(request.body_mut()).await?, PARTS);
                return ok("fine");
            }
            for part in PARTS.iter().take(frames) {
                assert_eq!(next(request.body_mut()).await.unwrap()?, *part);
            }
            // One more than there are frames is the end.
            if frames > PARTS.len() {
                assert!(next(request.body_mut()).await.is_none());
            }
            *kept.lock().unwrap() = Some(request.into_body());
            status(401, "no")
        }
    });
    let service = recording_layer(ScriptedSource::tokens(), construct).layer(inner.clone());
    let response = service.oneshot(post(body)).await.unwrap();
    assert_eq!(response.status(), 200, "after {frames} frames");
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
    let mut first = first.lock().unwrap().take().unwrap();
    assert!(
        next(&mut first).await.unwrap().is_err(),
        "the first body was taken over"
    );
}

async fn is_resent_whole<B>(construct: fn(ReplayBody<B>) -> B, make: impl Fn() -> B)
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    for frames in 0..=PARTS.len() + 1 {
        is_resent_whole_after(frames, construct, make()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn case_53_every_kind_of_body_is_resent_whole() {
    is_resent_whole(axum::body::Body::new, || {
        axum::body::Body::new(stream(parts()))
    })
    .await;
    is_resent_whole(tonic::body::Body::new, || {
        tonic::body::Body::new(stream(parts()).map_err(tonic::Status::from_error))
    })
    .await;
    is_resent_whole(UnsyncBoxBody::new, || UnsyncBoxBody::new(stream(parts()))).await;
    is_resent_whole(BoxBody::new, || BoxBody::new(stream(parts()))).await;
    is_resent_whole(Own::again, || Own::of(parts())).await;
    // An error type of the test.
    let io = |body: ReplayBody<_>| body.map_err(std::io::Error::other).boxed();
    is_resent_whole(io, || {
        stream(parts()).map_err(std::io::Error::other).boxed()
    })
    .await;
}

const CAP: usize = 64 * 1024;

/// The lengths of the bodies that the API was sent, if it reads them all and accepts `t2`.
async fn lengths<B>(
    layer: KlaviAuthLayer<RecordBody<B>>,
    body: B,
) -> (Response<crate::support::api::Body>, Vec<usize>)
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let seen = lengths.clone();
    let inner = Streams::new(move |number, mut request: Request<B>| {
        let seen = seen.clone();
        async move {
            let parts = rest(request.body_mut()).await?;
            seen.lock().unwrap().push(parts.concat().len());
            if number == 1 {
                status(401, "original")
            } else {
                ok("fine")
            }
        }
    });
    let response = layer.layer(inner).oneshot(post(body)).await.unwrap();
    let lengths = lengths.lock().unwrap().clone();
    (response, lengths)
}

fn of_length(length: usize) -> Parts {
    let half = length / 2;
    vec![data(vec![b'a'; half]), data(vec![b'b'; length - half])]
}

#[tokio::test(start_paused = true)]
async fn case_54_over_the_cap_a_body_is_sent_once_unbroken() {
    for (limit, cap) in [
        (None, CAP),
        (Some(10), 10),
        (Some(2 * CAP), 2 * CAP),
        (Some(0), 0),
    ] {
        for length in [cap, cap + 1] {
            // Of unknown length, and with a length that shows at once that it is too long to
            // record.
            let streamed = axum::body::Body::new(stream(of_length(length)));
            for body in [streamed, axum::body::Body::from(vec![b'a'; length])] {
                let source = ScriptedSource::tokens();
                let mut layer = recording_layer(source.clone(), axum::body::Body::new);
                if let Some(limit) = limit {
                    layer = layer.replay_limit(limit);
                }
                let (response, lengths) = lengths(layer.clone(), body).await;
                if length == cap {
                    assert_eq!((response.status().as_u16(), lengths), (200, vec![cap; 2]));
                    continue;
                }
                assert_eq!(lengths, [length]);
                assert_eq!(response.headers()["x-from"], "api");
                assert!(response.extensions().get::<Error>().is_none());
                assert_eq!(
                    text(response).await,
                    (http::StatusCode::UNAUTHORIZED, "original".into())
                );
                // The token is replaced for the next request.
                assert_eq!(layer.cache().get().await.unwrap().expose(), "t2");
                assert_eq!(source.fetches(), 2);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn case_54_reading_past_the_cap_in_the_fetch_returns_the_401() {
    let source = ManualSource::default();
    let first = Arc::new(Mutex::new(None));
    let kept = first.clone();
    let inner = Streams::new(move |_, mut request: Request<Own>| {
        let kept = kept.clone();
        async move {
            assert_eq!(next(request.body_mut()).await.unwrap()?, "one");
            *kept.lock().unwrap() = Some(request.into_body());
            status(401, "original")
        }
    });
    let layer = recording_layer(source.clone(), Own::again).replay_limit(5);
    let call = tokio::spawn(layer.layer(inner.clone()).oneshot(post(Own::of(parts()))));
    source.respond(token("t1")).await;
    settle().await;
    // The 401 has arrived, and its request could be resent. The connection continues to read.
    let mut first = first.lock().unwrap().take().unwrap();
    assert_eq!(rest(&mut first).await.unwrap(), PARTS[1..]);
    source.respond(token("t2")).await;
    let response = call.await.unwrap().unwrap();
    assert_eq!(
        text(response).await,
        (http::StatusCode::UNAUTHORIZED, "original".into())
    );
    assert_eq!(inner.bearers(), ["Bearer t1"]);
    assert_eq!(layer.cache().get().await.unwrap().expose(), "t2");
}

#[tokio::test(start_paused = true)]
async fn case_54_the_401_of_a_body_over_the_cap_does_not_wait() {
    let source = ManualSource::default();
    let inner = Streams::new(|_, mut request: Request<Own>| async move {
        assert_eq!(rest(request.body_mut()).await?, PARTS);
        status(401, "original")
    });
    let layer = recording_layer(source.clone(), Own::again).replay_limit(5);
    let call = tokio::spawn(layer.layer(inner.clone()).oneshot(post(Own::of(parts()))));
    source.respond(token("t1")).await;
    settle().await;
    assert!(call.is_finished(), "nobody fetches a token for it");
    assert_eq!(
        text(call.await.unwrap().unwrap()).await,
        (http::StatusCode::UNAUTHORIZED, "original".into())
    );
    assert_eq!(source.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn case_53_reading_within_the_cap_during_the_fetch_is_resent() {
    let source = ManualSource::default();
    let first = Arc::new(Mutex::new(None));
    let kept = first.clone();
    let inner = Streams::new(move |number, mut request: Request<Own>| {
        let kept = kept.clone();
        async move {
            if number == 2 {
                assert_eq!(rest(request.body_mut()).await?, PARTS);
                return ok("fine");
            }
            *kept.lock().unwrap() = Some(request.into_body());
            status(401, "original")
        }
    });
    let service = recording_layer(source.clone(), Own::again).layer(inner.clone());
    let call = tokio::spawn(service.oneshot(post(Own::of(parts()))));
    source.respond(token("t1")).await;
    let mut first = first.lock().unwrap().take().unwrap();
    assert_eq!(next(&mut first).await.unwrap().unwrap(), "one");
    assert_eq!(next(&mut first).await.unwrap().unwrap(), "two");
    source.respond(token("t2")).await;
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    assert!(next(&mut first).await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn case_53_an_empty_body_is_not_wrapped_and_is_resent() {
    let inner = Streams::new(|number, request: Request<Own>| async move {
        let body = request.body();
        assert_eq!(
            (
                body.is_original(),
                body.size_hint().exact(),
                body.is_end_stream()
            ),
            (number == 1, Some(0), true)
        );
        if number == 1 {
            status(401, "no")
        } else {
            ok("fine")
        }
    });
    let service = recording_layer(ScriptedSource::tokens(), Own::again).layer(inner.clone());
    assert_eq!(
        service.oneshot(post(Own::text(""))).await.unwrap().status(),
        200
    );
    assert_eq!(inner.bearers(), ["Bearer t1", "Bearer t2"]);
}

fn failing() -> Own {
    Own::of(vec![data("one"), Err("the disk failed".into())])
}

#[tokio::test(start_paused = true)]
async fn case_54_an_error_of_the_body_comes_through_without_resend() {
    let fails = Streams::new(|_, mut request: Request<Own>| async move {
        rest(request.body_mut()).await?;
        ok("not reached")
    });
    let service = recording_layer(ScriptedSource::tokens(), Own::again).layer(fails.clone());
    let error = service.oneshot(post(failing())).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), fails.bearers().len()),
        ("the disk failed", 1)
    );

    let responses = Streams::new(|_, mut request: Request<Own>| async move {
        assert_eq!(
            rest(request.body_mut()).await.unwrap_err().to_string(),
            "the disk failed"
        );
        status(401, "original")
    });
    let service = recording_layer(ScriptedSource::tokens(), Own::again).layer(responses.clone());
    let response = service.oneshot(post(failing())).await.unwrap();
    assert_eq!(
        text(response).await,
        (http::StatusCode::UNAUTHORIZED, "original".into())
    );
    assert_eq!(responses.bearers(), ["Bearer t1"]);
}

#[tokio::test(start_paused = true)]
async fn case_53_an_error_after_the_first_reading_is_in_the_replay() {
    let inner = Streams::new(|number, mut request: Request<Own>| async move {
        assert_eq!(next(request.body_mut()).await.unwrap()?, "one");
        if number == 1 {
            return status(401, "no");
        }
        rest(request.body_mut()).await?;
        ok("not reached")
    });
    let service = recording_layer(ScriptedSource::tokens(), Own::again).layer(inner.clone());
    let error = service.oneshot(post(failing())).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), inner.bearers().len()),
        ("the disk failed", 2)
    );
}

#[tokio::test(start_paused = true)]
async fn case_55_the_length_is_the_same_both_times() {
    let inner = Streams::new(
        |number, mut request: Request<axum::body::Body>| async move {
            assert_eq!(
                (
                    request.body().size_hint().exact(),
                    request.body().is_end_stream()
                ),
                (Some(7), false)
            );
            assert_eq!(rest(request.body_mut()).await?, ["payload"]);
            assert_eq!(
                (
                    request.body().size_hint().exact(),
                    request.body().is_end_stream()
                ),
                (Some(0), true)
            );
            if number == 1 {
                status(401, "no")
            } else {
                ok("fine")
            }
        },
    );
    let service =
        recording_layer(ScriptedSource::tokens(), axum::body::Body::new).layer(inner.clone());
    assert_eq!(
        service
            .oneshot(post("payload".into()))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(inner.bearers().len(), 2);
}

/// What a client needs to know to frame a body.
fn announced<B: http_body::Body>(body: &B) -> (u64, Option<u64>, bool) {
    (
        body.size_hint().lower(),
        body.size_hint().upper(),
        body.is_end_stream(),
    )
}

#[tokio::test(start_paused = true)]
async fn case_55_an_unknown_length_stays_unknown_on_the_resend() {
    for (parts, expected) in [(vec![], &PARTS[..0]), (parts(), &PARTS)] {
        let inner = Streams::new(move |number, mut request: Request<Own>| async move {
            assert_eq!(
                announced(request.body()),
                (0, None, false),
                "sending {number}"
            );
            assert_eq!(rest(request.body_mut()).await?, expected);
            if number == 1 {
                status(401, "no")
            } else {
                ok("fine")
            }
        });
        let service = recording_layer(ScriptedSource::tokens(), Own::again).layer(inner.clone());
        assert_eq!(
            service
                .oneshot(post(Own::of(parts)))
                .await
                .unwrap()
                .status(),
            200
        );
        assert_eq!(inner.bearers().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn case_55_a_known_length_is_announced_again() {
    for read_first in 0..=2 {
        let inner = Streams::new(move |number, mut request: Request<Own>| async move {
            assert_eq!(
                announced(request.body()),
                (7, Some(7), false),
                "sending {number}"
            );
            if number == 1 {
                for _ in 0..read_first {
                    next(request.body_mut()).await.transpose()?;
                }
                return status(401, "no");
            }
            assert_eq!(rest(request.body_mut()).await?, ["payload"]);
            assert_eq!(announced(request.body()), (0, Some(0), true));
            ok("fine")
        });
        let service = recording_layer(ScriptedSource::tokens(), Own::again).layer(inner.clone());
        assert_eq!(
            service
                .oneshot(post(Own::text("payload")))
                .await
                .unwrap()
                .status(),
            200
        );
        assert_eq!(inner.bearers().len(), 2);
    }
}
