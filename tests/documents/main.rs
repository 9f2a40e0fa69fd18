//! Checks what the README, the guides, the changelog and the page on the API guidelines say.

#[cfg(all(feature = "fleet", feature = "redis", feature = "reqwest"))]
#[expect(
    dead_code,
    unused_variables,
    clippy::let_and_return,
    clippy::needless_pass_by_value,
    clippy::redundant_clone,
    reason = "the samples are short, and are not called"
)]
mod changelog;

use std::{collections::BTreeSet, fs, path::Path};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).expect(path)
}

/// The section of a page, up to the next heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(heading).expect(heading);
    rest.split("\n# ")
        .next()
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap()
}

/// The items of the lists of a text, each as the text in bold and the text after it.
fn items(text: &str) -> Vec<(&str, String)> {
    let items = text.split("\n* **").skip(1);
    items
        .map(|item| {
            let (name, rest) = item.split_once("**:").expect(item);
            let rest = rest.split("\n\n").next().unwrap();
            (name, rest.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

/// Whether a file has a test of this name.
fn is_test(file: &str, name: &str) -> bool {
    let source = read(file);
    let Some(at) = source.find(&format!("fn {name}(")) else {
        return false;
    };
    let before = source[..at].lines().rev().take(4);
    before
        .into_iter()
        .any(|line| line.contains("test]") || line.contains("test("))
}

#[test]
fn each_promise_of_the_readme_has_tests_that_exist() {
    let (readme, page) = (read("README.md"), read("src/docs/testing.md"));
    let bullets = section(&readme, "## What it promises")
        .split("\n* **")
        .skip(1);
    let promised: BTreeSet<_> = bullets
        .map(|bullet| bullet.split("**").next().unwrap())
        .collect();
    assert!(promised.len() >= 7);
    let items = items(section(&page, "# Promises of the README"));
    let shown: BTreeSet<_> = items.iter().map(|(promise, _)| *promise).collect();
    assert_eq!(promised, shown);
    for test in items.iter().flat_map(|(_, tests)| tests.split(", ")) {
        let (file, name) = test.trim_matches('`').split_once("::").expect(test);
        assert!(is_test(file, name), "{file} has no test {name}");
    }
}

/// The strings after `from` in a source, up to the next quote.
fn strings_after<'a>(source: &'a str, from: &str) -> Vec<&'a str> {
    let parts = source.split(from).skip(1);
    parts.map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn the_runbook_has_every_error_and_every_warning() {
    let runbook = read("src/docs/operations.md");
    let source = read("src/error/display.rs");
    let labels = source.split("fn label(self)").nth(1).unwrap();
    let labels = labels.split("\n    }").next().unwrap();
    let labels: BTreeSet<_> = strings_after(labels, "=> \"")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert!(labels.len() >= 15);
    let errors = items(section(&runbook, "# What does this error mean?"));
    let documented = errors
        .iter()
        .map(|(label, _)| label.trim_matches('`').to_owned());
    assert_eq!(labels, documented.collect());
    let messages = [
        source,
        read("src/klavi/response.rs"),
        read("src/klavi/status_error.rs"),
        read("src/cache/flight.rs"),
        read("src/cache/lookup.rs"),
    ]
    .concat();
    for (_, advice) in errors {
        for text in advice.split('"').skip(1).step_by(2) {
            assert!(messages.contains(text), "no error says {text:?}");
        }
    }

    let warnings = items(section(&runbook, "# What does this warning mean?"));
    let events = read("src/events/trace.rs");
    // `emit!(warn, name: "..."` and `emit!(warn if first, name: "..."`.
    let emitted: BTreeSet<_> = events
        .split("emit!(")
        .skip(1)
        .filter(|event| event.trim_start().starts_with("warn"))
        .map(|event| strings_after(event, "name: \"")[0])
        .collect();
    assert!(emitted.len() >= 3);
    for name in emitted {
        let is_documented = warnings
            .iter()
            .any(|(event, _)| event.contains(&format!("`{name}`")));
        assert!(is_documented, "{name}");
    }
    let source = read("src/events/fleet.rs");
    let reasons = source.split("impl AloneReason").nth(1).unwrap();
    let reasons = strings_after(reasons.split("\n    }").next().unwrap(), "=> \"");
    assert!(reasons.len() >= 3);
    for reason in reasons {
        let documented = format!("`fleet_alone`, `reason=\"{reason}\"`");
        let is_documented = warnings.iter().any(|(event, _)| *event == documented);
        assert!(is_documented, "{documented}");
    }
}

/// The pages whose code a reader pastes into `main`.
const GUIDES: [&str; 10] = [
    "client_certificates",
    "fleet",
    "fleet_stores",
    "getting_started",
    "layer_order",
    "migration",
    "operations",
    "products_and_customers",
    "recipes",
    "testing_your_service",
];

#[test]
fn guides_show_the_dependencies_and_hide_only_the_frame() {
    for guide in GUIDES {
        let page = read(&format!("src/docs/{guide}.md"));
        let blocks: Vec<_> = page.split("```").skip(1).step_by(2).collect();
        let first = blocks.iter().find(|block| !block.starts_with("ignore"));
        assert!(
            first.is_some_and(|block| block.starts_with("toml")),
            "{guide}"
        );
        let code = blocks.iter().filter(|block| !block.starts_with("toml"));
        let hidden = code.flat_map(|block| block.lines());
        for line in hidden.filter_map(|line| line.trim_start().strip_prefix("# ")) {
            let is_frame = FRAME.iter().any(|frame| line.starts_with(frame));
            assert!(is_frame, "{guide} hides `{line}`");
        }
    }
}

/// What a line that the documentation hides may begin with.
const FRAME: [&str; 7] = ["#[tokio::main", "fn main(", "drop(", "Ok(", "}", "/*", "*/"];

/// C-SEND-SYNC and C-DEBUG of `docs/api_guidelines.md`.
#[test]
fn public_types_are_send_sync_and_debug() {
    use klavi_auth::*;
    fn check<T: Send + Sync + std::fmt::Debug>() {}
    fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
    type Inner =
        tower::util::BoxCloneSyncService<http::Request<String>, http::Response<String>, BoxError>;
    check::<(AccessToken, NewToken, TokenRequest, Predecessor, Identity)>();
    check::<(
        TokenCache,
        TokenCacheBuilder,
        TokenCaches<String>,
        Snapshot,
        Sharing,
    )>();
    check::<(RefreshPolicy, Freshness, Backoff, Budget, TokenEndpoint)>();
    check::<(Event<'_>, FetchedToken, FetchReason, SkipReason)>();
    check::<(FleetEvent<'_>, AloneReason, DenyReason)>();
    check::<(KlaviApi, Product, Environment, Credentials)>();
    check::<(KlaviSource, ClientCredentials, SourceFn<fn()>)>();
    check::<(KlaviAuthLayerBuilder, KlaviAuthLayer, KlaviAuth<Inner>)>();
    check::<(CloneBody, SendOnce, RecordBody<String>, ReplayBody<String>)>();
    check::<(SkipAuth, NoResend, ResendCount)>();
    is_error::<Error>();
    is_error::<ConfigError>();
    is_error::<TokenCachesFull>();
    #[cfg(feature = "fleet")]
    check::<(Fleet, MemoryStore, SealingKey, Stored)>();
    #[cfg(feature = "redis")]
    check::<(RedisStore, RedisConnection)>();
    #[cfg(feature = "reqwest-middleware")]
    check::<KlaviAuthMiddleware>();
    #[cfg(feature = "sandbox")]
    {
        use sandbox::*;
        check::<(
            Sandbox,
            SandboxBuilder,
            Fault,
            RecordedRequest,
            Endpoint,
            Counts,
        )>();
    }
    // What users implement can be boxed.
    let _: Option<(Box<dyn TokenSource>, Box<dyn Observer>)> = None;
    #[cfg(feature = "fleet")]
    let _: Option<Box<dyn FleetStore>> = None;
}
