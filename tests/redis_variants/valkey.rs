//! Valkey, by its URL.

use klavi_auth::RedisStore;

use crate::{
    caches::share,
    contract::keeps_its_contract,
    server::{RedisServer, is_program_missing},
};

#[tokio::test]
async fn valkey_is_a_store_by_its_url() {
    if is_program_missing("valkey-server") {
        return;
    }
    let server = RedisServer::of("valkey-server", &[]);
    let store = || RedisStore::from_url(&server.url()).unwrap();
    keeps_its_contract(&store()).await;
    share(async || store()).await;
}
