//! Formats everything public: no output of a type contains a piece of a secret, and no
//! type is forgotten.

use std::{
    any::type_name,
    collections::BTreeSet,
    error::Error,
    fmt::{Debug, Display, Write},
    fs,
    path::PathBuf,
    sync::Mutex,
};

use crate::{needles, recorder};

/// The types that were shown.
static SHOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Their output.
static PRINTED: Mutex<String> = Mutex::new(String::new());

/// Prints a value of a public type.
pub(crate) fn show<T: Debug>(state: &str, value: &T) {
    mark(value);
    print(
        &format!("{}, {state}", type_name::<T>()),
        &format!("{value:?}\n{value:#?}"),
    );
}

/// Records that a value was printed elsewhere.
pub(crate) fn mark<T>(_: &T) {
    let path = type_name::<T>().split('<').next().unwrap();
    assert!(path.starts_with("klavi_auth::"), "{path}");
    SHOWN
        .lock()
        .unwrap()
        .insert(path.rsplit("::").next().unwrap().to_owned());
}

/// Records that a type was printed as a part of another, because it is not accessible alone.
pub(crate) fn part(beginning: &str) {
    assert!(has_printed(beginning), "{beginning}");
    SHOWN
        .lock()
        .unwrap()
        .insert(beginning.trim_end_matches([' ', '{']).to_owned());
}

/// Prints a value that has `Display`.
pub(crate) fn say<T: Debug + Display>(state: &str, value: &T) {
    show(state, value);
    print(state, &format!("{value}\n{value:#}"));
}

/// Prints an error of the crate and its causes.
pub(crate) fn error<T: Error + 'static>(state: &str, value: &T) {
    say(state, value);
    print(state, &recorder::chain(value));
}

/// Prints any error, of the crate or of a caller.
pub(crate) fn any_error(state: &str, value: &(dyn Error + 'static)) {
    print(state, &recorder::chain(value));
}

pub(crate) fn print(state: &str, text: &str) {
    assert_eq!(needles::in_text(text), [""; 0], "{state}");
    writeln!(PRINTED.lock().unwrap(), "{text}").unwrap();
}

pub(crate) fn has_printed(what: &str) -> bool {
    PRINTED.lock().unwrap().contains(what)
}

/// What is public and is no type that could be printed: traits, functions, names for other types.
const NO_TYPES: [&str; 13] = [
    "BoxError",
    "FetchFuture",
    "FleetStore",
    "IdentityFuture",
    "StoreFuture",
    "HttpResponse",
    "IntoRequest",
    "Observer",
    // Only inside of a `RedisStore`.
    "RedisConnection",
    "HttpRequest",
    "Replay",
    "TokenSource",
    "source_fn",
];

/// Everything that `pub use` and `pub struct` bring into the crate's public modules.
fn public_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in [
        include_str!("../../src/lib.rs"),
        include_str!("../../src/sandbox/mod.rs"),
    ] {
        for (at, _) in source.match_indices("\npub ") {
            let item = &source[at + "\npub ".len()..];
            let (kind, rest) = item.split_once(' ').unwrap();
            match kind {
                "use" => {
                    let tree = rest.split(';').next().unwrap();
                    let leaves = tree.split([',', '{', '}']).map(str::trim);
                    let leaves = leaves.filter(|leaf| !leaf.is_empty() && !leaf.ends_with("::"));
                    names.extend(leaves.map(|leaf| leaf.rsplit("::").next().unwrap().to_owned()));
                }
                "struct" | "enum" => {
                    names.insert(
                        rest.split(|c: char| !c.is_alphanumeric())
                            .next()
                            .unwrap()
                            .to_owned(),
                    );
                }
                "mod" => {}
                other => panic!("an item that this does not read: pub {other}"),
            }
        }
    }
    names
}

/// Called at the end, when everything was shown.
pub(crate) fn is_complete() {
    let shown = SHOWN.lock().unwrap().clone();
    let types: BTreeSet<_> = public_names()
        .into_iter()
        .filter(|name| !NO_TYPES.contains(&name.as_str()))
        .collect();
    let forgotten: Vec<_> = types.difference(&shown).collect();
    assert!(forgotten.is_empty(), "show these too: {forgotten:?}");
    // The exact number, so that the parser above cannot miss one.
    assert!(types.len() >= 45, "{types:?}");
}

/// The names of the variants of an enum, as its source has them.
pub(crate) fn variants(source: &str, name: &str) -> Vec<String> {
    let body = source
        .split(&format!("enum {name} {{"))
        .nth(1)
        .unwrap()
        .split("\n}")
        .next()
        .unwrap();
    let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = variants.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    variants
        .map(|line| {
            line.split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

/// The texts in a method, as its source has them.
pub(crate) fn texts<'a>(source: &'a str, method: &str) -> Vec<&'a str> {
    let (_, body) = source.split_once(&format!("fn {method}(")).unwrap();
    let (body, _) = body.split_once("\n    }\n").unwrap();
    body.split('"').skip(1).step_by(2).collect()
}

/// The source files that have this call, except in tests and documentation.
pub(crate) fn callers(call: &str) -> Vec<String> {
    let mut callers = vec![];
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let mut lines = code.lines().map(str::trim_start);
                if lines.any(|line| !line.starts_with("//") && line.contains(call)) {
                    callers.push(path.to_str().unwrap().replace('\\', "/"));
                }
            }
        }
    }
    callers
}
