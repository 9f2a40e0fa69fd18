//! Every order of moves, breadth first, and from every state a way on without further faults.

use std::{
    collections::{HashSet, VecDeque},
    hash::{Hash, Hasher},
    time::Duration,
};

use crate::fleet::record::{Publication, Record};

use super::model::{Checked, Faults, Model, Phase, Status, Without, World};

const WORLDS: [World; 4] = [
    World {
        revokes: false,
        repeats: false,
    },
    World {
        revokes: false,
        repeats: true,
    },
    World {
        revokes: true,
        repeats: false,
    },
    World {
        revokes: true,
        repeats: true,
    },
];

/// Rounds in which each process moves once, until all are served. More means that a state is stuck.
const ROUNDS: usize = 24;

fn take(left: &mut u8) -> bool {
    let is_left = *left > 0;
    *left = left.saturating_sub(1);
    is_left
}

/// The next move of a process if nothing fails.
fn go_on(model: &mut Model, at: usize) -> Checked {
    match model.processes[at].phase {
        Phase::Served if model.is_served(at) => Ok(()),
        Phase::Served if model.processes[at].status == Status::Suspect => {
            model.processes[at].phase = Phase::Asking;
            Ok(())
        }
        Phase::Served => {
            model.reject(at);
            Ok(())
        }
        Phase::Asking => model.ask(at, false),
        Phase::Fetching(fetch) => {
            model.issue(at, fetch);
            Ok(())
        }
        Phase::Fetched(fetch, token) => model.publish(at, fetch, token, false),
        Phase::Failed(fetch, is_throttled) => model.fail(at, Some(fetch), is_throttled),
        Phase::BackingOff => match model.adopt_only(at) {
            Some(checked) => checked,
            None => {
                model.processes[at].phase = Phase::Asking;
                Ok(())
            }
        },
    }
}

/// Time passes: leases of nobody lapse, pauses end, the budget is refilled.
fn pass_time(model: &mut Model) {
    let is_held = model.is_holder_alive();
    model.pass_time(|record| {
        record.lease = record.lease.filter(|_| is_held);
        record.pauses = Default::default();
        record.forced.left = super::model::LIMITS.burst;
    });
}

/// `served`: the states from which all are served within the rounds, whatever faults are left.
/// States that differ in these only are many.
fn is_stuck(model: &Model, served: &mut HashSet<u64>) -> Option<&'static str> {
    let mut model = model.clone();
    (model.faults, model.fetches, model.is_excused) = (Faults::default(), 0, true);
    if served.contains(&fingerprint(&model)) {
        return None;
    }
    let mut passed = Vec::new();
    for _ in 0..ROUNDS {
        if (0..model.processes.len()).all(|at| model.is_served(at)) {
            served.extend(passed);
            return None;
        }
        model.fetches = 0;
        passed.push(fingerprint(&model));
        for at in 0..model.processes.len() {
            if let Err(broken) = go_on(&mut model, at) {
                return Some(broken);
            }
        }
        pass_time(&mut model);
    }
    Some("I8: a state is stuck")
}

