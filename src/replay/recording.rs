//! What the two handles of a recorded body share: the original, and what was read of it.
//!
//! Rules that hold whenever the tape is not locked:
//!
//! 1. What was read from the original is on the tape, in order, or the tape is blank for good.
//! 2. The tape is blank as soon as more was read than the limit, in bytes or in frames: it is
//!    forgotten at once, not kept to the end.
//! 3. The original is read by one handle: by the first until the second has taken over, by the
//!    second from then on.
//!
//! The original is polled while the tape is locked. That cannot lock up: nobody but the two handles
//! takes the lock, and nothing that the original could call leads back to them, unless it wakes a
//! task whose waker runs it there and then. Wakers of executors put tasks into a queue.

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

pub(super) struct Tape<B> {
    /// `None` once it has ended or failed.
    pub(super) original: Option<Pin<Box<B>>>,
    /// What the original said of itself before it was read.
    pub(super) announced: Announced,
    pub(super) frames: Vec<Recorded>,
    /// The bytes in `frames`.
    pub(super) recorded: usize,
    pub(super) limit: usize,
    /// More was read than is recorded, or reading failed.
    pub(super) blank: bool,
    pub(super) taken_over: bool,
    /// The second handle is still there, or has begun to be read: only until then there is a point
    /// in recording.
    pub(super) wanted: bool,
    /// Who waits for the first handle, to be told when that is taken over: the original will wake
    /// another then.
    pub(super) waiting: Option<Waker>,
}

/// What a client frames a body by.
pub(super) struct Announced {
    pub(super) size_hint: SizeHint,
    pub(super) is_end_stream: bool,
}

#[derive(Clone)]
pub(super) enum Recorded {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl<B> Tape<B> {
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
            blank: false,
            taken_over: false,
            wanted: false,
            waiting: None,
        }
    }

    pub(super) fn lock(tape: &Mutex<Self>) -> MutexGuard<'_, Self> {
        tape.lock().unwrap_or_else(|poisoned| {
            // The original panicked, and may have lost what it had in hand.
            tape.clear_poison();
            let mut tape = poisoned.into_inner();
            tape.erase();
            tape
        })
    }

    /// Forgets the recording, and its memory.
    pub(super) fn erase(&mut self) {
        self.blank = true;
        self.frames = Vec::new();
    }
}

impl<B> Tape<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// The next frame of the original, recorded if there is a point in it.
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
                self.erase();
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(frame)) => frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
        };
        self.record(&frame);
        Poll::Ready(Some(Ok(frame)))
    }

    fn record(&mut self, frame: &Frame<Bytes>) {
        if self.blank {
            return;
        }
        if self.taken_over || !self.wanted {
            // This frame is given out and will not be asked for again.
            return self.erase();
        }
        let frame = match (frame.data_ref(), frame.trailers_ref()) {
            // It says nothing, and a stream of them would take memory that the limit does not see.
            (Some(data), _) if data.is_empty() => return,
            (Some(data), _) => Recorded::Data(data.clone()),
            (_, Some(trailers)) => Recorded::Trailers(trailers.clone()),
            // A kind of frame that did not exist when this was written.
            (None, None) => return self.erase(),
        };
        self.recorded += frame.len();
        if self.recorded > self.limit || self.frames.len() == MOST_FRAMES {
            return self.erase();
        }
        self.frames.push(frame);
    }
}

impl Recorded {
    /// What it counts against the limit.
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
