//! Causes from outside: what they say about a connection, and copies of them with secrets masked.

use std::{
    error::Error as StdError,
    fmt::{self, Write},
    io, iter,
    sync::Arc,
};

use crate::Error;

/// Masks the secrets in a text; `None` if there are none in it.
pub(crate) type Mask<'a> = dyn Fn(fmt::Arguments<'_>) -> Option<String> + 'a;

/// A cause, shared by the clones of its error.
pub(crate) type Cause = Arc<dyn StdError + Send + Sync>;

/// An error and those that it was caused by.
pub(crate) fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(Some(error), |&link| link.source())
}

/// The kind of the I/O error that this is, or was before it was masked.
pub(crate) fn io_kind(link: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    match link.downcast_ref::<io::Error>() {
        Some(error) => Some(error.kind()),
        None => link.downcast_ref::<Masked>()?.io_kind,
    }
}

/// Whether it says that no connection could be made.
pub(crate) fn is_connect(link: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "reqwest")]
    if link
        .downcast_ref::<reqwest::Error>()
        .is_some_and(reqwest::Error::is_connect)
    {
        return true;
    }
    if let Some(masked) = link.downcast_ref::<Masked>() {
        return masked.is_connect;
    }
    let is_connect = |kind| {
        matches!(
            kind,
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
        )
    };
    // hyper-util has a predicate of its own, but this crate does not depend on hyper-util.
    io_kind(link).is_some_and(is_connect) || prints(link, "client error (Connect)")
}

/// Whether an error prints exactly this. Copies nothing: it may be a secret.
fn prints(link: &dyn StdError, text: &str) -> bool {
    struct Rest<'a>(&'a str);
    impl Write for Rest<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    write!(rest, "{link}").is_ok() && rest.0.is_empty()
}

/// Whether a cause, or what it was caused by, repeats a secret.
pub(crate) fn repeats_a_secret(cause: &(dyn StdError + 'static), mask: &Mask<'_>) -> bool {
    chain(cause)
        .filter(|link| !is_of_the_system(*link))
        .any(|link| {
            [
                format_args!("{link}"),
                format_args!("{link:?}"),
                format_args!("{link:#}"),
                format_args!("{link:#?}"),
            ]
            .into_iter()
            .any(|text| mask(text).is_some())
        })
}

/// A copy of a cause and all that it was caused by, with secrets masked.
pub(crate) fn masked(cause: &(dyn StdError + 'static), mask: &Mask<'_>) -> Cause {
    if let Some(error) = cause.downcast_ref::<Error>() {
        return Arc::new(error.clone().masked(mask));
    }
    // Where nothing is masked there is no secret, and nothing that must be wiped.
    let text = |text: fmt::Arguments<'_>| match is_of_the_system(cause) {
        true => text.to_string(),
        false => mask(text).unwrap_or_else(|| text.to_string()),
    };
    Arc::new(Masked {
        display: text(format_args!("{cause}")),
        debug: text(format_args!("{cause:?}")),
        io_kind: io_kind(cause),
        is_connect: is_connect(cause),
        source: cause.source().map(|source| masked(source, mask)),
    })
}

/// Whether the system or the standard library wrote its text, which can only look like a secret.
fn is_of_the_system(link: &(dyn StdError + 'static)) -> bool {
    link.downcast_ref::<io::Error>()
        .is_some_and(|error| error.get_ref().is_none())
}

/// Stands for a cause that repeats a secret.
struct Masked {
    display: String,
    debug: String,
    io_kind: Option<io::ErrorKind>,
    is_connect: bool,
    source: Option<Cause>,
}

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.debug)
    }
}

impl StdError for Masked {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
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

    fn mask(text: fmt::Arguments<'_>) -> Option<String> {
        let (text, secret) = (text.to_string(), "hidden");
        text.contains(secret).then(|| text.replace(secret, "***"))
    }

    fn lines(error: &Error) -> Vec<String> {
        chain(error).map(|link| link.to_string()).collect()
    }

    #[test]
    fn case_61_the_chain_its_texts_and_its_kind_survive_the_mask() {
        let cause = Outer("sent hidden", Some(io::ErrorKind::ConnectionRefused.into()));
        let error = Error::no_token(
            crate::error::Lost::NeverHad,
            Error::transport(cause).masked(&mask),
        );
        assert_eq!(lines(&error)[2..], ["sent ***", "connection refused"]);
        assert!(
            !format!("{error:?}").contains("hidden") && format!("{error:?}").contains("sent ***")
        );
        assert_eq!(error.io_kind(), Some(io::ErrorKind::ConnectionRefused));
        assert!(error.is_connect() && error.is_transport());
    }

    #[test]
    fn case_61_a_cause_that_repeats_no_secret_stays_what_it_is() {
        let error = Error::transport(Outer("sent", None)).masked(&mask);
        assert!(error.source().unwrap().is::<Outer>());
    }

    #[test]
    fn case_61_an_error_of_the_system_looks_like_a_secret_and_is_none() {
        let refused = |_: fmt::Arguments<'_>| Some("***".to_owned());
        let system = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(
            Error::transport(system())
                .masked(&refused)
                .source()
                .unwrap()
                .is::<io::Error>()
        );
        let error = Error::transport(Outer("sent", Some(system()))).masked(&refused);
        assert_eq!(lines(&error)[1..], ["***", "connection refused"]);
        let said = Error::transport(io::Error::other("hidden")).masked(&mask);
        assert_eq!(lines(&said)[1..], ["***"]);
        assert_eq!(said.io_kind(), Some(io::ErrorKind::Other));
    }

    #[test]
    fn case_61_an_error_of_this_crate_in_the_chain_keeps_its_predicates() {
        let inner = Error::timeout().with_message(Some("hidden".to_owned()));
        let error = Error::transport(inner).masked(&mask);
        assert!(error.is_timeout() && error.is_transport());
        assert_eq!(error.message(), Some("***"));
    }

    #[test]
    fn which_errors_say_that_no_connection_could_be_made() {
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
