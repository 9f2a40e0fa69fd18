//! The predicates: why there is no token.

use super::{Error, Kind, Recovery};

impl Error {
    /// There is no valid token and none could be fetched. The
    /// [`source`](std::error::Error::source) says why.
    ///
    /// ```
    /// # use klavi_auth::{Error, TokenCache, source_fn};
    /// use std::error::Error as _;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let cache = TokenCache::new(source_fn(async |_| Err(Error::permanent("wrong password"))));
    /// let error = cache.get().await.unwrap_err();
    /// assert!(error.is_no_token());
    /// assert_eq!(error.to_string(), "no access token could be fetched");
    /// assert_eq!(error.source().unwrap().to_string(), "the token source failed");
    /// # Ok(()) }
    /// ```
    pub fn is_no_token(&self) -> bool {
        self.any(|kind| matches!(kind, Kind::NoToken(_)))
    }

    /// Klavi rejected the access key and secret key, or an OAuth2 server rejected the client.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http::{Request, Response};
    /// # use http_body_util::Full;
    /// # use klavi_auth::{Credentials, KlaviApi, KlaviSource, Product, TokenCache};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let http = tower::service_fn(async |_: Request<Bytes>| {
    /// #     let body = Full::<Bytes>::from(r#"{"message":"Invalid accessKey or secretKey"}"#);
    /// #     Response::builder().status(401).body(body)
    /// # });
    /// # let keys = Credentials::new("my-access-id", "my-secret-phrase")?;
    /// # let api = KlaviApi::sandbox(Product::Data);
    /// # let cache = TokenCache::new(KlaviSource::new(api, keys, http));
    /// let error = cache.get().await.unwrap_err();
    /// assert!(error.is_keys_rejected());
    /// assert_eq!(error.host(), Some("api-sandbox.klavi.ai"));
    /// assert_eq!(error.status().map(|status| status.as_u16()), Some(401));
    /// assert_eq!(error.message(), Some("Invalid accessKey or secretKey"));
    /// # Ok(()) }
    /// ```
    pub fn is_keys_rejected(&self) -> bool {
        self.has_kind(Kind::KeysRejected)
    }

    /// Only a bearer was configured, and it can no longer be refreshed: keys are needed.
    pub fn is_keys_needed(&self) -> bool {
        self.has_kind(Kind::KeysNeeded)
    }

    /// Klavi, or a proxy in front of it, rejected the token call as a bad request (400), for
    /// example because a client certificate is missing. It says nothing about the keys.
    pub fn is_bad_request(&self) -> bool {
        self.has_kind(Kind::BadRequest)
    }

    /// The token endpoint limits the rate of calls (429, or 503 with `Retry-After`). See
    /// [`retry_after`](Self::retry_after).
    pub fn is_throttled(&self) -> bool {
        self.has_kind(Kind::Throttled)
    }

    /// The token endpoint responded with a server error (408 or 5xx).
    pub fn is_server_error(&self) -> bool {
        self.has_kind(Kind::ServerError)
    }

    /// The token call or the whole fetch timed out.
    pub fn is_timeout(&self) -> bool {
        self.has_kind(Kind::Timeout)
    }

    /// The token endpoint's response is invalid: its status is unexpected, it is not JSON, or it
    /// has no token or one that cannot be used.
    pub fn is_invalid_response(&self) -> bool {
        self.any(|kind| matches!(kind, Kind::InvalidResponse(_)))
    }

    /// The token endpoint could not be reached, or the connection broke.
    pub fn is_transport(&self) -> bool {
        self.has_kind(Kind::Transport)
    }

    /// The fetch ended without a result: the source panicked, or there is no tokio runtime.
    pub fn is_interrupted(&self) -> bool {
        self.any(|kind| matches!(kind, Kind::Interrupted(..)))
    }

    /// Too many tokens were rejected in a short time, so the 401 went to the caller and no token
    /// was fetched. See [`Budget`](crate::Budget).
    pub fn is_over_budget(&self) -> bool {
        self.has_kind(Kind::OverBudget)
    }

