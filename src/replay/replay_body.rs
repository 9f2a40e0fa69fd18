//! A body that is recorded while it is sent, and can be replayed.
//!
//! Two handles share one recording. The first attempt sends the first handle, which reads the
//! original and records it. The second handle is the backup. The resend sends it: it takes over the
//! original, replays the recording, and then reads the rest. So the second is complete wherever the
//! first stopped: unread, half-way or at its end.
//!
//! The second handle has the size hint that the original had before it was read. A length that was
//! unknown then stays unknown, so that both attempts have the same framing.

use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::recording::Recording;
use crate::error::BoxError;

/// A body that is recorded while it is sent, up to a limit, and can be replayed.
///
/// [`replay_with`](crate::KlaviAuthLayer::replay_with) passes it to the constructor of your body.
/// The recording shares its chunks with the body that is sent, without a copy, if the original's
/// data is [`Bytes`].
///
/// # Errors
///
/// It fails with the original's error, or with one of its own if it is read after the resend took
/// over.
pub struct ReplayBody<B> {
    /// `None` for an empty body.
    recording: Option<Arc<Mutex<Recording<B>>>>,
    /// Whether this is the second handle, which may take over.
    is_replay: bool,
    /// The index of the next recorded frame to replay. At the end, the original comes next.
    next: usize,
    /// The bytes that the second handle has replayed or read. `None` until its first poll.
    sent: Option<u64>,
}

impl<B> ReplayBody<B> {
    /// The first and the second handle of `body`. Up to `limit` bytes of it are recorded.
    pub(super) fn record(body: B, limit: usize) -> (Self, Self)
    where
        B: Body,
    {
        let recording = Some(Arc::new(Mutex::new(Recording::new(body, limit))));
        (
            Self::new(recording.clone(), false),
            Self::new(recording, true),
        )
    }

    /// An empty body.
    pub(super) fn empty() -> Self {
        Self::new(None, false)
    }

    fn new(recording: Option<Arc<Mutex<Recording<B>>>>, is_replay: bool) -> Self {
        Self {
            recording,
            is_replay,
            next: 0,
            sent: None,
        }
    }

    /// Whether the recording has all that was read.
    pub(crate) fn is_complete(&self) -> bool {
        self.recording()
            .is_none_or(|recording| !recording.overflowed)
    }

    /// Makes the second handle the reader of the original, if the recording is complete.
    pub(super) fn take_over(&self) -> bool {
        let Some(mut recording) = self.recording() else {
            return true;
        };
        recording.taken_over |= !recording.overflowed;
        // Woken without the lock: a waker may poll the first handle at once.
        let (taken_over, waker) = (recording.taken_over, recording.waker.take());
        drop(recording);
        if let Some(waker) = waker {
            waker.wake();
        }
        taken_over
    }

    /// Whether the next poll of this handle is an error. It then makes no claim about its size or
    /// its end.
    fn is_unreadable(&self, recording: &Recording<B>) -> bool {
        if self.is_replay {
            recording.overflowed && !recording.taken_over
        } else {
            recording.taken_over
        }
    }

    fn recording(&self) -> Option<MutexGuard<'_, Recording<B>>> {
        self.recording.as_deref().map(Recording::lock)
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.is_replay && !this.take_over() {
            return Poll::Ready(Some(Err(INCOMPLETE.into())));
        }
        let Some(recording) = &this.recording else {
            return Poll::Ready(None);
        };
        let mut recording = Recording::lock(recording);
        if !this.is_replay {
            if recording.taken_over {
                return Poll::Ready(Some(Err(TAKEN_OVER.into())));
            }
            let frame = recording.read(cx);
            // After an overflow there is no takeover to be woken by.
            let is_stored = frame.is_pending() && !recording.overflowed;
            let waker = is_stored.then(|| cx.waker().clone());
            let previous = mem::replace(&mut recording.waker, waker);
            drop(recording);
            // The drop of a waker is user code, which must not run under the lock.
            drop(previous);
            return frame;
        }
        let sent = this.sent.get_or_insert(0);
        let frame = match recording.frames.get(this.next).cloned() {
            Some(recorded) => {
                this.next += 1;
                Poll::Ready(Some(Ok(recorded.into_frame())))
            }
            None => recording.read(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            *sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let Some(recording) = self.recording() else {
            return true;
        };
        if self.is_unreadable(&recording) {
            return false;
        }
        if self.is_replay && self.sent.is_none() {
            return recording.announced_end;
        }
        let has_recorded = self.is_replay && self.next < recording.frames.len();
        let original = recording.original.as_ref();
        !has_recorded && original.is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(recording) = self.recording() else {
            return SizeHint::with_exact(0);
        };
        if self.is_unreadable(&recording) {
            return SizeHint::default();
        }
        if !self.is_replay {
            let original = recording.original.as_ref();
            return original.map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint());
        }
        // Not from what is left: both attempts must have the same framing.
        let (announced, sent) = (&recording.announced_size, self.sent.unwrap_or(0));
        let mut hint = SizeHint::new();
        hint.set_lower(announced.lower().saturating_sub(sent));
        if let Some(upper) = announced.upper() {
            hint.set_upper(upper.saturating_sub(sent));
        }
        hint
    }
}

const TAKEN_OVER: &str = "the request is sent again, and its body with it";
const INCOMPLETE: &str = "the recording of the body is not complete, so it cannot be sent again";

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        let Some(mut recording) = self.recording() else {
            return;
        };
        // Without the first handle there is no reader to wake, and without the second there is no
        // takeover. The waker is dropped after the lock is released.
        let _waker = recording.waker.take();
        if self.is_replay {
            // Without the second handle there is no replay.
            recording.discard();
        }
        drop(recording);
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ReplayBody");
        if let Some(recording) = self.recording() {
            out.field("recorded", &recording.recorded)
                .field("limit", &recording.limit)
                .field("complete", &!recording.overflowed);
        }
        out.finish_non_exhaustive()
    }
}
