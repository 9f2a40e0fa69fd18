//! A simulated store that delays, fails, loses responses and data, rolls back and splits.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use klavi_auth::{BoxError, FleetStore, StoreFuture, Stored};
use tokio::time::{Instant, sleep};

use crate::{
    chance::Chance,
    process::Life,
    record::{Publication, Write},
    schedule::{Fault, Schedule},
};

type Values = BTreeMap<String, (Vec<u8>, Instant, Duration)>;

pub(crate) struct Server {
    schedule: Schedule,
    start: Instant,
    chance: Chance,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The primary, and the copy that half of the processes use during a split.
    sides: [Values; 2],
    was_split: bool,
    history: VecDeque<(Instant, Values)>,
    calls: u64,
    log: Log,
}

/// What the checks need to know. There is one record, so one key.
#[derive(Default)]
struct Log {
    writes: Vec<Write>,
    /// How many writes there were when each process loaded the record last.
    loaded: BTreeMap<usize, usize>,
}

impl Server {
    pub(crate) fn new(schedule: &Schedule) -> Arc<Self> {
        Arc::new(Self {
            schedule: schedule.clone(),
            start: Instant::now(),
            chance: Chance::new(schedule.seed ^ 0x5707),
            state: Mutex::default(),
        })
    }

    fn is_on(&self, fault: Fault) -> bool {
        self.schedule.is_on(fault, self.start.elapsed())
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state.lock().unwrap().calls
    }

    pub(crate) fn writes(&self) -> Vec<Write> {
        self.state.lock().unwrap().log.writes.clone()
    }

    pub(crate) fn loaded_by(&self, process: usize) -> usize {
        self.state.lock().unwrap().log.loaded[&process]
    }

    pub(crate) fn lose_data(&self) {
        let mut state = self.state.lock().unwrap();
        state.sides = Default::default();
        state.log.writes.push(Write {
            at: self.start.elapsed(),
            process: 0,
            publication: None,
            is_loss: true,
        });
    }

    /// Goes back to the state of two seconds ago or more.
    pub(crate) fn roll_back(&self) {
        let mut state = self.state.lock().unwrap();
        let before = Instant::now() - Duration::from_secs(2);
        let earlier = state.history.iter().rev().find(|(at, _)| *at <= before);
        state.sides[0] = earlier
            .map(|(_, values)| values.clone())
            .unwrap_or_default();
    }

    /// Runs a command on the side that a process sees.
    fn run<T>(&self, process: usize, command: impl FnOnce(&mut Values, &mut Log) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        state.calls += 1;
        let is_split = self.is_on(Fault::Split);
        if is_split && !state.was_split {
            state.sides[1] = state.sides[0].clone();
        }
        state.was_split = is_split;
        let side = if is_split { process % 2 } else { 0 };
        let result = command(&mut state.sides[side], &mut state.log);
        let entry = (Instant::now(), state.sides[0].clone());
        state.history.push_back(entry);
        if state.history.len() > 200 {
            state.history.pop_front();
        }
        result
    }

    async fn transfer(&self) -> Result<(), BoxError> {
        if self.is_on(Fault::StoreHangs) {
            return pending().await;
        }
        if self.is_on(Fault::StoreDown) {
            return Err("connection refused".into());
        }
        let longest = if self.is_on(Fault::StoreSlow) {
            150_000
        } else {
            1_500
        };
        sleep(Duration::from_micros(self.chance.within(100, longest))).await;
        Ok(())
    }

    fn loses(&self, part: f64) -> bool {
        self.is_on(Fault::StoreLossy) && self.chance.part() < part
    }

    async fn call<T>(
        &self,
        process: usize,
        command: impl FnOnce(&mut Values, &mut Log) -> T,
    ) -> Result<T, BoxError> {
        self.schedule.while_cut_off(process, self.start).await;
        self.transfer().await?;
        if self.loses(0.1) {
            return Err("the request was lost".into());
        }
        let result = self.run(process, command);
        self.transfer().await?;
        self.schedule.while_cut_off(process, self.start).await;
        if self.loses(0.2) {
            return Err("the response was lost".into());
        }
        Ok(result)
    }
}

/// The store, as one process uses it.
pub(crate) struct Client {
    pub(crate) server: Arc<Server>,
    pub(crate) process: usize,
    pub(crate) life: Life,
}

fn alive<'a>(values: &'a Values, key: &str) -> Option<(&'a [u8], Duration)> {
    let (bytes, written_at, time_to_live) = values.get(key)?;
    let age = written_at.elapsed();
    (age < *time_to_live).then_some((&bytes[..], age))
}

impl FleetStore for Client {
    fn load<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        let process = self.process;
        let load = self.server.call(process, move |values, log| {
            log.loaded.insert(process, log.writes.len());
            alive(values, key).map(|(bytes, age)| Stored::new(bytes.to_vec(), age))
        });

        Box::pin(self.life.of(load))
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<&'a [u8]>,
        new: &'a [u8],
        time_to_live: Duration,
    ) -> StoreFuture<'a, bool> {
        let (process, start) = (self.process, self.server.start);
        let swap = self.server.call(process, move |values, log| {
            let is_expected = alive(values, key).map(|(bytes, _)| bytes) == expected;
            if is_expected {
                let value = (new.to_vec(), Instant::now(), time_to_live);
                values.insert(key.to_owned(), value);
                log.writes.push(Write {
                    at: start.elapsed(),
                    process,
                    publication: Publication::of(new),
                    is_loss: false,
                });
            }
            is_expected
        });
        Box::pin(self.life.of(swap))
    }
}
