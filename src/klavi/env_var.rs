//! Environment variables.

use std::env;

use crate::error::config::ConfigError;

/// The value of an environment variable, `None` if it is not set.
pub(crate) fn var(name: &'static str) -> Result<Option<String>, ConfigError> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Err(ConfigError::InvalidEnv(name, "it is empty".into())),
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(ConfigError::InvalidEnv(name, "it is not UTF-8".into()))
        }
    }
}
