//! OAuth2's client credentials grant: tokens for Klaas and for other APIs.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use http_body::Body;
use tower_service::Service;

#[cfg(feature = "reqwest")]
use super::reqwest::over_reqwest;
use super::{
    encode,
    keys::Keys,
    response_format::{OAUTH2, ResponseFormat},
    token_call::{TokenCall, TokenClient, reason},
    transport::erase,
};
use crate::{
    error::{BoxError, Error, config::ConfigError},
    origin::configured_url::{self, Purpose},
    token::{
        AccessToken,
        identity::{Identity, IdentityFuture},
        new_token::NewToken,
        source::{FetchFuture, Predecessor, TokenRequest, TokenSource},
    },
};

/// The [`TokenSource`] of OAuth2's client credentials grant ([RFC 6749, section 4.4]).
///
/// It sends a `POST` with the client's id and secret to a token endpoint. Klavi's Klaas has such an
/// endpoint, and so have most APIs with OAuth2.
///
/// ```
/// # use std::time::Duration;
/// # use bytes::Bytes;
/// # use http_body_util::Full;
/// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use klavi_auth::{ClientCredentials, KlaviAuthLayer, TokenCache};
///
/// # fn demo() -> Result<(), klavi_auth::ConfigError> {
/// # let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let url = "https://id.example.com/token";
/// let source = ClientCredentials::new(url, "my-client", "my-secret", http)?
///     .scope("invoices:read invoices:write")
///     .default_lifetime(Duration::from_secs(300));
/// let auth = KlaviAuthLayer::for_origin("https://api.example.com", TokenCache::new(source))?;
/// # let _ = auth;
/// # Ok(()) }
/// ```
///
/// The transport must not follow redirects: it would send the secret to the target of a redirect.
/// This source follows none. The token call carries a [`SkipAuth`](crate::SkipAuth), so the
/// transport may be a service with the layer in it.
///
/// Every fetch requests a new token, since this grant has no refresh tokens. Discovery and client
/// assertions are not supported.
///
/// # Errors
///
/// [`Error::message`] has the `error` and `error_description` of the response. The response
/// determines the kind of the error:
///
/// * `invalid_client`, 401, 403: [`is_keys_rejected`](Error::is_keys_rejected);
/// * `invalid_request`, `invalid_scope`, `invalid_grant`, `unauthorized_client`,
///   `unsupported_grant_type`, 400: [`is_bad_request`](Error::is_bad_request);
/// * 408, 429, 5xx: transient, [`is_server_error`](Error::is_server_error) or
///   [`is_throttled`](Error::is_throttled);
/// * any other response without a bearer token:
///   [`is_invalid_response`](Error::is_invalid_response).
///
/// [RFC 6749, section 4.4]: https://www.rfc-editor.org/rfc/rfc6749#section-4.4
#[must_use]
pub struct ClientCredentials {
    token_url: Uri,
    /// The client's id and secret.
    keys: Keys,
    client: TokenClient,
    is_basic: bool,
    scope: Option<Box<str>>,
    audience: Option<Box<str>>,
    format: ResponseFormat,
}

