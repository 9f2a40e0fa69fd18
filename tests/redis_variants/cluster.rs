//! A cluster of three primaries.

use std::{process::Command, time::Duration};

use klavi_auth::FleetStore;

use crate::{
    caches::{share, until},
    contract::keeps_its_contract,
    in_cluster,
    server::{self, RedisServer},
};

#[tokio::test]
async fn a_cluster_is_a_store() {
    if server::is_missing() {
        return;
    }
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let servers = [(); 3].map(|()| RedisServer::with(&options));
    let addresses = servers
        .each_ref()
        .map(|it| format!("127.0.0.1:{}", it.port()));
    let created = Command::new("redis-cli")
        .args(["--cluster", "create", "--cluster-yes"])
        .args(&addresses)
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
    until(async || {
        servers
            .iter()
            .all(|server| info(server).contains("cluster_state:ok"))
    })
    .await;

    let urls = || servers.iter().map(RedisServer::url).collect();
    let store = async || in_cluster::store(urls()).await.unwrap();
    keeps_its_contract(&store().await).await;
    // Keys of all three.
    let cluster = store().await;
    for number in 0..30 {
        let (key, minute) = (format!("klavi-auth:{number}"), Duration::from_secs(60));
        assert!(cluster.swap(&key, None, b"one", minute).await.unwrap());
        assert!(
            cluster
                .swap(&key, Some(b"one"), b"two", minute)
                .await
                .unwrap()
        );
        assert_eq!(cluster.load(&key).await.unwrap().unwrap().bytes(), b"two");
    }
    assert!(servers.iter().all(|server| !server.keys().is_empty()));
    share(store).await;
}

fn info(server: &RedisServer) -> String {
    redis::from_redis_value(server.run(&["CLUSTER", "INFO"])).unwrap()
}
