//! Fleets on a good day, and with members that die.

use std::{thread::sleep, time::Duration};

use klavi_auth::sandbox::{Endpoint, Sandbox};

use crate::{
    fleet::{self, Fleet, token_calls, until},
    server::{self, RedisServer},
};

const SECOND: Duration = Duration::from_secs(1);

async fn start_cold(processes: usize) {
    if server::is_missing() {
        return;
    }
    let (klavi, server) = (fleet::klavi().await, RedisServer::start());
    let mut fleet = Fleet::start(processes, &klavi, server.url());
    let outcome = fleet.get(3);
    println!("cold start of {processes}: {outcome:?}");
    assert_eq!((outcome.ok, outcome.lost()), (3 * processes as u64, 0));
    assert_eq!((klavi.counts().auth, klavi.counts().refresh), (1, 0));
    assert_eq!(klavi.counts().unauthorized, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_of_20_processes_calls_auth_once() {
    start_cold(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_of_100_processes_calls_auth_once() {
    start_cold(100).await;
}

/// In both worlds: with and without an issuer that ends the old token with each new one.
async fn revoke(processes: usize, requests: usize, kills_old: bool) {
    if server::is_missing() {
        return;
    }
    let (klavi, server) = (fleet::klavi().await, RedisServer::start());
    klavi.set_new_token_revokes_old(kills_old);
    let mut fleet = Fleet::start(processes, &klavi, server.url());
    assert_eq!(fleet.get(1).lost(), 0);
    klavi.revoke_all();
    let outcome = fleet.get(requests);
    println!("all revoked, {processes} x {requests} calls: {outcome:?}");
    assert_eq!(outcome.ok, (processes * requests) as u64);
    assert_eq!(outcome.lost(), 0);
    assert_eq!((klavi.counts().auth, klavi.counts().refresh), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_costs_100_processes_one_fetch() {
    revoke(100, 5, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_costs_one_fetch_where_a_token_ends_the_last() {
    revoke(60, 5, true).await;
}

/// 40 processes with 10 requests a second each, and three revocations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_under_load_fail_no_request() {
    if server::is_missing() {
        return;
    }
    for kills_old in [false, true] {
        let (klavi, server) = (fleet::klavi().await, RedisServer::start());
        klavi.set_new_token_revokes_old(kills_old);
        let mut fleet = Fleet::start(40, &klavi, server.url());
        fleet.start_load(SECOND / 10, 5 * SECOND);
        for _ in 0..3 {
            sleep(SECOND);
            klavi.revoke_all();
        }
        let outcome = fleet.receive();
        println!("three revocations, old ones killed: {kills_old}: {outcome:?}");
        assert_eq!(outcome.lost(), 0);
        assert_eq!(token_calls(&klavi), 4);
    }
}

/// Lets the first process fetch, and the others wait for it, while `/auth` takes this long.
async fn with_a_holder(latency: Duration, kills_old: bool) -> (Sandbox, RedisServer, Fleet) {
    let (klavi, server) = (fleet::klavi().await, RedisServer::start());
    klavi.set_new_token_revokes_old(kills_old);
    klavi.set_latency(Endpoint::Auth, latency);
    let mut fleet = Fleet::start(20, &klavi, server.url());
    fleet.processes[0].send("get 1");
    until(|| klavi.counts().auth == 1);
    fleet.processes[1..]
        .iter_mut()
        .for_each(|process| process.send("get 1"));
    sleep(SECOND / 4);
    (klavi, server, fleet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_is_killed_in_mid_fetch() {
    if server::is_missing() {
        return;
    }
    for kills_old in [false, true] {
        let (klavi, _server, mut fleet) = with_a_holder(3 * SECOND / 2, kills_old).await;
        fleet.processes.remove(0).kill();
        let outcome = fleet.receive();
        println!("holder killed: {outcome:?}");
        assert_eq!((outcome.ok, outcome.lost()), (19, 0));
        assert_eq!(klavi.counts().auth, 2);
        // The lease, a pause and the fetch of the next holder.
        assert!(outcome.slowest < 5 * SECOND, "{outcome:?}");
    }
}

/// It wakes up after another process has published. In the world where that killed its token, it
/// must not publish it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_sleeps_for_longer_than_its_lease() {
    if server::is_missing() {
        return;
    }
    for kills_old in [false, true] {
        let (klavi, _server, mut fleet) = with_a_holder(SECOND, kills_old).await;
        let mut holder = fleet.processes.remove(0);
        holder.signal("STOP");
        let outcome = fleet.receive();
        println!("holder stopped: {outcome:?}");
        assert_eq!((outcome.ok, outcome.lost()), (19, 0));
        holder.signal("CONT");
        assert_eq!(holder.receive().ok, 1);
        fleet.processes.push(holder);
        let after = fleet.get(2);
        assert_eq!((after.ok, after.lost()), (40, 0));
        assert_eq!((klavi.counts().auth, klavi.counts().refresh), (2, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_outlives_its_lease_is_not_repeated() {
    if server::is_missing() {
        return;
    }
    let (klavi, _server, mut fleet) = with_a_holder(9 * SECOND / 2, true).await;
    let outcome = fleet.receive();
    println!("fetch of 4.5 s: {outcome:?}");
    assert_eq!((outcome.ok, outcome.lost()), (20, 0));
    assert_eq!(klavi.counts().auth, 1);
}
