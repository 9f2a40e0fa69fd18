//! Tests of the recording and its two handles, and a scripted body for them.

mod handles;
mod head;
mod property;
mod threads;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use super::replay_body::ReplayBody;
use crate::error::BoxError;

/// A step of an original: what a poll returns.
#[derive(Clone, Copy, Debug)]
enum Step {
    Data(usize),
    /// Trailers whose value is this long.
    Trailers(usize),
    /// Pending; wakes at once.
    Pending,
    Error,
}

impl Step {
    fn data(self) -> u64 {
        if let Self::Data(len) = self {
            len as u64
        } else {
            0
        }
    }
}

/// The size hint of an original.
#[derive(Clone, Copy, Debug)]
enum Hint {
    Exact,
    Unknown,
    Loose,
    Huge,
}

/// A body that follows a script, and panics if it is polled after its end.
struct Original {
    steps: VecDeque<(Step, Option<Frame<Bytes>>)>,
    hint: Hint,
    /// Whether `is_end_stream` is true before the poll that returns `None`.
    foresees_end: bool,
    ended: bool,
}

impl Original {
    /// The body, the address of each chunk, and the number of living chunks.
    fn new(steps: &[Step], hint: Hint, foresees_end: bool) -> (Self, Vec<usize>, Arc<AtomicUsize>) {
        let alive = Arc::default();
        let frames: VecDeque<_> = steps
            .iter()
            .enumerate()
            .map(|(i, &step)| (step, frame(i, step, &alive)))
            .collect();
        let addresses = frames
            .iter()
            .map(|(_, frame)| address(frame.as_ref()))
            .collect();
        (
            Self {
                steps: frames,
                hint,
                foresees_end,
                ended: false,
            },
            addresses,
            alive,
        )
    }

    fn left(&self) -> u64 {
        self.steps.iter().map(|(step, _)| step.data()).sum()
    }
}

fn frame(index: usize, step: Step, alive: &Arc<AtomicUsize>) -> Option<Frame<Bytes>> {
    match step {
        Step::Data(len) => Some(Frame::data(Bytes::from_owner(Chunk::new(
            vec![index as u8; len],
            alive,
        )))),
        Step::Trailers(len) => Some(Frame::trailers(trailers(index, len))),
        Step::Pending | Step::Error => None,
    }
}

fn trailers(index: usize, len: usize) -> HeaderMap {
    let value = HeaderValue::from_bytes(&vec![b'a' + index as u8 % 26; len]).unwrap();
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), value)])
}

fn address(frame: Option<&Frame<Bytes>>) -> usize {
    frame
        .and_then(Frame::data_ref)
        .map_or(0, |data| data.as_ptr().addr())
}

/// A chunk that is counted while it lives.
struct Chunk(Vec<u8>, Arc<AtomicUsize>);

impl Chunk {
    fn new(bytes: Vec<u8>, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(bytes, Arc::clone(alive))
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Body for Original {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        assert!(!self.ended, "polled after its end");
        let Some((step, frame)) = self.steps.pop_front() else {
            self.ended = true;
            return Poll::Ready(None);
        };
        match (step, frame) {
            (_, Some(frame)) => Poll::Ready(Some(Ok(frame))),
            (Step::Error, None) => {
                self.ended = true;
                Poll::Ready(Some(Err("the original failed".into())))
            }
            (_, None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.foresees_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        match self.hint {
            Hint::Exact => hint = SizeHint::with_exact(self.left()),
            Hint::Unknown => {}
            Hint::Loose => {
                hint.set_upper(self.left() * 2 + 1);
                hint.set_lower(self.left() / 2);
            }
            Hint::Huge => hint.set_upper(u64::MAX),
        }
        hint
    }
}

/// The result of one poll of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The chunk (not a copy) or the trailers of this step.
    Step(usize),
    /// An empty chunk.
    Empty,
    Pending,
    End,
    /// The original's error.
    Failed,
    TakenOver,
    Incomplete,
}

fn poll<B>(
    handle: &mut ReplayBody<B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    Pin::new(handle).poll_frame(cx)
}

/// Polls once, and finds the step of the frame by its address, not by its bytes.
fn see(handle: &mut ReplayBody<Original>, steps: &[Step], addresses: &[usize]) -> Seen {
    let cx = &mut Context::from_waker(futures_util::task::noop_waker_ref());
    let frame = match poll(handle, cx) {
        Poll::Pending => return Seen::Pending,
        Poll::Ready(None) => return Seen::End,
        Poll::Ready(Some(Err(error))) => return read_error(&error),
        Poll::Ready(Some(Ok(frame))) => frame,
    };
    if let Some(data) = frame.data_ref() {
        if data.is_empty() {
            return Seen::Empty;
        }
        let found = addresses
            .iter()
            .position(|&address| address == data.as_ptr().addr());
        let index = found.expect("a chunk of the original, not a copy");
        assert_eq!(data[..], vec![index as u8; steps[index].data() as usize]);
        return Seen::Step(index);
    }
    let same = |(index, step): (usize, &Step)| match step {
        Step::Trailers(len) => frame.trailers_ref() == Some(&trailers(index, *len)),
        _ => false,
    };
    Seen::Step(
        steps
            .iter()
            .enumerate()
            .position(same)
            .expect("trailers of the original"),
    )
}

fn read_error(error: &BoxError) -> Seen {
    match error.to_string() {
        text if text == "the original failed" => Seen::Failed,
        text if text.starts_with("the request is sent again") => Seen::TakenOver,
        text if text.starts_with("the recording of the body is not complete") => Seen::Incomplete,
        text => panic!("an error of unknown kind: {text}"),
    }
}
