//! The compile errors of wrong calls, and that the fixes they name compile.
//!
//! Each program is a few lines, checked by rustc against the libraries that this test was built
//! with.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;

const AXUM_OVER_HYPER: Call = Call {
    http: "hyper_util::client::legacy::Client<
        hyper_util::client::legacy::connect::HttpConnector, axum::body::Body>",
    call: "klavi.send(http::Request::new(axum::body::Body::empty()))",
};

/// A call of the service around `http`.
struct Call {
    http: &'static str,
    call: &'static str,
}

impl Call {
    /// The errors for a layer that is changed by `fix`. None: it compiles.
    fn errors(&self, fix: &str) -> String {
        let Self { http, call } = self;
        check(&format!(
            "pub async fn demo(auth: klavi_auth::KlaviAuthLayer, inner: {http}) {{
                let klavi = tower::Layer::layer(&auth{fix}, inner);
                drop({call}.await);
            }}"
        ))
    }

    /// Without a fix there is one error, with the names of both fixes; with either
    /// fix there is none.
    #[track_caller]
    fn needs(&self, replay_with: &str) {
        let errors = self.errors("");
        for title in titles(&errors) {
            assert_eq!(title, CANNOT_BACK_UP, "{errors}");
        }
        says_how_to_fix(&errors);
        for fix in [replay_with, ".send_once()"] {
            assert_eq!(self.errors(fix), "", "{fix}");
        }
    }
}

const CANNOT_BACK_UP: &str = "error[E0277]: `CloneBody` cannot back up this request for a resend";

#[track_caller]
fn says_how_to_fix(errors: &str) {
    for line in [
        "^ a body that is not `Clone` must be backed up in another way",
        "= note: record it while it is sent: `layer.replay_with(axum::body::Body::new)`, with this body's own constructor",
        "= note: or do without the resend: `layer.send_once()`",
    ] {
        assert!(errors.contains(line), "{line}\n{errors}");
    }
}

/// The first lines of the errors; there is one at least.
#[track_caller]
fn titles(errors: &str) -> Vec<&str> {
    let titles: Vec<_> = errors
        .lines()
        .filter(|line| line.starts_with("error["))
        .collect();
    assert!(!titles.is_empty(), "it compiles, or {errors}");
    titles
}

#[test]
fn axums_body_over_hyper_needs_a_way_to_back_it_up() {
    AXUM_OVER_HYPER.needs(".replay_with(axum::body::Body::new)");
}

#[test]
fn axums_body_over_a_router_needs_a_way_to_back_it_up() {
    let call = Call {
        http: "axum::Router",
        ..AXUM_OVER_HYPER
    };
    call.needs(".replay_with(axum::body::Body::new)");
}

#[test]
fn tonics_body_over_a_channel_needs_a_way_to_back_it_up() {
    let call = Call {
        http: "tonic::transport::Channel",
        call: "klavi.send(http::Request::new(tonic::body::Body::empty()))",
    };
    call.needs(".replay_with(tonic::body::Body::new)");
}

#[test]
fn a_generated_tonic_client_begins_with_the_same_error() {
    let call = Call {
        http: "tonic::transport::Channel",
        call: "tonic_health::pb::health_client::HealthClient::new(klavi)
            .check(tonic_health::pb::HealthCheckRequest::default())",
    };
    let errors = call.errors("");
    assert_eq!(titles(&errors)[0], CANNOT_BACK_UP, "{errors}");
    says_how_to_fix(&errors);
    assert_eq!(call.errors(".replay_with(tonic::body::Body::new)"), "");
}

#[test]
fn a_call_with_an_extension_says_the_same() {
    let call = Call {
        call: "klavi.send_with(http::Request::new(axum::body::Body::empty()), klavi_auth::SkipAuth)",
        ..AXUM_OVER_HYPER
    };
    call.needs(".replay_with(axum::body::Body::new)");
}

