//! The recipe for client certificates of the docs, run over TLS against the sandbox.
#![cfg(test)]

#[path = "../../src/docs/client_certificates/certificate.rs"]
mod certificate;
mod front;
#[path = "../../src/docs/client_certificates/hyper.rs"]
mod over_hyper;
#[path = "../../src/docs/client_certificates/reqwest.rs"]
mod over_reqwest;

use std::error::Error as StdError;

use bytes::Bytes;
use certificate::CertificateFiles;
use front::{Files, Front, Identity};
use http::{Method, Request};
use http_body_util::Full;
use klavi_auth::{BoxError, Credentials, KlaviApi, KlaviAuth, KlaviAuthLayer, Product};
use rustls::{ClientConfig, crypto::ring};
use tower::ServiceExt;

/// The recipe over either HTTP client.
enum Klavi {
    Hyper(Box<KlaviAuth<over_hyper::Https>>),
    Reqwest(KlaviAuth<reqwest::Client>),
}

impl Klavi {
    fn over_each(front: &Front, tls: impl Fn() -> ClientConfig) -> [Self; 2] {
        let (hyper, reqwest) = (
            over_hyper::https(tls()),
            over_reqwest::https(tls()).unwrap(),
        );
        let (api, credentials) = (|| front.api(), || front.sandbox.credentials());
        [
            Self::Hyper(Box::new(
                over_hyper::klavi(api(), credentials(), hyper).unwrap(),
            )),
            Self::Reqwest(over_reqwest::klavi(api(), credentials(), reqwest).unwrap()),
        ]
    }

    async fn get(&self, front: &Front) -> Result<u16, BoxError> {
        let url = front.url("/monitor/v1/echo");
        Ok(match self {
            Self::Hyper(klavi) => {
                let request = Request::get(url).body(Full::<Bytes>::default())?;
                klavi
                    .as_ref()
                    .clone()
                    .oneshot(request)
                    .await?
                    .status()
                    .as_u16()
            }
            Self::Reqwest(klavi) => {
                let request = reqwest::Request::new(Method::GET, url.parse()?);
                klavi.clone().oneshot(request).await?.status().as_u16()
            }
        })
    }
}

fn tls(front: &Front, files: &Files) -> ClientConfig {
    let certificate = CertificateFiles::open(files.chain(), files.key()).unwrap();
    certificate.into_tls(front.authorities()).unwrap()
}

fn tls_without_certificate(front: &Front) -> ClientConfig {
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(front.authorities())
        .with_no_client_auth()
}

/// An error and its causes.
fn chain(error: &(dyn StdError + 'static)) -> Vec<String> {
    let links = std::iter::successors(Some(error), |&link| link.source());
    links.map(ToString::to_string).collect()
}

#[tokio::test]
async fn without_a_certificate_the_token_call_fails_and_says_so() {
    let front = Front::start(&Identity::new("first")).await;
    let tls = || tls_without_certificate(&front);
    let builder = || KlaviAuthLayer::builder(front.api(), front.sandbox.credentials()).attempts(1);
    for layer in [
        builder()
            .transport(over_hyper::https(tls()))
            .build()
            .unwrap(),
        builder()
            .reqwest(over_reqwest::https(tls()).unwrap())
            .build()
            .unwrap(),
    ] {
        let error = layer.cache().get().await.unwrap_err();
        assert!(error.is_transport() && error.is_transient(), "{error:?}");
        let chain = chain(&error);
        assert_eq!(
            chain.last().unwrap(),
            "received fatal alert: CertificateRequired"
        );
    }
    assert_eq!(front.sandbox.counts().auth, 0);
}

#[tokio::test]
async fn with_a_certificate_token_call_and_request_succeed() {
    let first = Identity::new("first");
    let front = Front::start(&first).await;
    let files = Files::of(&first, "succeed");
    for (n, klavi) in (1..).zip(Klavi::over_each(&front, || tls(&front, &files))) {
        assert_eq!(klavi.get(&front).await.unwrap(), 200);
        let counts = front.sandbox.counts();
        assert_eq!(
            (counts.auth, counts.resource, counts.unauthorized),
            (n, n, 0)
        );
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_used_without_a_restart() {
    let (first, second) = (Identity::new("first"), Identity::new("second"));
    let front = Front::start(&first).await;
    let files = Files::of(&first, "replaced");
    let clients = Klavi::over_each(&front, || tls(&front, &files));
    for klavi in &clients {
        assert_eq!(klavi.get(&front).await.unwrap(), 200);
        assert!(
            front
                .presented()
                .iter()
                .all(|presented| *presented == first.der())
        );
    }
    second.write_to(&files);
    front.accept_only(&second).await;
    for klavi in &clients {
        assert_eq!(klavi.get(&front).await.unwrap(), 200);
        assert_eq!(front.presented(), [second.der()]);
    }
    assert_eq!(front.sandbox.counts().auth, 2);
}

#[tokio::test]
async fn while_half_of_it_is_replaced_the_last_certificate_is_used() {
    let (first, second) = (Identity::new("first"), Identity::new("second"));
    let front = Front::start(&first).await;
    let files = Files::of(&first, "half");
    let clients = Klavi::over_each(&front, || tls(&front, &files));
    second.write_certificate_to(&files);
    for klavi in &clients {
        assert_eq!(klavi.get(&front).await.unwrap(), 200);
    }
    // The key follows.
    second.write_to(&files);
    front.accept_only(&second).await;
    for klavi in &clients {
        assert_eq!(klavi.get(&front).await.unwrap(), 200);
    }
}

#[test]
fn without_a_crypto_provider_the_default_transport_says_so() {
    let api = KlaviApi::production(Product::Monitor);
    let credentials = Credentials::new("access", "secret").unwrap();
    let error = KlaviAuthLayer::builder(api, credentials)
        .build()
        .unwrap_err();
    let [problem] = chain(&error).try_into().unwrap();
    for part in [
        "install a crypto provider before building a Client",
        "is a TLS backend and a crypto provider set up?",
    ] {
        assert!(problem.contains(part), "{problem}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_at_start_up() {
    let (first, second) = (Identity::new("first"), Identity::new("second"));
    let files = Files::of(&first, "unreadable");
    let problem = |chain: std::path::PathBuf, key| {
        CertificateFiles::open(chain, key).unwrap_err().to_string()
    };
    let missing = files.key().with_extension("pem");
    assert!(problem(files.chain(), missing.clone()).contains("tls.pem: "));
    assert!(problem(missing, files.key()).contains("tls.pem: "));
    second.write_certificate_to(&files);
    let mixed = problem(files.chain(), files.key());
    assert!(
        mixed.contains("tls.crt and ") && mixed.contains("tls.key: "),
        "{mixed}"
    );
}
