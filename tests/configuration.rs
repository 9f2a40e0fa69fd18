//! What is read from the environment, and which errors `build` reports.

mod support;

use std::{env, process::Command, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use klavi_auth::{
    Backoff, BoxError, Budget, ConfigError, Credentials, KlaviApi, KlaviAuthLayer,
    KlaviAuthLayerBuilder, Product, RefreshPolicy,
};
use support::{api::Api, secs};
use tower::{Layer, Service, ServiceExt};

/// What the test `child` of this file reads and prints in its own process, with these
/// variables.
#[derive(Debug, Default)]
struct Read {
    api: String,
    credentials: String,
    events: Vec<String>,
}

fn read_with(variables: &[(&str, &str)]) -> Read {
    let mut child = Command::new(env::current_exe().unwrap());
    child
        .args(["--exact", "child", "--nocapture"])
        .env("KLAVI_TEST_CHILD", "1");
    for name in [
        "KLAVI_ENV",
        "KLAVI_API_URL",
        "KLAVI_ACCESS_KEY",
        "KLAVI_SECRET_KEY",
    ] {
        child.env_remove(name);
    }
    let output = child.envs(variables.iter().copied()).output().unwrap();
    let mut read = Read::default();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        if let Some((_, api)) = line.split_once("api: ") {
            read.api = api.to_owned();
        } else if let Some((_, credentials)) = line.split_once("credentials: ") {
            read.credentials = credentials.to_owned();
        } else if line.contains("klavi_auth") {
            read.events.push(line.trim().to_owned());
        }
    }
    read
}

#[test]
#[expect(clippy::print_stdout, reason = "its parent reads it")]
fn child() {
    if env::var_os("KLAVI_TEST_CHILD").is_none() {
        return;
    }
    tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .init();
    match KlaviApi::from_env(Product::Monitor) {
        Ok(api) => println!("api: {}", api.base_url()),
        Err(error) => println!("api: {error}"),
    }
    match Credentials::from_env() {
        Ok(credentials) => println!("credentials: {credentials:?}"),
        Err(error) => println!("credentials: {error}"),
    }
}

#[test]
fn the_environment_names_the_api() {
    for (variables, api) in [
        (&[][..], "https://api-sandbox.klavi.ai"),
        (&[("KLAVI_ENV", "sandbox")], "https://api-sandbox.klavi.ai"),
        (&[("KLAVI_ENV", "production")], "https://api.klavi.ai"),
        (&[("KLAVI_ENV", "testing")], "https://api-testing.klavi.ai"),
        (
            &[("KLAVI_ENV", "production-mtls")],
            "https://mtls-api.klavi.ai",
        ),
        (
            &[
                ("KLAVI_ENV", "production"),
                ("KLAVI_API_URL", "https://gw.example/k/"),
            ],
            "https://gw.example/k",
        ),
    ] {
        assert_eq!(read_with(variables).api, api, "{variables:?}");
    }
}

#[test]
fn one_event_says_which_base_url_the_environment_named() {
    for (variables, base_url, from) in [
        (&[][..], "https://api-sandbox.klavi.ai", "default"),
        (
            &[("KLAVI_ENV", "testing")],
            "https://api-testing.klavi.ai",
            "KLAVI_ENV",
        ),
        (
            &[
                ("KLAVI_ENV", "testing"),
                ("KLAVI_API_URL", "http://127.1:80"),
            ],
            "http://127.0.0.1",
            "KLAVI_API_URL",
        ),
    ] {
        let event = format!(
            r#"INFO klavi_auth: Klavi's base URL taken from the environment base_url="{base_url}" from="{from}""#
        );
        assert_eq!(read_with(variables).events, [event], "{variables:?}");
    }
    assert!(read_with(&[("KLAVI_ENV", "?")]).events.is_empty());
}

#[test]
fn a_wrong_variable_is_named_with_its_mistake() {
    let environments = "environment variable KLAVI_ENV: no such environment: write `sandbox`, `production`, `testing`, \
                        `sandbox-mtls`, `production-mtls` or `testing-mtls`";
    for (variable, error) in [
        (("KLAVI_ENV", "Production"), environments),
        (
            ("KLAVI_ENV", ""),
            "environment variable KLAVI_ENV: it is empty",
        ),
        (
            ("KLAVI_API_URL", "api.klavi.ai"),
            "environment variable KLAVI_API_URL: base URL `api.klavi.ai` has no scheme: write `https://api.klavi.ai`",
        ),
        (
            ("KLAVI_API_URL", "http://gw.example"),
            "environment variable KLAVI_API_URL: base URL `http://gw.example` would carry secrets in the clear: write \
             `https://gw.example`, or use `KlaviApi::at_insecure` if something else encrypts the connection",
        ),
    ] {
        assert_eq!(read_with(&[variable]).api, error);
    }
}

#[test]
fn the_environment_has_the_keys() {
    let (access, secret) = (
        ("KLAVI_ACCESS_KEY", "qwert-1"),
        ("KLAVI_SECRET_KEY", "asdfg-2"),
    );
    for (variables, credentials) in [
        (&[][..], "environment variable KLAVI_ACCESS_KEY is not set"),
        (
            &[access],
            "environment variable KLAVI_SECRET_KEY is not set",
        ),
        (
            &[access, ("KLAVI_SECRET_KEY", "")],
            "environment variable KLAVI_SECRET_KEY: it is empty",
        ),
        (
            &[access, ("KLAVI_SECRET_KEY", "asdfg\n")],
            "environment variable KLAVI_SECRET_KEY: the secret key ends with a line break: trim it",
        ),
        (&[access, secret], "Credentials::Keys(***)"),
    ] {
        assert_eq!(
            read_with(variables).credentials,
            credentials,
            "{variables:?}"
        );
    }
}

