//! One process of a fleet: this test binary, started again with the environment of a [`Setup`]. It
//! reads commands from its standard input and writes one line for each.

use std::{
    env,
    fmt::Write as _,
    io::{self, BufRead},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use klavi_auth::{
    Credentials, Error, Fleet, Identity, KlaviApi, KlaviAuth, KlaviAuthLayer, NewToken, Product,
    RedisStore, SealingKey, TokenCache, TokenSource, source_fn,
};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{interval, timeout},
};
use tower::{Layer, ServiceExt};

pub(crate) const ACCESS_KEY: &str = "fleet-access-7391";
pub(crate) const SECRET_KEY: &str = "fleet-secret-8264";

/// What a process gets from its environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) klavi: String,
    /// Shares nothing without.
    pub(crate) redis: Option<String>,
    /// Takes this for the lifetime of a token, whatever `/auth` says.
    pub(crate) lifetime: Option<Duration>,
    /// Seals the record with a key of such bytes.
    pub(crate) seal: Option<u8>,
    /// The path of libfaketime, and how far the wall clock of the process is off.
    pub(crate) clock: Option<(String, String)>,
}

const KLAVI: &str = "KLAVI_FLEET_API";
const REDIS: &str = "KLAVI_FLEET_REDIS";
const LIFETIME: &str = "KLAVI_FLEET_LIFETIME_MS";
const SEAL: &str = "KLAVI_FLEET_SEAL";

impl Setup {
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let lifetime = self
            .lifetime
            .map(|lifetime| lifetime.as_millis().to_string());
        [
            Some((KLAVI, self.klavi.clone())),
            self.redis.clone().map(|url| (REDIS, url)),
            lifetime.map(|lifetime| (LIFETIME, lifetime)),
            self.seal.map(|seal| (SEAL, seal.to_string())),
        ]
        .into_iter()
        .chain(self.clock.iter().flat_map(|(library, offset)| {
            [
                Some(("LD_PRELOAD", library.clone())),
                Some(("FAKETIME", offset.clone())),
                Some(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())),
            ]
        }))
        .flatten()
        .collect()
    }

    fn from_environment() -> Self {
        let lifetime = env::var(LIFETIME).ok().map(|text| text.parse().unwrap());
        let seal = env::var(SEAL).ok().map(|text| text.parse().unwrap());
        Self {
            klavi: env::var(KLAVI).unwrap(),
            redis: env::var(REDIS).ok(),
            lifetime: lifetime.map(Duration::from_millis),
            seal,
            clock: None,
        }
    }
}

/// What callers saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) ok: u64,
    /// The API's last word was 401.
    pub(crate) unauthorized: u64,
    /// No response.
    pub(crate) failed: u64,
    pub(crate) slowest: Duration,
    /// The number of requests that took longer than a second.
    pub(crate) slow: u64,
    pub(crate) error: Option<String>,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.unauthorized += other.unauthorized;
        self.failed += other.failed;
        self.slow += other.slow;
        self.slowest = self.slowest.max(other.slowest);
        self.error = self.error.take().or_else(|| other.error.clone());
    }

    /// How many requests had no success.
    pub(crate) fn lost(&self) -> u64 {
        self.unauthorized + self.failed
    }

    fn of(result: Result<StatusCode, String>, took: Duration) -> Self {
        let mut outcome = Self {
            slowest: took,
            slow: u64::from(took > Duration::from_secs(1)),
            ..Self::default()
        };
        match result {
            Ok(StatusCode::OK) => outcome.ok = 1,
            Ok(StatusCode::UNAUTHORIZED) => outcome.unauthorized = 1,
            Ok(status) => (outcome.failed, outcome.error) = (1, Some(status.to_string())),
            Err(error) => (outcome.failed, outcome.error) = (1, Some(error)),
        }
        outcome
    }

    fn line(&self) -> String {
        let slowest = self.slowest.as_millis();
        let mut line = format!(
            "@{} {} {} {} {slowest}",
            self.ok, self.unauthorized, self.failed, self.slow
        );
        if let Some(error) = &self.error {
            write!(line, " {}", error.replace('\n', " ")).unwrap();
        }
        line
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut fields = line.splitn(6, ' ');
        let mut number = || {
            let field = fields.next().ok_or_else(|| line.to_owned())?;
            field.parse::<u64>().map_err(|_| line.to_owned())
        };
        let [ok, unauthorized, failed, slow] = [number()?, number()?, number()?, number()?];
        let slowest = Duration::from_millis(number()?);
        Ok(Self {
            ok,
            unauthorized,
            failed,
            slowest,
            slow,
            error: fields.next().map(str::to_owned),
        })
    }
}

type Http = Client<HttpConnector, Full<Bytes>>;