    /// The request would have carried the token over plain `http`. Nothing was sent.
    ///
    /// ```
    /// # use http::{Request, Response};
    /// # use klavi_auth::{Error, KlaviAuthLayer, TokenCache};
    /// # use tower::{Layer, service_fn};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), klavi_auth::BoxError> {
    /// # let ok = service_fn(async |request: Request<String>| {
    /// #     let mut response = Response::new(String::new());
    /// #     if let Some(token) = request.headers().get("authorization") {
    /// #         response.headers_mut().insert("authorization", token.clone());
    /// #     }
    /// #     Ok::<_, klavi_auth::BoxError>(response)
    /// # });
    /// let cache = TokenCache::fixed("a-token")?;
    /// let auth = KlaviAuthLayer::for_origin("https://api.example.com", cache)?;
    /// let request = Request::get("http://api.example.com/").body(String::new())?;
    /// let error = auth.layer(ok).send(request).await.unwrap_err();
    /// assert!(error.downcast_ref().is_some_and(Error::is_insecure_uri));
    /// # Ok(()) }
    /// ```
    pub fn is_insecure_uri(&self) -> bool {
        self.has_kind(Kind::InsecureUri)
    }

    /// The request has as many headers as the `http` crate allows (24,576), so the token could not
    /// be added. Nothing was sent.
    pub fn is_too_many_headers(&self) -> bool {
        self.has_kind(Kind::TooManyHeaders)
    }

    /// The layer has no token cache of its own, and the request has no
    /// [`TokenCache`](crate::TokenCache) in its extensions.
    pub fn is_cache_missing(&self) -> bool {
        self.has_kind(Kind::CacheMissing)
    }

    /// A [`TokenSource`](crate::TokenSource) failed with [`Error::transient`] or
    /// [`Error::permanent`]. The [`source`](std::error::Error::source) says why.
    pub fn is_source(&self) -> bool {
        self.any(|kind| matches!(kind, Kind::Source(_)))
    }

    /// Another attempt may succeed: after a timeout, a transport error, a 408, 429 or 5xx of the
    /// token endpoint, or an error that a source called [`transient`](Self::transient).
    ///
    /// The cache has already retried, as far as the flight's timeout allowed, and fetches again for
    /// the next request. See [`retry_after`](Self::retry_after).
    ///
    /// ```
    /// use klavi_auth::Error;
    ///
    /// assert!(Error::transient("timed out").is_transient());
    /// assert!(!Error::permanent("wrong password").is_transient());
    /// ```
    pub fn is_transient(&self) -> bool {
        // By the cause alone: "no token" is neither transient nor permanent.
        self.recovery() == Recovery::Transient
    }

    fn has_kind(&self, kind: Kind) -> bool {
        self.any(|other| other == kind)
    }

    fn any(&self, is_match: impl Fn(Kind) -> bool) -> bool {
        // "No token" wraps the error of the fetch, and callers ask about either.
        self.chain().any(|error| is_match(error.0.kind))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn case_63_predicates_see_through_the_chain() {
        let cause = Error::timeout().with_retry_after(Duration::from_secs(3));
        let error = Error::no_token("the access token has expired", cause);
        assert!(error.is_no_token() && error.is_timeout());
        assert!(!error.is_transport() && !error.is_keys_rejected() && !error.is_throttled());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn case_63_each_kind_has_one_predicate_and_one_label() {
        type Predicate = fn(&Error) -> bool;
        let predicates: [(&str, Predicate); 15] = [
            ("no_token", Error::is_no_token),
            ("keys_rejected", Error::is_keys_rejected),
            ("keys_needed", Error::is_keys_needed),
            ("bad_request", Error::is_bad_request),
            ("throttled", Error::is_throttled),
            ("server_error", Error::is_server_error),
            ("timeout", Error::is_timeout),
            ("invalid_response", Error::is_invalid_response),
            ("transport", Error::is_transport),
            ("interrupted", Error::is_interrupted),
            ("over_budget", Error::is_over_budget),
            ("insecure_uri", Error::is_insecure_uri),
            ("too_many_headers", Error::is_too_many_headers),
            ("cache_missing", Error::is_cache_missing),
            ("source", Error::is_source),
        ];
        let kinds = [
            Kind::NoToken("the access token has expired"),
            Kind::KeysRejected,
            Kind::KeysNeeded,
            Kind::BadRequest,
            Kind::Throttled,
            Kind::ServerError,
            Kind::Timeout,
            Kind::InvalidResponse("what"),
            Kind::Transport,
            Kind::Interrupted("what", Recovery::Immediate),
            Kind::OverBudget,
            Kind::InsecureUri,
            Kind::TooManyHeaders,
            Kind::CacheMissing,
            Kind::Source(Recovery::Permanent),
        ];
        for (number, kind) in kinds.into_iter().enumerate() {
            let error = Error::new(kind);
            let matching: Vec<_> = predicates
                .iter()
                .filter(|(_, holds)| holds(&error))
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(matching, [predicates[number].0], "{error:?}");
            assert_eq!(error.label(), predicates[number].0);
            assert_eq!(
                Error::no_token("no access token could be fetched", error.clone()).label(),
                error.label()
            );
        }
    }
}
