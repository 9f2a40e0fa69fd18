//! Faults of Redis and of the record: what callers see, for `fleet_faults.md`.

use std::{collections::BTreeMap, future::Future, time::Duration};

use klavi_auth::sandbox::Sandbox;

use crate::{
    faults_of_the_holder, faults_under_load,
    fleet::{self, Fleet, token_calls},
    proxy::{Mode, Proxy},
    server::{self, RedisServer},
    table::{self, Cell, Rows, measured, same},
    worker::{Outcome, Setup},
};

const SECOND: Duration = Duration::from_secs(1);
const PROCESSES: usize = 5;

/// In milliseconds. Tokens live for half of it.
pub(crate) const HOUR: i64 = 3_600_000;

/// After a failure a process does not use the store for this long.
pub(crate) const BREAK: Duration = Duration::from_millis(5300);

/// A server, a proxy in front of it, and Klavi.
pub(crate) struct World {
    pub(crate) klavi: Sandbox,
    pub(crate) server: RedisServer,
    pub(crate) proxy: Proxy,
}

impl World {
    pub(crate) async fn new() -> Self {
        let server = RedisServer::start();
        Self {
            klavi: fleet::klavi().await,
            proxy: Proxy::start(server.port()).await,
            server,
        }
    }

    pub(crate) fn setup(&self, seal: Option<u8>) -> Setup {
        Setup {
            klavi: self.klavi.base_url().to_owned(),
            redis: Some(self.proxy.url()),
            seal,
            ..Setup::default()
        }
    }

    /// A process that has put a token into the store.
    fn first(&self, seal: Option<u8>) -> Fleet {
        let mut first = Fleet::with(1, &self.setup(seal));
        assert_eq!(first.get(1).lost(), 0);
        first
    }

    /// The value of the record in Redis.
    fn value(&self) -> Vec<u8> {
        redis::from_redis_value(self.server.run(&["GET", &self.server.key()])).unwrap()
    }

    fn replace(&self, value: &[u8]) {
        let client = redis::Client::open(self.server.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut set = redis::cmd("SET");
        set.arg(self.server.key()).arg(value).arg("KEEPTTL");
        set.exec(&mut connection).unwrap();
    }
}

/// The fault of a row. The first function starts it, the second ends it.
struct Fault {
    name: &'static str,
    seal: Option<u8>,
    /// A process that has a token before the fault.
    has_first: bool,
    /// The key of the new processes, if it differs.
    newcomers_seal: Option<u8>,
    /// The record is replaced by the one from before a revocation.
    is_rollback: bool,
    set: fn(&World),
    end: fn(&World),
}

impl Fault {
    fn new(name: &'static str, set: fn(&World), end: fn(&World)) -> Self {
        Self {
            name,
            seal: None,
            has_first: false,
            newcomers_seal: None,
            is_rollback: false,
            set,
            end,
        }
    }

    fn record(name: &'static str, set: fn(&World)) -> Self {
        Self {
            has_first: true,
            ..Self::new(name, set, |_| {})
        }
    }

