//! Each handle on its own thread.

use std::{
    sync::{Barrier, mpsc},
    task::Waker,
    thread,
    time::Duration,
};

use super::*;

const ROUNDS: usize = 2_000;
const STEPS: usize = 40;
/// A timeout for results that take microseconds.
const LONG: Duration = Duration::from_secs(10);

/// Reads to the end. Returns the steps, and the last result.
fn read(
    mut handle: ReplayBody<Original>,
    steps: &[Step],
    addresses: &[usize],
) -> (Vec<usize>, Seen) {
    let mut got = Vec::new();
    loop {
        match see(&mut handle, steps, addresses) {
            Seen::Step(step) => got.push(step),
            Seen::Pending => {}
            end => return (got, end),
        }
    }
}

/// Runs one round. The second handle starts after the first has read about `head_start` steps.
fn race(limit: usize, head_start: usize) -> ((Vec<usize>, Seen), (Vec<usize>, Seen)) {
    let steps = [Step::Data(1); STEPS];
    let (original, addresses, alive) = Original::new(&steps, Hint::Exact, true);
    let (mut first, second) = ReplayBody::record(original, limit);
    let barrier = Barrier::new(2);
    let results = thread::scope(|scope| {
        let ahead: Vec<_> = (0..head_start)
            .map(|_| see(&mut first, &steps, &addresses))
            .collect();
        assert!(
            ahead
                .iter()
                .enumerate()
                .all(|(step, seen)| *seen == Seen::Step(step))
        );
        let one = scope.spawn(|| {
            barrier.wait();
            let (got, end) = read(first, &steps, &addresses);
            ((0..head_start).chain(got).collect(), end)
        });
        barrier.wait();
        let two = read(second, &steps, &addresses);
        (one.join().unwrap(), two)
    });
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    results
}

fn is_prefix(got: &[usize]) -> bool {
    got.iter().copied().eq(0..got.len())
}

#[test]
fn case_53_a_takeover_between_threads_is_complete() {
    for round in 0..ROUNDS {
        let ((sent, end), (replayed, finish)) = race(STEPS, round % STEPS);
        assert!(is_prefix(&sent), "{sent:?}");
        assert!(
            end == Seen::TakenOver || (end == Seen::End && sent.len() == STEPS),
            "{end:?} {sent:?}"
        );
        assert_eq!((replayed, finish), ((0..STEPS).collect(), Seen::End));
    }
}

#[test]
fn case_54_a_takeover_after_an_overflow_fails_alone() {
    let limit = STEPS / 2;
    for round in 0..ROUNDS {
        let ((sent, end), (replayed, finish)) = race(limit, round % STEPS);
        assert!(is_prefix(&sent), "{sent:?}");
        match finish {
            Seen::Incomplete => {
                assert_eq!((sent.len(), end, replayed.len()), (STEPS, Seen::End, 0));
            }
            _ => {
                assert_eq!(
                    (replayed, finish, end),
                    ((0..STEPS).collect(), Seen::End, Seen::TakenOver)
                );
                assert!(sent.len() <= limit);
            }
        }
    }
}

/// The frames of a [`Fed`] body, and the waker of its last poll.
#[derive(Default)]
struct Feed {
    frames: VecDeque<Bytes>,
    closed: bool,
    waker: Option<Waker>,
}

/// A body whose frames the test pushes.
struct Fed(Arc<std::sync::Mutex<Feed>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut feed = self.0.lock().unwrap();
        match feed.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            None if feed.closed => Poll::Ready(None),
            None => {
                feed.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

type Read = (Vec<u8>, Option<Seen>);

/// Reads on a thread that is not joined, so that a hang fails the test and does not hang it.
fn in_a_thread(handle: ReplayBody<Fed>) -> mpsc::Receiver<Read> {
    let (result, receiver) = mpsc::channel();
    thread::spawn(move || result.send(read_asleep(handle)));
    receiver
}

/// Reads to the end and parks while it is pending, so that a lost wake-up is a hang.
fn read_asleep(mut handle: ReplayBody<Fed>) -> Read {
    let mut got = Vec::new();
    loop {
        let next = futures_util::future::poll_fn(|cx| poll(&mut handle, cx));
        match tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(next)
        {
            None => return (got, None),
            Some(Ok(frame)) => got.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(error)) => return (got, Some(read_error(&error))),
        }
    }
}

#[test]
fn case_53_no_wake_up_is_lost_at_a_takeover() {
    for round in 0..200_u8 {
        let feed = Arc::new(std::sync::Mutex::new(Feed::default()));
        let push = |byte: u8, closed: bool| {
            let mut feed = feed.lock().unwrap();
            feed.frames.push_back(vec![byte].into());
            feed.closed = closed;
            let waker = feed.waker.take();
            drop(feed);
            waker.map(Waker::wake)
        };
        let (first, second) = ReplayBody::record(Fed(Arc::clone(&feed)), usize::MAX);
        let one = in_a_thread(first);
        for byte in 0..round % 8 {
            push(byte, false);
        }
        // The first reader has read all frames and parks. No more come until it has ended.
        let two = in_a_thread(second);
        let (sent, end) = one.recv_timeout(LONG).expect("a wake-up");
        assert_eq!(end, Some(Seen::TakenOver));
        push(100, true);
        let (replayed, end) = two.recv_timeout(LONG).expect("a wake-up");
        assert_eq!(end, None);
        assert!(replayed.starts_with(&sent));
        assert_eq!(replayed, (0..round % 8).chain([100]).collect::<Vec<_>>());
    }
}
