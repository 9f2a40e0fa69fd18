//! What is wrong with Redis, in words of our own.

use std::fmt;

use redis::{ErrorKind, RedisError};

/// An error of a [`RedisStore`](crate::RedisStore).
///
/// Has none of the server's words: a server that does not know a command repeats its arguments, and
/// they include passwords and values.
#[derive(Debug)]
pub(in crate::fleet) struct RedisStoreError(&'static str);

/// What a code of Redis means. A script's error has the code somewhere in the text in Redis 6.
const CODES: [(&str, &str); 14] = [
    ("READONLY", "is read-only: it is a replica"),
    ("OOM", "is full, and its policy evicts nothing"),
    ("WRONGTYPE", "has a value of another type under this key"),
    ("MISCONF", "cannot save to disk and accepts no writes"),
    ("NOREPLICAS", "has too few replicas and accepts no writes"),
    ("MASTERDOWN", "is a replica without a primary"),
    ("LOADING", "is loading its data"),
    ("BUSY", "is busy with a script"),
    ("NOAUTH", "asks for a password"),
    ("WRONGPASS", "rejected the user name or the password"),
    (
        "NOPERM",
        "does not permit a command or the key to this user",
    ),
    ("NOSCRIPT", "has lost a script that was just loaded"),
    ("CLUSTERDOWN", "is a cluster that is down"),
    (
        "MOVED",
        "is a cluster, and the connection is not one to a cluster",
    ),
];

impl RedisStoreError {
    // Taken by value, as `map_err` gives it.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(super) fn new(error: RedisError) -> Self {
        let is_in = |code: &str| {
            let first = error.code().is_some_and(|it| it == code);
            // "… -READONLY You can't …"
            let detail = error.detail().unwrap_or_default();
            first
                || detail
                    .split(' ')
                    .any(|word| word.strip_prefix('-') == Some(code))
        };
        if let Some((_, meaning)) = CODES.iter().find(|(code, _)| is_in(code)) {
            return Self(meaning);
        }
        Self(match error.kind() {
            _ if error.is_timeout() => "did not respond in time",
            _ if error.is_connection_refusal() => "refused the connection",
            _ if error.is_connection_dropped() => "closed the connection",
            ErrorKind::Io => "cannot be reached",
            ErrorKind::AuthenticationFailed => "rejected the user name or the password",
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => "sent an unexpected response",
            ErrorKind::Server(_) | ErrorKind::Extension => "responded with an error",
            _ => "could not be asked",
        })
    }
}

impl fmt::Display for RedisStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis {}", self.0)
    }
}

impl std::error::Error for RedisStoreError {}

/// Whether a command that failed so leaves its connection usable. A primary that was demoted keeps
/// its connections, so that only a new one finds its successor.
pub(super) fn is_from_a_healthy_connection(error: &RedisError) -> bool {
    let is_response = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
    let is_demoted = ["READONLY", "MASTERDOWN"].iter().any(|code| {
        let detail = error.detail().unwrap_or_default();
        error.code() == Some(code) || detail.contains(code)
    });
    is_response && !is_demoted
}
