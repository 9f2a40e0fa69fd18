//! The processes: each a cache with a layer that sends a request now and then.

use std::{
    convert::Infallible,
    future::{Future, pending},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, header::AUTHORIZATION};
use klavi_auth::{Event, Fleet, FleetEvent, KlaviAuthLayer, TokenCache};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    chance::Chance,
    klavi::{Endpoints, Fetch, Klavi},
    record::{Adoption, Write},
    schedule::{Fault, Schedule},
    store::{Client, Server},
};

/// Whether a process is alive. The calls of a dead one never return.
#[derive(Clone)]
pub(crate) struct Life(Arc<AtomicBool>);

impl Life {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    fn is_alive(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) async fn of<T>(&self, call: impl Future<Output = T>) -> T {
        if !self.is_alive() {
            return pending().await;
        }
        let result = call.await;
        if !self.is_alive() {
            return pending().await;
        }
        result
    }
}

/// A request that did not succeed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) at: Duration,
    pub(crate) process: usize,
    pub(crate) what: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    pub(crate) requests: usize,
    pub(crate) failures: Vec<Failure>,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) writes: Vec<Write>,
    pub(crate) adoptions: Vec<Adoption>,
    pub(crate) store_calls: u64,
    /// The longest time that a request took.
    pub(crate) slowest: Duration,
}

struct World {
    schedule: Schedule,
    klavi: Arc<Klavi>,
    server: Arc<Server>,
    history: Mutex<History>,
    /// Prints every event.
    is_logged: bool,
}

pub(crate) fn run(schedule: &Schedule) -> History {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = Arc::new(World {
            schedule: schedule.clone(),
            klavi: Klavi::new(schedule),
            server: Server::new(schedule),
            history: Mutex::default(),
            is_logged: std::env::var_os("KLAVI_FLEET_LOG").is_some(),
        });
        let start = Instant::now();
        let mut lives: Vec<_> = (0..schedule.processes)
            .map(|number| world.spawn(number, 0))
            .collect();
        let mut windows = schedule.windows.clone();
        windows.sort_by_key(|window| window.from);
        for window in windows {
            sleep_until(start + window.from).await;
            match window.fault {
                Fault::Revoked => world.klavi.revoke(),
                Fault::DataLost => world.server.lose_data(),
                Fault::RolledBack => world.server.roll_back(),
                Fault::Crash => {
                    for (number, life) in lives.iter_mut().enumerate().step_by(4) {
                        life.0.store(false, Ordering::SeqCst);
                        *life = world.spawn(number, 1);
                    }
                }
                _ => {}
            }
        }
        sleep_until(start + schedule.length).await;
        let mut history = world.history.lock().unwrap().clone();
        history.fetches = world.klavi.state().fetches.clone();
        history.writes = world.server.writes();
        history.store_calls = world.server.calls();
        history
    })
}

impl World {
    /// Starts a process. `incarnation` counts its restarts.
    fn spawn(self: &Arc<Self>, number: usize, incarnation: u64) -> Life {
        let (life, world) = (Life::new(), Arc::clone(self));
        let seed = world.schedule.seed << 24 | (number as u64) << 4 | incarnation;
        let process = world.process(number, seed, life.clone());
        tokio::spawn(process);
        life
    }

    async fn process(self: Arc<Self>, number: usize, seed: u64, life: Life) {
        let (for_fleet, for_cache) = (Chance::new(seed), Chance::new(seed + 1));
        let store = Client {
            server: Arc::clone(&self.server),
            process: number,
            life: life.clone(),
        };
        let endpoints = Endpoints {
            klavi: Arc::clone(&self.klavi),
            process: number,
            life: life.clone(),
        };
        let world = Arc::clone(&self);
        let observe = move |event: &Event<'_>| {
            let at = world.klavi.now();
            if world.is_logged {
                println!("{at:?} {number}: {event:?}");
            }
            if let Event::Fleet(FleetEvent::Adopted {
                as_suspect: false, ..
            }) = event
            {
                let adoption = Adoption {
                    at,
                    process: number,
                    version: world.server.loaded_by(number),
                };
                world.history.lock().unwrap().adoptions.push(adoption);
            }
        };
        let cache = TokenCache::builder(endpoints)
            .observer(observe)
            .randomness(move || for_cache.part())
            .fleet(Fleet::new(store).randomness(move || for_fleet.next()))
            .build()
            .unwrap();
        let klavi = Arc::clone(&self.klavi);
        let api = service_fn(move |request: Request<()>| {
            let klavi = Arc::clone(&klavi);
            async move {
                sleep(Duration::from_millis(5)).await;
                let token = request.headers()[AUTHORIZATION].to_str().unwrap();
                let is_accepted = klavi.accepts(token.trim_start_matches("Bearer "));
                let status = if is_accepted { 200 } else { 401 };
                Ok::<_, Infallible>(Response::builder().status(status).body(()).unwrap())
            }
        });
        let layer = KlaviAuthLayer::for_origin("https://api.example.com", cache).unwrap();
        let service = layer.layer(api);
        let chance = Chance::new(seed + 2);
        // Large fleets send fewer requests each.
        let pause = 200 + self.schedule.processes as u64;
        while life.is_alive() {
            let request = Request::get("https://api.example.com/x").body(()).unwrap();
            let started = Instant::now();
            let response = service.clone().oneshot(request).await;
            if !life.is_alive() {
                return;
            }
            let what = match response {
                Ok(response) if response.status() == 200 => None,
                Ok(response) => Some(response.status().to_string()),
                Err(error) => Some(error.to_string()),
            };
            self.note(number, started, what);
            sleep(Duration::from_millis(chance.within(pause / 2, pause * 2))).await;
        }
    }

    fn note(&self, process: usize, started: Instant, failure: Option<String>) {
        let mut history = self.history.lock().unwrap();
        history.requests += 1;
        history.slowest = history.slowest.max(started.elapsed());
        history.failures.extend(failure.map(|what| Failure {
            at: self.klavi.now(),
            process,
            what,
        }));
    }
}