    fn sealed(self) -> Self {
        Self {
            seal: Some(1),
            ..self
        }
    }
}

fn faults_of_redis() -> Vec<Fault> {
    let pass: fn(&World) = |world| world.proxy.set(Mode::Pass);
    vec![
        Fault::new("none", |_| {}, |_| {}),
        Fault::new(
            "down",
            |world| world.server.kill(),
            |world| world.server.restart(),
        ),
        Fault::new(
            "closes every connection",
            |world| world.proxy.set(Mode::Cut),
            pass,
        ),
        Fault::new(
            "does not respond",
            |world| world.proxy.set(Mode::Swallow),
            pass,
        ),
        Fault::new(
            "stopped (`SIGSTOP`)",
            |world| world.server.freeze(true),
            |world| world.server.freeze(false),
        ),
        Fault::new(
            "responds after 50 ms",
            |world| world.proxy.set(Mode::Delay(SECOND / 20)),
            pass,
        ),
        Fault::new(
            "responds after 1 s",
            |world| world.proxy.set(Mode::Delay(SECOND)),
            pass,
        ),
        Fault::new(
            "full, with `noeviction`",
            |world| drop(world.server.run(&["CONFIG", "SET", "maxmemory", "1"])),
            |world| drop(world.server.run(&["CONFIG", "SET", "maxmemory", "0"])),
        ),
        Fault::new(
            "read-only: a replica",
            |world| drop(world.server.run(&["REPLICAOF", "127.0.0.1", "1"])),
            |world| drop(world.server.run(&["REPLICAOF", "NO", "ONE"])),
        ),
        Fault::new(
            "asks for a password",
            |world| drop(world.server.run(&["CONFIG", "SET", "requirepass", "word"])),
            |world| {
                let url = world.server.url().replace("//", "//:word@");
                let client = redis::Client::open(url).unwrap();
                let mut connection = client.get_connection().unwrap();
                let set = ["CONFIG", "SET", "requirepass", ""];
                redis::cmd(set[0])
                    .arg(&set[1..])
                    .exec(&mut connection)
                    .unwrap();
            },
        ),
    ]
}

fn faults_of_the_record() -> Vec<Fault> {
    vec![
        Fault::record("none", |_| {}),
        Fault::record("script cache flushed", |world| {
            drop(world.server.run(&["SCRIPT", "FLUSH"]));
        }),
        Fault::record("evicted", |world| {
            let set = |name, value| drop(world.server.run(&["CONFIG", "SET", name, value]));
            // Keys with a time to live go first, and there is no other.
            set("maxmemory-policy", "volatile-ttl");
            set("maxmemory", "1");
            drop(world.server.try_run(&["SET", "another-key", "x"]));
            set("maxmemory", "0");
            world.server.run(&["DEL", "another-key"]);
            assert!(world.server.keys().is_empty());
        }),
        Fault::record("`FLUSHALL`", |world| drop(world.server.run(&["FLUSHALL"]))),
        Fault::record("truncated", |world| {
            let value = world.value();
            world.replace(&value[..value.len() / 2]);
        })
        .sealed(),
        Fault::record("tampered with, sealed", |world| {
            let mut value = world.value();
            *value.last_mut().unwrap() ^= 1;
            world.replace(&value);
        })
        .sealed(),
        Fault::record("10 MiB of something else", |world| {
            world.replace(&vec![b'x'; 10 * 1024 * 1024]);
        }),
        Fault {
            end: |world| drop(world.server.run(&["DEL", &world.server.key()])),
            ..Fault::record("another type under its key", |world| {
                let key = world.server.key();
                world.server.run(&["DEL", &key]);
                world.server.run(&["LPUSH", &key, "x"]);
            })
        },
        Fault {
            end: |world| drop(world.server.run(&["DEL", &world.server.key()])),
            ..Fault::record("of a newer format", |world| {
                let mut value = world.value();
                value[FORMAT_AT] += 1;
                world.replace(&value);
            })
        },
        Fault {
            newcomers_seal: Some(2),
            end: |world| drop(world.server.run(&["DEL", &world.server.key()])),
            ..Fault::record("sealed with an unknown key", |_| {}).sealed()
        },
        Fault {
            is_rollback: true,
            ..Fault::record("from before a revocation (a stale primary)", |_| {})
        },
        Fault::record("Redis' clock jumps an hour ahead", |world| {
            world.server.move_clock(HOUR);
        }),
        Fault::record("Redis' clock jumps an hour back", |world| {
            world.server.move_clock(-HOUR);
        }),
    ]
}

/// The format of the record: behind the store's prefix and four letters.
const FORMAT_AT: usize = 12;

/// New processes send two requests each during the fault. Once it has ended, all tokens are revoked
/// and all processes send two requests again, those from the time of the fault first.
async fn row(
    fault: &Fault,
    world: &World,
    mut first: Option<Fleet>,
    mut newcomers: Fleet,
) -> Vec<Cell> {
    if fault.is_rollback {
        let stale = world.value();
        world.klavi.revoke_all();
        assert_eq!(first.as_mut().unwrap().get(1).lost(), 0);
        world.replace(&stale);
    }
    (fault.set)(world);
    let before = token_calls(&world.klavi);
    newcomers.send("get 2");
    let seen = receive(&mut newcomers).await;
    let calls = token_calls(&world.klavi) - before;
    (fault.end)(world);
    tokio::time::sleep(BREAK).await;

    world.klavi.revoke_all();
    let before = token_calls(&world.klavi);
    newcomers.send("get 2");
    let mut after = receive(&mut newcomers).await;
    if let Some(first) = first.as_mut().filter(|_| fault.newcomers_seal.is_none()) {
        // Its token may be another one, which the fleet has lost.
        first.send("get 2");
        after.add(&receive(first).await);
    }
    println!("{}: {seen:?}, {calls} calls; {after:?}", fault.name);
    assert_eq!(after.lost(), 0, "{}: {after:?}", fault.name);
    vec![
        same(&seen.ok),
        same(&seen.unauthorized),
        same(&seen.failed),
        same(&calls),
        same(&(token_calls(&world.klavi) - before)),
        measured(&format!("{} ms", seen.slowest.as_millis())),
    ]
}

/// Runs all rows, each as a task, so that none waits for another.
pub(crate) async fn at_once<T: Send + 'static>(
    rows: Vec<impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = rows.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

/// Lets the other rows run.
pub(crate) async fn receive(fleet: &mut Fleet) -> Outcome {
    tokio::task::block_in_place(|| fleet.receive())
}

const HEADER: &str =
    "| fault | 200 | 401 | no response | token calls | after it, all revoked | *slowest* |";

async fn rows(faults: Vec<Fault>) -> Rows {
    // All processes run before the first row begins, so that starting them disturbs none.
    let mut prepared = Vec::new();
    for fault in faults {
        let world = World::new().await;
        let first = fault.has_first.then(|| world.first(fault.seal));
        let seal = fault.newcomers_seal.or(fault.seal);
        let newcomers = Fleet::with(PROCESSES, &world.setup(seal));
        prepared.push(async move { (fault.name, row(&fault, &world, first, newcomers).await) });
    }
    at_once(prepared).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_is_seen_as_the_table_says() {
    if server::is_missing() {
        return;
    }
    // Most of the time the rows wait.
    let (redis, record, holder) = tokio::join!(
        rows(faults_of_redis()),
        rows(faults_of_the_record()),
        faults_of_the_holder::rows(),
    );
    let (load, load_where_old_tokens_end) = tokio::join!(
        faults_under_load::rows(false),
        faults_under_load::rows(true)
    );
    let tables = BTreeMap::from([
        (1, (HEADER, redis)),
        (2, (HEADER, record)),
        (3, (faults_of_the_holder::HEADER, holder)),
        (4, (faults_under_load::HEADER, load)),
        (5, (faults_under_load::HEADER, load_where_old_tokens_end)),
    ]);
    table::check(&tables);
}
