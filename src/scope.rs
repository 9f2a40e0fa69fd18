//! Which requests get the token.

use http::{HeaderMap, Uri, header::AUTHORIZATION};

use crate::{
    Error, KlaviApi,
    message::{Destination, Marks},
    origin::{Origin, Target},
};

/// In the extensions of a request: it goes out as it is, without a token, and a 401 to it starts nothing.
///
/// ```
/// use klavi_auth::SkipAuth;
///
/// let request = http::Request::get("https://api.klavi.ai/health").extension(SkipAuth).body(());
/// # assert!(request.is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SkipAuth;

/// In the extensions of a request: it is sent once. A 401 goes to the caller, and the token is replaced for the
/// next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoResend;

/// Where the token may go, and which requests are left alone.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    api: Origin,
    more: Vec<Origin>,
    token_paths: [Box<str>; 2],
    pub(crate) overwrite: bool,
}

/// What to do with a request.
#[derive(Debug)]
pub(crate) enum Treatment {
    /// It gets the token.
    Authenticate,
    /// It goes out as it is.
    Pass,
    /// It does not go out.
    Refuse(Error),
}

impl Scope {
    pub(crate) fn new(api: &KlaviApi) -> Self {
        let token_paths = [api.auth_uri(), api.refresh_uri()].map(|uri| uri.path().into());
        Self { api: api.origin().clone(), more: Vec::new(), token_paths, overwrite: false }
    }

    pub(crate) fn add(&mut self, origin: Origin) {
        self.more.push(origin);
    }

    /// Whether the token may go there.
    pub(crate) fn contains(&self, uri: &Uri) -> bool {
        Target::of(uri).is_some_and(|target| self.origins().any(|origin| origin.contains(&target)))
    }

