//! What is read from the environment, and what is found wrong when something is built.

mod support;

use std::{env, process::Command, time::Duration};

use klavi_auth::{ConfigError, Credentials, KlaviApi, KlaviAuthLayer, Product, TokenCache};
use support::{Scripted, secs};

/// Runs the test `child` of this file in a process of its own with these variables, and returns what it read.
fn read_with(variables: &[(&str, &str)]) -> (String, String) {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "child", "--nocapture"]).env("KLAVI_TEST_CHILD", "1");
    for name in ["KLAVI_ENV", "KLAVI_API_URL", "KLAVI_ACCESS_KEY", "KLAVI_SECRET_KEY"] {
        child.env_remove(name);
    }
    let output = child.envs(variables.iter().copied()).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let line = |start| output.lines().find_map(|line| line.split_once(start)).expect("a line").1.to_owned();
    (line("api: "), line("credentials: "))
}

#[test]
#[expect(clippy::print_stdout, reason = "its parent reads it")]
fn child() {
    if env::var_os("KLAVI_TEST_CHILD").is_none() {
        return;
    }
    match KlaviApi::from_env(Product::Monitor) {
        Ok(api) => println!("api: {}", api.base_url()),
        Err(error) => println!("api: {error:?}"),
    }
    match Credentials::from_env() {
        Ok(credentials) => println!("credentials: {credentials:?}"),
        Err(error) => println!("credentials: {error:?}"),
    }
}

#[test]
fn the_environment_names_the_api() {
    for (variables, api) in [
        (&[][..], "https://api-sandbox.klavi.ai"),
        (&[("KLAVI_ENV", "sandbox")], "https://api-sandbox.klavi.ai"),
        (&[("KLAVI_ENV", "production")], "https://api.klavi.ai"),
        (&[("KLAVI_ENV", "Production")], r#"InvalidEnv("KLAVI_ENV")"#),
        (&[("KLAVI_ENV", "")], r#"InvalidEnv("KLAVI_ENV")"#),
        (&[("KLAVI_ENV", "production"), ("KLAVI_API_URL", "https://gw.example/k/")], "https://gw.example/k"),
        (&[("KLAVI_API_URL", "http://gw.example")], "InsecureUrl"),
        (&[("KLAVI_API_URL", "gw.example")], "InvalidUrl"),
    ] {
        assert_eq!(read_with(variables).0, api, "{variables:?}");
    }
}

#[test]
fn the_environment_has_the_keys() {
    let (access, secret) = (("KLAVI_ACCESS_KEY", "qwert-1"), ("KLAVI_SECRET_KEY", "asdfg-2"));
    for (variables, credentials) in [
        (&[][..], r#"MissingEnv("KLAVI_ACCESS_KEY")"#),
        (&[access], r#"MissingEnv("KLAVI_SECRET_KEY")"#),
        (&[access, ("KLAVI_SECRET_KEY", "")], r#"InvalidEnv("KLAVI_SECRET_KEY")"#),
        (&[access, ("KLAVI_SECRET_KEY", "asdfg\n")], r#"InvalidCredential("secret key")"#),
        (&[access, secret], "Credentials::Keys([redacted])"),
    ] {
        assert_eq!(read_with(variables).1, credentials, "{variables:?}");
    }
}

#[test]
fn values_that_make_no_sense_are_config_errors() {
    let cache = || TokenCache::builder(Scripted::tokens());
    let error = |built: Result<TokenCache, ConfigError>| built.unwrap_err();
    assert_eq!(error(cache().flight_timeout(Duration::ZERO).build()), ConfigError::Timeout);
    assert_eq!(error(cache().flight_timeout(secs(3601)).build()), ConfigError::Timeout);
    assert_eq!(error(cache().back_off(secs(2), secs(1)).build()), ConfigError::BackOff);
    assert_eq!(error(cache().renewal_budget(5, Duration::ZERO).build()), ConfigError::Budget);

    let keys = Credentials::new("qwert-1", "asdfg-2").unwrap();
    let layer = || KlaviAuthLayer::builder(KlaviApi::sandbox(Product::Data), keys.clone());
    let inner = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>| {
        Ok::<_, klavi_auth::BoxError>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default()))
    });
    let built = layer().transport(inner).request_timeout(Duration::ZERO).build();
    assert_eq!(built.unwrap_err(), ConfigError::Timeout);
    if cfg!(feature = "reqwest") {
        assert!(layer().build().is_ok());
    } else {
        assert_eq!(layer().build().unwrap_err(), ConfigError::MissingTransport);
    }
    let layer = || KlaviAuthLayer::new(&KlaviApi::sandbox(Product::Data), cache().build().unwrap());
    for origin in ["", "files.klavi.ai", "ftp://files.klavi.ai", "https://user@files.klavi.ai"] {
        assert_eq!(layer().allow_origin(origin).unwrap_err(), ConfigError::InvalidUrl, "{origin}");
    }
    for origin in ["https://files.klavi.ai", "https://FILES.klavi.ai:443/", "http://127.0.0.1:8080"] {
        assert!(layer().allow_origin(origin).is_ok(), "{origin}");
    }
}

#[test]
fn case_59_an_added_origin_has_no_path_query_or_fragment() {
    for rest in ["/files", "/..", "//", "?a=b", "/?a=b", "#top", "/#top"] {
        let layer =
            KlaviAuthLayer::new(&KlaviApi::sandbox(Product::Data), TokenCache::new(Scripted::tokens()));
        let error = layer.allow_origin(&format!("https://files.klavi.ai{rest}")).unwrap_err();
        assert_eq!(error, ConfigError::InvalidUrl, "{rest}");
        assert!(error.to_string().contains("an added origin has no path"));
    }
}
