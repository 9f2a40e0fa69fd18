//! How a request is kept for the resend.

pub(crate) mod body;
mod head;
pub(crate) mod record;
mod recording;

use std::{convert::Infallible, fmt};

use http::Request;

use self::head::KeptHead;

/// How a request is kept, so that it can be sent once more after a 401.
///
/// This trait is sealed: choose one of its implementors on the layer. [`CloneBody`] is the default,
/// [`RecordBody`](record::RecordBody) comes with
/// [`replay_with`](crate::KlaviAuthLayer::replay_with), [`SendOnce`] with
/// [`send_once`](crate::KlaviAuthLayer::send_once).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot keep this request for the resend",
    label = "a body that is not `Clone` needs another way of being kept",
    note = "record it while it is sent: `layer.replay_with(axum::body::Body::new)`, with this body's own constructor",
    note = "or do without the resend: `layer.send_once()`"
)]
pub trait Replay<Q>: sealed::Sealed + Clone {
    /// What is kept while the request is under way.
    #[doc(hidden)]
    type Kept;

    /// Sends a request and, if it can be sent again, keeps what is needed for that. (The request is
    /// handed on rather than returned: it is large, and this is every request's way.)
    #[doc(hidden)]
    fn keep<T>(&self, request: Q, send: impl FnOnce(Q) -> T) -> (T, Option<Self::Kept>);

    /// Whether the request can still be sent again. Once that is false it stays so.
    #[doc(hidden)]
    fn is_whole(&self, kept: &Self::Kept) -> bool;

    /// The request once more. From now on the one that was sent first may have no more of its body.
    #[doc(hidden)]
    fn restore(&self, kept: Self::Kept) -> Option<Q>;
}

/// Keeps a clone of the body: for every body that is [`Clone`] (`Full`, `Empty`, `String`, …).
///
/// The clone is made before the body is sent. A body whose clones share a position in a stream is
/// not suited; record it instead.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

#[diagnostic::do_not_recommend]
impl<B: Clone> Replay<Request<B>> for CloneBody {
    type Kept = Kept<B>;

    #[inline]
    fn keep<T>(
        &self,
        request: Request<B>,
        send: impl FnOnce(Request<B>) -> T,
    ) -> (T, Option<Kept<B>>) {
        let kept = KeptHead::of(&request).map(|head| Kept {
            head,
            body: request.body().clone(),
        });
        (send(request), kept)
    }

    fn is_whole(&self, _: &Kept<B>) -> bool {
        true
    }

    fn restore(&self, kept: Kept<B>) -> Option<Request<B>> {
        kept.head.restore(kept.body)
    }
}

/// Keeps nothing: every request is sent once, with every body type. A 401 goes to the caller, and
/// the token is replaced for the next request.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOnce;

impl<Q> Replay<Q> for SendOnce {
    type Kept = Infallible;

    #[inline]
    fn keep<T>(&self, request: Q, send: impl FnOnce(Q) -> T) -> (T, Option<Infallible>) {
        (send(request), None)
    }

    fn is_whole(&self, kept: &Infallible) -> bool {
        match *kept {}
    }

    fn restore(&self, kept: Infallible) -> Option<Q> {
        match kept {}
    }
}

/// A request without its `Authorization`, its body in another form.
///
/// `Debug` shows nothing of it: other headers may be secret too.
pub struct Kept<K> {
    head: KeptHead,
    body: K,
}

impl<K> fmt::Debug for Kept<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

pub(crate) mod sealed {
    pub trait Sealed {}
    impl Sealed for super::CloneBody {}
    impl Sealed for super::SendOnce {}
}
