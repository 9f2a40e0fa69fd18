//! The cost of a request in an application that is built with thin LTO, around an inner service
//! that does next to nothing: it returns the request in its response.
//!
//! `cargo run --release --manifest-path benches/lean/Cargo.toml`. All variants run in turns, round
//! after round, and the ratios are medians of quotients within a round. `--run NAME STYLE CALLS`
//! runs one variant alone, for a profiler.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "the modules are shared with the other benches"
)]

#[path = "../support/rounds.rs"]
mod rounds;
#[path = "../support/table.rs"]
mod table;
mod variants;

use rounds::{Case, Effort, median, ratio, times};
use table::{Options, Tables};
use variants::{Style, Variant};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let variants = variants::all(&runtime);
    let arguments: Vec<_> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--run") {
        let [name, style, calls] = &arguments[at + 1..] else {
            panic!("--run takes a name, a style and a number of calls");
        };
        let find = |name: &str| variants.iter().find(|variant| variant.name == name);
        let style = Style::ALL.into_iter().find(|known| known.name() == style);
        let mut client = (find(name).expect("its name").client)();
        return client(calls.parse().expect("a number"), style.expect("a style"));
    }
    let options = Options {
        quick: arguments.iter().any(|argument| argument == "--quick"),
        ..Options::of_command_line()
    };
    let effort = Effort::new(1001, 1000, options.quick);
    let mut tables = Tables::default();
    for style in Style::ALL {
        for threads in options.threads([1, 2]) {
            let case = |variant: &'static Variant| -> Case<'static> {
                Box::new(move || {
                    let mut client = (variant.client)();
                    Box::new(move |calls| client(calls, style))
                })
            };
            let times = times(
                &variants.iter().map(case).collect::<Vec<_>>(),
                threads,
                effort,
            );
            report(&mut tables, style, threads, variants, &times);
        }
    }
    tables.print(options);
}

fn report(
    tables: &mut Tables,
    style: Style,
    threads: usize,
    variants: &[Variant],
    times: &[Vec<f64>],
) {
    let title = format!(
        "Lean: a request that does nothing else, {} service",
        style.name()
    );
    let of = |name| {
        let at = variants.iter().position(|variant| variant.name == name);
        &times[at.expect("a variant")]
    };
    for (variant, time) in variants.iter().zip(times) {
        let mut add = |what: &str, value| {
            tables.add(&title, variant.name, &format!("{what}, {threads}T"), value)
        };
        add("ns", format!("{:.0}", median(time.iter().copied())));
        let constant = ratio(time, of(variants::CONSTANT));
        add("÷ AddAuthorization", format!("{constant:.2}"));
        let than = variant.than.map_or(String::new(), |name| {
            format!("{:.2}", ratio(time, of(name)))
        });
        add("÷ its counterpart", than);
    }
}
