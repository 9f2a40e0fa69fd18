//! A TLS server in front of the sandbox that requires a client certificate.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use klavi_auth::{KlaviApi, Product, sandbox::Sandbox};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A self-signed certificate and its key.
pub struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Identity {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, key }
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    fn as_authority(&self) -> RootCertStore {
        let mut authorities = RootCertStore::empty();
        authorities.add(self.der()).unwrap();
        authorities
    }

    pub fn write_certificate_to(&self, files: &Files) {
        fs::write(files.chain(), self.certificate.pem()).unwrap();
    }

    pub fn write_to(&self, files: &Files) {
        self.write_certificate_to(files);
        fs::write(files.key(), self.key.serialize_pem()).unwrap();
    }
}

/// A folder with a certificate and a key, removed in the end.
pub struct Files(PathBuf);

impl Files {
    pub fn of(identity: &Identity, test: &str) -> Self {
        let name = format!("klavi-auth-mtls-{test}-{}", std::process::id());
        let files = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&files.0).unwrap();
        identity.write_to(&files);
        files
    }

    pub fn chain(&self) -> PathBuf {
        self.0.join("tls.crt")
    }

    pub fn key(&self) -> PathBuf {
        self.0.join("tls.key")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The server, and the sandbox behind it.
pub struct Front {
    pub sandbox: Sandbox,
    identity: Identity,
    address: SocketAddr,
    server: Arc<Server>,
}

struct Server {
    upstream: String,
    tls: Mutex<Arc<ServerConfig>>,
    /// The client certificate of each handshake that succeeded.
    presented: Mutex<Vec<CertificateDer<'static>>>,
    connections: Mutex<JoinSet<()>>,
    /// Every change closes the connections that are open.
    close: watch::Sender<()>,
}

impl Front {
    /// Accepts this client certificate only.
    pub async fn start(accepted: &Identity) -> Self {
        let sandbox = Sandbox::start().await.unwrap();
        let identity = Identity::new("localhost");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Server {
            upstream: sandbox.base_url().trim_start_matches("http://").to_owned(),
            tls: Mutex::new(Arc::new(tls(&identity, accepted))),
            presented: Mutex::default(),
            connections: Mutex::default(),
            close: watch::Sender::default(),
        });
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, server.clone()));
        Self {
            sandbox,
            identity,
            address,
            server,
        }
    }

    /// Accepts this client certificate only, and closes the connections that are open.
    pub async fn accept_only(&self, accepted: &Identity) {
        {
            let mut current = self.server.tls.lock().unwrap();
            let mut tls = tls(&self.identity, accepted);
            // A resumed session is accepted.
            tls.session_storage = current.session_storage.clone();
            *current = Arc::new(tls);
        }
        self.server.close.send_replace(());
        let closing = std::mem::take(&mut *self.server.connections.lock().unwrap());
        closing.join_all().await;
    }

    pub fn api(&self) -> KlaviApi {
        KlaviApi::at(&self.url(""), Product::Monitor).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    /// The authorities with which a client trusts this server.
    pub fn authorities(&self) -> RootCertStore {
        self.identity.as_authority()
    }

    /// The client certificates of the handshakes since the last call.
    pub fn presented(&self) -> Vec<CertificateDer<'static>> {
        std::mem::take(&mut *self.server.presented.lock().unwrap())
    }
}

fn tls(identity: &Identity, accepted: &Identity) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let authorities = Arc::new(accepted.as_authority());
    let clients = WebPkiClientVerifier::builder_with_provider(authorities, provider.clone());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![identity.der()], identity.key_der())
        .unwrap()
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let task = connection(tcp, server.clone(), server.close.subscribe());
        server.connections.lock().unwrap().spawn(task);
    }
}

async fn connection(tcp: TcpStream, server: Arc<Server>, mut close: watch::Receiver<()>) {
    let tls = server.tls.lock().unwrap().clone();
    let mut client = match TlsAcceptor::from(tls).accept(tcp).into_fallible().await {
        Ok(client) => client,
        // A socket that is closed with unread bytes loses the alert.
        Err((_, mut tcp)) => return to_end(&mut tcp).await,
    };
    let presented = client.get_ref().1.peer_certificates().unwrap()[0].clone();
    server
        .presented
        .lock()
        .unwrap()
        .push(presented.into_owned());
    let mut upstream = TcpStream::connect(&server.upstream).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut upstream) => {}
        _ = close.changed() => {
            let _ = client.shutdown().await;
            to_end(&mut client).await;
        }
    }
}

/// Until the client has closed.
async fn to_end(stream: &mut (impl AsyncRead + Unpin)) {
    let _ = tokio::io::copy(stream, &mut tokio::io::sink()).await;
}
