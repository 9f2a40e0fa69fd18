//! The request extension that opts out of authentication.

/// A request extension that opts out of authentication: the request is sent unchanged, and a 401 to
/// it goes to the caller.
///
/// ```
/// use klavi_auth::SkipAuth;
///
/// let request = http::Request::get("https://api.klavi.ai/health").extension(SkipAuth).body(());
/// # assert!(request.is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkipAuth;
