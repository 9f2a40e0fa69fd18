//! What tells the tokens of one source from those of another.

use std::{fmt, future::Future, pin::Pin};

use secrecy::zeroize::Zeroizing;

use crate::error::Error;

/// The future that [`TokenSource::identity`](crate::TokenSource::identity) returns.
pub type IdentityFuture<'a> = Pin<Box<dyn Future<Output = Result<Identity, Error>> + Send + 'a>>;

/// What tells the tokens of one [`TokenSource`](crate::TokenSource) from those of another: the
/// endpoint and the keys.
///
/// Sources with equal identities in several processes share a token, if they have a fleet. Only a
/// hash of the identity leaves the process. It is wiped when it is dropped, and `Debug` shows no
/// part of it.
///
/// ```
/// use klavi_auth::Identity;
///
/// let identity = Identity::new("vault").with("klavi/monitor").with("the-key-of-the-vault");
/// # let _ = identity;
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(pub(crate) Zeroizing<Vec<u8>>);

impl Identity {
    /// The identity of a kind of source, to be completed with its parts.
    pub fn new(kind: &str) -> Self {
        Self(Zeroizing::default()).with(kind)
    }

    /// Adds a part: a URL, a user, a secret. A secret should be a part too, so that a process with
    /// the wrong one shares nothing.
    #[must_use]
    pub fn with(self, part: &str) -> Self {
        // Copied into a buffer of the final size, because a buffer that grows leaves unwiped copies
        // behind. With its length, so that no two lists of parts are equal.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.0.len() + 8 + part.len()));
        bytes.extend_from_slice(&self.0);
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
        Self(bytes)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ_by_every_part_and_by_their_borders() {
        let identity = |parts: &[&str]| {
            let start = Identity::new("kind");
            parts
                .iter()
                .fold(start, |identity, part| identity.with(part))
        };
        assert_eq!(identity(&["a", "b"]), identity(&["a", "b"]));
        for other in [
            &["ab"][..],
            &["a", "c"],
            &["a"],
            &["a", "b", ""],
            &["", "ab"],
        ] {
            assert_ne!(identity(&["a", "b"]), identity(other));
        }
        assert_eq!(format!("{:?}", identity(&["a"])), "Identity { .. }");
    }
}
