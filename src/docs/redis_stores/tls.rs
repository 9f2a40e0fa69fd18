use klavi_auth::{BoxError, RedisStore};
use redis::{Client, TlsCertificates};

/// With a certificate authority of your own. Without one, `RedisStore::from_url` is enough.
pub(crate) fn store(url: &str, authority: &[u8]) -> Result<RedisStore, BoxError> {
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(authority.to_vec()),
    };
    let client = Client::build_with_tls(url, certificates)?;
    Ok(RedisStore::connect_with(move || {
        let client = client.clone();
        async move { client.get_multiplexed_async_connection().await }
    }))
}
