//! Redis fails while processes send requests, and all tokens are revoked meanwhile.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::{
    faults::{BREAK, World, at_once, receive},
    fleet::{Fleet, token_calls},
    proxy::{Mode, Proxy},
    server::RedisServer,
    table::{Cell, Rows, measured, same},
    worker::Setup,
};

const SECOND: Duration = Duration::from_secs(1);
const PROCESSES: usize = 6;

#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// The processes share nothing.
    NoFleet,
    /// Killed, and started again without its data.
    Restart,
    Freeze,
    Flush,
    /// One response in five is lost after it was sent.
    Lose,
    /// A replica takes over that has missed the last writes.
    FailOver,
    /// For half of the processes a replica takes over, while the others keep the primary. Then it
    /// is a replica again, and what was written to it is lost.
    Split,
}

const TROUBLES: [(Trouble, &str); 8] = [
    (Trouble::None, "none"),
    (Trouble::NoFleet, "none, and no fleet"),
    (Trouble::Restart, "killed, and empty 3.5 s later"),
    (Trouble::Freeze, "stopped for 3.5 s"),
    (Trouble::Flush, "`FLUSHALL` ten times in 3 s"),
    (Trouble::Lose, "one response in five is lost"),
    (
        Trouble::FailOver,
        "a replica that lacks the last token takes over",
    ),
    (Trouble::Split, "split brain: two primaries for 3.5 s"),
];

pub(crate) const HEADER: &str = "| fault | *200* | *401* | no response | failed needlessly | *token calls* | *401 afterwards* | *slowest* |";

/// A row's servers, and a second proxy for half of its processes.
struct Setting {
    world: World,
    replica: RedisServer,
    other_half: Proxy,
}

impl Setting {
    async fn new() -> Self {
        let world = World::new().await;
        let other_half = Proxy::start(world.server.port()).await;
        Self {
            world,
            replica: RedisServer::start(),
            other_half,
        }
    }

    fn start(&self, trouble: Trouble) -> Fleet {
        let with = |redis: Option<String>| Setup {
            redis,
            ..self.world.setup(None)
        };
        if matches!(trouble, Trouble::NoFleet) {
            return Fleet::with(PROCESSES, &with(None));
        }
        let mut fleet = Fleet::with(PROCESSES / 2, &with(Some(self.world.proxy.url())));
        let half = Fleet::with(PROCESSES / 2, &with(Some(self.other_half.url())));
        fleet.processes.extend(half.processes);
        fleet
    }

    fn proxies(&self) -> [&Proxy; 2] {
        [&self.world.proxy, &self.other_half]
    }
}

/// All rows of one world: where a new token revokes the previous one, or does not.
pub(crate) async fn rows(revokes_old: bool) -> Rows {
    // All processes run before the first row begins, so that starting them disturbs none.
    let mut prepared = Vec::new();
    for (trouble, name) in TROUBLES {
        let setting = Setting::new().await;
        setting.world.klavi.set_new_token_revokes_old(revokes_old);
        let fleet = setting.start(trouble);
        prepared.push(async move {
            (
                name,
                trouble,
                row(trouble, &setting, fleet, revokes_old).await,
            )
        });
    }
    let seen = at_once(prepared).await;
    let without_fleet = seen
        .iter()
        .find_map(|(_, trouble, row)| matches!(trouble, Trouble::NoFleet).then_some(row.lost));
    let cells = |row: &Row| {
        // If both tokens stay valid, each request could be served. If a new one revokes the last,
        // no fleet can do better than none while it has no store.
        let needless = row
            .lost
            .saturating_sub(without_fleet.filter(|_| revokes_old).unwrap_or(0));
        assert_eq!(
            needless, 0,
            "{revokes_old}: {without_fleet:?}, {:?}",
            row.cells
        );
        let mut cells = row.cells.clone();
        cells.insert(3, same(&needless));
        cells
    };
    seen.iter()
        .map(|(name, _, row)| (*name, cells(row)))
        .collect()
}

struct Row {
    cells: Vec<Cell>,
    /// How many requests under load failed.
    lost: u64,
}

