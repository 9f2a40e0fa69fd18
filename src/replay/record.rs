//! Keeping a body by recording it while it is sent.

use std::fmt;

use http::Request;
use http_body::Body;

use super::{Kept, Replay, body::ReplayBody, head::KeptHead, sealed::Sealed};
use crate::error::BoxError;

/// The most of a body that is recorded, unless told otherwise.
const LIMIT: usize = 64 * 1024;

/// Records a body while it is sent, and makes it anew for the resend: for bodies that cannot be
/// cloned.
///
/// Made by [`KlaviAuthLayer::replay_with`](crate::KlaviAuthLayer::replay_with).
pub struct RecordBody<B> {
    construct: fn(ReplayBody<B>) -> B,
    limit: usize,
}

impl<B> RecordBody<B> {
    pub(crate) fn new(construct: fn(ReplayBody<B>) -> B) -> Self {
        Self {
            construct,
            limit: LIMIT,
        }
    }

    pub(crate) fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// A body to be sent now and, unless it is known to be too long, the one to be sent again.
    pub(crate) fn keep_body(&self, body: B) -> (B, Option<KeptBody<B>>)
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let hint = body.size_hint();
        if body.is_end_stream() && hint.exact() == Some(0) {
            return (body, Some(KeptBody::Empty));
        }
        if hint.lower() > self.limit as u64 {
            return (body, None);
        }
        let first = ReplayBody::recording(body, self.limit);
        let second = first.again();
        ((self.construct)(first), Some(KeptBody::Recorded(second)))
    }

    /// The body once more, taken over from the one that was sent.
    pub(crate) fn restore_body(&self, kept: KeptBody<B>) -> Option<B> {
        match kept {
            KeptBody::Empty => Some((self.construct)(ReplayBody::empty())),
            KeptBody::Recorded(body) => body.take_over().then(|| (self.construct)(body)),
        }
    }
}

/// A body that is kept for the resend.
#[derive(Debug)]
pub enum KeptBody<B> {
    /// There was nothing in it, and nothing was recorded.
    Empty,
    /// The second handle of a recording.
    Recorded(ReplayBody<B>),
}

impl<B> KeptBody<B> {
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Recorded(body) => body.is_whole(),
        }
    }
}

impl<B> Sealed for RecordBody<B> {}

#[diagnostic::do_not_recommend]
impl<B> Replay<Request<B>> for RecordBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Kept = Kept<KeptBody<B>>;

    fn keep<T>(
        &self,
        request: Request<B>,
        send: impl FnOnce(Request<B>) -> T,
    ) -> (T, Option<Self::Kept>) {
        let (head, body) = request.into_parts();
        let (body, kept) = self.keep_body(body);
        let request = Request::from_parts(head, body);
        let kept = kept.and_then(|body| {
            Some(Kept {
                head: KeptHead::of(&request)?,
                body,
            })
        });
        (send(request), kept)
    }

    fn is_whole(&self, kept: &Self::Kept) -> bool {
        kept.body.is_whole()
    }

    fn restore(&self, kept: Self::Kept) -> Option<Request<B>> {
        kept.head.restore(self.restore_body(kept.body)?)
    }
}

impl<B> Clone for RecordBody<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for RecordBody<B> {}

impl<B> fmt::Debug for RecordBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBody")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