struct Process {
    klavi: KlaviAuth<Http>,
    url: String,
}

#[test]
#[ignore = "a process of the fleets in the other tests"]
fn process() {
    let setup = Setup::from_environment();
    if env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(io::stderr)
            .init();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (commands, mut received) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if commands.send(line).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        let process = Arc::new(Process::new(&setup));
        println!("@ready");
        while let Some(command) = received.recv().await {
            let outcome = process.run(&command, &mut received).await;
            println!("{}", outcome.line());
        }
    });
    std::process::exit(0);
}

impl Process {
    fn new(setup: &Setup) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let api = KlaviApi::at(&setup.klavi, Product::Monitor).unwrap();
        let layer = layer(&api, http.clone(), setup);
        Self {
            klavi: layer.layer(http),
            url: format!("{}/monitor/v1/monitors", setup.klavi),
        }
    }

    async fn run(
        self: &Arc<Self>,
        command: &str,
        received: &mut UnboundedReceiver<String>,
    ) -> Outcome {
        let words: Vec<_> = command.split(' ').collect();
        match words[..] {
            ["get", count] => self.get(count.parse().unwrap()).await,
            ["load", every, duration] => {
                let [every, duration] =
                    [every, duration].map(|text| Duration::from_millis(text.parse().unwrap()));
                self.load(every, duration, received).await
            }
            _ => panic!("{command}"),
        }
    }

    /// So many requests at once.
    async fn get(self: &Arc<Self>, count: usize) -> Outcome {
        let requests = (0..count).map(|_| self.request());
        let mut total = Outcome::default();
        for outcome in futures_util::future::join_all(requests).await {
            total.add(&outcome);
        }
        total
    }

    /// A request in each interval, whether or not the others have ended, until the next command.
    async fn load(
        self: &Arc<Self>,
        every: Duration,
        duration: Duration,
        received: &mut UnboundedReceiver<String>,
    ) -> Outcome {
        let (start, mut ticks) = (Instant::now(), interval(every));
        let mut requests = tokio::task::JoinSet::new();
        while start.elapsed() < duration {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = received.recv() => break,
            }
            let process = Arc::clone(self);
            requests.spawn(async move { process.request().await });
        }
        let mut total = Outcome::default();
        while let Some(outcome) = requests.join_next().await {
            total.add(&outcome.unwrap());
        }
        total
    }

    async fn request(&self) -> Outcome {
        let start = Instant::now();
        let request = Request::get(&self.url).body(Full::default()).unwrap();
        let exchange = async {
            let response = self.klavi.clone().oneshot(request).await;
            let response = response.map_err(|error| chain(&*error))?;
            let status = response.status();
            response
                .into_body()
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            Ok(status)
        };
        let result = timeout(Duration::from_secs(30), exchange).await;
        let result = result.unwrap_or_else(|_| Err("no response within 30 s".to_owned()));
        Outcome::of(result, start.elapsed())
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |error| error.source());
    let lines: Vec<_> = errors.map(ToString::to_string).collect();
    lines.join(": ")
}

fn layer(api: &KlaviApi, http: Http, setup: &Setup) -> KlaviAuthLayer {
    let fleet = setup.redis.as_ref().map(|url| {
        let fleet = Fleet::new(RedisStore::from_url(url).unwrap());
        match setup.seal {
            None => fleet,
            Some(seal) => fleet.seal_with(SealingKey::new([seal; 32])),
        }
    });
    if let Some(lifetime) = setup.lifetime {
        let source = short_lived(api.auth_uri().to_string(), http, lifetime);
        let fleet = fleet.unwrap().identity(Identity::new("short-lived"));
        let cache = TokenCache::builder(source).fleet(fleet).build().unwrap();
        return KlaviAuthLayer::new(api, cache);
    }
    let keys = Credentials::new(ACCESS_KEY, SECRET_KEY).unwrap();
    let builder = KlaviAuthLayer::builder(api.clone(), keys).transport(http);
    match fleet {
        None => builder.build().unwrap(),
        Some(fleet) => builder.fleet(fleet).build().unwrap(),
    }
}

/// `/auth` with a lifetime that Klavi cannot name: a fraction of seconds.
fn short_lived(auth: String, http: Http, lifetime: Duration) -> impl TokenSource {
    source_fn(move |_| {
        let (auth, http) = (auth.clone(), http.clone());
        async move {
            let keys = serde_json::json!({ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY });
            let request = Request::post(auth)
                .header("content-type", "application/json")
                .body(Full::from(keys.to_string()))
                .unwrap();
            let response = http.request(request).await.map_err(Error::transient)?;
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(Error::transient)?;
            let json: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
            NewToken::new(json["accessToken"].as_str().unwrap(), lifetime)
        }
    })
}
