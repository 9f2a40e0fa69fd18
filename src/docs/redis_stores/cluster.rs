use std::time::Duration;

use klavi_auth::{BoxError, RedisStore};
use redis::{cluster::ClusterClientBuilder, cluster_async::ClusterConnection};

/// The connection follows the cluster by itself, and never reads from replicas unless it is told to.
pub(crate) async fn store(urls: Vec<String>) -> Result<RedisStore<ClusterConnection>, BoxError> {
    let client = ClusterClientBuilder::new(urls)
        .response_timeout(Duration::from_millis(400))
        .build()?;
    Ok(RedisStore::new(client.get_async_connection().await?))
}