fn inner()
-> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(async |_| Ok(Response::default()))
}

fn builder() -> KlaviAuthLayerBuilder {
    let keys = Credentials::new("qwert-1", "asdfg-2").unwrap();
    KlaviAuthLayer::builder(KlaviApi::sandbox(Product::Data), keys)
}

#[test]
fn the_layers_builder_rejects_values_that_make_no_sense() {
    let error = |builder: KlaviAuthLayerBuilder| builder.transport(inner()).build().unwrap_err();
    let zero = Duration::ZERO;
    assert_eq!(
        error(builder().token_call_timeout(zero)),
        ConfigError::Timeout("token_call_timeout")
    );
    assert_eq!(
        error(builder().flight_timeout(secs(3601))),
        ConfigError::Timeout("flight_timeout")
    );
    assert_eq!(error(builder().attempts(0)), ConfigError::Attempts);
    assert_eq!(
        error(builder().backoff(Backoff::default().first(secs(60)))),
        ConfigError::Backoff
    );
    assert_eq!(
        error(builder().budget(Budget::default().full_refill(zero))),
        ConfigError::Budget
    );
    let policy = RefreshPolicy::default;
    assert_eq!(
        error(builder().refresh_policy(policy().refresh_after(1.5))),
        ConfigError::RefreshAfter
    );
    assert_eq!(
        error(builder().refresh_policy(policy().jitter(0.8))),
        ConfigError::Jitter
    );
    assert_eq!(
        error(builder().refresh_policy(policy().expiry_margin(secs(226)))),
        ConfigError::ExpiryMargin
    );
    let first_of_two = error(
        builder()
            .allow_origin("files.klavi.ai")
            .allow_origin("")
            .attempts(0),
    );
    assert_eq!(
        first_of_two.to_string(),
        "added origin `files.klavi.ai` has no scheme: write `https://files.klavi.ai`"
    );
}

#[test]
fn a_layer_without_a_transport_needs_the_feature_reqwest() {
    if cfg!(feature = "reqwest") {
        assert!(builder().build().is_ok());
    } else {
        assert_eq!(
            builder().build().unwrap_err(),
            ConfigError::MissingTransport
        );
    }
}

#[test]
fn a_transport_that_cannot_be_built_says_why_and_what_to_do() {
    let error = |cause: &'static str| ConfigError::Transport(cause.into());
    let cause = "no process-level CryptoProvider available";
    assert_eq!(
        error(cause).to_string(),
        format!(
            "the default reqwest transport could not be built ({cause}): is a TLS backend and a \
             crypto provider set up?"
        )
    );
    assert_eq!(error(cause), error(cause));
    assert_ne!(error(cause), error("another"));
}

#[test]
fn an_added_origin_is_an_absolute_url_of_an_origin() {
    let layer = || builder().transport(inner()).build().unwrap();
    for origin in [
        "",
        "files.klavi.ai",
        "ftp://files.klavi.ai",
        "https://user@files.klavi.ai",
    ] {
        let error = layer().allow_origin(origin).unwrap_err();
        assert!(matches!(error, ConfigError::InvalidUrl(_)), "{origin}");
    }
    for origin in [
        "https://files.klavi.ai",
        "https://FILES.klavi.ai:443/",
        "http://127.0.0.1:8080",
    ] {
        assert!(layer().allow_origin(origin).is_ok(), "{origin}");
    }
}

#[test]
fn case_59_an_added_origin_has_no_path_query_or_fragment() {
    for (rest, what) in [
        ("/files", "path"),
        ("/..", "path"),
        ("//", "path"),
        ("?a=b", "query"),
        ("/?a=b", "query"),
        ("#top", "fragment"),
        ("/#top", "fragment"),
    ] {
        let layer = builder().transport(inner()).build().unwrap();
        let error = layer
            .allow_origin(&format!("https://files.klavi.ai{rest}"))
            .unwrap_err();
        assert!(matches!(error, ConfigError::InvalidUrl(_)), "{rest}");
        assert!(
            error
                .to_string()
                .contains(&format!("has a {what}: leave it out")),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_layer_does_what_its_builder_was_configured_to() {
    let api = Api::accepting(|_| false);
    let auth = tower::service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(r#"{"accessToken":"t"}"#)))
    });
    let layer = builder()
        .transport(auth)
        .allow_origin("https://files.klavi.ai")
        .overwrite_authorization(true)
        .rejected_when(|status, _| status == 419)
        .name("all")
        .build()
        .unwrap()
        .send_once();
    let call = async |uri: &str| {
        let request = Request::get(uri)
            .header("authorization", "Bearer mine")
            .body(Full::default())
            .unwrap();
        layer
            .layer(api.clone())
            .oneshot(request)
            .await
            .unwrap()
            .status()
    };
    for uri in ["https://files.klavi.ai/x", "/data/x"] {
        assert_eq!(
            call(uri).await,
            401,
            "which is none that says the token was rejected"
        );
    }
    assert_eq!(api.bearers(), ["Bearer t", "Bearer t"]);
    assert!(layer.cache().snapshot().is_ready());
}
