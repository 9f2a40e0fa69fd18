//! A primary and a replica with a Sentinel, which promotes the replica.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use klavi_auth::Sharing;

use crate::{
    behind_sentinel,
    caches::{Issuer, share, until},
    contract::keeps_its_contract,
    server::{self, Folder, RedisServer, free_port},
};

struct Sentinel {
    port: u16,
    child: Child,
    _folder: Folder,
}

impl Sentinel {
    fn start(primary: &RedisServer) -> Self {
        let (port, folder) = (free_port(), Folder::new());
        let path = folder.path().join("sentinel.conf");
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor tokens 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds tokens 500\n",
            folder.path().display(),
            primary.port(),
        );
        fs::write(&path, config).unwrap();
        let child = Command::new("redis-server")
            .arg(path)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            port,
            child,
            _folder: folder,
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// A field of what it knows of the primary.
    fn knows(&self, field: &str) -> Option<String> {
        let mut connection = redis::Client::open(self.url())
            .ok()?
            .get_connection()
            .ok()?;
        let mut command = redis::cmd("SENTINEL");
        let reply = command.arg("MASTER").arg("tokens").query(&mut connection);
        let fields: Vec<String> = reply.ok()?;
        let at = fields.iter().step_by(2).position(|name| name == field)?;
        fields.get(2 * at + 1).cloned()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_fails_over_in_mid_lease_and_costs_no_fetch() {
    if server::is_missing() {
        return;
    }
    let primary = RedisServer::start();
    let port = primary.port().to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let sentinel = Sentinel::start(&primary);
    until(async || sentinel.knows("num-slaves").as_deref() == Some("1")).await;
    let store = || behind_sentinel::store(vec![sentinel.url()], "tokens").unwrap();
    keeps_its_contract(&store()).await;
    share(async || store()).await;
    primary.run(&["FLUSHALL"]);

    let issuer = Issuer::with_permits(0);
    let holder = issuer.cache(store());
    let caller = tokio::spawn({
        let holder = holder.clone();
        async move { holder.get().await.map(|token| token.expose().to_owned()) }
    });
    until(async || issuer.fetches() == 1).await;
    primary.run(&["WAIT", "1", "5000"]);
    primary.kill();
    let is_promoted = async || sentinel.knows("port") == Some(replica.port().to_string());
    until(is_promoted).await;
    issuer.end_a_fetch();
    assert_eq!(caller.await.unwrap().unwrap(), "t1");
    assert_eq!(holder.snapshot().sharing(), Some(Sharing::Shared));

    // The next one finds the token at the new primary.
    let adopted = issuer.cache(store()).get().await.unwrap();
    assert_eq!((adopted.expose(), issuer.fetches()), ("t1", 1));
    assert_eq!(replica.keys().len(), 1);
}
