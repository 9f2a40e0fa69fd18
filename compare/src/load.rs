//! Sends the requests of a situation, each in a task of its own, and writes down what became of
//! them.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{advance, sleep, sleep_until, timeout},
};

use crate::{peers::Client, world::World};

/// How long a caller waits for its response.
pub const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
pub struct Call {
    pub at: Duration,
    pub path: &'static str,
    /// The caller leaves after this time, and nobody counts what it got.
    pub hangs_up: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Status(u16),
    /// An error instead of a response, a panic, or no response within the patience.
    Error,
    Panic,
    Patience,
    HungUp,
}

#[derive(Debug)]
pub struct Sent {
    pub start: Duration,
    pub path: &'static str,
    pub outcome: Outcome,
}

/// While requests are under way, the clock makes no longer steps than this. So a byte that is still
/// between two sockets of this process cannot come seconds late.
const STEP: Duration = Duration::from_millis(5);

pub async fn send(world: &World, client: &Client, calls: &[Call]) -> Vec<Sent> {
    let under_way = Arc::new(Semaphore::new(0));
    let stepping = tokio::spawn(step(Arc::clone(&under_way)));
    let mut tasks = Vec::new();
    for &call in calls {
        sleep_until(world.start() + call.at).await;
        let (client, start, under_way) = (client.clone(), world.now(), Arc::clone(&under_way));
        let task = tokio::spawn(async move {
            under_way.add_permits(1);
            let _under_way = UnderWay(under_way);
            match (
                timeout(call.hangs_up.unwrap_or(PATIENCE), count(client(call.path))).await,
                call.hangs_up,
            ) {
                (_, Some(_)) => Outcome::HungUp,
                (Err(_), None) => Outcome::Patience,
                (Ok(Err(error)), None) => {
                    crate::verbose(|| format!("{error:?}"));
                    Outcome::Error
                }
                (Ok(Ok(status)), None) => Outcome::Status(status),
            }
        });
        tasks.push((start, call.path, task));
    }
    let mut sent = Vec::new();
    for (start, path, task) in tasks {
        let outcome = task.await.unwrap_or(Outcome::Panic);
        sent.push(Sent {
            start,
            path,
            outcome,
        });
    }
    stepping.abort();
    sent
}

/// Tasks that keep waking each other would keep the paused clock from moving. So this many polls of
/// one request take a millisecond, as many again two, and so on.
const POLLS: usize = 20;

async fn count<T>(call: impl Future<Output = T>) -> T {
    let (mut call, mut polls) = (pin!(call), 0_usize);
    poll_fn(move |cx| {
        polls += 1;
        if polls.is_multiple_of(POLLS) {
            tokio::spawn(advance(Duration::from_millis((polls / POLLS) as u64)));
        }
        call.as_mut().poll(cx)
    })
    .await
}

/// One permit for each request that is under way.
struct UnderWay(Arc<Semaphore>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.forget_permits(1);
    }
}

async fn step(under_way: Arc<Semaphore>) {
    while under_way.acquire().await.is_ok() {
        sleep(STEP).await;
    }
}
