//! Memory of a request with a fresh token: its allocations, and the size of its future.
//!
//! `cargo bench --bench footprint`

mod support;

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use http_body_util::Full;
use klavi_auth::{KlaviApi, KlaviAuthLayer, NewToken, Product, TokenCache, source_fn};
use support::{
    api::{Api, Recycler},
    check::check,
    client::Style,
    table::{Options, Tables},
    variants::{self, TOKEN},
};
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt};

/// A platform's customers.
const CUSTOMERS: usize = 10_000;

/// A short token, for the cost of the cache alone.
const SHORT: usize = 32;

const COLD: &str = "Memory of a layer that starts, and of each of 10,000 idle caches";

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
    cold(&mut tables, &runtime);
    tables.print(options);
}

/// The start of a program, and the caches of customers that are idle.
fn cold(tables: &mut Tables, runtime: &Runtime) {
    let mut row = |name: &str, counted: AllocationInfo, number: u64| {
        let mut add = |what, value: String| tables.add(COLD, name, what, value);
        add("allocations", (counted.count_total / number).to_string());
        add(
            "bytes that stay",
            (counted.bytes_current / number as i64).to_string(),
        );
    };
    let mut layer = None;
    let api = KlaviApi::production(Product::Monitor);
    let built = measure(|| {
        let cache = TokenCache::new(source_fn(async |_| NewToken::new("token", variants::DAY)));
        layer = Some(KlaviAuthLayer::new(&api, cache).layer(Api::default()));
    });
    row("a layer and its service", built, 1);
    let mut caches = Vec::with_capacity(CUSTOMERS);
    let new = measure(|| caches.extend((0..CUSTOMERS).map(|_| variants::cache(SHORT))));
    row("a cache without a token", new, CUSTOMERS as u64);
    let mut lengths = [SHORT, TOKEN].map(|length| {
        let cache = |_| {
            let cache = variants::cache(length);
            runtime.block_on(cache.warm_up()).expect("a token");
            cache
        };
        let mut caches = Vec::with_capacity(CUSTOMERS);
        let warm = measure(|| caches.extend((0..CUSTOMERS).map(cache)));
        row(
            &format!("an idle cache with a token of {length} bytes"),
            warm,
            CUSTOMERS as u64,
        );
        (length, caches)
    });
    let service = layer.take().expect("made above");
    for (length, caches) in &mut lengths {
        let used = measure(|| {
            for cache in &*caches {
                let mut request = Recycler::get(Full::new as fn(Bytes) -> _).first();
                request.extensions_mut().insert(cache.clone());
                let response = runtime.block_on(service.clone().oneshot(request));
                drop(response.expect("the inner service does not fail"));
            }
        });
        let name = format!("more after a request, with a token of {length} bytes");
        row(&name, used, CUSTOMERS as u64);
    }
}
