//! The backup of a body by recording it while it is sent.

use std::{fmt, mem};

use http::Request;
use http_body::Body;

use super::{Backup, Replay, head::SavedHead, replay_body::ReplayBody, sealed::Sealed};
use crate::error::BoxError;

/// The default limit of a recording, in bytes.
const DEFAULT_LIMIT: usize = 64 * 1024;

/// Records a body while it is sent, and replays it for the resend. For bodies that cannot be
/// cloned.
///
/// Made by [`KlaviAuthLayer::replay_with`](crate::KlaviAuthLayer::replay_with).
pub struct RecordBody<B> {
    // A pointer, so that users can write down the type of their layer.
    construct: fn(ReplayBody<B>) -> B,
    limit: usize,
}

impl<B> RecordBody<B> {
    pub(crate) fn new(construct: fn(ReplayBody<B>) -> B) -> Self {
        Self {
            construct,
            limit: DEFAULT_LIMIT,
        }
    }

    pub(crate) fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Replaces a body with one that is recorded. `None` if it is known to exceed the limit.
    pub(crate) fn back_up_body(&self, body: &mut B) -> Option<ReplayBody<B>>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        // Most requests are GETs: an empty body needs no recording and no allocation.
        let hint = body.size_hint();
        if body.is_end_stream() && hint.exact() == Some(0) {
            return Some(ReplayBody::empty());
        }
        // It cannot fit, so its first part need not take memory.
        if hint.lower() > self.limit as u64 {
            return None;
        }
        // There is no other value of `B` to put in its place.
        let original = mem::replace(body, (self.construct)(ReplayBody::empty()));
        let (first, second) = ReplayBody::record(original, self.limit);
        *body = (self.construct)(first);
        Some(second)
    }

    /// The body to resend. Takes over the original from the first handle.
    pub(crate) fn restore_body(&self, backup: ReplayBody<B>) -> Option<B> {
        backup.take_over().then(|| (self.construct)(backup))
    }
}

impl<B> Sealed for RecordBody<B> {}

#[diagnostic::do_not_recommend]
impl<B> Replay<Request<B>> for RecordBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Backup = Backup<ReplayBody<B>>;

    fn back_up(&self, request: &mut Request<B>) -> Option<Self::Backup> {
        // The head first: without it, the body is sent as it is, and not recorded in vain.
        let head = SavedHead::of(request)?;
        Some(Backup {
            head,
            body: self.back_up_body(request.body_mut())?,
        })
    }

    fn is_complete(&self, backup: &Self::Backup) -> bool {
        backup.body.is_complete()
    }

    fn restore(&self, backup: Self::Backup) -> Option<Request<B>> {
        backup.head.restore(self.restore_body(backup.body)?)
    }
}

// Derived, it would require `B: Clone`.
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
