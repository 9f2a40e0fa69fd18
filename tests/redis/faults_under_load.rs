//! Redis fails while processes send requests, and all tokens are revoked meanwhile.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::{
    faults::{BREAK, World, receive},
    fleet::{Fleet, token_calls},
    proxy::Mode,
    server::RedisServer,
    table::{Cell, Rows, measured, same},
};

const SECOND: Duration = Duration::from_secs(1);
const PROCESSES: usize = 10;

#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// Killed, and started again without its data.
    Restart,
    Freeze,
    Flush,
    /// One response in five is lost after it was sent.
    Lose,
    /// A replica takes over that has missed the last writes.
    FailOver,
}

const TROUBLES: [(Trouble, &str); 6] = [
    (Trouble::None, "none"),
    (Trouble::Restart, "killed, and empty 3 s later"),
    (Trouble::Freeze, "stands still for 3 s"),
    (Trouble::Flush, "`FLUSHALL` ten times in 3 s"),
    (Trouble::Lose, "one response in five is lost"),
    (
        Trouble::FailOver,
        "a replica that lacks the last token takes over",
    ),
];

pub(crate) const HEADER: &str =
    "| fault | *200* | *401* | no response | *token calls* | *401 afterwards* | *slowest* |";

/// All rows of one world: where a new token ends the last, or does not.
pub(crate) async fn rows(kills_old: bool) -> Rows {
    // All processes run before the first row begins, so that starting them disturbs none.
    let mut prepared = Vec::new();
    for (trouble, name) in TROUBLES {
        let (world, replica) = (World::new().await, RedisServer::start());
        world.klavi.set_new_token_revokes_old(kills_old);
        let fleet = Fleet::with(PROCESSES, &world.setup(None));
        prepared
            .push(async move { (name, row(trouble, &world, &replica, fleet, kills_old).await) });
    }
    join_all(prepared).await
}

/// The trouble begins after 1 s. All tokens are revoked after 2, 3 and 4 s, and after 4 s the
/// trouble ends. The load goes on until 6 s.
async fn row(
    trouble: Trouble,
    world: &World,
    replica: &RedisServer,
    mut fleet: Fleet,
    kills_old: bool,
) -> Vec<Cell> {
    fleet.start_load(SECOND / 5, 6 * SECOND);
    sleep(SECOND).await;
    copy(&world.server, replica);
    begin(world, trouble);
    for revocation in 0..3 {
        sleep(SECOND).await;
        world.klavi.revoke_all();
        if revocation == 0 && matches!(trouble, Trouble::FailOver) {
            sleep(SECOND / 2).await;
            world.proxy.fail_over(replica.port());
        }
    }
    end(world, trouble);
    let seen = receive(&mut fleet).await;
    let calls = token_calls(&world.klavi);
    sleep(BREAK).await;

    // These may find that their token and the fleet's have died meanwhile.
    let (mut rejected_afterwards, mut rounds) = (0, 0);
    loop {
        fleet.send("get 1");
        let after = receive(&mut fleet).await;
        rejected_afterwards += after.unauthorized;
        rounds += 1;
        if after.lost() == 0 {
            break;
        }
        assert!(rounds < 20, "{trouble:?}: {after:?}");
        sleep(SECOND).await;
    }
    println!("{trouble:?}: {seen:?}, {calls} calls; {rejected_afterwards} in {rounds} rounds");
    match trouble {
        Trouble::None => assert_eq!((seen.unauthorized, calls), (0, 4)),
        Trouble::FailOver => assert_eq!(seen.unauthorized, 0),
        Trouble::Flush | Trouble::Restart | Trouble::Freeze | Trouble::Lose => {
            assert!(kills_old || seen.unauthorized + rejected_afterwards == 0);
        }
    }
    vec![
        measured(&seen.ok),
        measured(&seen.unauthorized),
        same(&seen.failed),
        measured(&calls),
        measured(&rejected_afterwards),
        measured(&format!("{} ms", seen.slowest.as_millis())),
    ]
}

fn begin(world: &World, trouble: Trouble) {
    match trouble {
        Trouble::None | Trouble::FailOver => {}
        Trouble::Restart => world.server.kill(),
        Trouble::Freeze => world.server.freeze(true),
        Trouble::Lose => world.proxy.set(Mode::Lose(5)),
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

fn end(world: &World, trouble: Trouble) {
    match trouble {
        Trouble::None | Trouble::FailOver | Trouble::Flush => {}
        Trouble::Restart => world.server.restart(),
        Trouble::Freeze => world.server.freeze(false),
        Trouble::Lose => world.proxy.set(Mode::Pass),
    }
}

/// As replication does.
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
