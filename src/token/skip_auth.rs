//! The mark of a request that needs no token.

/// In the extensions of a request: it goes out as it is, without a token, and a 401 to it starts
/// nothing.
///
/// ```
/// use klavi_auth::SkipAuth;
///
/// let request = http::Request::get("https://api.klavi.ai/health").extension(SkipAuth).body(());
/// # assert!(request.is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkipAuth;
