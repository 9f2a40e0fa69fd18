//! What the two handles of a recorded body share: the original, and what was read of it.
//!
//! Rules that hold whenever the recording is not locked:
//!
//! 1. What was read from the original is recorded, in order, or the recording has overflowed for
//!    good.
//! 2. A recording overflows as soon as more is read than its limit, in bytes or in frames. Its
//!    frames are dropped at once.
//! 3. One handle reads the original: the first, until the second takes over.
//!
//! The original is polled while the recording is locked. This cannot deadlock: only the two handles
//! take the lock, and nothing that the original can call leads back to them, except a waker that
//! polls its task at once. Wakers of executors put the task into a queue.

use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// The most frames that are recorded, however small: each takes some memory of its own.
const MOST_FRAMES: usize = 4096;

pub(super) struct Recording<B> {
    /// `None` after its end or a failure.
    pub(super) original: Option<Pin<Box<B>>>,
    /// Of the original, before it was read.
    pub(super) announced: Announced,
    pub(super) frames: Vec<Recorded>,
    /// The bytes in `frames`.
    pub(super) recorded: usize,
    pub(super) limit: usize,
    /// More was read than the limit, or reading failed.
    pub(super) overflowed: bool,
    pub(super) taken_over: bool,
    /// The second handle exists, or has been polled. Without it there is no use in recording.
    pub(super) has_replay: bool,
    /// Wakes the reader of the first handle when the second takes over: from then on the original
    /// wakes another task.
    pub(super) waker: Option<Waker>,
}

/// What a client derives the framing of a body from.
pub(super) struct Announced {
    pub(super) size_hint: SizeHint,
    pub(super) is_end_stream: bool,
}

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
            announced: Announced {
                size_hint: original.size_hint(),
                is_end_stream: original.is_end_stream(),
            },
            original: Some(Box::pin(original)),
            frames: Vec::new(),
            recorded: 0,
            limit,
            overflowed: false,
            taken_over: false,
            has_replay: false,
            waker: None,
        }
    }

    pub(super) fn lock(recording: &Mutex<Self>) -> MutexGuard<'_, Self> {
        recording.lock().unwrap_or_else(|poisoned| {
            // The original panicked, and may have lost a frame.
            recording.clear_poison();
            let mut recording = poisoned.into_inner();
            recording.discard();
            recording
        })
    }

    /// Drops the recorded frames, and records no more.
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
    /// The next frame of the original. Records it if it can be replayed.
    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(original) = &mut self.original else {
            return Poll::Ready(None);
        };
        let frame = match ready!(original.as_mut().poll_frame(cx)) {
            None => {
                self.original = None;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.original = None;
                self.discard();
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(frame)) => frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
        };
        self.record(&frame);
        Poll::Ready(Some(Ok(frame)))
    }

    fn record(&mut self, frame: &Frame<Bytes>) {
        if self.overflowed {
            return;
        }
        if self.taken_over || !self.has_replay {
            // Nobody replays this frame.
            return self.discard();
        }
        let frame = match (frame.data_ref(), frame.trailers_ref()) {
            // An endless stream of empty frames would take memory that the limit does not count.
            (Some(data), _) if data.is_empty() => return,
            (Some(data), _) => Recorded::Data(data.clone()),
            (_, Some(trailers)) => Recorded::Trailers(trailers.clone()),
            // A kind of frame that does not exist yet.
            (None, None) => return self.discard(),
        };
        self.recorded += frame.len();
        if self.recorded > self.limit || self.frames.len() == MOST_FRAMES {
            return self.discard();
        }
        self.frames.push(frame);
    }
}

impl Recorded {
    /// Its size, as counted against the limit.
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