/// The fault begins after 1 s. All tokens are revoked after 2, 3 and 4 s, and after 4.5 s the
/// fault ends. The load continues for 1.5 s. On a busy machine it takes longer.
async fn row(trouble: Trouble, setting: &Setting, mut fleet: Fleet, revokes_old: bool) -> Row {
    let klavi = &setting.world.klavi;
    fleet.start_load(SECOND / 5, 60 * SECOND);
    sleep(SECOND).await;
    begin(setting, trouble);
    sleep(SECOND).await;
    for revocation in 0..3 {
        let before = klavi.counts().unauthorized;
        klavi.revoke_all();
        sleep(SECOND / 2).await;
        // A revocation that overtakes the last one is seen twice, by a request and by its resend.
        // So all processes get the time for their 401, and half a second to be served again. While
        // the store is away some may have no 401, because they fetch alone meanwhile.
        let all_have_seen_it = async {
            while klavi.counts().unauthorized < before + PROCESSES as u64 {
                sleep(SECOND / 100).await;
            }
        };
        let patience = match trouble {
            Trouble::Restart | Trouble::Freeze => 2 * SECOND,
            _ => 10 * SECOND,
        };
        let _ = timeout(patience, all_have_seen_it).await;
        if revocation < 2 {
            sleep(SECOND / 2).await;
        }
        if revocation == 0 && matches!(trouble, Trouble::FailOver) {
            for proxy in setting.proxies() {
                proxy.fail_over(setting.replica.port());
            }
        }
    }
    end(setting, trouble);
    sleep(3 * SECOND / 2).await;
    fleet.send("stop");
    let seen = receive(&mut fleet).await;
    let calls = token_calls(klavi);
    sleep(BREAK).await;

    // The tokens of these processes and of the fleet may have been revoked meanwhile.
    let (mut rejected_afterwards, mut rounds) = (0, 0);
    loop {
        fleet.send("get 1");
        let after = receive(&mut fleet).await;
        rejected_afterwards += after.unauthorized;
        rounds += 1;
        // Without a fleet it may never end.
        if after.lost() == 0 || matches!(trouble, Trouble::NoFleet) {
            break;
        }
        assert!(rounds < 20, "{trouble:?}: {after:?}");
        sleep(SECOND).await;
    }
    println!("{trouble:?}: {seen:?}, {calls} calls; {rejected_afterwards} in {rounds} rounds");
    match trouble {
        Trouble::None => assert_eq!((seen.unauthorized, calls), (0, 4)),
        Trouble::FailOver => assert_eq!(seen.unauthorized, 0, "{revokes_old}"),
        _ => assert!(revokes_old || seen.unauthorized + rejected_afterwards == 0),
    }
    let cells = vec![
        measured(&seen.ok),
        measured(&seen.unauthorized),
        same(&seen.failed),
        measured(&calls),
        measured(&rejected_afterwards),
        measured(&format!("{} ms", seen.slowest.as_millis())),
    ];
    Row {
        cells,
        lost: seen.lost(),
    }
}

fn begin(setting: &Setting, trouble: Trouble) {
    let Setting { world, replica, .. } = setting;
    match trouble {
        Trouble::None | Trouble::NoFleet => {}
        Trouble::FailOver => copy(&world.server, replica),
        Trouble::Split => {
            copy(&world.server, replica);
            setting.other_half.fail_over(replica.port());
        }
        Trouble::Restart => world.server.kill(),
        Trouble::Freeze => world.server.freeze(true),
        Trouble::Lose => setting
            .proxies()
            .iter()
            .for_each(|proxy| proxy.set(Mode::Lose(5))),
        Trouble::Flush => {
            let port = world.server.port();
            tokio::spawn(async move {
                let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                for _ in 0..10 {
                    sleep(3 * SECOND / 10).await;
                    let flush = redis::cmd("FLUSHALL");
                    flush.exec_async(&mut connection).await.unwrap();
                }
            });
        }
    }
}

fn end(setting: &Setting, trouble: Trouble) {
    let Setting { world, replica, .. } = setting;
    match trouble {
        Trouble::None | Trouble::NoFleet | Trouble::FailOver | Trouble::Flush => {}
        Trouble::Restart => world.server.restart(),
        Trouble::Freeze => world.server.freeze(false),
        Trouble::Lose => setting
            .proxies()
            .iter()
            .for_each(|proxy| proxy.set(Mode::Pass)),
        Trouble::Split => {
            // Connections to the demoted primary stay open.
            setting.other_half.lead_to(world.server.port());
            let port = world.server.port().to_string();
            replica.run(&["REPLICAOF", "127.0.0.1", &port]);
        }
    }
}

/// Like replication.
fn copy(from: &RedisServer, to: &RedisServer) {
    let key = from.key();
    let left: i64 = redis::from_redis_value(from.run(&["PTTL", &key])).unwrap();
    let value: Vec<u8> = redis::from_redis_value(from.run(&["GET", &key])).unwrap();
    let client = redis::Client::open(to.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut set = redis::cmd("SET");
    set.arg(key).arg(value).arg("PX").arg(left);
    set.exec(&mut connection).unwrap();
}
