//! A body that is recorded while it is sent, and can be sent again.
//!
//! Two handles share one recording. The first is sent: it reads the original and records what it
//! reads. The second is the backup, and is sent after a 401: it takes over the recording, replays
//! it, and then reads the rest of the original. So the second is complete wherever the first
//! stopped: unread, half-way or at its end.
//!
//! The second has the size hint that the first had when it was made. A length that was unknown then
//! stays unknown, so that both attempts are framed alike.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::recording::Recording;
use crate::error::BoxError;

/// A body that is recorded while it is sent, up to a limit, and can be sent again. Chunks of bytes
/// are shared between the recording and what is sent, not copied (for originals whose data is
/// [`Bytes`]).
///
/// It is what [`replay_with`](crate::KlaviAuthLayer::replay_with) hands to the constructor of your
/// body.
///
/// # Errors
///
/// The original's own, and one of its own if it is read after it was taken over by the resend.
pub struct ReplayBody<B> {
    /// `None` for a body that was known to be empty.
    recording: Option<Arc<Mutex<Recording<B>>>>,
    /// The second handle, which may take over.
    is_replay: bool,
    /// What the second handle gives out next: a frame of the recording, or what comes after it.
    next: usize,
    /// The bytes that the second handle has given out, `None` until it is read for the first time.
    given: Option<u64>,
}

impl<B> ReplayBody<B> {
    /// The first handle: reads `body` and records up to `limit` bytes of it.
    pub(super) fn record(body: B, limit: usize) -> Self
    where
        B: Body,
    {
        let recording = Recording::new(body, limit);
        Self {
            recording: Some(Arc::new(Mutex::new(recording))),
            is_replay: false,
            next: 0,
            given: None,
        }
    }

    /// The second handle. There is one at the most.
    pub(super) fn replay(&self) -> Self {
        if let Some(mut recording) = self.recording() {
            recording.has_replay = true;
        }
        Self {
            recording: self.recording.clone(),
            is_replay: true,
            next: 0,
            given: None,
        }
    }

    /// A body with nothing in it.
    pub(super) fn empty() -> Self {
        Self {
            recording: None,
            is_replay: false,
            next: 0,
            given: None,
        }
    }

    /// Whether all that was read so far is on the recording.
    pub(super) fn is_complete(&self) -> bool {
        self.recording()
            .is_none_or(|recording| !recording.overflowed)
    }

    /// Makes this the handle that reads the original, if the body is still whole.
    pub(super) fn take_over(&self) -> bool {
        let Some(mut recording) = self.recording() else {
            return true;
        };
        recording.taken_over |= !recording.overflowed;
        let (taken_over, waker) = (recording.taken_over, recording.waker.take());
        drop(recording);
        if let Some(waker) = waker {
            waker.wake();
        }
        taken_over
    }

    /// Whether all that this handle still has to give is an error: then it says nothing about what
    /// follows.
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
            let waker = (recording.has_replay && frame.is_pending()).then(|| cx.waker().clone());
            let before = std::mem::replace(&mut recording.waker, waker);
            drop(recording);
            drop(before);
            return frame;
        }
        let given = this.given.get_or_insert(0);
        let frame = match recording.frames.get(this.next).cloned() {
            Some(recorded) => {
                this.next += 1;
                Poll::Ready(Some(Ok(recorded.into_frame())))
            }
            None => recording.read(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            *given += frame.data_ref().map_or(0, |data| data.len() as u64);
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
        if self.is_replay && self.given.is_none() {
            return recording.announced.is_end_stream;
        }
        let played = !self.is_replay || self.next >= recording.frames.len();
        played
            && recording
                .original
                .as_ref()
                .is_none_or(|original| original.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(recording) = self.recording() else {
            return SizeHint::with_exact(0);
        };
        if self.is_unreadable(&recording) {
            return SizeHint::default();
        }
        if !self.is_replay {
            let hint = recording
                .original
                .as_ref()
                .map(|original| original.size_hint());
            return hint.unwrap_or_else(|| SizeHint::with_exact(0));
        }
        let (announced, given) = (&recording.announced.size_hint, self.given.unwrap_or(0));
        let mut hint = SizeHint::new();
        hint.set_lower(announced.lower().saturating_sub(given));
        if let Some(upper) = announced.upper() {
            hint.set_upper(upper.saturating_sub(given));
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
        // Without the first handle there is no reader to wake, without the second no takeover.
        let _waker = recording.waker.take();
        if self.is_replay {
            // Nobody replays the recording.
            recording.has_replay = false;
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
