//! The builder of a sandbox.

use std::{fmt, io, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::{
    listener::Socket,
    sandbox::{ACCESS_KEY, Inner, SECRET_KEY, Sandbox},
    serve::serve,
    state::{Server, State},
};
use crate::klavi::credentials::Credentials;

impl Sandbox {
    /// Starts a sandbox with the default settings, as `Sandbox::builder().start()`.
    ///
    /// # Errors
    ///
    /// As [`SandboxBuilder::start`].
    ///
    /// # Panics
    ///
    /// As [`SandboxBuilder::start`].
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// A builder with the default settings.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::new()
    }
}

/// Builds a [`Sandbox`] with other settings than the default.
///
/// ```
/// use std::time::Duration;
/// use klavi_auth::sandbox::Sandbox;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let sandbox = Sandbox::builder()
///     .token_lifetime(Duration::from_secs(60))
///     .refresh_revokes_old(true)
///     .customer("another-customer", "with-another-secret")
///     .start()
///     .await?;
/// assert!(sandbox.base_url().starts_with("http://127.0.0.1:"));
/// # Ok(()) }
/// ```
#[must_use]
pub struct SandboxBuilder {
    state: State,
}

impl SandboxBuilder {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(),
        }
        .customer(ACCESS_KEY, SECRET_KEY)
    }

    /// Sets the lifetime of tokens, see [`Sandbox::set_token_lifetime`]. Default: 1800 s.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Self {
        self.state.tokens.set_lifetime(lifetime);
        self
    }

    /// Sets whether `/refresh` revokes the old token. Default: it does not.
    pub fn refresh_revokes_old(mut self, revokes: bool) -> Self {
        self.state.refresh_revokes_old = revokes;
        self
    }

    /// Sets whether each new token revokes the older tokens of its customer and product, see
    /// [`Sandbox::set_new_token_revokes_old`]. Default: it does not.
    pub fn new_token_revokes_old(mut self, revokes: bool) -> Self {
        self.state.new_token_revokes_old = revokes;
        self
    }

    /// Sets whether `/auth` repeats a live token, see [`Sandbox::set_auth_repeats_token`]. Default:
    /// each call issues a new one.
    pub fn auth_repeats_token(mut self, repeats: bool) -> Self {
        self.state.auth_repeats_token = repeats;
        self
    }

    /// Adds a customer with these keys, beside the built-in customer.
    pub fn customer(
        mut self,
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Self {
        self.state
            .add_customer(access_key.into(), secret_key.into());
        self
    }

    /// Starts the sandbox on a free port of `127.0.0.1`.
    ///
    /// # Errors
    ///
    /// The error of the system if there is no free port.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn start(self) -> io::Result<Sandbox> {
        let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY).map_err(io::Error::other)?;
        let (socket, addr) = Socket::bind().await?;
        let (running, stop) = oneshot::channel();
        let server = Arc::new(Server::new(self.state));
        let accept = tokio::spawn(serve(socket.clone(), stop.shared(), Arc::clone(&server)));
        let base_url = format!("http://{addr}");
        Ok(Sandbox(Arc::new(Inner {
            base_url,
            credentials,
            server,
            socket,
            // Aborted when the last handle is dropped: it does not end by itself.
            accept: accept.abort_handle(),
            // Dropped with the last handle, which ends the connections.
            _running: running,
        })))
    }
}

impl fmt::Debug for SandboxBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxBuilder")
            .field("token_lifetime", &self.state.tokens.lifetime())
            .field("refresh_revokes_old", &self.state.refresh_revokes_old)
            .field("new_token_revokes_old", &self.state.new_token_revokes_old)
            .field("auth_repeats_token", &self.state.auth_repeats_token)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_of_the_keys_is_a_piece_of_a_word() {
        for key in [ACCESS_KEY, SECRET_KEY] {
            let bytes = key.as_bytes();
            let mixed = |piece: &[u8]| {
                piece.iter().any(u8::is_ascii_digit) && piece.iter().any(u8::is_ascii_alphabetic)
            };
            assert!(bytes.windows(5).all(mixed), "{key}");
        }
        let pieces: Vec<_> = ACCESS_KEY.as_bytes().windows(5).collect();
        assert!(
            !SECRET_KEY
                .as_bytes()
                .windows(5)
                .any(|piece| pieces.contains(&piece))
        );
    }
}
