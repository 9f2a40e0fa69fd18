//! The settings that all clones of a layer share.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::{
    error::config::ConfigError,
    origin::configured_url::{self, Purpose},
    request::scope::Scope,
};

/// The scope, and which responses reject the token.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) scope: Scope,
    rejected_when: Option<Arc<Predicate>>,
}

type Predicate = dyn Fn(StatusCode, &HeaderMap) -> bool + Send + Sync;

impl Settings {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            scope,
            rejected_when: None,
        }
    }

    pub(crate) fn allow_origin(&mut self, origin: &str) -> Result<(), ConfigError> {
        let (origin, _) = configured_url::parse_secure(origin, Purpose::AddedOrigin)?;
        self.scope.allow_origin(origin);
        Ok(())
    }

    pub(crate) fn reject_when(
        &mut self,
        predicate: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) {
        self.rejected_when = Some(Arc::new(predicate));
    }

    /// Whether a response with this status may reject the token.
    #[inline]
    pub(super) fn may_be_rejection(&self, status: StatusCode) -> bool {
        self.rejected_when.is_some() || status == StatusCode::UNAUTHORIZED
    }

    /// Whether a response rejects the token.
    #[inline]
    pub(crate) fn is_rejection(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match &self.rejected_when {
            // Not a default predicate: the usual case needs no call through a pointer.
            None => status == StatusCode::UNAUTHORIZED,
            Some(predicate) => predicate(status, headers),
        }
    }
}
