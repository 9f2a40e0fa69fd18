//! Scheme, host and port: what a token is pinned to.

pub(crate) mod configured_url;
pub(crate) mod host;

use http::{
    Uri,
    uri::{Authority, Scheme},
};

use self::host::Host;

/// Scheme, host and port of an `http` or `https` URL, normalised as a browser does (and the `url`
/// crate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    secure: bool,
    host: Host,
    port: u16,
    /// Host and port as most requests spell them: normalised, without the scheme's default port.
    authority: Box<str>,
}

impl Origin {
    /// `https` on the default port of a host given in lower case.
    pub(crate) fn https(host: &'static str) -> Self {
        Self {
            secure: true,
            host: Host::Name(host.into()),
            port: 443,
            authority: host.into(),
        }
    }

    /// The origin of a URL that a user configured, which may have a path. `None` if it has none.
    pub(crate) fn of_base(base: &Uri) -> Option<Self> {
        let target = Target::of(base)?;
        let host = Host::parse(target.host)?;
        let default_port = if target.secure { 443 } else { 80 };
        let authority = match target.port {
            port if port == default_port => host.to_string(),
            port => format!("{host}:{port}"),
        };
        Some(Self {
            secure: target.secure,
            host,
            port: target.port,
            authority: authority.into(),
        })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        if self.secure {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    /// Host and port, normalised.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Exactly this scheme, host (however it is spelled) and port.
    pub(crate) fn contains(&self, target: &Target<'_>) -> bool {
        self.secure == target.secure && self.port == target.port && self.same_host(target)
    }

    /// It contains the URI, which is written in the usual way: `contains` would say so too, after a
    /// closer look.
    #[inline]
    pub(crate) fn contains_at_a_glance(&self, uri: &Uri) -> bool {
        uri.scheme() == Some(&self.scheme())
            && uri
                .authority()
                .is_some_and(|a| a.as_str() == &*self.authority)
    }

    pub(crate) fn same_host(&self, target: &Target<'_>) -> bool {
        self.host.is(target.host)
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Plain `http` to a host that is not this machine.
    pub(crate) fn is_exposed(&self) -> bool {
        !self.secure && !self.host.is_loopback()
    }
}

/// Where a request is going.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) secure: bool,
    host: &'a str,
    port: u16,
}

impl<'a> Target<'a> {
    /// `None` for everything that is not an absolute `http` or `https` URI with a port that is a
    /// port.
    pub(crate) fn of(uri: &'a Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?;
        let authority = uri.authority()?;
        let secure = if scheme.eq_ignore_ascii_case("https") {
            true
        } else if scheme.eq_ignore_ascii_case("http") {
            false
        } else {
            return None;
        };
        let port = match written_port(authority)? {
            Some(port) => port,
            None if secure => 443,
            None => 80,
        };
        Some(Self {
            secure,
            host: authority.host(),
            port,
        })
    }
}

#[cfg(feature = "reqwest")]
impl<'a> Target<'a> {
    /// As [`of`](Self::of).
    pub(crate) fn of_url(url: &'a reqwest::Url) -> Option<Self> {
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self {
            secure,
            host: url.host_str()?,
            port: url.port_or_known_default()?,
        })
    }
}

/// `Some(None)` if no port is written, `None` if what is written is no port. `Authority::port`
/// alone cannot tell the two apart: it has no answer for `host:99999` either.
fn written_port(authority: &Authority) -> Option<Option<u16>> {
    let after_user = authority.as_str().rsplit('@').next()?;
    match after_user.strip_prefix(authority.host())? {
        "" => Some(None),
        rest => {
            let digits = rest.strip_prefix(':')?;
            // `parse` would take a sign, too.
            let is_number = digits.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| digits.parse().ok())?.map(Some)
        }
    }
}