#[test]
fn an_argument_that_is_no_request_is_named() {
    let call = Call {
        call: r#"klavi.send("https://api.klavi.ai")"#,
        ..AXUM_OVER_HYPER
    };
    let errors = call.errors(".send_once()");
    assert_eq!(
        titles(&errors)[0],
        "error[E0277]: `&str` is not a request that can be sent"
    );
    assert!(errors.contains("= note: an `http::Request` is"), "{errors}");
}

#[cfg(feature = "reqwest")]
#[test]
fn another_clients_body_cannot_back_up_a_reqwest_request() {
    let call = Call {
        http: "reqwest::Client",
        call: r#"klavi.send(reqwest::Client::new().get("https://api.klavi.ai"))"#,
    };
    let errors = call.errors(".replay_with(axum::body::Body::new)");
    for title in titles(&errors) {
        assert_eq!(
            title,
            "error[E0277]: `RecordBody<axum::body::Body>` cannot back up this request for a resend"
        );
    }
    says_how_to_fix(&errors);
    for fix in ["", ".replay_with(reqwest::Body::wrap)", ".send_once()"] {
        assert_eq!(call.errors(fix), "", "{fix}");
    }
}

#[test]
fn an_inner_service_and_a_body_need_not_be_send() {
    let program = "
        use std::{convert::Infallible, rc::Rc};
        pub async fn demo(auth: klavi_auth::KlaviAuthLayer) {
            let seen = Rc::new(());
            let inner = tower::service_fn(move |_: http::Request<Rc<()>>| {
                let seen = Rc::clone(&seen);
                async move { Ok::<_, Infallible>(http::Response::new(seen)) }
            });
            let klavi = tower::Layer::layer(&auth, inner);
            drop(klavi.send(http::Request::new(Rc::new(()))).await);
        }";
    assert_eq!(check(program), "");
}

/// The output of rustc for a program. Empty if it compiles.
fn check(program: &str) -> String {
    static PROGRAMS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("message_{}", PROGRAMS.fetch_add(1, Ordering::Relaxed));
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&source, program).unwrap();
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args([
            "--edition=2024",
            "--crate-type=lib",
            "--emit=metadata",
            "-o",
        ])
        .arg(source.with_extension("rmeta"))
        .args(&*LIBRARIES)
        .arg(&source)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), errors.is_empty(), "{errors}");
    errors
}

/// rustc's arguments for the libraries that this test was built with. Cargo names them; all are
/// there already.
static LIBRARIES: LazyLock<Vec<OsString>> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["test", "--no-run", "--test=messages", "--offline"])
        .args(["--message-format=json", "--features", &features()])
        .arg("--target-dir")
        .arg(target);
    // The variables that cargo sets for the tested package. Build scripts that read them would run
    // again.
    for (name, _) in env::vars_os() {
        let known = name.to_string_lossy();
        if known.starts_with("CARGO_PKG_") || known.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");

    let mut arguments = BTreeSet::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        let Some(files) = message["filenames"].as_array() else {
            continue;
        };
        for file in files
            .iter()
            .map(|file| PathBuf::from(file.as_str().unwrap()))
        {
            arguments.insert(option("-Ldependency=", file.parent().unwrap()));
            if file
                .extension()
                .is_some_and(|extension| extension == "rlib")
            {
                let name = message["target"]["name"].as_str().unwrap();
                arguments.insert(option(
                    &format!("--extern={}=", name.replace('-', "_")),
                    &file,
                ));
            }
        }
    }
    arguments.into_iter().collect()
});

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// The features that this test was built with.
fn features() -> String {
    let features = [
        ("metrics", cfg!(feature = "metrics")),
        ("reqwest", cfg!(feature = "reqwest")),
        ("reqwest-middleware", cfg!(feature = "reqwest-middleware")),
        ("sandbox", cfg!(feature = "sandbox")),
    ];
    let names = features
        .into_iter()
        .filter_map(|(name, on)| on.then_some(name));
    names.collect::<Vec<_>>().join(",")
}
