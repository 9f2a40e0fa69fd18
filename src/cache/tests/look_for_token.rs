//! What a caller over budget joins.

use std::time::Duration;

use tokio::{runtime::Handle, time::Instant};

use crate::{
    cache::{
        backoff::Backoff,
        budget::{Bucket, Budget},
        lookup::Lookup,
        policy::RefreshPolicy,
        state::{Config, State},
    },
    error::Error,
};

#[tokio::test(start_paused = true)]
async fn case_30_a_look_replaces_a_stalled_flight() {
    let flight_timeout = Duration::from_secs(10);
    let config = Config {
        policy: RefreshPolicy::default(),
        backoff: Backoff::default(),
        flight_timeout,
        attempts: 3,
    };
    let (now, runtime) = (Instant::now(), Some(Handle::current().id()));
    let mut state = State::new(config, Bucket::new(Budget::default()));
    state.next_look = Some(now);
    assert!(matches!(state.lookup(now, None, runtime), Lookup::Wait(_)));
    assert!(!state.flight_to_start().unwrap().is_look);

    let over_budget = Error::over_budget(flight_timeout);
    let mut look = |later: Duration| {
        let lookup = state.look(now + later, None, &over_budget, runtime);
        assert!(matches!(lookup, Lookup::Wait(_)));
        state.flight_to_start().map(|launch| launch.is_look)
    };
    assert_eq!(look(flight_timeout), None);
    assert_eq!(look(2 * flight_timeout), Some(true));
}
