//! Backups of requests for a resend.

mod head;
pub(crate) mod record_body;
mod recording;
pub(crate) mod replay_body;

use std::{convert::Infallible, fmt};

use http::Request;

use self::head::SavedHead;

/// A way to back up a request, so that it can be resent after a 401. Sealed.
///
/// Choose one on the layer: [`CloneBody`] is the default,
/// [`replay_with`](crate::KlaviAuthLayer::replay_with) sets
/// [`RecordBody`](record_body::RecordBody), [`send_once`](crate::KlaviAuthLayer::send_once) sets
/// [`SendOnce`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot back up this request for a resend",
    label = "a body that is not `Clone` must be backed up in another way",
    note = "record it while it is sent: `layer.replay_with(axum::body::Body::new)`, with this \
            body's own constructor",
    note = "or do without the resend: `layer.send_once()`"
)]
pub trait Replay<Q>: sealed::Sealed + Clone {
    /// The backup of a request.
    #[doc(hidden)]
    type Backup;

    #[doc(hidden)]
    const IS_ENABLED: bool = true;

    /// Saves a backup of a request that is about to be sent. `None` if it cannot be resent.
    #[doc(hidden)]
    fn back_up(&self, request: &mut Q) -> Option<Self::Backup>;

    /// Whether the request can still be resent. Once false, it stays false.
    #[doc(hidden)]
    fn is_complete(&self, _backup: &Self::Backup) -> bool {
        true
    }

    /// The request to resend. The first attempt may lose the rest of its body.
    #[doc(hidden)]
    fn restore(&self, backup: Self::Backup) -> Option<Q>;
}

/// Clones the body before it is sent. For bodies that are [`Clone`]: `Full`, `Empty`, `String`, …
///
/// It is wrong for a body whose clones share a position in a stream. Record such a body.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

#[diagnostic::do_not_recommend]
impl<B: Clone> Replay<Request<B>> for CloneBody {
    type Backup = Backup<B>;

    #[inline]
    fn back_up(&self, request: &mut Request<B>) -> Option<Backup<B>> {
        // The head first: without it, the body need not be cloned.
        let head = SavedHead::of(request)?;
        Some(Backup {
            head,
            body: request.body().clone(),
        })
    }

    fn restore(&self, backup: Backup<B>) -> Option<Request<B>> {
        backup.head.restore(backup.body)
    }
}

/// Sends every request once, with any body. A 401 goes to the caller, and the token is replaced for
/// the next request.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOnce;

impl<Q> Replay<Q> for SendOnce {
    type Backup = Infallible;

    const IS_ENABLED: bool = false;

    fn back_up(&self, _: &mut Q) -> Option<Infallible> {
        None
    }

    fn restore(&self, backup: Infallible) -> Option<Q> {
        match backup {}
    }
}

/// The backup of a request: its head without the `Authorization`, and the backup of its body.
///
/// `Debug` shows nothing of it, since other headers may be secret too.
pub struct Backup<B> {
    head: SavedHead,
    body: B,
}

impl<B> fmt::Debug for Backup<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

pub(crate) mod sealed {
    pub trait Sealed {}
    impl Sealed for super::CloneBody {}
    impl Sealed for super::SendOnce {}
}