    /// Most requests go to the API, and most of them say so in the same way: those are not looked at more closely.
    #[inline]
    pub(crate) fn destination<'a>(&self, uri: &'a Uri) -> Destination<'a> {
        if self.api.contains_at_a_glance(uri) { Destination::Api } else { Destination::of(uri) }
    }

    /// `path` is that of the destination.
    #[inline]
    pub(crate) fn treatment(
        &self,
        destination: &Destination<'_>,
        path: &str,
        headers: &HeaderMap,
        marks: &Marks,
    ) -> Treatment {
        if marks.skip || (!self.overwrite && headers.contains_key(AUTHORIZATION)) {
            return Treatment::Pass;
        }
        let target = match destination {
            Destination::Api => return self.at_the_api(path),
            Destination::Elsewhere => return Treatment::Pass,
            Destination::At(target) => target,
        };
        if self.api.contains(target) {
            return self.at_the_api(path);
        }
        if self.more.iter().any(|origin| origin.contains(target)) {
            return Treatment::Authenticate;
        }
        let downgraded = !target.secure && self.origins().any(|o| o.is_secure() && o.same_host(target));
        if downgraded { Treatment::Refuse(Error::insecure_uri()) } else { Treatment::Pass }
    }

    /// Calls for the token itself are left alone, so that a token transport with the layer in it does not wait
    /// for itself.
    #[inline]
    fn at_the_api(&self, path: &str) -> Treatment {
        if self.token_paths.iter().any(|token_path| **token_path == *path) {
            return Treatment::Pass;
        }
        Treatment::Authenticate
    }

    fn origins(&self) -> impl Iterator<Item = &Origin> {
        std::iter::once(&self.api).chain(&self.more)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::Product;

    fn of<B>(scope: &Scope, request: &Request<B>) -> Treatment {
        let (uri, marks) = (request.uri(), Marks::of(request.extensions()));
        let closely = scope.treatment(&Destination::of(uri), uri.path(), request.headers(), &marks);
        let at_a_glance = scope.treatment(&scope.destination(uri), uri.path(), request.headers(), &marks);
        assert_eq!(std::mem::discriminant(&closely), std::mem::discriminant(&at_a_glance));
        closely
    }

    fn scope() -> Scope {
        Scope::new(&KlaviApi::production(Product::Monitor))
    }

    fn treatment(scope: &Scope, uri: &str) -> &'static str {
        let request = Request::builder().uri(uri).body(()).unwrap();
        match of(scope, &request) {
            Treatment::Authenticate => "authenticate",
            Treatment::Pass => "pass",
            Treatment::Refuse(error) => {
                assert!(error.is_insecure_uri());
                "refuse"
            }
        }
    }

    #[test]
    fn case_57_59_the_token_goes_to_exactly_the_apis_own_origin() {
        for uri in [
            "https://api.klavi.ai/monitor/v1/monitors",
            "https://api.klavi.ai",
            "https://API.KLAVI.AI:443/x?y=z",
            "HTTPS://api.klavi.ai/x",
            "https://api.klavi.ai:0443/x",
            "/monitor/v1/monitors",
            "/",
            "*",
        ] {
            assert_eq!(treatment(&scope(), uri), "authenticate", "{uri}");
        }
    }

    #[test]
    fn case_57_59_everything_else_goes_out_without_it() {
        for uri in [
            "https://api.klavi.ai.evil.com/",
            "https://evil-klavi.ai/",
            "https://klavi.ai/",
            "https://xapi.klavi.ai/",
            "https://api.klavi.ai@evil.com/",
            "https://api.klavi.ai:443@evil.com/",
            "https://user:api.klavi.ai@evil.com/",
            "https://evil.com/?https://api.klavi.ai/",
            "https://evil.com/api.klavi.ai",
            "https://api.klavi.ai./",
            "https://api.klavi.ai:8443/",
            "https://api.klavi.ai:80/",
            "https://api-sandbox.klavi.ai/",
            "https://[::1]/",
            "http://evil.com/",
            "ftp://api.klavi.ai/",
            "ws://api.klavi.ai/",
            "api.klavi.ai:443",
            "api.klavi.ai",
        ] {
            assert_eq!(treatment(&scope(), uri), "pass", "{uri}");
        }
    }

    #[test]
    fn a_port_that_is_no_port_is_a_foreign_origin() {
        for port in ["99999", "65979", "", "+443"] {
            let uri = format!("https://api.klavi.ai:{port}/");
            if uri.parse::<Uri>().is_ok() {
                assert_eq!(treatment(&scope(), &uri), "pass", "{uri}");
            }
        }
    }

    #[test]
    fn case_58_the_apis_own_host_over_plain_http_is_an_error() {
        for uri in ["http://api.klavi.ai/monitor", "http://api.klavi.ai:443/", "http://API.klavi.ai:8080/"] {
            assert_eq!(treatment(&scope(), uri), "refuse", "{uri}");
        }
    }

    #[test]
    fn case_59_default_ports_are_equal_over_plain_http_too() {
        for (base, other) in
            [("http://localhost", "http://localhost:80"), ("http://localhost:80", "http://LOCALHOST")]
        {
            let scope = Scope::new(&KlaviApi::at(base, Product::Monitor).unwrap());
            for uri in [base, other] {
                assert_eq!(treatment(&scope, &format!("{uri}/x")), "authenticate", "{base} {uri}");
            }
            assert_eq!(treatment(&scope, "http://localhost:443/x"), "pass");
            assert_eq!(treatment(&scope, "https://localhost:80/x"), "pass");
        }
    }

    #[test]
    fn case_57_origins_can_be_added() {
        let mut scope = scope();
        scope.add(Origin::of_base(&Uri::from_static("https://files.klavi.ai:8443")).unwrap());
        assert_eq!(treatment(&scope, "https://files.klavi.ai:8443/a"), "authenticate");
        assert_eq!(treatment(&scope, "https://files.klavi.ai/a"), "pass");
        assert_eq!(treatment(&scope, "http://files.klavi.ai:8443/a"), "refuse");
        assert_eq!(treatment(&scope, "https://api.klavi.ai/a"), "authenticate");
    }

    #[test]
    fn case_5_the_token_endpoints_go_out_as_they_are() {
        for uri in [
            "https://api.klavi.ai/monitor/v1/auth",
            "https://api.klavi.ai/monitor/v1/refresh?x=1",
            "/monitor/v1/auth",
        ] {
            assert_eq!(treatment(&scope(), uri), "pass", "{uri}");
        }
        for uri in ["https://api.klavi.ai/data/v1/auth", "/monitor/v1/authors", "/monitor/v1/auth/x"] {
            assert_eq!(treatment(&scope(), uri), "authenticate", "{uri}");
        }
    }

    #[test]
    fn case_3_4_a_header_of_the_callers_own_and_the_opt_out_are_left_alone() {
        let request = || Request::get("https://api.klavi.ai/x");
        let own = request().header(AUTHORIZATION, "Bearer linkToken").body(()).unwrap();
        assert!(matches!(of(&scope(), &own), Treatment::Pass));
        let skipped = request().extension(SkipAuth).body(()).unwrap();
        assert!(matches!(of(&scope(), &skipped), Treatment::Pass));
        let overwriting = Scope { overwrite: true, ..scope() };
        assert!(matches!(of(&overwriting, &own), Treatment::Authenticate));
        assert!(matches!(of(&overwriting, &skipped), Treatment::Pass));
    }
}
