//! The environments of Klavi.

use std::{fmt, str::FromStr};

use crate::error::config::ConfigError;

/// An environment of Klavi's: which of its hosts is called.
///
/// Parsing and [`Display`](fmt::Display) use the names of the table, so that `KLAVI_ENV`, code and
/// a configuration file say the same.
///
/// | name | host |
/// |---|---|
/// | `sandbox` | `api-sandbox.klavi.ai` |
/// | `production` | `api.klavi.ai` |
/// | `testing` | `api-testing.klavi.ai` |
/// | `sandbox-mtls`, `production-mtls`, `testing-mtls` | the same with `mtls-` before it, for clients with a certificate |
///
/// The client certificate is the business of the transport and of the inner service:
/// [how to give it to hyper and to reqwest](crate::docs::client_certificates).
///
/// ```
/// use klavi_auth::{Environment, KlaviApi, Product};
///
/// let environment: Environment = "production-mtls".parse()?;
/// let api = KlaviApi::new(environment, Product::Data);
/// assert_eq!(api.base_url(), "https://mtls-api.klavi.ai");
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Environment {
    /// `sandbox`
    Sandbox,
    /// `production`
    Production,
    /// `testing`
    Testing,
    /// `sandbox-mtls`
    SandboxMtls,
    /// `production-mtls`
    ProductionMtls,
    /// `testing-mtls`
    TestingMtls,
}

impl Environment {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Sandbox,
        Self::Production,
        Self::Testing,
        Self::SandboxMtls,
        Self::ProductionMtls,
        Self::TestingMtls,
    ];

    /// The name, as `KLAVI_ENV` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Production => "production",
            Self::Testing => "testing",
            Self::SandboxMtls => "sandbox-mtls",
            Self::ProductionMtls => "production-mtls",
            Self::TestingMtls => "testing-mtls",
        }
    }

    /// The host of its API.
    pub fn host(self) -> &'static str {
        match self {
            Self::Sandbox => "api-sandbox.klavi.ai",
            Self::Production => "api.klavi.ai",
            Self::Testing => "api-testing.klavi.ai",
            Self::SandboxMtls => "mtls-api-sandbox.klavi.ai",
            Self::ProductionMtls => "mtls-api.klavi.ai",
            Self::TestingMtls => "mtls-api-testing.klavi.ai",
        }
    }
}

impl FromStr for Environment {
    type Err = ConfigError;

    /// # Errors
    ///
    /// [`ConfigError::InvalidEnvironment`] for anything but a name in the table.
    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let named = Self::ALL
            .into_iter()
            .find(|environment| environment.as_str() == name);
        named.ok_or(ConfigError::InvalidEnvironment)
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_what_its_name_says_and_every_name_is_told() {
        let error = "staging".parse::<Environment>().unwrap_err();
        for environment in Environment::ALL {
            assert_eq!(environment.to_string().parse(), Ok(environment));
            assert!(
                error.to_string().contains(&format!("`{environment}`")),
                "{error}"
            );
        }
        for name in ["", "Production", "production ", "mtls", "prod"] {
            assert_eq!(
                name.parse::<Environment>(),
                Err(ConfigError::InvalidEnvironment),
                "{name}"
            );
        }
    }
}
