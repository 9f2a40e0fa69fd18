//! Which Klavi: the base URL, the product, and the two endpoints that follow from them.

use std::{fmt, str::FromStr};

use http::Uri;

use super::credentials::from_env;
use crate::{ConfigError, origin::Origin, product_path::ProductPath};

/// A part of Klavi's API with access tokens of its own: the first segment of its paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Product {
    /// Klavi Monitor, `/monitor/v1/…`.
    Monitor,
    /// Klavi Link and open-finance data, `/data/v1/…`.
    Data,
    /// Any other, made with [`Product::other`].
    Other(ProductName),
}

/// The name of a product as it stands in a path: letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProductName(Box<str>);

impl Product {
    /// A product by the segment that it has in paths.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidProduct`] if `name` is not one segment of letters, digits, `-`, `_` and `.`.
    pub fn other(name: &str) -> Result<Self, ConfigError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.bytes().all(|b| b == b'.') || !name.bytes().all(legal) {
            return Err(ConfigError::InvalidProduct);
        }
        Ok(Self::Other(ProductName(name.into())))
    }

    /// The path segment.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Monitor => "monitor",
            Self::Data => "data",
            Self::Other(name) => &name.0,
        }
    }
}

/// One product of Klavi's API at one base URL.
///
/// ```
/// use klavi_auth::{KlaviApi, Product};
///
/// let api = KlaviApi::sandbox(Product::Monitor);
/// assert_eq!(api.base_url(), "https://api-sandbox.klavi.ai");
/// assert_eq!(api.auth_uri(), "https://api-sandbox.klavi.ai/monitor/v1/auth");
/// assert_eq!(api.refresh_uri(), "https://api-sandbox.klavi.ai/monitor/v1/refresh");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct KlaviApi {
    product: Product,
    base_url: Box<str>,
    origin: Origin,
    product_path: ProductPath,
    auth: Uri,
    refresh: Uri,
}

impl KlaviApi {
    /// Klavi's sandbox, `https://api-sandbox.klavi.ai`.
    pub fn sandbox(product: Product) -> Self {
        Self::on_host("api-sandbox.klavi.ai", product)
    }

    /// Production, `https://api.klavi.ai`.
    pub fn production(product: Product) -> Self {
        Self::on_host("api.klavi.ai", product)
    }

    /// The sandbox's host for clients with a certificate, `https://mtls-api-sandbox.klavi.ai`. The
    /// certificate is the business of the transport and of the inner service.
    pub fn sandbox_mtls(product: Product) -> Self {
        Self::on_host("mtls-api-sandbox.klavi.ai", product)
    }

    /// Production's host for clients with a certificate, `https://mtls-api.klavi.ai`. The certificate is the
    /// business of the transport and of the inner service.
    pub fn production_mtls(product: Product) -> Self {
        Self::on_host("mtls-api.klavi.ai", product)
    }

    /// Any base URL, with or without a path: `https://klavi.internal/proxy`. Plain `http` is accepted for
    /// loopback (`localhost`, `127.0.0.0/8`, `[::1]`). It is normalised as the `url` crate does: see
    /// [`base_url`](Self::base_url).
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidUrl`] if it is not an absolute `http` or `https` URL or has user information or
    /// a query; [`ConfigError::InsecureUrl`] for plain `http` to any other host.
    pub fn at(base_url: &str, product: Product) -> Result<Self, ConfigError> {
        let api = Self::at_insecure(base_url, product)?;
        if api.origin.is_exposed() {
            return Err(ConfigError::InsecureUrl);
        }
        Ok(api)
    }

    /// As [`at`](Self::at), and plain `http` is accepted for every host.
    ///
    /// Keys and tokens then cross the network in the clear: for a sidecar that speaks TLS for you, or a
    /// closed network of containers.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidUrl`] as for [`at`](Self::at).
    pub fn at_insecure(base_url: &str, product: Product) -> Result<Self, ConfigError> {
        let base = Uri::from_str(base_url).map_err(|_| ConfigError::InvalidUrl)?;
        // `Uri` silently drops a fragment, which in a base URL can only be a mistake.
        if base_url.contains('#') {
            return Err(ConfigError::InvalidUrl);
        }
        Self::below(Origin::of_base(&base)?, &normalised_path(base.path()), product)
    }

    /// The API that the environment names: `KLAVI_API_URL` if set, else `KLAVI_ENV` (`sandbox` or
    /// `production`), else the sandbox.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidEnv`] with the name of the variable, or what [`at`](Self::at) says of the URL.
    pub fn from_env(product: Product) -> Result<Self, ConfigError> {
        if let Some(url) = from_env("KLAVI_API_URL")? {
            return Self::at(&url, product);
        }
        match from_env("KLAVI_ENV")?.as_deref() {
            None | Some("sandbox") => Ok(Self::sandbox(product)),
            Some("production") => Ok(Self::production(product)),
            Some(_) => Err(ConfigError::InvalidEnv("KLAVI_ENV")),
        }
    }

    /// The product.
    pub fn product(&self) -> &Product {
        &self.product
    }

    /// The base URL, without a slash at its end: what the paths of the API are appended to.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Where the two keys are exchanged for a token: `POST {base}/{product}/v1/auth`.
    pub fn auth_uri(&self) -> &Uri {
        &self.auth
    }

    /// Where a live token is renewed: `GET {base}/{product}/v1/refresh`.
    pub fn refresh_uri(&self) -> &Uri {
        &self.refresh
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn product_path(&self) -> &ProductPath {
        &self.product_path
    }

    fn on_host(host: &'static str, product: Product) -> Self {
        Self::below(Origin::https(host), "", product)
            .expect("a constant host and a checked segment make a URI")
    }

    /// `base_path` is empty, or begins with a slash and ends without one.
    fn below(origin: Origin, base_path: &str, product: Product) -> Result<Self, ConfigError> {
        let path = format!("{base_path}/{}", product.as_str());
        let endpoint = |name| {
            Uri::builder()
                .scheme(origin.scheme())
                .authority(origin.authority())
                .path_and_query(format!("{path}/v1/{name}"))
                .build()
                .map_err(|_| ConfigError::InvalidUrl)
        };
        let (auth, refresh) = (endpoint("auth")?, endpoint("refresh")?);
        let base_url = format!("{}://{}{base_path}", origin.scheme(), origin.authority()).into();
        Ok(Self { base_url, product_path: ProductPath::new(&path), auth, refresh, origin, product })
    }
}

