//! A body that is recorded while it is sent, and can be sent again.
//!
//! Two handles share one tape. The first is sent: it reads the original and records what it reads.
//! The second is kept, and is sent if there is a 401: it takes the tape over, gives out what is on
//! it and then goes on with the rest of the original. So it is whole wherever the first one had got
//! to: unread, half-way or at its end.
//!
//! The second announces what the first announced when it was made, though more may be known now: a
//! length that was unknown stays unknown, so that the resend is framed as the first sending was.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::recording::Tape;
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
    tape: Option<Arc<Mutex<Tape<B>>>>,
    /// The second handle, which may take over.
    is_second: bool,
    /// What the second handle gives out next: a frame of the tape, or what comes after it.
    next: usize,
    /// The bytes that the second handle has given out, `None` until it is read for the first time.
    given: Option<u64>,
}

impl<B> ReplayBody<B> {
    /// The first handle: reads `body` and records up to `limit` bytes of it.
    pub(super) fn recording(body: B, limit: usize) -> Self
    where
        B: Body,
    {
        let tape = Tape::new(body, limit);
        Self {
            tape: Some(Arc::new(Mutex::new(tape))),
            is_second: false,
            next: 0,
            given: None,
        }
    }

    /// The second handle. There is one at the most.
    pub(super) fn again(&self) -> Self {
        if let Some(mut tape) = self.tape() {
            tape.wanted = true;
        }
        Self {
            tape: self.tape.clone(),
            is_second: true,
            next: 0,
            given: None,
        }
    }

    /// A body with nothing in it.
    pub(super) fn empty() -> Self {
        Self {
            tape: None,
            is_second: false,
            next: 0,
            given: None,
        }
    }

    /// Whether all that was read so far is on the tape.
    pub(super) fn is_whole(&self) -> bool {
        self.tape().is_none_or(|tape| !tape.blank)
    }

    /// Makes this the handle that reads the original, if the body is still whole.
    pub(super) fn take_over(&self) -> bool {
        let Some(mut tape) = self.tape() else {
            return true;
        };
        tape.taken_over |= !tape.blank;
        let (taken_over, waiting) = (tape.taken_over, tape.waiting.take());
        drop(tape);
        if let Some(waker) = waiting {
            waker.wake();
        }
        taken_over
    }

    /// Whether all that this handle still has to give is an error: then it says nothing about what
    /// follows.
    fn is_lost(&self, tape: &Tape<B>) -> bool {
        if self.is_second {
            tape.blank && !tape.taken_over
        } else {
            tape.taken_over
        }
    }

    fn tape(&self) -> Option<MutexGuard<'_, Tape<B>>> {
        self.tape.as_deref().map(Tape::lock)
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
        if this.is_second && !this.take_over() {
            return Poll::Ready(Some(Err(NOT_WHOLE.into())));
        }
        let Some(tape) = &this.tape else {
            return Poll::Ready(None);
        };
        let mut tape = Tape::lock(tape);
        if !this.is_second {
            if tape.taken_over {
                return Poll::Ready(Some(Err(TAKEN_OVER.into())));
            }
            let frame = tape.read(cx);
            let waiting = (tape.wanted && frame.is_pending()).then(|| cx.waker().clone());
            let before = std::mem::replace(&mut tape.waiting, waiting);
            drop(tape);
            drop(before);
            return frame;
        }
        let given = this.given.get_or_insert(0);
        let frame = match tape.frames.get(this.next).cloned() {
            Some(recorded) => {
                this.next += 1;
                Poll::Ready(Some(Ok(recorded.into_frame())))
            }
            None => tape.read(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            *given += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let Some(tape) = self.tape() else { return true };
        if self.is_lost(&tape) {
            return false;
        }
        if self.is_second && self.given.is_none() {
            return tape.announced.is_end_stream;
        }
        let played = !self.is_second || self.next >= tape.frames.len();
        played
            && tape
                .original
                .as_ref()
                .is_none_or(|original| original.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(tape) = self.tape() else {
            return SizeHint::with_exact(0);
        };
        if self.is_lost(&tape) {
            return SizeHint::default();
        }
        if !self.is_second {
            let hint = tape.original.as_ref().map(|original| original.size_hint());
            return hint.unwrap_or_else(|| SizeHint::with_exact(0));
        }
        let (announced, given) = (&tape.announced.size_hint, self.given.unwrap_or(0));
        let mut hint = SizeHint::new();
        hint.set_lower(announced.lower().saturating_sub(given));
        if let Some(upper) = announced.upper() {
            hint.set_upper(upper.saturating_sub(given));
        }
        hint
    }
}

const TAKEN_OVER: &str = "the request is being sent again, and its body goes with that";
const NOT_WHOLE: &str = "the body was not recorded whole and cannot be sent again";

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        let Some(mut tape) = self.tape() else { return };
        // Without the one handle nobody waits, without the other nothing is taken over.
        let _waiting = tape.waiting.take();
        if self.is_second {
            // Nobody will ask for what is on the tape.
            tape.wanted = false;
            tape.erase();
        }
        drop(tape);
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ReplayBody");
        if let Some(tape) = self.tape() {
            out.field("recorded", &tape.recorded)
                .field("limit", &tape.limit)
                .field("whole", &!tape.blank);
        }
        out.finish_non_exhaustive()
    }
}
