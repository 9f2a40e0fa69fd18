//! The two methods of the store against a real server, without a fleet.

use std::time::Duration;

use klavi_auth::{FleetStore, RedisStore};
use tokio::time::timeout;

use crate::{
    contract::{KEY, MINUTE, keeps_its_contract, load, swap},
    proxy::{Mode, Proxy},
    server::{self, RedisServer},
};

#[tokio::test]
async fn the_store_keeps_its_contract() {
    if server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    keeps_its_contract(&RedisStore::from_url(&server.url()).unwrap()).await;

    // Behind a user's own connection.
    server.run(&["FLUSHALL"]);
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    keeps_its_contract(&RedisStore::new(connection)).await;
}

#[tokio::test]
async fn a_flushed_script_cache_goes_unnoticed() {
    if server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let store = RedisStore::from_url(&server.url()).unwrap();
    assert!(swap(&store, None, b"one").await);
    server.run(&["SCRIPT", "FLUSH"]);
    assert_eq!(load(&store).await.unwrap().bytes(), b"one");
    server.run(&["SCRIPT", "FLUSH"]);
    assert!(swap(&store, Some(b"one"), b"two").await);
}

#[tokio::test]
async fn a_value_that_is_not_ours_can_be_replaced() {
    if server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let store = RedisStore::from_url(&server.url()).unwrap();
    let huge = "x".repeat(10 * 1024 * 1024);
    for foreign in ["", "x", "a text", &huge] {
        server.run(&["SET", KEY, foreign]);
        let stored = load(&store).await.unwrap();
        assert_eq!(stored.age(), Duration::MAX);
        assert!(stored.bytes().len() <= 64 * 1024 + 2);
        assert!(swap(&store, Some(stored.bytes()), b"ours").await);
        assert_eq!(load(&store).await.unwrap().bytes(), b"ours");
    }
}

#[tokio::test]
async fn every_error_says_what_is_wrong_with_redis() {
    if server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let store = RedisStore::from_url(&server.url()).unwrap();
    let errors = async |store: &RedisStore| {
        let loaded = store.load(KEY).await.map(drop);
        let swapped = store.swap(KEY, None, b"hidden", MINUTE).await.map(drop);
        [loaded, swapped].map(|result| match result {
            Ok(()) => String::new(),
            Err(error) => format!("{error}"),
        })
    };
    assert_eq!(errors(&store).await, ["", ""]);
    server.run(&["DEL", KEY]);

    server.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(
        errors(&store).await,
        ["", "redis is full, and its policy evicts nothing"]
    );
    server.run(&["CONFIG", "SET", "maxmemory", "0"]);

    server.run(&["LPUSH", KEY, "x"]);
    let wrong_type = "redis has a value of another type under this key";
    assert_eq!(errors(&store).await, [wrong_type, wrong_type]);
    server.run(&["DEL", KEY]);

    server.run(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(
        errors(&store).await,
        ["", "redis is read-only: it is a replica"]
    );
    server.run(&["REPLICAOF", "NO", "ONE"]);

    server.run(&[
        "ACL", "SETUSER", "poor", "on", ">hidden", "~*", "+get", "+script",
    ]);
    let url = server.url().replace("//", "//poor:hidden@");
    let poor = RedisStore::from_url(&url).unwrap();
    let not_permitted = "redis does not permit a command or the key to this user";
    assert_eq!(errors(&poor).await, [not_permitted, not_permitted]);
    let url = server.url().replace("//", "//poor:wrong-hidden@");
    let wrong = RedisStore::from_url(&url).unwrap();
    let rejected = "redis rejected the user name or the password";
    assert_eq!(errors(&wrong).await, [rejected, rejected]);

    server.run(&["CONFIG", "SET", "requirepass", "other"]);
    let locked = RedisStore::from_url(&server.url()).unwrap();
    let asks = "redis asks for a password";
    assert_eq!(errors(&locked).await, [asks, asks]);
    drop(server);
    let refused = "redis refused the connection";
    // The first may still find the connection closed.
    errors(&store).await;
    assert_eq!(errors(&store).await, [refused, refused]);
}

#[tokio::test]
async fn an_error_repeats_nothing_that_the_server_sent() {
    if server::is_missing() {
        return;
    }
    // Without the command, the server repeats its arguments.
    let server = RedisServer::with(&["--rename-command", "EVALSHA", ""]);
    let store = RedisStore::from_url(&server.url()).unwrap();
    let error = store.swap(KEY, None, b"hidden", MINUTE).await.unwrap_err();
    assert_eq!(error.to_string(), "redis responded with an error");
    let printed = format!("{error:?} {:?}", error.source().map(ToString::to_string));
    assert!(!printed.contains("hidden"), "{printed}");
    let raw = server.try_run(&["EVALSHA", "hash", "1", "key", "hidden"]);
    assert!(raw.unwrap_err().to_string().contains("hidden"));
}

#[tokio::test]
async fn a_connection_without_responses_is_replaced() {
    if server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = RedisStore::from_url(&proxy.url()).unwrap();
    assert!(swap(&store, None, b"one").await);
    load(&store).await.unwrap();
    assert_eq!(proxy.connections(), 1);

    // By the timeout of its caller, which drops the future.
    proxy.set(Mode::Swallow);
    let late = timeout(Duration::from_millis(100), store.load(KEY)).await;
    assert!(late.is_err());
    proxy.set(Mode::Pass);
    assert_eq!(load(&store).await.unwrap().bytes(), b"one");
    assert_eq!(proxy.connections(), 2);

    // By its own.
    proxy.set(Mode::Swallow);
    let error = store.load(KEY).await.unwrap_err();
    assert_eq!(error.to_string(), "redis did not respond in time");
    proxy.set(Mode::Pass);
    assert_eq!(load(&store).await.unwrap().bytes(), b"one");

    // Because it was closed.
    proxy.set(Mode::Cut);
    let error = store.load(KEY).await.unwrap_err();
    assert_eq!(error.to_string(), "redis closed the connection");
    proxy.set(Mode::Pass);
    assert_eq!(load(&store).await.unwrap().bytes(), b"one");
}

/// As behind a name that leads to the new primary.
#[tokio::test]
async fn a_demoted_primary_loses_its_connections() {
    if server::is_missing() {
        return;
    }
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port()).await;
    let store = RedisStore::from_url(&proxy.url()).unwrap();
    assert!(swap(&store, None, b"one").await);
    server.run(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = store.swap(KEY, Some(b"one"), b"two", MINUTE).await;
    assert!(error.unwrap_err().to_string().contains("read-only"));
    server.run(&["REPLICAOF", "NO", "ONE"]);
    assert!(swap(&store, Some(b"one"), b"two").await);
    assert_eq!(proxy.connections(), 2);
}
