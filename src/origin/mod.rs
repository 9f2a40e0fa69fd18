//! Origins: a token goes to the origins that it is pinned to, and nowhere else.

pub(crate) mod configured_url;
pub(crate) mod host;

use std::fmt;

use http::{
    Uri,
    uri::{Authority, Scheme},
};

use self::host::Host;

/// Scheme, host and port of an `http` or `https` URL, normalized as browsers do (and the `url`
/// crate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) secure: bool,
    host: Host,
    port: u16,
    /// Host and port in the most common spelling: normalized, without the scheme's default port.
    authority: Box<str>,
}

impl Origin {
    /// The origin of a configured URL, which may have a path. `None` for a URL without an origin.
    pub(crate) fn of_base(base: &Uri) -> Option<Self> {
        let target = Target::of(base)?;
        let host = Host::parse(target.host)?;
        let authority = match target.port {
            port if port == default_port(target.secure) => host.to_string(),
            port => format!("{host}:{port}"),
        };
        Some(Self {
            secure: target.secure,
            host,
            port: target.port,
            authority: authority.into(),
        })
    }

    fn scheme(&self) -> Scheme {
        match self.secure {
            true => Scheme::HTTPS,
            false => Scheme::HTTP,
        }
    }

    /// Whether the target has this scheme, host (in any spelling) and port.
    pub(crate) fn contains(&self, target: &Target<'_>) -> bool {
        // The scheme counts: a token for https must not cross the network in the clear.
        self.secure == target.secure && self.port == target.port && self.same_host(target)
    }

    /// Whether the URI has this origin in its usual spelling. A fast path: `contains` then holds
    /// too.
    #[inline]
    pub(crate) fn matches_spelling(&self, uri: &Uri) -> bool {
        uri.scheme() == Some(&self.scheme())
            && uri
                .authority()
                .is_some_and(|a| a.as_str() == &*self.authority)
    }

    pub(crate) fn same_host(&self, target: &Target<'_>) -> bool {
        self.host.is(target.host)
    }
}

/// As a URL without a path.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority)
    }
}

/// The scheme, host and port that a request is sent to.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) secure: bool,
    host: &'a str,
    port: u16,
}

impl<'a> Target<'a> {
    /// `None` for anything but an absolute `http` or `https` URI with a valid port.
    pub(crate) fn of(uri: &'a Uri) -> Option<Self> {
        let secure = is_https(uri.scheme_str()?)?;
        let authority = uri.authority()?;
        Some(Self {
            secure,
            host: authority.host(),
            port: port(authority, default_port(secure))?,
        })
    }

    /// As [`of`](Self::of).
    #[cfg(feature = "reqwest")]
    pub(crate) fn of_url(url: &'a reqwest::Url) -> Option<Self> {
        Some(Self {
            secure: is_https(url.scheme())?,
            host: url.host_str()?,
            port: url.port_or_known_default()?,
        })
    }
}

/// `None` for a scheme that is neither `https` nor `http`.
fn is_https(scheme: &str) -> Option<bool> {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    match scheme {
        _ if is("https") => Some(true),
        _ if is("http") => Some(false),
        _ => None,
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// The port, `None` if it is invalid.
fn port(authority: &Authority, default: u16) -> Option<u16> {
    // `Authority::port` is `None` for `host:99999` too, and accepts `host:+443` and `x[::1]:443`,
    // whose host is `x[`.
    let after_user = authority.as_str().rsplit('@').next()?;
    match after_user.strip_prefix(authority.host())? {
        "" => Some(default),
        rest => {
            let digits = rest.strip_prefix(':')?;
            let is_number = digits.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| digits.parse().ok())?
        }
    }
}
