//! Two scripts: load a value and its age, and swap it.

use std::{fmt, future::Future, time::Duration};

use redis::{
    RedisResult, Script,
    aio::{ConnectionLike, MultiplexedConnection},
};
use secrecy::zeroize::Zeroizing;

use super::{connection::RedisConnection, error::RedisStoreError};
use crate::{
    error::config::ConfigError,
    fleet::store::{FleetStore, StoreFuture, Stored},
};

/// What precedes each value: its whole time to live in milliseconds, big-endian. The rest of it,
/// which Redis knows, then gives the age.
const PREFIX: usize = size_of::<u64>();

/// Both scripts see the same beginning of a value that is too long to be ours, so that it can be
/// replaced without moving all of it. Two bytes more than 64 KiB are enough to see that.
// Scripts, because `WATCH` belongs to a connection, and all commands share one.
const LOAD: &str = "
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return false end
return {redis.call('GETRANGE', KEYS[1], 0, 65545), left}";

const SWAP: &str = "
local expected = ARGV[1] == 'some' and ARGV[2]
local exists = redis.call('EXISTS', KEYS[1]) == 1
if (exists and redis.call('GETRANGE', KEYS[1], 8, 65545)) ~= expected then return false end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return true";

/// No record lives longer. Redis rejects a time to live that overflows its clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A [`FleetStore`] in Redis or Valkey.
///
/// With a URL it is one line. The store connects on first use, so that a program starts without
/// Redis too, and connects again after a connection broke or did not respond:
///
/// ```
/// use klavi_auth::RedisStore;
///
/// let store = RedisStore::from_url("redis://:password@redis.internal:6379/0")?;
/// # let _ = store;
/// # Ok::<_, klavi_auth::ConfigError>(())
/// ```
///
/// # TLS, Sentinel, Cluster
///
/// This crate brings no TLS. For a `rediss:` URL turn on one of the TLS features of the crate
/// `redis`, such as `tokio-rustls-comp`, in your application. [`connect_with`](Self::connect_with)
/// takes a function that connects, for certificates of your own or for Sentinel, and
/// [`new`](Self::new) a connection that connects again by itself, such as that to a cluster.
/// [The page on stores](crate::docs::fleet_stores#redis-and-valkey) has the code of each.
///
/// # What Redis needs
///
/// Version 5 or newer, and the permission to run `EVALSHA`, `SCRIPT LOAD`, `EXISTS`, `GETRANGE`,
/// `PTTL` and `SET` on the keys `klavi-auth:*`. Neither persistence nor replicas: the fleet fetches
/// a token if the value is lost.
///
/// # Errors
///
/// Errors say what is wrong with Redis. They contain neither the URL nor anything that the server
/// sent, because a server may repeat what it received.
pub struct RedisStore<C = RedisConnection> {
    connection: C,
    load: Script,
    swap: Script,
}

impl RedisStore {
    /// A store at a URL: `redis://user:password@host:port/database`, or `unix:///path`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidUrl`] if the URL is malformed, or if it is `rediss:` and no TLS
    /// feature of the crate `redis` is on. The message does not contain the URL.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::new(RedisConnection::from_url(url)?))
    }

    /// A store whose connections this function makes: the first on first use, and another one after
    /// a connection broke, did not respond, or led to a primary that was demoted.
    ///
    /// For Sentinel, where the function asks for the primary, and for a client with certificates.
    ///
    /// ```
    /// use klavi_auth::RedisStore;
    ///
    /// let client = redis::Client::open("redis://redis.internal")?;
    /// let store = RedisStore::connect_with(move || {
    ///     let client = client.clone();
    ///     async move { client.get_multiplexed_async_connection().await }
    /// });
    /// # let _ = store;
    /// # Ok::<_, klavi_auth::BoxError>(())
    /// ```
    pub fn connect_with<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = RedisResult<MultiplexedConnection>> + Send + 'static,
    {
        Self::new(RedisConnection::with(connect))
    }
}

impl<C> RedisStore<C> {
    /// A store behind any asynchronous connection of the crate `redis` that can be cloned.
    ///
    /// It must connect again by itself, as a `ClusterConnection` or a `ConnectionManager` does, and
    /// not read from replicas. Set a response timeout below half a second on it.
    pub fn new(connection: C) -> Self {
        Self {
            connection,
            load: Script::new(LOAD),
            swap: Script::new(SWAP),
        }
    }
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> FleetStore for RedisStore<C> {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        Box::pin(async move {
            let mut connection = self.connection.clone();
            let mut call = self.load.prepare_invoke();
            let response = call.key(key).invoke_async(&mut connection).await;
            let value: Option<(Vec<u8>, i64)> = response.map_err(RedisStoreError::new)?;
            Ok(value.map(|(bytes, left)| stored(bytes, left)))
        })
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let mut connection = self.connection.clone();
            let time_to_live = milliseconds(time_to_live);
            let mut value = Zeroizing::new(Vec::with_capacity(PREFIX + new.len()));
            value.extend_from_slice(&time_to_live.to_be_bytes());
            value.extend_from_slice(new);
            let mut call = self.swap.prepare_invoke();
            let call = call
                .key(key)
                .arg(expected.map_or("none", |_| "some"))
                .arg(expected.unwrap_or_default())
                .arg(&value[..])
                .arg(time_to_live);
            let response = call.invoke_async(&mut connection).await;
            // `false` is nil in a script's response.
            let swapped: Option<bool> = response.map_err(RedisStoreError::new)?;
            Ok(swapped.unwrap_or_default())
        })
    }
}

/// A value as the scripts see it, and the milliseconds that Redis keeps it for.
fn stored(value: Vec<u8>, left: i64) -> Stored {
    let mut value = Zeroizing::new(value);
    let whole = value.first_chunk().copied().map(u64::from_be_bytes);
    let age = match (whole, u64::try_from(left)) {
        (Some(whole), Ok(left)) => Duration::from_millis(whole.saturating_sub(left)),
        // Not written by this store. As old as can be, it is replaced.
        _ => Duration::MAX,
    };
    let prefix = value.len().min(PREFIX);
    value.drain(..prefix);
    Stored::new(std::mem::take(&mut *value), age)
}

/// At least one: Redis rejects zero.
fn milliseconds(time_to_live: Duration) -> u64 {
    // Fits, because ten years do.
    time_to_live.min(LONGEST).as_millis().max(1) as u64
}

impl<C> fmt::Debug for RedisStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_what_the_time_to_live_has_lost() {
        let value = |whole: u64| [&whole.to_be_bytes()[..], b"bytes"].concat();
        for (whole, left, age) in [
            (5000, 5000, Duration::ZERO),
            (5000, 1500, Duration::from_millis(3500)),
            (5000, 0, Duration::from_secs(5)),
            (5000, 9000, Duration::ZERO),
            (5000, -1, Duration::MAX),
        ] {
            let stored = stored(value(whole), left);
            assert_eq!((stored.bytes(), stored.age()), (&b"bytes"[..], age));
        }
        assert_eq!(stored(b"short".to_vec(), 5000).age(), Duration::MAX);
        assert_eq!(stored(b"short".to_vec(), 5000).bytes(), b"");
    }

    #[test]
    fn a_time_to_live_is_what_redis_accepts() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_millis(1500)), 1500);
        assert_eq!(u128::from(milliseconds(Duration::MAX)), LONGEST.as_millis());
    }

    #[test]
    fn debug_shows_no_password() {
        let store = RedisStore::from_url("redis://user:hidden@127.0.0.1/").unwrap();
        assert!(!format!("{store:?} {:?}", store.connection).contains("hidden"));
    }
}
