//! The settings: flags, or environment variables.

use std::{fs::File, net::SocketAddr, path::PathBuf};

use clap::Parser;
use klavi_auth::{BoxError, Credentials, KlaviApi, Product};

const KLAVI: &str = "\
Which Klavi: KLAVI_API_URL, or else KLAVI_ENV (sandbox, production or testing), or else the sandbox.
Keys: KLAVI_ACCESS_KEY and KLAVI_SECRET_KEY, or files: see --keys-dir.
Log: RUST_LOG, for example klavi_auth=debug.";

/// Adds Klavi's access token to the requests of programs in any language.
#[derive(Clone, Debug, Parser)]
#[rustfmt::skip]
#[command(name = "klavi-gateway", version, after_help = KLAVI)]
pub struct Options {
    /// The address to listen on. Every program that can connect can use the keys
    #[arg(long, env = "KLAVI_GATEWAY_BIND", default_value = "127.0.0.1:8484")]
    pub bind: SocketAddr,

    /// One more address, for /livez, /readyz and /metrics only
    #[arg(long, env = "KLAVI_GATEWAY_ADMIN_BIND")]
    pub admin_bind: Option<SocketAddr>,

    /// Names by which callers reach the gateway, besides loopback's. Separated by commas
    #[arg(long, env = "KLAVI_GATEWAY_ALLOW_HOST", value_delimiter = ',')]
    pub allow_host: Vec<String>,

    /// The products that get a token, such as monitor,payment/customer
    #[arg(long, env = "KLAVI_PRODUCT", value_delimiter = ',', default_value = "monitor")]
    pub product: Vec<Product>,

    /// A folder with the files access-key and secret-key. A product with keys of its own has them
    /// in a folder of its own below, such as payment/management. Read again for every /auth
    #[arg(long, env = "KLAVI_GATEWAY_KEYS_DIR")]
    pub keys_dir: Option<PathBuf>,

    /// The authorities to trust instead of the public ones, in a PEM file
    #[arg(long, env = "KLAVI_GATEWAY_CA_FILE")]
    pub ca_file: Option<PathBuf>,

    /// The client certificate and its chain, in a PEM file. Read again for every connection
    #[arg(long, env = "KLAVI_GATEWAY_CLIENT_CERT", requires = "client_key")]
    pub client_cert: Option<PathBuf>,

    /// The key of the client certificate, in a PEM file
    #[arg(long, env = "KLAVI_GATEWAY_CLIENT_KEY", requires = "client_cert")]
    pub client_key: Option<PathBuf>,

    /// HTTP/2 to Klavi without asking. Else the TLS handshake decides
    #[arg(long, env = "KLAVI_GATEWAY_UPSTREAM_HTTP2")]
    pub upstream_http2: bool,

    /// Seconds to connect to Klavi, the TLS handshake included
    #[arg(long, env = "KLAVI_GATEWAY_CONNECT_TIMEOUT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub connect_timeout: u64,

    /// Seconds without a byte to or from Klavi while a response is awaited, then 504
    #[arg(long, env = "KLAVI_GATEWAY_UPSTREAM_TIMEOUT", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub upstream_timeout: u64,

    /// Seconds in which a connection must bring the head of its next request
    #[arg(long, env = "KLAVI_GATEWAY_HEAD_TIMEOUT", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub head_timeout: u64,

    /// Seconds in which a caller must send or take more of a body
    #[arg(long, env = "KLAVI_GATEWAY_IDLE_TIMEOUT", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub idle_timeout: u64,

    /// Seconds to read the rest of an upload whose response is complete
    #[arg(long, env = "KLAVI_GATEWAY_DRAIN_TIMEOUT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub drain_timeout: u64,

    /// Seconds for open requests at shutdown
    #[arg(long, env = "KLAVI_GATEWAY_GRACE", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub grace: u64,

    /// The largest body of a request, in bytes, then 413
    #[arg(long, env = "KLAVI_GATEWAY_MAX_BODY", default_value_t = 64 * 1024 * 1024)]
    pub max_body: usize,

    /// The largest head of a request, in bytes, then 431
    #[arg(long, env = "KLAVI_GATEWAY_MAX_HEAD", default_value_t = 64 * 1024, value_parser = clap::value_parser!(u32).range(8192..))]
    pub max_head: u32,

    /// The most connections of callers at once. Others wait to be accepted
    #[arg(long, env = "KLAVI_GATEWAY_MAX_CONNECTIONS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub max_connections: u32,

    /// Add a Via header to requests and responses
    #[arg(long, env = "KLAVI_GATEWAY_VIA")]
    pub via: bool,

    /// Add X-Forwarded-For, -Host and -Proto to requests
    #[arg(long, env = "KLAVI_GATEWAY_X_FORWARDED")]
    pub x_forwarded: bool,
}

impl Options {
    /// The products with their keys, from the environment and the files.
    ///
    /// # Errors
    ///
    /// Names the variable or the file with the invalid value.
    pub fn products(&self) -> Result<Vec<(KlaviApi, Credentials)>, BoxError> {
        let with_keys = |product: &Product| {
            let keys = self.keys(product)?;
            Ok((KlaviApi::from_env(product.clone())?, keys))
        };
        self.product.iter().map(with_keys).collect()
    }

    fn keys(&self, product: &Product) -> Result<Credentials, BoxError> {
        const NAMES: [&str; 2] = ["access-key", "secret-key"];
        let Some(shared) = &self.keys_dir else {
            return Ok(Credentials::from_env()?);
        };
        let own = shared.join(product.as_str());
        let has_own = NAMES.iter().any(|name| own.join(name).exists());
        let folder = if has_own { &own } else { shared };
        let [access, secret] = NAMES.map(|name| folder.join(name));
        for file in [&access, &secret] {
            File::open(file)
                .map_err(|error| format!("cannot open the key file {}: {error}", file.display()))?;
        }
        Ok(Credentials::from_files(access, secret))
    }
}
