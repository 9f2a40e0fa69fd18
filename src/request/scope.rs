//! Which requests get the token.

use http::{HeaderMap, Uri, header::AUTHORIZATION};

use super::options::RequestOptions;
use crate::{
    klavi::{api::KlaviApi, path_prefix::PathPrefix},
    origin::{Origin, Target},
};

/// Where the token may go, and which requests pass through.
#[derive(Clone, Debug)]
pub struct Scope {
    api: Origin,
    /// The paths of the API that get the token. `None`: all of them.
    product: Option<PathPrefix>,
    added_origins: Vec<Origin>,
    token_paths: Vec<Box<str>>,
    pub(crate) overwrite: bool,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug)]
pub enum Decision {
    /// Attach the token.
    Authenticate,
    /// Send it unchanged.
    PassThrough,
    /// Fail it without sending it: plain http to a host that gets the token over https.
    Reject,
}

impl Scope {
    pub(crate) fn new(api: &KlaviApi) -> Self {
        let token_paths = [api.auth_uri(), api.refresh_uri()]
            .map(|uri| uri.path().into())
            .into();
        Self {
            product: Some(api.path_prefix.clone()),
            token_paths,
            ..Self::of_origin(api.origin.clone())
        }
    }

    /// The scope of an API that is not Klavi's: all paths of its origin.
    pub(crate) fn of_origin(origin: Origin) -> Self {
        Self {
            api: origin,
            product: None,
            added_origins: Vec::new(),
            token_paths: Vec::new(),
            overwrite: false,
        }
    }

    /// Adds all paths of the API's origin.
    pub(crate) fn allow_whole_origin(&mut self) {
        self.product = None;
    }

    /// Adds all paths of another origin.
    pub(crate) fn allow_origin(&mut self, origin: Origin) {
        if origin == self.api {
            // `decision` checks the API's origin first, so adding it to the list would have no
            // effect.
            return self.allow_whole_origin();
        }
        self.added_origins.push(origin);
    }

    /// Whether the token may go to `uri`. A request with its own cache may be for any product, so
    /// its path is not checked.
    pub(crate) fn contains(&self, uri: &Uri, has_own_cache: bool) -> bool {
        Target::of(uri).is_some_and(|target| {
            self.api.contains(&target) && (has_own_cache || self.allows_path(uri.path()))
                || self.is_added(&target)
        })
    }

    /// The destination of a request. A fast path recognizes the usual spelling of the API's origin.
    #[inline]
    pub(crate) fn destination<'a>(&self, uri: &'a Uri) -> Destination<'a> {
        if self.api.matches_spelling(uri) {
            Destination::Api
        } else {
            Destination::of(uri)
        }
    }

    /// The decision about a request to `path` at `destination`.
    #[inline]
    pub(crate) fn decision(
        &self,
        destination: &Destination<'_>,
        path: &str,
        headers: &HeaderMap,
        options: &RequestOptions<'_>,
    ) -> Decision {
        // The caller's choice takes precedence, unless the layer is to overwrite the header.
        if options.skip_auth || (!self.overwrite && headers.contains_key(&AUTHORIZATION)) {
            return Decision::PassThrough;
        }
        // A customer's token may be for any product: see `contains`.
        let path_fits = options.own_cache.is_some() || self.allows_path(path);
        match destination {
            Destination::Elsewhere => Decision::PassThrough,
            Destination::At(target) if !self.api.contains(target) => {
                self.foreign_decision(target, path_fits)
            }
            // Token calls pass through. Otherwise a token call that is sent through this layer
            // would wait for itself.
            Destination::Api | Destination::At(_) => match path_fits && !self.is_token_call(path) {
                true => Decision::Authenticate,
                false => Decision::PassThrough,
            },
        }
    }

    /// The decision about a request to an origin other than the API's. Most programs send none
    /// through the layer.
    #[cold]
    #[inline(never)]
    fn foreign_decision(&self, target: &Target<'_>, path_fits: bool) -> Decision {
        if self.is_added(target) {
            return Decision::Authenticate;
        }
        // A request that passed through would cross the network unencrypted, and its 401 would not
        // say why.
        let is_downgrade =
            |origin: &Origin| !target.secure && origin.secure && origin.same_host(target);
        match (is_downgrade(&self.api) && path_fits) || self.added_origins.iter().any(is_downgrade)
        {
            true => Decision::Reject,
            false => Decision::PassThrough,
        }
    }

    #[inline]
    fn allows_path(&self, path: &str) -> bool {
        self.product
            .as_ref()
            .is_none_or(|product| product.contains(path))
    }

    #[inline]
    fn is_token_call(&self, path: &str) -> bool {
        self.token_paths
            .iter()
            .any(|token_path| **token_path == *path)
    }

    fn is_added(&self, target: &Target<'_>) -> bool {
        self.added_origins
            .iter()
            .any(|origin| origin.contains(target))
    }
}

