//! What a fleet saves, as figures and as a chart. Writes `benches/fleet.md` and
//! `benches/fleet.svg`:
//!
//! ```sh
//! cargo test --features redis,sandbox --test redis figures -- --ignored # four minutes
//! ```

use std::{
    fmt::Write,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use klavi_auth::{
    Fleet, FleetStore, Identity, KlaviApi, KlaviAuthLayer, MemoryStore, NewToken, Product,
    StoreFuture, Stored, TokenCache, source_fn,
};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};

use crate::{
    fleet::{self, Fleet as Processes},
    server::{self, RedisServer},
};

const SIZES: [usize; 4] = [1, 10, 100, 1000];
const HOUR: Duration = Duration::from_secs(3600);
const LIFETIME: Duration = Duration::from_secs(1800);
const INTERVAL: Duration = Duration::from_secs(10);

/// Klavi has a limit for each customer and does not say how high it is.
const LIMIT_PER_SECOND: u64 = 10;

/// Tokens with the numbers from 1.
struct Issuer {
    revokes_old: bool,
    state: Mutex<Issued>,
}

#[derive(Default)]
struct Issued {
    last: u64,
    /// All up to this one are revoked.
    revoked: u64,
}

impl Issuer {
    fn issue(&self) -> String {
        let mut state = self.state.lock().unwrap();
        state.last += 1;
        format!("token-{}", state.last)
    }

    fn accepts(&self, token: &str) -> bool {
        let state = self.state.lock().unwrap();
        let number: u64 = token.rsplit('-').next().unwrap().parse().unwrap();
        number > state.revoked && (!self.revokes_old || number == state.last)
    }

    fn revoke_all(&self) {
        let mut state = self.state.lock().unwrap();
        state.revoked = state.last;
    }

    fn calls(&self) -> u64 {
        self.state.lock().unwrap().last
    }
}

/// A store that is a millisecond away.
#[derive(Clone, Default)]
struct Counted(Arc<(MemoryStore, AtomicU64)>);

impl Counted {
    async fn call(&self) {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(1)).await;
    }
}

impl FleetStore for Counted {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        Box::pin(async move {
            self.call().await;
            self.0.0.load(key).await
        })
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            self.call().await;
            self.0.0.swap(key, expected, new, time_to_live).await
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Figures {
    at_start: u64,
    calls: u64,
    requests: u64,
    rejected: u64,
    store_calls: u64,
}

/// An hour of so many processes, in simulated time: a cold start, a request of each every 10 s, and
/// a revocation of all tokens after 30 min and a bit.
fn hour(processes: usize, is_shared: bool, revokes_old: bool) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let issuer = Arc::new(Issuer {
            revokes_old,
            state: Mutex::default(),
        });
        let store = Counted::default();
        let counts = Arc::new([const { AtomicU64::new(0) }; 2]);
        let start = tokio::time::Instant::now();
        for number in 0..processes {
            let store = is_shared.then(|| store.clone());
            let process = process(Arc::clone(&issuer), store, Arc::clone(&counts));
            tokio::spawn(async move {
                // Within the first second, as a deployment does.
                sleep(Duration::from_secs(1) * number as u32 / processes as u32).await;
                process.await;
            });
        }
        sleep(Duration::from_secs(5)).await;
        let at_start = issuer.calls();
        sleep(HOUR / 2 + Duration::from_secs(61)).await;
        issuer.revoke_all();
        tokio::time::sleep_until(start + HOUR).await;
        Figures {
            at_start,
            calls: issuer.calls(),
            requests: counts[0].load(Ordering::Relaxed),
            rejected: counts[1].load(Ordering::Relaxed),
            store_calls: store.0.1.load(Ordering::Relaxed),
        }
    })
}

