//! The process that fetches for all is killed, stopped or slow.

use std::time::Duration;

use klavi_auth::sandbox::Endpoint;

use crate::{
    faults::{HOUR, World, at_once, receive},
    fleet::{Fleet, token_calls, until},
    table::{Cell, Rows, measured, same},
};

const SECOND: Duration = Duration::from_secs(1);
const PROCESSES: usize = 8;

#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    Killed,
    /// A second later Redis' clock goes back: the lease gets no older.
    KilledAndClockBack,
    /// Until all others are served.
    Stopped,
    /// `/auth` takes longer than the lease.
    Slow,
}

const TROUBLES: [(Trouble, &str); 5] = [
    (Trouble::None, "none"),
    (Trouble::Killed, "killed (`kill -9`)"),
    (
        Trouble::KilledAndClockBack,
        "killed, and Redis' clock jumps an hour back",
    ),
    (
        Trouble::Stopped,
        "stopped for longer than its lease (`SIGSTOP`)",
    ),
    (Trouble::Slow, "`/auth` takes 4.5 s, longer than its lease"),
];

pub(crate) const HEADER: &str =
    "| fault | 200 | 401 | no response | token calls | after it, all revoked | *slowest* |";

/// Each row is seen in both worlds: where a new token revokes the previous one, and where it does
/// not.
pub(crate) async fn rows() -> Rows {
    let mut prepared = Vec::new();
    for (trouble, name) in TROUBLES {
        for revokes_old in [false, true] {
            let world = World::new().await;
            world.klavi.set_new_token_revokes_old(revokes_old);
            let fleet = Fleet::with(PROCESSES, &world.setup(None));
            prepared.push(async move { (name, row(trouble, &world, fleet).await) });
        }
    }
    let mut rows = at_once(prepared).await;
    rows.dedup_by(|(other, cells), (name, first)| {
        if other != name {
            return false;
        }
        let counted = |cells: &[Cell]| format!("{:?}", &cells[..cells.len() - 1]);
        assert_eq!(counted(cells), counted(first), "{name}: the worlds differ");
        true
    });
    rows
}

/// The first process fetches and the others wait for it when the fault begins.
async fn row(trouble: Trouble, world: &World, mut fleet: Fleet) -> Vec<Cell> {
    let latency = match trouble {
        Trouble::Slow => 9 * SECOND / 2,
        _ => SECOND,
    };
    world.klavi.set_latency(Endpoint::Auth, latency);
    let mut holder = fleet.processes.remove(0);
    holder.send("get 1");
    tokio::task::block_in_place(|| until(|| world.klavi.counts().auth == 1));
    fleet.send("get 1");
    tokio::time::sleep(SECOND / 4).await;
    match trouble {
        Trouble::None | Trouble::Slow => {}
        Trouble::Killed => holder.kill(),
        Trouble::KilledAndClockBack => {
            holder.kill();
            world.server.move_clock(-HOUR);
        }
        Trouble::Stopped => holder.signal("STOP"),
    }
    let mut seen = receive(&mut fleet).await;
    if let Trouble::Stopped = trouble {
        holder.signal("CONT");
    }
    // A killed holder has no callers.
    if !matches!(trouble, Trouble::Killed | Trouble::KilledAndClockBack) {
        seen.add(&tokio::task::block_in_place(|| holder.receive()));
        fleet.processes.push(holder);
    }
    let calls = token_calls(&world.klavi);
    world.klavi.set_latency(Endpoint::Auth, Duration::ZERO);
    world.klavi.revoke_all();
    fleet.send("get 2");
    let after = receive(&mut fleet).await;
    println!("{trouble:?}: {seen:?}, {calls} calls; {after:?}");
    assert_eq!(after.lost(), 0, "{trouble:?}: {after:?}");
    if let Trouble::Killed = trouble {
        // The lease, a pause and the fetch of the next holder.
        assert!(seen.slowest < 5 * SECOND, "{seen:?}");
    }
    vec![
        same(&seen.ok),
        same(&seen.unauthorized),
        same(&seen.failed),
        same(&calls),
        same(&(token_calls(&world.klavi) - calls)),
        measured(&format!("{} ms", seen.slowest.as_millis())),
    ]
}
