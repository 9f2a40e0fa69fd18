//! Memory of a request with a fresh token: its allocations, and the size of its future.
//!
//! `cargo bench --bench footprint`

mod support;

use allocation_counter::measure;
use support::{
    api::Api,
    check::check,
    client::Style,
    table::{Options, Tables},
    variants::{self, TOKEN},
};

const TABLE: &str = "Memory per request with a fresh token, beyond the inner service's";

fn main() {
    let options = Options::of_command_line();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    check(TOKEN, &runtime);
    let mut tables = Tables::default();
    for variant in variants::all(Api::default(), TOKEN, &runtime) {
        if !variant.is_shown() {
            continue;
        }
        for style in Style::ALL {
            let mut client = variant.client();
            // The first calls allocate what is allocated once.
            client.run(2, style);
            let counted = measure(|| client.run(100, style));
            let mut add = |what: &str, value: u64| {
                tables.add(
                    TABLE,
                    variant.name,
                    &format!("{what}, {}", style.name()),
                    value.to_string(),
                );
            };
            add("allocations", counted.count_total / 100);
            add("bytes", counted.bytes_total / 100);
        }
        tables.add(
            TABLE,
            variant.name,
            "bytes, future",
            variant.future.to_string(),
        );
    }
    tables.print(options);
}
