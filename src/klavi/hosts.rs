//! The environments of Klavi and their hosts.

use std::{fmt, str::FromStr};

use crate::error::config::ConfigError;

/// An environment of Klavi. It determines the host of the API.
///
/// | name | host |
/// |---|---|
/// | `sandbox` | `api-sandbox.klavi.ai` |
/// | `production` | `api.klavi.ai` |
/// | `testing` | `api-testing.klavi.ai` |
/// | `sandbox-mtls` | `mtls-api-sandbox.klavi.ai` |
/// | `production-mtls` | `mtls-api.klavi.ai` |
/// | `testing-mtls` | `mtls-api-testing.klavi.ai` |
///
/// `KLAVI_ENV`, parsing and [`Display`](fmt::Display) use these names. The `mtls` hosts require a
/// client certificate: [how to configure it with hyper and with
/// reqwest](crate::docs::client_certificates).
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
    /// All environments.
    pub const ALL: [Self; 6] = [
        Self::Sandbox,
        Self::Production,
        Self::Testing,
        Self::SandboxMtls,
        Self::ProductionMtls,
        Self::TestingMtls,
    ];

    /// The name, as in `KLAVI_ENV`.
    pub fn as_str(self) -> &'static str {
        self.name_and_host().0
    }

    /// The host of the API.
    ///
    /// ```
    /// assert_eq!(klavi_auth::Environment::Production.host(), "api.klavi.ai");
    /// ```
    pub fn host(self) -> &'static str {
        self.name_and_host().1
    }

    fn name_and_host(self) -> (&'static str, &'static str) {
        match self {
            Self::Sandbox => ("sandbox", "api-sandbox.klavi.ai"),
            Self::Production => ("production", "api.klavi.ai"),
            Self::Testing => ("testing", "api-testing.klavi.ai"),
            Self::SandboxMtls => ("sandbox-mtls", "mtls-api-sandbox.klavi.ai"),
            Self::ProductionMtls => ("production-mtls", "mtls-api.klavi.ai"),
            Self::TestingMtls => ("testing-mtls", "mtls-api-testing.klavi.ai"),
        }
    }
}

impl FromStr for Environment {
    type Err = ConfigError;

    /// # Errors
    ///
    /// [`ConfigError::InvalidEnvironment`] for any other name.
    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let mut all = Self::ALL.into_iter();
        let named = all.find(|environment| environment.as_str() == name);
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
    fn an_environment_is_parsed_by_name_and_errors_list_all_names() {
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