/// All states that one move leads to.
fn moves(model: &Model, mut found: impl FnMut(Model, Checked)) {
    let mut try_move = |change: &mut dyn FnMut(&mut Model) -> Option<Checked>| {
        let mut next = model.clone();
        if let Some(checked) = change(&mut next) {
            found(next, checked);
        }
    };
    let done = || Some(Ok(()));
    for at in 0..model.processes.len() {
        let process = model.processes[at];
        // ## Without faults
        match process.phase {
            Phase::Served if process.status == Status::Good && !model.holds_dead_token(at) => {}
            Phase::BackingOff => {
                try_move(&mut |next| next.adopt_only(at));
                try_move(&mut |next| {
                    next.processes[at].phase = Phase::Asking;
                    done()
                });
            }
            _ => try_move(&mut |next| Some(go_on(next, at))),
        }
        if matches!(process.phase, Phase::Fetching(fetch) if fetch.permit.is_none()) {
            try_move(&mut |next| {
                next.release(at);
                done()
            });
        }
        // ## With a fault of this process
        match process.phase {
            Phase::Served if process.status == Status::Good => {
                try_move(&mut |next| {
                    take(&mut next.faults.spurious)
                        .then(|| next.reject(at))
                        .map(Ok)
                });
                try_move(&mut |next| {
                    take(&mut next.faults.refreshes).then(|| {
                        next.processes[at].phase = Phase::Asking;
                        Ok(())
                    })
                });
            }
            Phase::Asking => {
                try_move(&mut |next| {
                    take(&mut next.faults.lost_responses).then(|| next.ask(at, true))
                });
                try_move(&mut |next| {
                    take(&mut next.faults.outages).then(|| {
                        next.is_excused = true;
                        next.begin(at, None)
                    })
                });
                // The flight's timeout ends a wait.
                try_move(&mut |next| {
                    let is_waiting = next.record().is_some_and(|record| record.lease.is_some());
                    (is_waiting && take(&mut next.faults.failures))
                        .then(|| next.fail(at, None, false))
                });
            }
            Phase::Fetching(fetch) => {
                for is_throttled in [false, true] {
                    try_move(&mut |next| {
                        let left = match is_throttled {
                            true => &mut next.faults.throttled,
                            false => &mut next.faults.failures,
                        };
                        take(left).then(|| {
                            next.processes[at].phase = Phase::Failed(fetch, is_throttled);
                            Ok(())
                        })
                    });
                }
            }
            Phase::Fetched(fetch, token) if fetch.permit.is_some() => {
                try_move(&mut |next| {
                    take(&mut next.faults.lost_responses)
                        .then(|| next.publish(at, fetch, token, true))
                });
                try_move(&mut |next| {
                    take(&mut next.faults.outages)
                        .then(|| next.keep_unpublished(at, token))
                        .map(Ok)
                });
            }
            Phase::Failed(fetch, _) if fetch.permit.is_some() => try_move(&mut |next| {
                take(&mut next.faults.outages).then(|| next.end_without_token(at))
            }),
            _ => {}
        }
        try_move(&mut |next| {
            take(&mut next.faults.crashes)
                .then(|| next.crash(at))
                .map(Ok)
        });
    }
    // ## Of the store and of the issuer
    let record = model.record();
    if record.as_ref().is_some_and(|record| record.lease.is_some()) {
        try_move(&mut |next| {
            let is_free = !next.is_holder_alive() || next.is_without_heartbeat();
            (is_free || take(&mut next.faults.lapses)).then(|| {
                next.is_excused |= !is_free;
                next.pass_time(|record| record.lease = None);
                Ok(())
            })
        });
    }
    let is_fresh = |record: &Record| record.token.as_ref().is_some_and(Publication::is_confirmed);
    if record.as_ref().is_some_and(is_fresh) {
        // The publication is no longer new.
        try_move(&mut |next| {
            next.pass_time(|record| {
                if let Some(token) = &mut record.token {
                    token.since = Duration::from_secs(60);
                }
            });
            done()
        });
    }
    if record.is_some_and(|record| record.pauses != Default::default()) {
        try_move(&mut |next| {
            next.pass_time(|record| record.pauses = Default::default());
            done()
        });
    }
    try_move(&mut |next| {
        take(&mut next.faults.data_losses)
            .then(|| next.lose_data())
            .map(Ok)
    });
    try_move(&mut |next| {
        take(&mut next.faults.revocations)
            .then(|| next.revoke())
            .map(Ok)
    });
}

fn fingerprint(model: &Model) -> u64 {
    let mut mixer = Mixer(0);
    model.hash(&mut mixer);
    mixer.finish()
}

/// Half of the time would go into the standard hasher, without optimizations. The number of states
/// is the same with both.
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = (mixed ^ (mixed >> 32)).wrapping_add(0x94D0_49BB_1331_11EB);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Explores a setting. Returns how many states it has.
fn explore(start: Model, served: &mut HashSet<u64>) -> Result<usize, (&'static str, Box<Model>)> {
    let faults = fetches_for(start.faults);
    let mut seen = HashSet::from([fingerprint(&start)]);
    let mut queue = VecDeque::from([start]);
    while let Some(model) = queue.pop_front() {
        if let Some(broken) = is_stuck(&model, served) {
            return Err((broken, Box::new(model)));
        }
        // In some worlds, a process that fetches alone revokes the fleet's token.
        let is_excused = model.is_excused;
        let used = faults - fetches_for(model.faults);
        if let Err(broken) = model.check_counts(used, is_excused) {
            return Err((broken, Box::new(model)));
        }
        let mut broken = None;
        moves(&model, |next, checked| match checked {
            Err(what) => broken = Some((what, Box::new(next))),
            Ok(()) if seen.insert(fingerprint(&next)) => queue.push_back(next),
            Ok(()) => {}
        });
        if let Some(broken) = broken {
            return Err(broken);
        }
    }
    Ok(seen.len())
}

type Fault = fn(&mut Faults) -> &mut u8;

