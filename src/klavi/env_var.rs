//! Environment variables.

use std::env;

use secrecy::zeroize::Zeroizing;

use crate::error::config::ConfigError;

/// The parsed value of an environment variable, `None` if it is not set. Errors have its name.
pub(super) fn parse_var<T>(
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    let invalid = |problem: &'static str| Err(ConfigError::InvalidEnv(name, problem.into()));
    let of_value = |error: ConfigError| ConfigError::InvalidEnv(name, error.to_string().into());
    // Wiped: it may be a key.
    match env::var(name).map(Zeroizing::new) {
        // An empty variable is a mistake in a deployment, and does not ask for the default.
        Ok(value) if value.is_empty() => invalid("it is empty"),
        Ok(value) => parse(&value).map(Some).map_err(of_value),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => invalid("it is not UTF-8"),
    }
}
