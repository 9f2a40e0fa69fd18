//! Which requests get the token, and what a request says of itself.

pub(crate) mod http_types;
pub(crate) mod options;
pub(crate) mod scope;