/// A path as the `url` crate writes it: without dot segments, and percent-encoded where `Uri` does not insist on it.
/// Without a slash at its end.
fn normalised_path(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split(['/', '\\']).skip(1) {
        match &*segment.to_ascii_lowercase().replace("%2e", ".") {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let mut normalised = String::new();
    for byte in segments.iter().flat_map(|segment| "/".bytes().chain(segment.bytes())) {
        match byte {
            b'"' | b'{' | b'}' | 0x80.. => normalised.push_str(&format!("%{byte:02X}")),
            _ => normalised.push(byte.into()),
        }
    }
    normalised.truncate(normalised.trim_end_matches('/').len());
    normalised
}

impl fmt::Debug for KlaviApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KlaviApi")
            .field("product", &self.product)
            .field("auth", &self.auth)
            .field("refresh", &self.refresh)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_its_endpoints() {
        let hosts = [
            (KlaviApi::sandbox(Product::Data), "https://api-sandbox.klavi.ai"),
            (KlaviApi::production(Product::Data), "https://api.klavi.ai"),
            (KlaviApi::sandbox_mtls(Product::Data), "https://mtls-api-sandbox.klavi.ai"),
            (KlaviApi::production_mtls(Product::Data), "https://mtls-api.klavi.ai"),
        ];
        for (api, base) in hosts {
            assert_eq!(api.auth_uri().to_string(), format!("{base}/data/v1/auth"));
            assert_eq!(api.refresh_uri().to_string(), format!("{base}/data/v1/refresh"));
            assert_eq!(KlaviApi::at(base, Product::Data).unwrap(), api);
        }
    }

    #[test]
    fn a_base_url_may_have_a_path_and_a_port() {
        let product = Product::other("payments.v2").unwrap();
        let api = KlaviApi::at("https://gw.example:8443/klavi/", product).unwrap();
        assert_eq!(api.base_url(), "https://gw.example:8443/klavi");
        assert_eq!(api.auth_uri(), "https://gw.example:8443/klavi/payments.v2/v1/auth");
    }

    #[test]
    fn case_59_a_base_url_is_normalised_as_the_url_crate_does() {
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
            assert_eq!(api.auth_uri().to_string(), format!("{}/monitor/v1/auth", api.base_url()));
            assert_eq!(api, KlaviApi::at(&url, Product::Monitor).unwrap());
        }
    }

    #[test]
    fn case_58_plain_http_is_for_loopback_or_where_the_user_said_so() {
        for url in ["http://127.0.0.1:80", "http://127.1", "http://localhost:8080", "http://[::1]:1"] {
            assert!(KlaviApi::at(url, Product::Monitor).is_ok(), "{url}");
        }
        for url in
            ["http://api.klavi.ai", "http://10.0.0.1", "http://localhost.evil.com", "http://127.0.0.1.nip.io"]
        {
            assert_eq!(KlaviApi::at(url, Product::Monitor), Err(ConfigError::InsecureUrl), "{url}");
            assert!(KlaviApi::at_insecure(url, Product::Monitor).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
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
            assert_eq!(KlaviApi::at(url, Product::Monitor), Err(ConfigError::InvalidUrl), "{url}");
        }
    }

    #[test]
    fn a_product_is_one_segment() {
        for name in ["", "a/b", "..", ".", "a b", "ä", "a?b", "a#b", "%2e"] {
            assert_eq!(Product::other(name), Err(ConfigError::InvalidProduct), "{name}");
        }
    }
}
