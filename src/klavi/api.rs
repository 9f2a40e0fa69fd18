//! The location of Klavi's API: base URL, product, and the two token endpoints.

use http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{env_var::parse_var, hosts::Environment, path_prefix::PathPrefix, product::Product};
use crate::{
    error::config::ConfigError,
    events::trace,
    origin::{
        Origin,
        configured_url::{self, Purpose},
    },
};

/// One product of Klavi's API at one base URL.
///
/// Choose an [`Environment`], a URL of your own, or the environment variables:
///
/// ```
/// use klavi_auth::{Environment, KlaviApi, Product};
///
/// let production = KlaviApi::production(Product::Data);
/// assert_eq!(production, KlaviApi::new(Environment::Production, Product::Data));
///
/// let proxy = KlaviApi::at("https://gateway.example/klavi", Product::PaymentCustomer)?;
/// assert_eq!(proxy.base_url(), "https://gateway.example/klavi");
///
/// let from_env = KlaviApi::from_env(Product::Data)?;
/// # let _ = from_env;
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
///
/// It determines the token endpoints, and the requests that get a token: those to paths below
/// `{base}/{product}/`.
///
/// ```
/// use klavi_auth::{KlaviApi, Product};
///
/// let api = KlaviApi::sandbox(Product::Monitor);
/// assert_eq!(api.base_url(), "https://api-sandbox.klavi.ai");
/// assert_eq!(api.auth_uri(), "https://api-sandbox.klavi.ai/monitor/v1/auth");
/// assert_eq!(api.refresh_uri(), "https://api-sandbox.klavi.ai/monitor/v1/refresh");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KlaviApi {
    product: Product,
    base_url: Box<str>,
    pub(crate) origin: Origin,
    pub(crate) path_prefix: PathPrefix,
    auth: Uri,
    refresh: Uri,
}

impl KlaviApi {
    /// A product in an environment of Klavi.
    pub fn new(environment: Environment, product: Product) -> Self {
        Self::at(&format!("https://{}", environment.host()), product)
            .expect("a constant host and a checked path make a URL")
    }

    /// Klavi's sandbox, `https://api-sandbox.klavi.ai`.
    pub fn sandbox(product: Product) -> Self {
        Self::new(Environment::Sandbox, product)
    }

    /// Production, `https://api.klavi.ai`.
    pub fn production(product: Product) -> Self {
        Self::new(Environment::Production, product)
    }

    /// A product at any base URL, with or without a path: `https://klavi.internal/proxy`.
    ///
    /// Plain `http` is accepted for loopback (`localhost`, `127.0.0.0/8`, `[::1]`). The URL is
    /// normalized as the `url` crate does: see [`base_url`](Self::base_url).
    ///
    /// ```
    /// use klavi_auth::{ConfigError, KlaviApi, Product};
    ///
    /// let api = KlaviApi::at("https://klavi.internal/proxy/", Product::Monitor)?;
    /// assert_eq!(api.auth_uri(), "https://klavi.internal/proxy/monitor/v1/auth");
    ///
    /// let error = KlaviApi::at("http://klavi.internal", Product::Monitor).unwrap_err();
    /// assert!(matches!(error, ConfigError::InsecureUrl(_)));
    /// # Ok::<_, ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidUrl`] if it is not an absolute `http` or `https` URL or has user
    /// information or a query; [`ConfigError::InsecureUrl`] for plain `http` to any other host.
    pub fn at(base_url: &str, product: Product) -> Result<Self, ConfigError> {
        let base = configured_url::parse_secure(base_url, Purpose::BaseUrl)?;
        Self::below(base, product)
    }

