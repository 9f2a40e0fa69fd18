//! One token for a fleet of processes, in half a minute.
//!
//! ```sh
//! cargo run -p examples --example fleet --features fleet
//! ```
//!
//! Starts a simulated Klavi, a redis-server and five processes on loopback. A live table shows the
//! token of each process: at the start, at a refresh, after a revocation, while the process that
//! fetches is killed, and while Redis is gone. Here, a new token revokes the previous one.
//!
//! Without redis-server on the machine, five tasks of one process share a token in memory.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it shows a table"
)]

mod redis;
mod table;
mod worker;

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use klavi_auth::{
    BoxError, Fleet, MemoryStore, RedisStore,
    sandbox::{Endpoint, Sandbox},
};
use redis::Redis;
use table::Table;
use worker::{ACCESS_KEY, SECRET_KEY};

const PROCESSES: usize = 5;
const LIFETIME: Duration = Duration::from_secs(6);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [command, number, klavi, store] = &arguments[..] {
        assert_eq!(command, "worker", "this example has no arguments");
        let fleet = Fleet::new(RedisStore::from_url(store)?);
        return worker::run(number.parse()?, klavi, fleet, |text| println!("{text}")).await;
    }
    let klavi = Sandbox::builder()
        .customer(ACCESS_KEY, SECRET_KEY)
        .token_lifetime(LIFETIME)
        .new_token_revokes_old(true)
        .start()
        .await?;
    match Redis::start() {
        Ok(redis) => with_processes(&klavi, redis).await,
        Err(error) => {
            println!(
                "redis-server cannot be started ({error}).\nInstall it (Debian, Ubuntu: `apt-get \
                 install redis-server`; macOS: `brew install redis`) to see real processes.\nUntil \
                 then, five tasks of this process share a token in memory.\n"
            );
            in_one_process(&klavi).await
        }
    }
}

async fn with_processes(klavi: &Sandbox, mut redis: Redis) -> Result<(), BoxError> {
    let mut table = Table::new(klavi, PROCESSES);
    let mut processes = Vec::new();
    for number in 0..PROCESSES {
        processes.push(Process::spawn(number, klavi, &redis.url(), &table)?);
    }
    table
        .show("cold start: one /auth for all, then a /refresh", true, 6)
        .await;

    klavi.revoke_all();
    table
        .show("all tokens revoked: one /auth for all", true, 3)
        .await;

    klavi.set_latency(Endpoint::Auth, Duration::from_secs(1));
    klavi.revoke_all();
    let holder = table.next_fetch().await;
    processes[holder].kill();
    table.set_state(holder, "killed while it fetched for all");
    let killed = format!(
        "process {} is killed in mid-fetch: its lease ends after 3 s",
        holder + 1
    );
    table.show(&killed, true, 6).await;
    klavi.set_latency(Endpoint::Auth, Duration::ZERO);
    processes[holder] = Process::spawn(holder, klavi, &redis.url(), &table)?;

    redis.stop();
    klavi.revoke_all();
    table
        .show(
            "Redis is gone: each alone, and they end each other's tokens",
            redis.is_up(),
            4,
        )
        .await;

    redis.resume()?;
    table
        .show(
            "Redis is back, and empty: they find together within seconds",
            true,
            8,
        )
        .await;
    table.finish();
    Ok(())
}

async fn in_one_process(klavi: &Sandbox) -> Result<(), BoxError> {
    let mut table = Table::new(klavi, PROCESSES);
    let fleet = Fleet::new(MemoryStore::new());
    for number in 0..PROCESSES {
        let (url, fleet) = (klavi.base_url().to_owned(), fleet.clone());
        let report = table.reporter(number);
        tokio::spawn(async move { worker::run(number, &url, fleet, report).await });
    }
    table
        .show("cold start: one /auth for all, then a /refresh", true, 6)
        .await;
    klavi.revoke_all();
    table
        .show("all tokens revoked: one /auth for all", true, 4)
        .await;
    table.finish();
    Ok(())
}

/// This example once more, as a process of the fleet.
struct Process(Child);

impl Process {
    fn spawn(number: usize, klavi: &Sandbox, store: &str, table: &Table) -> Result<Self, BoxError> {
        let mut child = Command::new(env::current_exe()?)
            .args(["worker", &number.to_string(), klavi.base_url(), store])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = child.stdout.take().map(BufReader::new);
        let report = table.reporter(number);
        std::thread::spawn(move || {
            let lines = lines.into_iter().flat_map(BufReader::lines);
            lines.map_while(Result::ok).for_each(|line| report(&line));
        });
        Ok(Self(child))
    }

    fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
