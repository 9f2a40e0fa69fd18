//! Masking of secrets in errors.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use super::{
    Error,
    mask::mask,
    source_chain::{Cause, Masked, chain, io_kind, is_connect},
    wiped::format,
};

impl Error {
    /// The same error with secrets masked in its message and its causes. A cause without secrets is
    /// not replaced.
    pub(crate) fn masked(self, secrets: &[&str]) -> Self {
        self.rebuild(|inner| {
            // If a layer of this crate inside the transport failed, its message is not masked yet.
            let message = inner.message.as_deref();
            if let Some(message) = message.and_then(|text| mask(text, secrets)) {
                inner.message = Some(message.into());
            }
            let source = inner.source.take();
            inner.source = source.map(|source| match has_secret(&*source, secrets) {
                true => masked(&*source, secrets),
                false => source,
            });
        })
    }
}

/// Whether a cause or one of its sources has a secret in its texts.
fn has_secret(cause: &(dyn StdError + 'static), secrets: &[&str]) -> bool {
    chain(cause)
        .filter(|link| !is_system_error(*link))
        .any(|link| {
            // Each format may show more than the others: `{:#}` of anyhow prints all causes.
            [
                format_args!("{link}"),
                format_args!("{link:?}"),
                format_args!("{link:#}"),
                format_args!("{link:#?}"),
            ]
            .into_iter()
            .any(|text| mask(&format(text), secrets).is_some())
        })
}

/// A copy of a cause and its sources, with secrets masked.
fn masked(cause: &(dyn StdError + 'static), secrets: &[&str]) -> Cause {
    if let Some(error) = cause.downcast_ref::<Error>() {
        // Stays an `Error`, so that the predicates see through it.
        return Arc::new(error.clone().masked(secrets));
    }
    let secrets_here = match is_system_error(cause) {
        true => &[],
        false => secrets,
    };
    let text = |text: fmt::Arguments<'_>| {
        let text = format(text);
        // A text that is not masked has no secret, so its copy need not be wiped.
        mask(&text, secrets_here).unwrap_or_else(|| text.to_string())
    };
    Arc::new(Masked {
        display: text(format_args!("{cause}")),
        debug: text(format_args!("{cause:?}")),
        io_kind: io_kind(cause),
        is_connect: is_connect(cause),
        source: cause.source().map(|source| masked(source, secrets)),
    })
}

/// Whether its text is the operating system's or the standard library's, which has no secrets.
fn is_system_error(link: &(dyn StdError + 'static)) -> bool {
    link.downcast_ref::<io::Error>()
        .is_some_and(|error| error.get_ref().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(&'static str, Option<io::Error>);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_ref().map(|source| source as _)
        }
    }

    const SECRET: &str = "hidden-key-1";

    fn lines(error: &Error) -> Vec<String> {
        chain(error).map(|link| link.to_string()).collect()
    }

    #[test]
    fn case_61_the_chain_and_the_kind_survive_masking() {
        let cause = Outer(
            "sent hidden-key-1",
            Some(io::ErrorKind::ConnectionRefused.into()),
        );
        let error = Error::no_token(
            "no access token could be fetched",
            Error::transport(cause).masked(&[SECRET]),
        );
        assert_eq!(lines(&error)[2..], ["sent ***", "connection refused"]);
        assert!(
            !format!("{error:?}").contains(SECRET) && format!("{error:?}").contains("sent ***")
        );
        assert_eq!(error.io_kind(), Some(io::ErrorKind::ConnectionRefused));
        assert!(error.is_connect() && error.is_transport());
    }

    #[test]
    fn case_61_a_cause_without_secrets_is_not_replaced() {
        let error = Error::transport(Outer("sent", None)).masked(&[SECRET]);
        assert!(error.source().unwrap().is::<Outer>());
    }

    #[test]
    fn case_61_a_system_error_is_never_masked() {
        let secrets = ["connection refused"];
        let system = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(
            Error::transport(system())
                .masked(&secrets)
                .source()
                .unwrap()
                .is::<io::Error>()
        );
        let error = Error::transport(Outer("connection refused", Some(system())));
        let error = error.masked(&secrets);
        assert_eq!(lines(&error)[1..], ["***", "connection refused"]);
        let other = Error::transport(io::Error::other(SECRET)).masked(&[SECRET]);
        assert_eq!(lines(&other)[1..], ["***"]);
        assert_eq!(other.io_kind(), Some(io::ErrorKind::Other));
    }

    #[test]
    fn case_61_a_masked_error_of_this_crate_keeps_its_predicates() {
        let inner = Error::timeout().with_message(Some(SECRET.to_owned()));
        let error = Error::transport(inner).masked(&[SECRET]);
        assert!(error.is_timeout() && error.is_transport());
        assert_eq!(error.message(), Some("***"));
    }

    #[test]
    fn is_connect_recognizes_failed_connections() {
        for (cause, expected) in [
            (Outer("client error (Connect)", None), true),
            (Outer("client error (SendRequest)", None), false),
            (
                Outer("x", Some(io::ErrorKind::HostUnreachable.into())),
                true,
            ),
            (
                Outer("x", Some(io::ErrorKind::ConnectionReset.into())),
                false,
            ),
        ] {
            assert_eq!(Error::transport(cause).is_connect(), expected);
        }
        assert!(!Error::timeout().is_connect());
    }
}