impl ClientCredentials {
    /// A source that calls the token endpoint at `token_url` over `transport`: any tower HTTP
    /// service whose request body can be made from [`Bytes`], and that does not follow redirects.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidUrl`] if the URL is not an absolute `http` or `https` URL, or has user
    /// information or a query; [`ConfigError::InsecureUrl`] for plain `http` to a host that is not
    /// loopback; [`ConfigError::InvalidCredential`] if the id or the secret is empty or has control
    /// characters.
    pub fn new<T, B, A>(
        token_url: &str,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
        transport: T,
    ) -> Result<Self, ConfigError>
    where
        T: Service<http::Request<B>, Response = http::Response<A>> + Clone + Send + Sync + 'static,
        T::Future: Send,
        T::Error: Into<BoxError>,
        B: From<Bytes> + Send + 'static,
        A: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let keys = Keys::new(client_id, client_secret, ["client id", "client secret"])?;
        let (origin, uri) = configured_url::parse_secure(token_url, Purpose::TokenUrl)?;
        Ok(Self {
            token_url: format!("{origin}{}", uri.path())
                .parse()
                .expect("the parts of a URI make a URI"),
            keys,
            client: TokenClient::new(erase(transport)),
            is_basic: false,
            scope: None,
            audience: None,
            format: OAUTH2,
        })
    }

    /// As [`new`](Self::new), over a client of reqwest.
    ///
    /// Build the client with [`reqwest::redirect::Policy::none`]: otherwise it sends the secret to
    /// the target of a redirect.
    ///
    /// ```
    /// # use klavi_auth::ClientCredentials;
    /// use reqwest::{Client, redirect::Policy};
    ///
    /// # fn demo() -> Result<(), klavi_auth::BoxError> {
    /// let http = Client::builder().redirect(Policy::none()).build()?;
    /// let url = "https://id.example.com/token";
    /// let source = ClientCredentials::with_reqwest(url, "my-client", "my-secret", http)?;
    /// # drop(source);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub fn with_reqwest(
        token_url: &str,
        client_id: impl Into<String>,
        client_secret: impl Into<String>,
        client: reqwest::Client,
    ) -> Result<Self, ConfigError> {
        Self::new(token_url, client_id, client_secret, over_reqwest(client))
    }

    /// Sends id and secret as HTTP `Basic` authentication, not as fields of the form.
    ///
    /// RFC 6749, section 2.3.1, prefers it, and some servers accept nothing else.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// # use klavi_auth::ClientCredentials;
    /// # fn demo() -> Result<(), klavi_auth::ConfigError> {
    /// # let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let source = ClientCredentials::new("https://id.example/token", "client", "secret", http)?
    ///     .basic();
    /// # drop(source);
    /// # Ok(()) }
    /// ```
    pub fn basic(mut self) -> Self {
        self.is_basic = true;
        self
    }

    /// Sets the requested scopes, separated by spaces. Default: none, so the server's own default
    /// applies.
    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Sets the `audience`, the API that the token is for. Some servers require it. Default: none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bytes::Bytes;
    /// # use http_body_util::Full;
    /// # use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    /// # use klavi_auth::ClientCredentials;
    /// # fn demo() -> Result<(), klavi_auth::ConfigError> {
    /// # let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    /// let source = ClientCredentials::new("https://id.example/token", "client", "secret", http)?
    ///     .audience("https://api.example.com");
    /// # drop(source);
    /// # Ok(()) }
    /// ```
    pub fn audience(mut self, audience: &str) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Sets the lifetime of a token whose response does not state one. Take it from the server's
    /// documentation.
    ///
    /// Default: none. A response without a lifetime is then an error
    /// ([`is_invalid_response`](Error::is_invalid_response)).
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.format.default_lifetime = Some(lifetime);
        self
    }

    /// Sets the timeout of one call to the token endpoint. Default: 5 s.
    ///
    /// The cache limits the whole fetch, see
    /// [`TokenCacheBuilder::flight_timeout`](crate::TokenCacheBuilder::flight_timeout).
    pub fn token_call_timeout(mut self, timeout: Duration) -> Self {
        self.client.timeout = timeout;
        self
    }

    /// Adds a header to the token calls: a user agent other than `klavi-auth/…`, or what a gateway
    /// in front of the server requires.
    ///
    /// `Accept`, `Authorization` and `Content-Type` cannot be replaced.
    pub fn token_call_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.client.headers.insert(name, value);
        self
    }

    async fn request_token(&self, predecessor: &Predecessor) -> Result<NewToken, Error> {
        let (id, secret) = self.keys.expose();
        // RFC 6749, section 2.3: a client must not authenticate in two ways at once.
        let in_form = |value| (!self.is_basic).then_some(value);
        let form = encode::form(&[
            ("grant_type", Some("client_credentials")),
            ("scope", self.scope.as_deref()),
            ("audience", self.audience.as_deref()),
            ("client_id", in_form(id)),
            ("client_secret", in_form(secret)),
        ]);
        let basic = self.is_basic.then(|| encode::basic(id, secret));
        let in_header = basic.as_ref().and_then(|value| value.to_str().ok());
        // Not sent, but the server may know and echo it.
        let old = predecessor.token().map_or("", AccessToken::expose);
        let call = TokenCall {
            uri: &self.token_url,
            authorization: basic.clone(),
            content: Some(form),
            format: &self.format,
            reason: reason(predecessor),
            secrets: &[old, id, secret, in_header.unwrap_or_default()],
        };
        self.client.send(call).await
    }
}

