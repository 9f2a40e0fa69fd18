//! Instructions of a request with a fresh token, counted by callgrind: independent of the machine's
//! noise.
//!
//! `cargo bench --bench instructions` runs itself under valgrind, once per variant and number of
//! requests. The difference of two numbers excludes the start-up. `-- --only 'send once'` selects
//! the variants with these words in their names. Clock reads are counted without the kernel's part.
#![expect(clippy::print_stderr, reason = "it says what is missing")]

mod support;

use std::process::Command;

use support::{
    api::Api,
    check::check,
    client::Style,
    table::{Options, Tables},
    variants::{self, Role, TOKEN, Variant},
};

const TABLE: &str = "Instructions per request with a fresh token";

/// The argument with which the bench runs itself.
const RUN: &str = "--run";

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let after = |name| {
        arguments
            .iter()
            .position(|argument| argument == name)
            .map(|at| &arguments[at + 1..])
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    if let Some([name, style, calls, ..]) = after(RUN) {
        let variants = variants::all(Api::default(), TOKEN, &runtime);
        let variant = variants
            .iter()
            .find(|variant| variant.name == name)
            .expect("its name");
        let style = Style::ALL
            .into_iter()
            .find(|known| known.name() == style)
            .expect("a style");
        return variant
            .client()
            .run(calls.parse().expect("a number"), style);
    }
    check(TOKEN, &runtime);
    let options = Options::of_command_line();
    if options.quick {
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return eprintln!("instructions are counted with valgrind, which is not installed");
    }
    let variants = variants::all(Api::default(), TOKEN, &runtime);
    let only = after("--only").and_then(|rest| rest.first());
    let wanted = |variant: &Variant| only.is_none_or(|part| variant.name.contains(part.as_str()));
    let mut tables = Tables::default();
    for style in Style::ALL {
        let count = |variant: &Variant| {
            let needed = wanted(variant) || matches!(variant.role, Role::Raw | Role::Static);
            if needed {
                instructions(variant.name, style)
            } else {
                f64::NAN
            }
        };
        let counts: Vec<_> = variants.iter().map(count).collect();
        for (variant, count) in variants.iter().zip(&counts) {
            if !variant.is_shown() || !wanted(variant) {
                continue;
            }
            let to = |role| counts[variant.baseline(role, &variants)];
            let (raw, constant) = (to(Role::Raw), to(Role::Static));
            let mut add = |what: &str, value| {
                tables.add(
                    TABLE,
                    variant.name,
                    &format!("{what}, {}", style.name()),
                    value,
                );
            };
            add("above raw", format!("{:.0}", count - raw));
            add(
                "÷ AddAuthorization's",
                format!("{:.2}", (count - raw) / (constant - raw)),
            );
        }
    }
    tables.print(options);
}

/// Instructions per request of one variant.
fn instructions(name: &str, style: Style) -> f64 {
    let [few, many] = [1_000, 6_000_u32].map(|calls| (calls, collected(name, style, calls)));
    (many.1 - few.1) as f64 / f64::from(many.0 - few.0)
}

/// Instructions of one whole run of this program.
fn collected(name: &str, style: Style, calls: u32) -> u64 {
    let program = std::env::current_exe().expect("a path");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program);
    valgrind.args([RUN, name, style.name(), &calls.to_string()]);
    let output = valgrind.output().expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, count) = line.unwrap_or_else(|| panic!("valgrind counts nothing: {text}"));
    count.trim().parse().expect("a number")
}
