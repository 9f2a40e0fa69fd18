//! How a request's body is kept for the resend.

use std::convert::Infallible;

/// How the body of a request is kept, so that the request can be sent once more after a 401.
///
/// This trait is sealed: choose one of its implementors on the layer, [`CloneBody`] (the default) or
/// [`SendOnce`].
pub trait Replay<B>: sealed::Sealed + Clone {
    /// What is kept while the request is under way.
    type Kept;

    /// Splits a body into the one that is sent and, if it can be sent again, what is kept for that.
    fn keep(&self, body: B) -> (B, Option<Self::Kept>);

    /// The body once more, whole. `None` if that is no longer possible.
    fn restore(&self, kept: Self::Kept) -> Option<B>;
}

/// Keeps a clone of the body: for every body that is [`Clone`] (`Full`, `Empty`, `String`, …).
///
/// The clone is made before the body is sent. A body whose clones share a position in a stream is not suited;
/// use [`SendOnce`] for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneBody;

impl<B: Clone> Replay<B> for CloneBody {
    type Kept = B;

    fn keep(&self, body: B) -> (B, Option<B>) {
        let kept = body.clone();
        (body, Some(kept))
    }

    fn restore(&self, kept: B) -> Option<B> {
        Some(kept)
    }
}

/// Keeps nothing: every request is sent once, with every body type. A 401 goes to the caller, and the token is
/// replaced for the next request.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOnce;

impl<B> Replay<B> for SendOnce {
    type Kept = Infallible;

    fn keep(&self, body: B) -> (B, Option<Infallible>) {
        (body, None)
    }

    fn restore(&self, kept: Infallible) -> Option<B> {
        match kept {}
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::CloneBody {}
    impl Sealed for super::SendOnce {}
}