impl TokenSource for ClientCredentials {
    fn fetch(&self, request: TokenRequest) -> FetchFuture<'_> {
        Box::pin(async move { self.request_token(request.predecessor()).await })
    }

    fn identity(&self) -> Option<IdentityFuture<'_>> {
        let (id, secret) = self.keys.expose();
        let identity = Identity::new("oauth2")
            .with(&self.token_url.to_string())
            .with(id)
            .with(secret)
            // Another scope or audience means another token.
            .with(self.scope.as_deref().unwrap_or_default())
            .with(self.audience.as_deref().unwrap_or_default());
        Some(Box::pin(std::future::ready(Ok(identity))))
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("token_url", &self.token_url)
            .field("basic", &self.is_basic)
            .field("scope", &self.scope)
            .field("audience", &self.audience)
            .field("default_lifetime", &self.format.default_lifetime)
            .field("token_call_timeout", &self.client.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http::{
        Method, Request, Response,
        header::{AUTHORIZATION, CONTENT_TYPE},
    };
    use http_body_util::Full;
    use tower::service_fn;

    use super::*;
    use crate::{error::token_endpoint::TokenEndpoint, token::opt_out::SkipAuth};

    const URL: &str = "https://id.example.com/oauth/token";

    type Sent = Arc<Mutex<Vec<Request<Bytes>>>>;

    /// A source whose calls all get this response, and its requests.
    fn source(status: u16, body: &'static str) -> (ClientCredentials, Sent) {
        let sent = Sent::default();
        let transport = {
            let sent = Arc::clone(&sent);
            service_fn(move |request: Request<Bytes>| {
                sent.lock().unwrap().push(request);
                let response = Response::builder()
                    .status(status)
                    .body(Full::<Bytes>::from(body));
                std::future::ready(Ok::<_, Infallible>(response.unwrap()))
            })
        };
        (
            ClientCredentials::new(URL, "my client", "s/cr=t+ü", transport).unwrap(),
            sent,
        )
    }

    const TOKEN: &str = r#"{"access_token":"t-o-k","token_type":"bearer","expires_in":60}"#;

    async fn fetch(source: &ClientCredentials) -> Result<NewToken, Error> {
        source.fetch(TokenRequest::default()).await
    }

    #[tokio::test]
    async fn id_and_secret_go_in_the_form() {
        let (source, sent) = source(200, TOKEN);
        let token = fetch(&source.scope("a b").audience("https://api.example.com"))
            .await
            .unwrap();
        assert_eq!(token.lifetime(), Duration::from_secs(60));
        assert_eq!(token.endpoint, Some(TokenEndpoint::Token));
        let sent = sent.lock().unwrap();
        let [request] = &sent[..] else {
            panic!("one call")
        };
        assert_eq!(
            (request.method(), request.uri().to_string().as_str()),
            (&Method::POST, URL)
        );
        assert_eq!(
            request.headers()[CONTENT_TYPE],
            "application/x-www-form-urlencoded"
        );
        assert_eq!(request.headers()["accept"], "application/json");
        assert!(!request.headers().contains_key(AUTHORIZATION));
        assert!(request.extensions().get::<SkipAuth>().is_some());
        assert_eq!(
            request.body(),
            "grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Fapi.example.com\
             &client_id=my+client&client_secret=s%2Fcr%3Dt%2B%C3%BC"
        );
    }

    #[tokio::test]
    async fn id_and_secret_go_in_the_header() {
        let (source, sent) = source(200, TOKEN);
        let more = |name, value| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let source = source.basic();
        let source = [more("user-agent", "shop/1.0"), more("authorization", "no")]
            .into_iter()
            .fold(source, |source, (name, value)| {
                source.token_call_header(name, value)
            });
        fetch(&source).await.unwrap();
        assert_eq!(sent.lock().unwrap()[0].headers()["user-agent"], "shop/1.0");
        let sent = sent.lock().unwrap();
        assert_eq!(sent[0].body(), "grant_type=client_credentials");
        let value = &sent[0].headers()[AUTHORIZATION];
        // `printf 'my+client:s%%2Fcr%%3Dt%%2B%%C3%%BC' | base64`
        assert_eq!(value, "Basic bXkrY2xpZW50OnMlMkZjciUzRHQlMkIlQzMlQkM=");
        assert!(value.is_sensitive());
    }

    #[tokio::test]
    async fn errors_have_the_endpoint_and_its_message() {
        for (status, body, printed) in [
            (
                401,
                r#"{"error":"invalid_client",
                    "error_description":"no client 'my client' with s/cr=t+ü"}"#,
                "POST /token: the client id and client secret were rejected (status 401): \
                 invalid_client: no client '***' with ***",
            ),
            (
                400,
                r#"{"error":"invalid_scope"}"#,
                "POST /token: the token call was rejected as a bad request (status 400): \
                 invalid_scope",
            ),
            (
                503,
                "",
                "POST /token: the token endpoint failed (status 503)",
            ),
            (200, r#"{"access_token":"t"}"#, ""),
        ] {
            let (source, _) = source(status, body);
            let error = fetch(&source).await.unwrap_err();
            assert!(error.to_string().starts_with(printed), "{error}");
            assert_eq!(
                (error.endpoint(), error.host()),
                (Some(TokenEndpoint::Token), Some("id.example.com"))
            );
            assert_eq!(error.status().map(|status| status.as_u16()), Some(status));
        }
    }

    #[tokio::test]
    async fn a_missing_lifetime_is_the_default_or_an_error() {
        let (source, _) = source(200, r#"{"access_token":"t"}"#);
        assert!(fetch(&source).await.unwrap_err().is_invalid_response());
        let token = fetch(&source.default_lifetime(Duration::from_secs(7)))
            .await
            .unwrap();
        assert_eq!(token.lifetime(), Duration::from_secs(7));
    }

    #[tokio::test]
    async fn case_61_a_transport_that_repeats_the_header_is_masked() {
        #[derive(Debug)]
        struct Repeats(String);
        impl fmt::Display for Repeats {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "cannot send {}", self.0)
            }
        }
        impl std::error::Error for Repeats {}
        let transport = service_fn(|request: Request<Bytes>| {
            let header = request
                .headers()
                .get(AUTHORIZATION)
                .map(|value| value.to_str().unwrap());
            let sent = format!("{header:?} {:?}", request.body());
            std::future::ready(Err::<Response<Full<Bytes>>, _>(Repeats(sent)))
        });
        for is_basic in [false, true] {
            let source =
                ClientCredentials::new(URL, "my-client-id", "s/cret of \"mine\"", transport)
                    .unwrap();
            let source = if is_basic { source.basic() } else { source };
            let error = fetch(&source).await.unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            let expected = match is_basic {
                true => r#"cannot send Some("***") b"grant_type=client_credentials""#,
                false => {
                    "cannot send None b\"grant_type=client_credentials&client_id=***\
                     &client_secret=***\""
                }
            };
            assert_eq!(cause, expected);
            assert!(error.is_transport() && format!("{error:?}").contains("***"));
        }
    }

    #[test]
    fn an_invalid_token_url_or_credential_is_a_config_error() {
        let new = |url: &str, id: &str, secret: &str| {
            let transport = service_fn(async |_: Request<Bytes>| {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            });
            ClientCredentials::new(url, id, secret, transport)
        };
        for (url, id, secret, says) in [
            (
                "id.example.com/token",
                "a",
                "b",
                "token URL `id.example.com` has no scheme: write `https://id.example.com`",
            ),
            (
                "https://x.example/t?a=b",
                "a",
                "b",
                "token URL `https://x.example/…` has a query: leave it out",
            ),
            (
                "https://u@x.example/t",
                "a",
                "b",
                "token URL `https://***@x.example/…` has user information: leave it out",
            ),
            (
                "https://x.example/t#a",
                "a",
                "b",
                "token URL `https://x.example/…` has a fragment: leave it out",
            ),
            (
                "http://x.example/t",
                "a",
                "b",
                "token URL `http://x.example` would carry secrets in the clear: \
                 write `https://x.example`",
            ),
            (URL, "", "b", "the client id is empty"),
            (
                URL,
                "a",
                "b\n",
                "the client secret ends with a line break: trim it",
            ),
        ] {
            assert_eq!(new(url, id, secret).unwrap_err().to_string(), says);
        }
        let source = new("http://127.0.0.1:8080/token", "the-id", "the-secret")
            .unwrap()
            .scope("a");
        let printed = format!("{source:?}");
        assert!(
            printed.contains("http://127.0.0.1:8080/token") && printed.contains("scope"),
            "{printed}"
        );
        assert!(
            !printed.contains("the-id") && !printed.contains("the-secret"),
            "{printed}"
        );
    }
}
