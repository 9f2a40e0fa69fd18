//! The trait of the store that a fleet shares: two methods.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use secrecy::zeroize::Zeroizing;

use crate::error::BoxError;

/// The future that the methods of [`FleetStore`] return.
// Boxed, because the fleet keeps its store as a trait object, so that `Fleet` has no parameter.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// A store that the processes of a fleet share: it loads and swaps one value per key.
///
/// Implement it for a database of your own. Two properties are required:
///
/// * [`swap`](Self::swap) compares and writes in one atomic step, and a `load` that starts after a
///   `swap` has returned `true` sees the new value. So read from the primary, never from a replica.
/// * The age of a value and its time to live are measured by the store's clock, because the clocks
///   of the processes may differ.
///
/// A value is at most 64 KiB long. A key has at most 100 characters: letters, digits, `:` and `-`.
/// The key shows nothing secret. Neither does the value if the fleet has a sealing key.
///
/// For example, a store in the memory of one process ([the page on
/// stores](crate::docs::fleet_stores) has one for PostgreSQL):
///
/// ```
/// # use std::{collections::HashMap, sync::Mutex, time::Duration};
/// use tokio::time::Instant;
/// use klavi_auth::{FleetStore, StoreFuture, Stored};
///
/// #[derive(Default)]
/// struct Memory(Mutex<HashMap<String, (Vec<u8>, Instant)>>);
///
/// impl FleetStore for Memory {
///     fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
///         let values = self.0.lock().unwrap();
///         let value = values.get(key).map(|(value, at)| Stored::new(value.clone(), at.elapsed()));
///         Box::pin(async move { Ok(value) })
///     }
///
///     // A real store forgets the value after `_time_to_live`.
///     fn swap<'a>(
///         &'a self,
///         key: &'a str,
///         expected: Option<&'a [u8]>,
///         new: &'a [u8],
///         _time_to_live: Duration,
///     ) -> StoreFuture<'a, bool> {
///         let mut values = self.0.lock().unwrap();
///         let is_expected = values.get(key).map(|(value, _)| &value[..]) == expected;
///         if is_expected {
///             values.insert(key.to_owned(), (new.to_vec(), Instant::now()));
///         }
///         Box::pin(async move { Ok(is_expected) })
///     }
/// }
/// # let _ = klavi_auth::Fleet::new(Memory::default());
/// ```
///
/// # Cancel safety
///
/// The fleet drops a future after its own timeout and when the fetch is dropped. A `swap` whose
/// future is dropped may have been applied or not.
pub trait FleetStore: Send + Sync + 'static {
    /// Loads the value of `key`. `None` if it has none, or if its time to live is over.
    ///
    /// # Errors
    ///
    /// The store cannot be reached or does not respond as it should. Events show the error if the
    /// fleet has a sealing key: without one it could repeat the token.
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>>;

    /// Sets the value of `key` to `new` if it is `expected`, byte for byte, and lets it live for
    /// `time_to_live`. `None` expects that the key has no value. Returns whether the value was
    /// `expected`.
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load). After an error the swap may have been applied or not: the fleet
    /// loads the value again.
    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool>;
}

impl<S: FleetStore + ?Sized> FleetStore for Arc<S> {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        (**self).load(key)
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool> {
        (**self).swap(key, expected, new, time_to_live)
    }
}

impl<S: FleetStore + ?Sized> FleetStore for Box<S> {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        (**self).load(key)
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool> {
        (**self).swap(key, expected, new, time_to_live)
    }
}

/// A value of a [`FleetStore`] and its age.
///
/// The bytes are wiped when it is dropped. `Debug` shows their number only.
#[derive(Clone)]
pub struct Stored {
    bytes: Zeroizing<Vec<u8>>,
    age: Duration,
}

impl Stored {
    /// A value that was written `age` ago, by the store's clock.
    pub fn new(bytes: Vec<u8>, age: Duration) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self { bytes, age }
    }

    /// The value, as it was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The time since it was written, by the store's clock.
    pub fn age(&self) -> Duration {
        self.age
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("length", &self.bytes.len())
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}
