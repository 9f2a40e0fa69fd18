//! Cases that the property test does not cover.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Wake, Waker},
};

use http_body_util::combinators::UnsyncBoxBody;

use super::{super::record_body::RecordBody, *};

/// A waker that counts its wake-ups.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A body that is never ready and never wakes.
struct Stalled;

impl Body for Stalled {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Pending
    }
}

fn wakes_the_first_handle(take_over: impl FnOnce(&mut ReplayBody<Stalled>)) {
    let (mut first, mut second) = ReplayBody::record(Stalled, 10);
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    let cx = &mut Context::from_waker(&waker);
    assert!(poll(&mut first, cx).is_pending());
    take_over(&mut second);
    assert_eq!(alarm.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(Some(Err(error))) = poll(&mut first, cx) else {
        panic!("no error")
    };
    assert_eq!(read_error(&error), Seen::TakenOver);
}

#[test]
fn a_waker_is_kept_only_while_a_takeover_can_come() {
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    let cx = &mut Context::from_waker(&waker);
    let kept = || Arc::strong_count(&alarm) - 2;
    for drops_first in [true, false] {
        let (mut first, second) = ReplayBody::record(Stalled, 10);
        assert!(poll(&mut first, cx).is_pending());
        assert_eq!(kept(), 1);
        let (dropped, mut left) = match drops_first {
            true => (first, second),
            false => (second, first),
        };
        drop(dropped);
        assert_eq!(kept(), 0);
        assert!(poll(&mut left, cx).is_pending());
        assert_eq!(kept(), 0);
    }
}

#[test]
fn case_53_trailers_alone_are_not_an_empty_body() {
    let (original, ..) = Original::new(&[Step::Trailers(3)], Hint::Exact, true);
    assert_eq!(original.size_hint().exact(), Some(0));
    let record = RecordBody::new(UnsyncBoxBody::new);
    let mut first = UnsyncBoxBody::new(original);
    let backup = record.back_up_body(&mut first).unwrap();
    let mut second = record.restore_body(backup).unwrap();
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(matches!(
        Pin::new(&mut first).poll_frame(cx),
        Poll::Ready(Some(Err(_)))
    ));
    let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut second).poll_frame(cx) else {
        panic!("no frame")
    };
    assert_eq!(frame.into_trailers().unwrap(), trailers(0, 3));
}

#[test]
fn case_53_a_takeover_wakes_the_reader_of_the_first_handle() {
    let mut cx = Context::from_waker(Waker::noop());
    wakes_the_first_handle(|second| assert!(second.take_over()));
    wakes_the_first_handle(|second| assert!(poll(second, &mut cx).is_pending()));
}

/// A body that panics at its second frame and loses it.
struct Panicking(u8);

impl Body for Panicking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0 += 1;
        match self.0 {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"one"))))),
            2 => panic!("on purpose"),
            3 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"three"))))),
            _ => Poll::Ready(None),
        }
    }
}

#[test]
fn case_54_a_panic_of_the_original_ends_the_replay_only() {
    let cx = &mut Context::from_waker(Waker::noop());
    let (mut first, mut second) = ReplayBody::record(Panicking(0), 10);
    let text = |polled| match polled {
        Poll::Ready(Some(Ok(frame))) => Frame::into_data(frame).unwrap(),
        _ => panic!("not a frame"),
    };
    assert_eq!(text(poll(&mut first, cx)), "one");
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut first, cx).is_pending())).is_err());
    assert!(!second.is_complete() && !second.take_over());
    let Poll::Ready(Some(Err(error))) = poll(&mut second, cx) else {
        panic!("no error")
    };
    assert_eq!(read_error(&error), Seen::Incomplete);
    assert_eq!(text(poll(&mut first, cx)), "three");
    assert!(matches!(poll(&mut first, cx), Poll::Ready(None)));
}

#[test]
fn a_chunk_that_is_not_bytes_is_copied_once_and_then_shared() {
    let cx = &mut Context::from_waker(Waker::noop());
    let (mut first, mut second) = ReplayBody::record(
        http_body_util::Full::new(std::collections::VecDeque::from([1, 2])),
        2,
    );
    let mut next = |handle| match poll(handle, cx) {
        Poll::Ready(Some(Ok(frame))) => Frame::into_data(frame).unwrap(),
        _ => panic!("not a frame"),
    };
    let (sent, replayed) = (next(&mut first), next(&mut second));
    assert_eq!(sent[..], [1, 2]);
    assert_eq!(
        (sent.as_ptr(), sent.len()),
        (replayed.as_ptr(), replayed.len())
    );
}

#[test]
fn case_61_debug_shows_nothing_of_the_body() {
    let (mut first, second) = ReplayBody::record(http_body_util::Full::<Bytes>::from("secret"), 10);
    assert!(poll(&mut first, &mut Context::from_waker(Waker::noop())).is_ready());
    assert_eq!(
        format!("{second:?}"),
        "ReplayBody { recorded: 6, limit: 10, complete: true, .. }"
    );
}

#[test]
fn a_recording_overflows_after_4096_frames_of_any_size() {
    let frames = |count| {
        let frames = (0..count).map(|_| Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x"))));
        http_body_util::StreamBody::new(futures_util::stream::iter(frames))
    };
    for (count, is_complete) in [(4096, true), (4097, false)] {
        let (mut first, second) = ReplayBody::record(frames(count), 1 << 20);
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..count {
            assert!(matches!(poll(&mut first, cx), Poll::Ready(Some(Ok(_)))));
        }
        assert_eq!(second.is_complete(), is_complete, "{count}");
    }
}