    /// As [`at`](Self::at), with plain `http` accepted for every host.
    ///
    /// Use it behind a sidecar that speaks TLS for you, or in a closed network of containers. Keys
    /// and tokens cross this network in the clear.
    ///
    /// ```
    /// use klavi_auth::{KlaviApi, Product};
    ///
    /// let sidecar = KlaviApi::at_insecure("http://klavi-sidecar:8080", Product::Monitor)?;
    /// assert_eq!(sidecar.base_url(), "http://klavi-sidecar:8080");
    /// # Ok::<_, klavi_auth::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidUrl`] as for [`at`](Self::at).
    pub fn at_insecure(base_url: &str, product: Product) -> Result<Self, ConfigError> {
        let base = configured_url::parse(base_url, Purpose::BaseUrl)?;
        Self::below(base, product)
    }

    /// A product at the base URL in `KLAVI_API_URL`, or else in the [`Environment`] in `KLAVI_ENV`,
    /// or else in the sandbox.
    ///
    /// The event `klavi_api_from_env` has the base URL and the variable that it comes from, see
    /// [the page on signals](crate::docs::signals).
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidEnv`], with the name of the variable and the problem with its value.
    pub fn from_env(product: Product) -> Result<Self, ConfigError> {
        const URL: &str = "KLAVI_API_URL";
        // Read only if there is no URL: beside one, an invalid value does no harm.
        const ENVIRONMENT: &str = "KLAVI_ENV";
        let (api, from) = if let Some(api) = parse_var(URL, |url| Self::at(url, product.clone()))? {
            (api, URL)
        } else if let Some(environment) = parse_var(ENVIRONMENT, str::parse)? {
            (Self::new(environment, product), ENVIRONMENT)
        } else {
            (Self::sandbox(product), "default")
        };
        trace::api_from_env(api.base_url(), from);
        Ok(api)
    }

    /// The product.
    pub fn product(&self) -> &Product {
        &self.product
    }

    /// The base URL, without a slash at its end. The paths of the API are appended to it.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The endpoint that exchanges the two keys for a token: `POST {base}/{product}/v1/auth`.
    pub fn auth_uri(&self) -> &Uri {
        &self.auth
    }

    /// The endpoint that refreshes a live token: `GET {base}/{product}/v1/refresh`.
    pub fn refresh_uri(&self) -> &Uri {
        &self.refresh
    }

    fn below((origin, uri): (Origin, Uri), product: Product) -> Result<Self, ConfigError> {
        let base_path = normalized_path(uri.path());
        let path = format!("{base_path}/{product}");
        let endpoint = |name| {
            let uri = format!("{origin}{path}/v1/{name}").parse();
            // All parts are valid. Only the length may not be: `Uri` limits it to 64 KiB.
            uri.map_err(|_| ConfigError::InvalidUrl("the base URL is too long".into()))
        };
        Ok(Self {
            base_url: format!("{origin}{base_path}").into(),
            auth: endpoint("auth")?,
            refresh: endpoint("refresh")?,
            path_prefix: PathPrefix(path.into()),
            origin,
            product,
        })
    }
}

/// Normalizes the path of a base URL as the `url` crate does: without dot segments, and
/// percent-encoded where `Uri` does not require it. Removes slashes at the end.
fn normalized_path(path: &str) -> String {
    // reqwest sends the path in this spelling, and the scope compares paths literally.
    const ENCODED: &AsciiSet = &CONTROLS.add(b'"').add(b'{').add(b'}');
    let mut segments = Vec::new();
    for segment in path.split(['/', '\\']).skip(1) {
        match &*segment.to_ascii_lowercase().replace("%2e", ".") {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let normalized = format!("/{}", segments.join("/"));
    // Without the slash at the end: what is appended begins with one.
    utf8_percent_encode(normalized.trim_end_matches('/'), ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_its_endpoints() {
        let hosts = [
            (Environment::Sandbox, "https://api-sandbox.klavi.ai"),
            (Environment::Production, "https://api.klavi.ai"),
            (Environment::Testing, "https://api-testing.klavi.ai"),
            (
                Environment::SandboxMtls,
                "https://mtls-api-sandbox.klavi.ai",
            ),
            (Environment::ProductionMtls, "https://mtls-api.klavi.ai"),
            (
                Environment::TestingMtls,
                "https://mtls-api-testing.klavi.ai",
            ),
        ];
        assert_eq!(hosts.map(|(environment, _)| environment), Environment::ALL);
        for (environment, base) in hosts {
            for product in [Product::Data, Product::PaymentCustomer] {
                let api = KlaviApi::new(environment, product.clone());
                assert_eq!(api.base_url(), base);
                assert_eq!(
                    api.auth_uri().to_string(),
                    format!("{base}/{product}/v1/auth")
                );
                assert_eq!(
                    api.refresh_uri().to_string(),
                    format!("{base}/{product}/v1/refresh")
                );
                assert_eq!(KlaviApi::at(base, product).unwrap(), api);
            }
        }
        assert_eq!(
            KlaviApi::sandbox(Product::Data),
            KlaviApi::new(hosts[0].0, Product::Data)
        );
        assert_eq!(
            KlaviApi::production(Product::Data),
            KlaviApi::new(hosts[1].0, Product::Data)
        );
    }

    #[test]
    fn a_base_url_may_have_a_path_and_a_port() {
        let product = "payments.v2".parse().unwrap();
        let api = KlaviApi::at("https://gw.example:8443/klavi/", product).unwrap();
        assert_eq!(api.base_url(), "https://gw.example:8443/klavi");
        assert_eq!(
            api.auth_uri(),
            "https://gw.example:8443/klavi/payments.v2/v1/auth"
        );
    }

    #[test]
    fn case_59_a_base_url_is_normalized_as_the_url_crate_does() {
        for base in [
            "https://[0:0:0:0:0:0:0:1]",
            "HTTPS://API.Klavi.ai:443",
            "https://api.klavi.ai:0443/",
            "https://api.klavi.ai:0080",
            "https://0x7f.1:8443",
            "https://[2001:DB8::0:1]:443/a",
            "https://gw.example/a/../b//c/./d/",
            "https://gw.example/a/%2E%2e/b/.%2e/../..",
            "https://gw.example/a\\b\\..",
            "https://gw.example/{a}/\"é\"/%2f%zz^|[]",
            "http://127.1:80",
        ] {
            let api = KlaviApi::at(base, Product::Monitor).unwrap();
            let url = url::Url::parse(base).unwrap().to_string();
            assert_eq!(api.base_url(), url.trim_end_matches('/'), "{base}");
            assert_eq!(
                api.auth_uri().to_string(),
                format!("{}/monitor/v1/auth", api.base_url())
            );
            assert_eq!(api, KlaviApi::at(&url, Product::Monitor).unwrap());
        }
    }

    #[test]
    fn case_58_plain_http_is_for_loopback_or_where_the_user_said_so() {
        for url in [
            "http://127.0.0.1:80",
            "http://127.1",
            "http://localhost:8080",
            "http://[::1]:1",
        ] {
            assert!(KlaviApi::at(url, Product::Monitor).is_ok(), "{url}");
        }
        for url in [
            "http://api.klavi.ai",
            "http://10.0.0.1",
            "http://localhost.evil.com",
            "http://127.0.0.1.nip.io",
        ] {
            let error = KlaviApi::at(url, Product::Monitor).unwrap_err();
            assert!(matches!(error, ConfigError::InsecureUrl(_)), "{url}");
            assert!(
                KlaviApi::at_insecure(url, Product::Monitor).is_ok(),
                "{url}"
            );
        }
    }

    #[test]
    fn an_invalid_base_url_is_a_config_error() {
        for url in [
            "",
            "/",
            "api.klavi.ai",
            "ftp://api.klavi.ai",
            "https://",
            "https://user@api.klavi.ai",
            "https://user:pass@api.klavi.ai",
            "https://api.klavi.ai/?a=b",
            "https://api.klavi.ai/#top",
            "https://api.klavi.ai:99999",
            "https://api klavi.ai",
            "https://[::g]",
            "https://1.2.3.256",
            "https://1.2.3.4.5",
        ] {
            let error = KlaviApi::at(url, Product::Monitor).unwrap_err();
            assert!(matches!(error, ConfigError::InvalidUrl(_)), "{url}");
        }
    }
}