async fn process(issuer: Arc<Issuer>, store: Option<Counted>, counts: Arc<[AtomicU64; 2]>) {
    let tokens = Arc::clone(&issuer);
    let source = source_fn(move |_| {
        let tokens = Arc::clone(&tokens);
        async move {
            sleep(Duration::from_millis(100)).await;
            NewToken::new(&tokens.issue(), LIFETIME)
        }
    });
    let mut builder = TokenCache::builder(source);
    if let Some(store) = store {
        builder = builder.fleet(Fleet::new(store).identity(Identity::new("figures")));
    }
    let api = KlaviApi::production(Product::Monitor);
    let layer = KlaviAuthLayer::new(&api, builder.build().unwrap());
    let service = layer.layer(tower::service_fn(move |request: Request<Full<Bytes>>| {
        let token = request.headers()["authorization"].to_str().unwrap();
        let status = match issuer.accepts(token) {
            true => StatusCode::OK,
            false => StatusCode::UNAUTHORIZED,
        };
        let mut response = Response::new(());
        *response.status_mut() = status;
        async {
            sleep(Duration::from_millis(20)).await;
            Ok::<_, std::convert::Infallible>(response)
        }
    }));
    loop {
        let request = Request::get("/monitor/x").body(Full::default()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        counts[0].fetch_add(1, Ordering::Relaxed);
        if response.status() != StatusCode::OK {
            counts[1].fetch_add(1, Ordering::Relaxed);
        }
        sleep(INTERVAL).await;
    }
}

/// From a revocation until the last of so many real processes has a 200, and the token calls.
async fn revocation(processes: usize) -> (Duration, u64) {
    let (klavi, server) = (fleet::klavi().await, RedisServer::start());
    let mut fleet = Processes::start(processes, &klavi, server.url());
    assert_eq!(fleet.get(1).lost(), 0);
    klavi.revoke_all();
    let start = Instant::now();
    let outcome = fleet.get(1);
    let took = start.elapsed();
    assert_eq!(outcome.lost(), 0);
    (took, fleet::token_calls(&klavi) - 1)
}

#[test]
#[ignore = "writes benches/fleet.md and benches/fleet.svg"]
fn figures() {
    if server::is_missing() {
        return;
    }
    let settings = [(false, false), (false, true), (true, false), (true, true)];
    let rows = SIZES.map(|size| settings.map(|(shared, revokes)| hour(size, shared, revokes)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = [1, 10, 100, 300].map(|size| (size, runtime.block_on(revocation(size))));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    fs::write(folder.join("fleet.md"), page(&rows, &served)).unwrap();
    fs::write(folder.join("fleet.svg"), chart(&rows)).unwrap();
}

fn page(rows: &[[Figures; 4]; 4], served: &[(usize, (Duration, u64)); 4]) -> String {
    let mut page = format!(
        "# What a fleet saves\n\n\
         Written by `cargo test --features redis,sandbox --test redis figures -- --ignored`.\n\n\
         ![Token calls in an hour, by the number of processes](fleet.svg)\n\n\
         # Token calls in an hour\n\n\
         Simulated time, with the crate's own layer and cache. The processes start within a second, \
         and each\nsends a request every 10 s. A token is valid for 30 min. After 31 min all are \
         revoked. A token call\ntakes 100 ms, a store call 1 ms. In the rows \"revokes\" a new token \
         revokes the previous one, in the\nrows \"coexist\" both stay valid. The share is that of a \
         limit of {LIMIT_PER_SECOND} requests a second. This is an\nexample: Klavi does not say how \
         high its limit is.\n\n\
         | processes | | calls at the start | calls in the hour | share of the limit | requests \
         that got a 401 |\n|---|---|---|---|---|---|\n"
    );
    let names = [
        "alone, coexist",
        "alone, revokes",
        "fleet, coexist",
        "fleet, revokes",
    ];
    for (size, row) in SIZES.iter().zip(rows) {
        for (name, it) in names.iter().zip(row) {
            let limit = LIMIT_PER_SECOND * HOUR.as_secs();
            let share = 100.0 * it.calls as f64 / limit as f64;
            let Figures {
                at_start,
                calls,
                requests,
                rejected,
                ..
            } = it;
            let line = format!(
                "| {size} | {name} | {at_start} | {calls} | {share:.2} % | {rejected} of {requests} |"
            );
            writeln!(page, "{line}").unwrap();
        }
    }
    page += "\n# Store calls\n\n\
             In the same hours: calls of each process for each token of the fleet. A call is a \
             load or a swap. A\nrequest with a fresh token makes none.\n\n\
             | processes | coexist | revokes |\n|---|---|---|\n";
    for (size, row) in SIZES.iter().zip(rows) {
        let per_token = |it: &Figures| it.store_calls as f64 / (*size as u64 * it.calls) as f64;
        let (coexist, revokes) = (per_token(&row[2]), per_token(&row[3]));
        writeln!(page, "| {size} | {coexist:.1} | {revokes:.1} |").unwrap();
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    write!(
        page,
        "\n# From a revocation to the last process served\n\n\
         Real processes, one request each at once, over a real redis-server on loopback. Debug \
         build, {cores} cores for all of it.\n\n\
         | processes | until the last 200 | token calls |\n|---|---|---|\n"
    )
    .unwrap();
    for (size, (took, calls)) in served {
        writeln!(page, "| {size} | {} ms | {calls} |", took.as_millis()).unwrap();
    }
    page
}

/// Bars on a logarithmic scale, in a picture that is 400 pixels wide.
fn chart(rows: &[[Figures; 4]; 4]) -> String {
    const LEFT: f64 = 68.0;
    let x = |calls: u64| LEFT + 47.0 * (calls.max(1) as f64).log10();
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 400 356\" role=\"img\">\
         <title>Token calls in an hour</title>\n<style>\n\
         :root { color-scheme: light dark }\n\
         text { font: 12px -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif; \
         fill: #1f2328 }\n\
         .title { font-size: 15px; font-weight: 600 }\n\
         .note { fill: #59636e }\n\
         .grid { stroke: #d1d9e0 }\n\
         .revokes { fill: #cf222e } .alone { fill: #8c959f } .fleet { fill: #0969da }\n\
         @media (prefers-color-scheme: dark) {\n  text { fill: #f0f6fc }\n  .note { fill: #9198a1 }\n  \
         .grid { stroke: #3d444d }\n  .revokes { fill: #f85149 } .alone { fill: #6e7681 } .fleet { \
         fill: #4493f8 }\n}\n</style>\n\
         <text class=\"title\" x=\"10\" y=\"22\">Token calls in an hour</text>\n",
    );
    let keys = [
        (
            "revokes",
            10,
            "alone, and a new token revokes the previous one",
        ),
        ("alone", 10, "alone, both valid"),
        ("fleet", 150, "one fleet, in both cases"),
    ];
    for ((class, left, text), top) in keys.into_iter().zip([34, 52, 52]) {
        writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"10\" height=\"10\" rx=\"2\"/>\
             <text class=\"note\" x=\"{}\" y=\"{}\">{text}</text>",
            left + 15,
            top + 9,
        )
        .unwrap();
    }
    for (power, label) in ["1", "10", "100", "1,000", "10,000", "100,000"]
        .iter()
        .enumerate()
    {
        let at = x(10_u64.pow(power as u32));
        writeln!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} 74V328\"/>\
             <text class=\"note\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"345\">{label}</text>"
        )
        .unwrap();
    }
    for (group, (size, row)) in SIZES.iter().zip(rows).enumerate() {
        let top = 80 + 62 * group;
        writeln!(
            svg,
            "<text text-anchor=\"end\" x=\"{}\" y=\"{}\">{}</text>\
             <text class=\"note\" text-anchor=\"end\" x=\"{0}\" y=\"{}\">process{}</text>",
            LEFT - 6.0,
            top + 20,
            thousands(*size as u64),
            top + 35,
            if *size == 1 { "" } else { "es" },
        )
        .unwrap();
        let most = row[2].calls.max(row[3].calls);
        for (bar, (class, calls)) in [
            ("revokes", row[1].calls),
            ("alone", row[0].calls),
            ("fleet", most),
        ]
        .into_iter()
        .enumerate()
        {
            let y = top + 17 * bar;
            writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"14\" \
                 rx=\"2\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
                (x(calls) - LEFT).max(2.0),
                x(calls).max(LEFT + 2.0) + 5.0,
                y + 11,
                thousands(calls),
            )
            .unwrap();
        }
    }
    svg + "</svg>\n"
}

fn thousands(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", number / 1000, number % 1000),
    }
}
