use std::time::Duration;

use klavi_auth::{BoxError, RedisStore};
use redis::{cluster::ClusterClientBuilder, cluster_async::ClusterConnection};

/// The connection follows the cluster by itself, and reads from the primaries only, by default.
pub(crate) async fn store(urls: Vec<String>) -> Result<RedisStore<ClusterConnection>, BoxError> {
    let client = ClusterClientBuilder::new(urls)
        .response_timeout(Duration::from_millis(400))
        .build()?;
    Ok(RedisStore::new(client.get_async_connection().await?))
}
