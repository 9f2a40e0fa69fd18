use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use klavi_auth::BoxError;
use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// A client certificate in two PEM files, read again for every TLS handshake.
#[derive(Debug)]
pub struct CertificateFiles {
    chain: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    /// The last pair that matched.
    current: Mutex<Arc<CertifiedKey>>,
}

impl CertificateFiles {
    /// Reads the files once, to find a wrong path at start-up.
    pub fn open(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, BoxError> {
        let (chain, key) = (chain.into(), key.into());
        let provider = Arc::new(ring::default_provider());
        let current = Mutex::new(Arc::new(read(&chain, &key, &provider)?));
        Ok(Self {
            chain,
            key,
            provider,
            current,
        })
    }

    /// TLS settings with this certificate, for servers with a certificate of these authorities.
    pub fn into_tls(self, authorities: RootCertStore) -> Result<ClientConfig, rustls::Error> {
        let mut tls = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities)
            .with_client_cert_resolver(Arc::new(self));
        // A resumed session would have the identity of the old certificate.
        tls.resumption = Resumption::disabled();
        Ok(tls)
    }
}

impl ResolvesClientCert for CertificateFiles {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Two small files: less work than the handshake itself.
        let read = read(&self.chain, &self.key, &self.provider);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(pair) => *current = Arc::new(pair),
            // Only one of the two files is replaced yet, or a file is missing.
            Err(error) => tracing::warn!("the last client certificate stays in use: {error}"),
        }
        Some(current.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Fails if the key does not match the certificate.
fn read(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, BoxError> {
    let in_file = |path: &Path, error| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
    let certificates = certificates.map_err(|error| in_file(chain, error))?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, error))?;
    let pair = CertifiedKey::from_der(certificates, private_key, provider);
    pair.map_err(|error| format!("{} and {}: {error}", chain.display(), key.display()).into())
}
