//! The client for Klavi.

use std::{path::Path, sync::Arc, time::Duration};

use axum::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use klavi_auth::BoxError;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::{certificate::CertificateFiles, options::Options};

pub(crate) type Http = Client<TimeoutConnector<HttpsConnector<HttpConnector>>, Body>;

pub(crate) fn client(options: &Options) -> Result<Http, BoxError> {
    let seconds = Duration::from_secs;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(seconds(20)));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls(options)?)
        .https_or_http();
    let https = match options.upstream_http2 {
        true => https.enable_http2().wrap_connector(tcp),
        false => https.enable_all_versions().wrap_connector(tcp),
    };
    let mut connector = TimeoutConnector::new(https);
    connector.set_connect_timeout(Some(seconds(options.connect_timeout)));
    // Of the connection. What is written counts as progress: it may be a long upload.
    connector.set_read_timeout(Some(seconds(options.upstream_timeout)));
    connector.set_write_timeout(Some(seconds(options.upstream_timeout)));
    connector.set_reset_reader_on_write(true);
    let mut client = Client::builder(TokioExecutor::new());
    client
        .pool_timer(TokioTimer::new())
        .http2_only(options.upstream_http2);
    Ok(client.build(connector))
}

fn tls(options: &Options) -> Result<ClientConfig, BoxError> {
    let authorities = match &options.ca_file {
        Some(file) => authorities(file).map_err(|error| format!("{}: {error}", file.display()))?,
        None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
    };
    if let (Some(chain), Some(key)) = (&options.client_cert, &options.client_key) {
        return Ok(CertificateFiles::open(chain, key)?.into_tls(authorities)?);
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities);
    Ok(tls.with_no_client_auth())
}

fn authorities(file: &Path) -> Result<RootCertStore, BoxError> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        authorities.add(certificate?)?;
    }
    let is_some = !authorities.is_empty();
    is_some
        .then_some(authorities)
        .ok_or_else(|| "no certificate in it".into())
}