const FAULTS: [Fault; 10] = [
    |faults| &mut faults.lapses,
    |faults| &mut faults.crashes,
    |faults| &mut faults.lost_responses,
    |faults| &mut faults.data_losses,
    |faults| &mut faults.revocations,
    |faults| &mut faults.spurious,
    |faults| &mut faults.failures,
    |faults| &mut faults.throttled,
    |faults| &mut faults.outages,
    |faults| &mut faults.refreshes,
];

/// Every choice of so many faults.
fn settings(faults: usize) -> Vec<Faults> {
    let mut settings = vec![(0, Faults::default())];
    for _ in 0..faults {
        let one_more = |(first, faults): &(usize, Faults)| {
            let faults = *faults;
            let more = move |at: usize| {
                let mut more = faults;
                *FAULTS[at](&mut more) += 1;
                (at, more)
            };
            (*first..FAULTS.len()).map(more).collect::<Vec<_>>()
        };
        settings = settings.iter().flat_map(one_more).collect();
    }
    settings.into_iter().map(|(_, faults)| faults).collect()
}

/// How many fetches so many faults explain. A refresh that a rejection overtakes is asked for
/// again.
fn fetches_for(mut faults: Faults) -> u8 {
    let each: u8 = FAULTS.iter().map(|fault| *fault(&mut faults)).sum();
    each + faults.refreshes
}

/// How many faults and processes the settings have: two faults with two processes, and one with
/// three, or as `KLAVI_FLEET_MODEL=3,3` says.
fn sizes() -> Vec<(usize, u8)> {
    let sizes = std::env::var("KLAVI_FLEET_MODEL").ok();
    let sizes = sizes.as_deref().and_then(|sizes| sizes.split_once(','));
    let parse =
        |(faults, processes): (&str, &str)| Some((faults.parse().ok()?, processes.parse().ok()?));
    sizes
        .and_then(parse)
        .map_or_else(|| vec![(2, 2), (1, 3)], |sizes| vec![sizes])
}

#[test]
#[allow(
    clippy::print_stdout,
    reason = "the number of states, with `--nocapture`"
)]
fn every_order_of_steps_keeps_the_invariants() {
    let mut states = 0;
    for (faults, processes) in sizes() {
        for world in WORLDS {
            let mut served = HashSet::new();
            for faults in settings(faults) {
                let start = Model::new(processes, world, Without::Nothing, faults);
                match explore(start, &mut served) {
                    Ok(count) => states += count,
                    Err((broken, model)) => panic!(
                        "{broken}, {world:?}, {faults:?}: {:#?} {:#?}",
                        model.record(),
                        model.processes
                    ),
                }
            }
        }
    }
    println!("{states} states");
}

/// Explores the protocol without a part, until the model finds what that breaks.
fn found(without: Without, faults: Faults) -> Vec<&'static str> {
    let results = WORLDS.map(|world| {
        let start = Model::new(2, world, without, faults);
        explore(start, &mut HashSet::new())
    });
    let mut found: Vec<_> = results
        .into_iter()
        .filter_map(|result| result.err().map(|e| e.0))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn without_the_fence_an_old_lease_replaces_a_newer() {
    let faults = Faults {
        lapses: 2,
        ..Faults::default()
    };
    let found = found(Without::Fence, faults);
    assert!(
        found.contains(&"I2: a token of an older lease replaces one of a newer"),
        "{found:?}"
    );
}

#[test]
fn without_late_publication_fetched_tokens_are_lost() {
    let faults = Faults {
        lapses: 1,
        ..Faults::default()
    };
    let found = found(Without::LatePublication, faults);
    assert!(
        found.contains(&"I4: a fetched token is lost, though the fleet has none"),
        "{found:?}"
    );
}

#[test]
fn without_the_heartbeat_two_fetch_at_a_time() {
    assert_eq!(
        found(Without::Heartbeat, Faults::default()),
        ["I1: two fetches at a time"]
    );
}

#[test]
fn without_the_mark_a_rejected_token_is_adopted() {
    let faults = Faults {
        spurious: 1,
        ..Faults::default()
    };
    let found = found(Without::Mark, faults);
    assert!(
        found.contains(&"I3: a rejected token is adopted, and it was not confirmed"),
        "{found:?}"
    );
}

#[test]
fn without_a_retry_one_lost_response_sends_a_process_alone() {
    let faults = Faults {
        lost_responses: 1,
        ..Faults::default()
    };
    assert_eq!(
        found(Without::RetryBeforeAlone, faults),
        ["one lost response sends a process alone"]
    );
}