/// The destination of a request.
#[derive(Debug)]
pub(crate) enum Destination<'a> {
    /// The API: the URI has its origin in the usual spelling, or has no authority (`/path`),
    /// because the inner service is bound to the API.
    Api,
    /// A scheme, host and port.
    At(Target<'a>),
    /// Any other URI: another scheme, or an authority alone (`CONNECT`).
    Elsewhere,
}

impl<'a> Destination<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Self {
        if uri.authority().is_none() && uri.scheme().is_none() {
            return Self::Api;
        }
        Target::of(uri).map_or(Self::Elsewhere, Self::At)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        cache::token_cache::TokenCache,
        error::Error,
        klavi::product::Product,
        token::{opt_out::SkipAuth, source::source_fn},
    };

    fn of<B>(scope: &Scope, request: &Request<B>) -> Decision {
        let (uri, options) = (request.uri(), RequestOptions::of(request.extensions()));
        let slow = scope.decision(
            &Destination::of(uri),
            uri.path(),
            request.headers(),
            &options,
        );
        let fast = scope.decision(
            &scope.destination(uri),
            uri.path(),
            request.headers(),
            &options,
        );
        assert_eq!(std::mem::discriminant(&slow), std::mem::discriminant(&fast));
        slow
    }

    fn scope() -> Scope {
        Scope::new(&KlaviApi::production(Product::Monitor))
    }

    fn decision(scope: &Scope, uri: &str) -> &'static str {
        let request = Request::builder().uri(uri).body(()).unwrap();
        match of(scope, &request) {
            Decision::Authenticate => "authenticate",
            Decision::PassThrough => "pass",
            Decision::Reject => "reject",
        }
    }

    #[test]
    fn case_57_59_the_token_goes_to_the_products_paths_at_the_api() {
        for uri in [
            "https://api.klavi.ai/monitor/v1/monitors",
            "https://api.klavi.ai/monitor",
            "https://API.KLAVI.AI:443/monitor/x?y=z",
            "HTTPS://api.klavi.ai/monitor/x",
            "https://api.klavi.ai:0443/monitor/x",
            "/monitor/v1/monitors",
            "/monitor?y=z",
        ] {
            assert_eq!(decision(&scope(), uri), "authenticate", "{uri}");
        }
    }

    #[test]
    fn case_57_a_product_of_two_segments_needs_both_in_the_path() {
        let scope = Scope::new(
            &KlaviApi::at("https://gw.example/klavi", Product::PaymentCustomer).unwrap(),
        );
        for (path, expected) in [
            ("/klavi/payment/customer", "authenticate"),
            ("/klavi/payment/customer/v1/payments", "authenticate"),
            ("/klavi/payment/customer/v1/auth", "pass"),
            ("/klavi/payment/customer/v1/refresh", "pass"),
            ("/klavi/payment", "pass"),
            ("/klavi/payment/v1/x", "pass"),
            ("/klavi/payment/management/v1/merchants", "pass"),
            ("/klavi/payment/customers/v1/x", "pass"),
            ("/klavi/payment/customer/../management/v1/x", "pass"),
            ("/klavi/payment%2Fcustomer/v1/x", "pass"),
            ("/payment/customer/v1/x", "pass"),
        ] {
            assert_eq!(
                decision(&scope, &format!("https://gw.example{path}")),
                expected,
                "{path}"
            );
        }
    }

    const OTHER_PATHS: [&str; 9] = [
        "",
        "/",
        "/x",
        "/monitoring",
        "/data/v1/links",
        "//monitor/v1",
        "/x?/monitor/v1",
        "/monitor/../x",
        "/Monitor",
    ];

    #[test]
    fn case_57_other_paths_of_the_api_pass_through() {
        for path in OTHER_PATHS {
            for origin in [
                "https://api.klavi.ai",
                "https://API.klavi.ai:443",
                "http://api.klavi.ai",
            ] {
                assert_eq!(
                    decision(&scope(), &format!("{origin}{path}")),
                    "pass",
                    "{origin}{path}"
                );
            }
        }
        for uri in ["*"].iter().chain(&OTHER_PATHS[1..]) {
            assert_eq!(decision(&scope(), uri), "pass", "{uri}");
        }
    }

    #[test]
    fn case_57_whole_origin_adds_all_paths_of_the_api() {
        let mut whole = scope();
        whole.allow_whole_origin();
        let mut added = scope();
        added
            .allow_origin(Origin::of_base(&Uri::from_static("https://api.klavi.ai:443/")).unwrap());
        for scope in [whole, added] {
            for path in OTHER_PATHS {
                assert_eq!(
                    decision(&scope, &format!("https://api.klavi.ai{path}")),
                    "authenticate",
                    "{path}"
                );
                assert_eq!(
                    decision(&scope, &format!("http://api.klavi.ai{path}")),
                    "reject",
                    "{path}"
                );
            }
            assert_eq!(decision(&scope, "*"), "authenticate");
            assert_eq!(
                decision(&scope, "https://api.klavi.ai/monitor/v1/auth"),
                "pass"
            );
        }
    }

    #[test]
    fn case_57_the_api_of_another_company_gets_it_on_all_paths() {
        let origin = Origin::of_base(&Uri::from_static("https://api.example.com")).unwrap();
        let scope = Scope::of_origin(origin);
        for uri in [
            "https://api.example.com/",
            "https://API.example.com:443/monitor/v1/auth",
            "/x",
            "*",
        ] {
            assert_eq!(decision(&scope, uri), "authenticate", "{uri}");
        }
        for uri in [
            "https://api.klavi.ai/monitor/v1/monitors",
            "https://api.example.com:8443/",
        ] {
            assert_eq!(decision(&scope, uri), "pass", "{uri}");
        }
        assert_eq!(decision(&scope, "http://api.example.com/"), "reject");
    }

    #[test]
    fn case_57_a_request_with_its_own_cache_is_bound_to_the_origin() {
        let cache = TokenCache::new(source_fn(async |_| Err(Error::timeout())));
        let request = |uri: &str| Request::get(uri).extension(cache.clone()).body(()).unwrap();
        for path in [
            "/monitor/v1/monitors",
            "/data/v1/links",
            "/x",
            "/monitor/../x",
        ] {
            for uri in [path.to_owned(), format!("https://api.klavi.ai{path}")] {
                assert!(
                    matches!(of(&scope(), &request(&uri)), Decision::Authenticate),
                    "{uri}"
                );
            }
            let plain = request(&format!("http://api.klavi.ai{path}"));
            assert!(matches!(of(&scope(), &plain), Decision::Reject), "{path}");
        }
        assert!(matches!(
            of(&scope(), &request("https://evil.com/monitor")),
            Decision::PassThrough
        ));
        assert!(matches!(
            of(&scope(), &request("https://api.klavi.ai/monitor/v1/auth")),
            Decision::PassThrough
        ));
    }

    #[test]
    fn case_57_a_401_counts_where_the_token_may_go() {
        for (uri, product, own) in [
            ("https://api.klavi.ai/monitor/v1/monitors", true, true),
            ("https://api.klavi.ai/data/v1/links", false, true),
            ("https://api.klavi.ai/monitor/../data/v1/links", false, true),
            ("http://api.klavi.ai/monitor/v1/monitors", false, false),
            ("https://evil.com/monitor/v1/monitors", false, false),
        ] {
            let uri = uri.parse().unwrap();
            assert_eq!(
                (scope().contains(&uri, false), scope().contains(&uri, true)),
                (product, own),
                "{uri}"
            );
        }
    }

    #[test]
    fn case_57_59_all_other_requests_pass_through() {
        for uri in [
            "https://api.klavi.ai.evil.com/monitor/v1",
            "https://evil-klavi.ai/monitor/v1",
            "https://klavi.ai/monitor/v1",
            "https://xapi.klavi.ai/monitor/v1",
            "https://api.klavi.ai@evil.com/monitor/v1",
            "https://api.klavi.ai:443@evil.com/monitor/v1",
            "https://user:api.klavi.ai@evil.com/monitor/v1",
            "https://evil.com/?https://api.klavi.ai/",
            "https://evil.com/api.klavi.ai",
            "https://api.klavi.ai./monitor/v1",
            "https://api.klavi.ai:8443/monitor/v1",
            "https://api.klavi.ai:80/monitor/v1",
            "https://api-sandbox.klavi.ai/monitor/v1",
            "https://[::1]/monitor/v1",
            "http://evil.com/monitor/v1",
            "ftp://api.klavi.ai/monitor/v1",
            "ws://api.klavi.ai/monitor/v1",
            "api.klavi.ai:443",
            "api.klavi.ai",
        ] {
            assert_eq!(decision(&scope(), uri), "pass", "{uri}");
        }
    }

    #[test]
    fn an_invalid_port_is_another_origin() {
        for port in ["99999", "65979", "", "+443"] {
            let uri = format!("https://api.klavi.ai:{port}/monitor");
            if uri.parse::<Uri>().is_ok() {
                assert_eq!(decision(&scope(), &uri), "pass", "{uri}");
            }
        }
    }

    #[test]
    fn an_address_that_text_follows_is_another_origin() {
        let api = KlaviApi::at("https://[::1]", Product::Monitor).unwrap();
        assert_eq!(
            decision(&Scope::new(&api), "https://[::1]:443/monitor"),
            "authenticate"
        );
        for uri in [
            "https://[::1].evil.com:443/monitor",
            "https://[::1]x/monitor",
        ] {
            assert_eq!(decision(&Scope::new(&api), uri), "pass", "{uri}");
        }
    }

    #[test]
    fn case_58_the_apis_own_host_over_plain_http_is_an_error() {
        for uri in [
            "http://api.klavi.ai/monitor",
            "http://api.klavi.ai:443/monitor/",
            "http://API.klavi.ai:8080/monitor/v1",
        ] {
            assert_eq!(decision(&scope(), uri), "reject", "{uri}");
        }
    }

    #[test]
    fn case_59_default_ports_are_equal_over_plain_http_too() {
        for (base, other) in [
            ("http://localhost", "http://localhost:80"),
            ("http://localhost:80", "http://LOCALHOST"),
        ] {
            let scope = Scope::new(&KlaviApi::at(base, Product::Monitor).unwrap());
            for uri in [base, other] {
                assert_eq!(
                    decision(&scope, &format!("{uri}/monitor/x")),
                    "authenticate",
                    "{base} {uri}"
                );
            }
            assert_eq!(decision(&scope, "http://localhost:443/monitor/x"), "pass");
            assert_eq!(decision(&scope, "https://localhost:80/monitor/x"), "pass");
        }
    }

    #[test]
    fn case_57_an_added_origin_gets_the_token_on_all_paths() {
        let mut scope = scope();
        scope.allow_origin(
            Origin::of_base(&Uri::from_static("https://files.klavi.ai:8443")).unwrap(),
        );
        assert_eq!(
            decision(&scope, "https://files.klavi.ai:8443/a"),
            "authenticate"
        );
        assert_eq!(decision(&scope, "https://files.klavi.ai/a"), "pass");
        assert_eq!(decision(&scope, "http://files.klavi.ai:8443/a"), "reject");
        assert_eq!(
            decision(&scope, "https://api.klavi.ai/monitor/a"),
            "authenticate"
        );
    }

    #[test]
    fn case_5_calls_to_the_token_endpoints_pass_through() {
        for uri in [
            "https://api.klavi.ai/monitor/v1/auth",
            "https://api.klavi.ai/monitor/v1/refresh?x=1",
            "/monitor/v1/auth",
        ] {
            assert_eq!(decision(&scope(), uri), "pass", "{uri}");
        }
        for uri in [
            "https://api.klavi.ai/monitor/v2/auth",
            "/monitor/v1/authors",
            "/monitor/v1/auth/x",
        ] {
            assert_eq!(decision(&scope(), uri), "authenticate", "{uri}");
        }
    }

    #[test]
    fn case_3_4_an_own_header_and_the_opt_out_pass_through() {
        let request = || Request::get("https://api.klavi.ai/monitor/x");
        let own = request()
            .header(AUTHORIZATION, "Bearer linkToken")
            .body(())
            .unwrap();
        assert!(matches!(of(&scope(), &own), Decision::PassThrough));
        let skipped = request().extension(SkipAuth).body(()).unwrap();
        assert!(matches!(of(&scope(), &skipped), Decision::PassThrough));
        let overwriting = Scope {
            overwrite: true,
            ..scope()
        };
        assert!(matches!(of(&overwriting, &own), Decision::Authenticate));
        assert!(matches!(of(&overwriting, &skipped), Decision::PassThrough));
    }
}
