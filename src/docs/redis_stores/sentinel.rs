use std::sync::Arc;

use klavi_auth::{BoxError, RedisStore};
use redis::sentinel::{SentinelClient, SentinelServerType};
use tokio::sync::Mutex;

/// Asks Sentinel for the primary whenever the connection is replaced.
pub(crate) fn store(sentinels: Vec<String>, service: &str) -> Result<RedisStore, BoxError> {
    let primary = SentinelServerType::Master;
    let client = SentinelClient::build(sentinels, service, None, primary)?;
    let client = Arc::new(Mutex::new(client));
    Ok(RedisStore::connect_with(move || {
        let client = Arc::clone(&client);
        async move { client.lock().await.get_async_connection().await }
    }))
}
