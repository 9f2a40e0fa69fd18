//! Tokens with short lives. The longest test starts first, by its name.

use std::time::Duration;

use crate::{
    fleet::{self, Fleet},
    server::{self, RedisServer},
    worker::Setup,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_1500_ms_are_fetched_once_per_lifetime() {
    if server::is_missing() {
        return;
    }
    let (klavi, server) = (fleet::klavi().await, RedisServer::start());
    let mut fleet = Fleet::with(
        10,
        &Setup {
            klavi: klavi.base_url().to_owned(),
            redis: Some(server.url()),
            lifetime: Some(3 * SECOND / 2),
            ..Setup::default()
        },
    );
    fleet.start_load(SECOND / 10, 30 * SECOND);
    let outcome = fleet.receive();
    let calls = klavi.counts().auth;
    println!("tokens of 1.5 s for 30 s: {calls} calls, {outcome:?}");
    assert_eq!(outcome.lost(), 0);
    // A refresh is due at 65 to 75 % of the lifetime, so there are at most 30 s / 975 ms of them.
    // Where each process fetched for itself there would be ten times as many.
    assert!((20..=31).contains(&calls), "{calls}");
}
