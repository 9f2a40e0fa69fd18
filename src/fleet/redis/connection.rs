//! A connection that is made on first use and replaced once it fails.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use redis::{
    Client, Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::TcpSettings,
};
use tokio::sync::OnceCell;

use super::error;
use crate::error::config::ConfigError;

/// The connection that a [`RedisStore`](crate::RedisStore) makes by itself, from a URL or with a
/// function.
///
/// Connects on first use. After a failure it connects again at the next use. That includes a
/// response that did not arrive in time: a connection whose other end has vanished looks alive for
/// a quarter of an hour. Clones share one connection.
// Not the `ConnectionManager` of the crate `redis`, which keeps a connection whose responses time
// out.
#[derive(Clone)]
pub struct RedisConnection {
    connect: Arc<Connect>,
    database: i64,
    current: Arc<Mutex<Current>>,
}

type Connect = dyn Fn() -> Connecting + Send + Sync;
type Connecting = Pin<Box<dyn Future<Output = RedisResult<MultiplexedConnection>> + Send>>;

/// Empty until the connection is made.
// A cell, so that callers at the same time make one connection.
type Current = Arc<OnceCell<MultiplexedConnection>>;

impl RedisConnection {
    pub(super) fn from_url(url: &str) -> Result<Self, ConfigError> {
        let invalid = |problem: &'static str| ConfigError::InvalidUrl(problem.into());
        let is_tls = ["rediss:", "valkeys:"].iter().any(|scheme| {
            url.get(..scheme.len())
                .is_some_and(|it| it.eq_ignore_ascii_case(scheme))
        });
        let client = Client::open(url).map_err(|_| match is_tls {
            true => invalid(
                "the Redis URL needs TLS, or is malformed: turn on a TLS feature of the crate \
                 `redis`, such as `tokio-rustls-comp`",
            ),
            false => invalid(
                "the Redis URL is malformed: write `redis://user:password@host:port/database`",
            ),
        })?;
        let info = client.get_connection_info().clone();
        // Off by default: a command would wait until the one before it is acknowledged.
        let settings = TcpSettings::default().set_nodelay(true);
        let client = Client::open(info.set_tcp_settings(settings))
            .map_err(|_| invalid("the Redis URL is malformed"))?;
        let database = client.get_connection_info().redis_settings().db();
        let connect = move || {
            let client = client.clone();
            async move { client.get_multiplexed_async_connection().await }
        };
        Ok(Self {
            database,
            ..Self::with(connect)
        })
    }

    pub(super) fn with<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = RedisResult<MultiplexedConnection>> + Send + 'static,
    {
        Self {
            connect: Arc::new(move || Box::pin(connect())),
            database: 0,
            current: Arc::default(),
        }
    }

    /// Runs a command. Whatever ends it without a response, the connection is not used again.
    async fn run<T>(
        &self,
        command: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        let current = Arc::clone(&self.current());
        let connect = &*self.connect;
        // If this fails, the cell stays empty, and the next command connects again.
        let mut connection = current.get_or_try_init(connect).await?.clone();
        let mut running = Running {
            owner: self,
            current: &current,
            is_healthy: false,
        };
        let result = command(&mut connection).await;
        running.is_healthy = match &result {
            Ok(_) => true,
            Err(error) => error::is_from_a_healthy_connection(error),
        };
        result
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, failed: &Current) {
        let mut current = self.current();
        // Unless another command has replaced it: many fail together when a connection breaks.
        let failed = Arc::ptr_eq(&current, failed).then(|| std::mem::take(&mut *current));
        // The connection is closed after the lock is released.
        drop(current);
        drop(failed);
    }
}

/// A running command. Its drop, by a timeout for instance, replaces the connection.
struct Running<'a> {
    owner: &'a RedisConnection,
    current: &'a Current,
    is_healthy: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_healthy {
            self.owner.replace(self.current);
        }
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        // A server's error comes as a value.
        let command = async |connection: &mut MultiplexedConnection| {
            connection.req_packed_command(cmd).await?.extract_error()
        };
        Box::pin(self.run(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(
            self.run(async move |connection| {
                connection.req_packed_commands(cmd, offset, count).await
            }),
        )
    }

    fn get_db(&self) -> i64 {
        self.database
    }
}

/// Without the URL, which may contain a password.
impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_url_is_an_error_without_the_url() {
        for url in [
            "",
            "hidden",
            "http://user:hidden@host/",
            "redis://user:hidden@host/many",
            "redis://user:hidden@0.0.0.0/",
            "rediss://user:hidden@host/",
        ] {
            let error = RedisConnection::from_url(url).unwrap_err();
            assert!(matches!(error, ConfigError::InvalidUrl(_)));
            assert!(!format!("{error} {error:?}").contains("hidden"), "{error}");
        }
        let error = RedisConnection::from_url("rediss://host/").unwrap_err();
        assert!(error.to_string().contains("tokio-rustls-comp"), "{error}");
    }
}
