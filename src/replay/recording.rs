//! The recording that the two handles of a body share: the original, and the frames read from it.
//!
//! Invariants while the recording is not locked:
//!
//! 1. All frames read from the original are recorded, in order, or the recording has overflowed. It
//!    never recovers.
//! 2. A recording overflows when more is read than its limit, in bytes or in frames. Its frames are
//!    dropped at once.
//! 3. One handle reads the original: the first, until the second takes over.
//!
//! The original is polled under the lock, which only the two handles take. A deadlock would need a
//! waker that polls its task inside `wake`. Wakers of executors queue the task instead.

use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// The limit of recorded frames. Each takes memory that the limit in bytes does not count.
const MAX_FRAMES: usize = 4096;

/// The original body and its recorded frames.
pub(super) struct Recording<B> {
    /// `None` after its end or its error.
    // Pinned in a box, since a body need not be `Unpin` and a mutex does not pin it.
    pub(super) original: Option<Pin<Box<B>>>,
    /// The original's size before it was read.
    pub(super) announced_size: SizeHint,
    /// Whether the original was at its end before it was read. A client derives the framing from
    /// both.
    pub(super) announced_end: bool,
    pub(super) frames: Vec<Recorded>,
    /// The size of `frames` in bytes.
    pub(super) recorded: usize,
    pub(super) limit: usize,
    /// Whether the recording is incomplete: it exceeded the limit, the original failed, or the
    /// second handle was dropped.
    pub(super) overflowed: bool,
    pub(super) taken_over: bool,
    /// Wakes the task of the first handle when the second takes over, since the original then
    /// wakes another task.
    pub(super) waker: Option<Waker>,
}

/// A recorded frame.
// A `Frame` cannot be cloned.
#[derive(Clone)]
pub(super) enum Recorded {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl<B> Recording<B> {
    pub(super) fn new(original: B, limit: usize) -> Self
    where
        B: Body,
    {
        Self {
            announced_size: original.size_hint(),
            announced_end: original.is_end_stream(),
            original: Some(Box::pin(original)),
            frames: Vec::new(),
            recorded: 0,
            limit,
            overflowed: false,
            taken_over: false,
            waker: None,
        }
    }

    pub(super) fn lock(recording: &Mutex<Self>) -> MutexGuard<'_, Self> {
        recording.lock().unwrap_or_else(|poisoned| {
            // The original panicked, so a frame may be lost.
            recording.clear_poison();
            let mut recording = poisoned.into_inner();
            recording.discard();
            recording
        })
    }

    /// Drops the recorded frames and stops recording.
    pub(super) fn discard(&mut self) {
        self.overflowed = true;
        self.frames = Vec::new();
    }
}

impl<B> Recording<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Reads the next frame of the original, and records it for the replay.
    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(original) = &mut self.original else {
            return Poll::Ready(None);
        };
        let frame = match ready!(original.as_mut().poll_frame(cx)) {
            // A body may panic when it is polled after its end.
            None => {
                self.original = None;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.original = None;
                self.discard();
                return Poll::Ready(Some(Err(error.into())));
            }
            // Copies nothing if the data is `Bytes`.
            Some(Ok(frame)) => frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
        };
        self.record(&frame);
        Poll::Ready(Some(Ok(frame)))
    }

    fn record(&mut self, frame: &Frame<Bytes>) {
        if self.overflowed {
            return;
        }
        if self.taken_over {
            // Read by the second handle, so this frame is never replayed.
            return self.discard();
        }
        let frame = match (frame.data_ref(), frame.trailers_ref()) {
            // Empty frames need no replay, and many of them would reach the limit of frames.
            (Some(data), _) if data.is_empty() => return,
            (Some(data), _) => Recorded::Data(data.clone()),
            (_, Some(trailers)) => Recorded::Trailers(trailers.clone()),
            // A kind of frame that a later `http-body` adds.
            (None, None) => return self.discard(),
        };
        self.recorded += frame.len();
        if self.recorded > self.limit || self.frames.len() == MAX_FRAMES {
            return self.discard();
        }
        self.frames.push(frame);
    }
}

impl Recorded {
    /// The size that counts against the limit.
    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => trailers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum(),
        }
    }

    pub(super) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}
