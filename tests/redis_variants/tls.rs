//! A server that speaks TLS, with a certificate authority of our own.

use std::fs;

use klavi_auth::{FleetStore, RedisStore};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{
    caches::share,
    contract::{KEY, keeps_its_contract},
    over_tls,
    server::{self, Folder, RedisServer, free_port},
};

/// The authority's certificate, and the server's with its key.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_server_with_tls_is_a_store() {
    if server::is_missing() {
        return;
    }
    let (authority, certificate, key) = certificates();
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("certificate"), certificate).unwrap();
    fs::write(path("key"), key).unwrap();
    let port = free_port();
    let server = RedisServer::with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path("certificate"),
        "--tls-key-file",
        &path("key"),
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{port}/");
    let store = || over_tls::store(&url, authority.as_bytes()).unwrap();
    keeps_its_contract(&store()).await;
    server.run(&["FLUSHALL"]);
    // Connected one by one, because handshakes in a debug build are slow.
    let connected = async || {
        let store = store();
        store.load(KEY).await.unwrap();
        store
    };
    share(connected).await;

    // By the URL alone it needs an authority that the system trusts, and this one it does not.
    let untrusting = RedisStore::from_url(&url).unwrap();
    let error = untrusting.load(KEY).await.unwrap_err();
    assert_eq!(error.to_string(), "redis cannot be reached");
}
