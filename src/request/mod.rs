//! Which requests get the token, and the options of a request.

pub(crate) mod http_traits;
pub(crate) mod options;
pub(crate) mod scope;
