//! TLS to Klavi: own authorities, client certificates, and HTTP/2.

use std::sync::Arc;

use http::Version;
use klavi_auth::{KlaviApi, Product, sandbox::Sandbox};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer,
    server::WebPkiClientVerifier,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    products::Folder,
    support::{Front, told},
};

/// A certificate that is its own authority.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Identity {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, key }
    }

    fn as_authority(&self) -> RootCertStore {
        let mut authorities = RootCertStore::empty();
        authorities.add(self.certificate.der().clone()).unwrap();
        authorities
    }
}

/// A server for `localhost` in front of the sandbox that wants a client certificate.
async fn serve(
    sandbox: &Sandbox,
    server: &Identity,
    client: &Identity,
    protocols: &[&str],
) -> String {
    let provider = Arc::new(ring::default_provider());
    let authorities = Arc::new(client.as_authority());
    let clients = WebPkiClientVerifier::builder_with_provider(authorities, provider.clone());
    let key = PrivateKeyDer::try_from(server.key.serialize_der()).unwrap();
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![server.certificate.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let (tls, listener) = (
        TlsAcceptor::from(Arc::new(tls)),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let upstream = sandbox.base_url().trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, upstream) = (tls.clone(), upstream.clone());
            tokio::spawn(async move {
                let Ok(mut client) = tls.accept(tcp).await else {
                    return;
                };
                let mut upstream = TcpStream::connect(upstream).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut upstream).await;
            });
        }
    });
    url
}

async fn status(sandbox: &Sandbox, url: &str, args: &[&str]) -> u16 {
    let api = KlaviApi::at(url, Product::Monitor).unwrap();
    let front = Front::start(vec![(api, sandbox.credentials())], args).await;
    let response = front.get("/monitor/v1/echo").await;
    if response.status() != 200 {
        told(&response);
    }
    response.status().as_u16()
}

#[tokio::test]
async fn own_authorities_and_a_client_certificate_are_used() {
    let (server, client) = (Identity::new(), Identity::new());
    let folder = Folder::new("tls");
    let ca = folder.write("ca.pem", &server.certificate.pem());
    let chain = folder.write("chain.pem", &client.certificate.pem());
    let key = folder.write("key.pem", &client.key.serialize_pem());
    let own = ["--ca-file", &ca];
    let certificate = ["--client-cert", &chain, "--client-key", &key];
    for (protocols, args, version) in [
        (&["h2", "http/1.1"][..], &[][..], Version::HTTP_2),
        (&["http/1.1"], &[], Version::HTTP_11),
        (&["h2"], &["--upstream-http2"], Version::HTTP_2),
    ] {
        let sandbox = Sandbox::start().await.unwrap();
        let url = serve(&sandbox, &server, &client, protocols).await;
        let args = [&own[..], &certificate, args].concat();
        assert_eq!(status(&sandbox, &url, &args).await, 200, "{protocols:?}");
        let versions: Vec<_> = sandbox.log().iter().map(|entry| entry.version()).collect();
        assert_eq!(versions, [version; 2], "{protocols:?}");
        // Without one of the two, no request arrives.
        assert_eq!(status(&sandbox, &url, &own).await, 503);
        assert_eq!(status(&sandbox, &url, &certificate).await, 503);
        assert_eq!(sandbox.log().len(), 2);
    }
}

#[tokio::test]
async fn http_2_without_tls_is_used_if_asked_for() {
    let sandbox = Sandbox::start().await.unwrap();
    let url = sandbox.base_url().to_owned();
    assert_eq!(status(&sandbox, &url, &["--upstream-http2"]).await, 200);
    let versions: Vec<_> = sandbox.log().iter().map(|entry| entry.version()).collect();
    assert_eq!(versions, [Version::HTTP_2; 2]);
}
