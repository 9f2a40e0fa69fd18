//! The two handles against a model without a recording: any original, any order of polls, and any
//! moment of the takeover and of the drops.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// A case takes about 50 µs.
const CASES: u32 = 20_000;

#[derive(Clone, Copy, Debug)]
enum Op {
    First,
    Second,
    TakeOver,
    DropFirst,
    DropSecond,
}

/// Predicts each poll from the script alone.
struct Model {
    steps: Vec<Step>,
    limit: usize,
    /// The number of steps that the original has taken.
    taken: usize,
    /// Whether the original ended or failed.
    ended: bool,
    failed: bool,
    /// The step at which the second handle took over.
    taken_over_at: Option<usize>,
    /// The next step of the second handle.
    second: usize,
}

impl Model {
    /// Whether the limit was kept and the original did not fail.
    fn is_complete(&self) -> bool {
        let len = |step: &Step| match *step {
            Step::Data(len) => len,
            Step::Trailers(len) => "grpc-status".len() + len,
            Step::Pending | Step::Error => 0,
        };
        self.taken_over_at.is_some()
            || !self.failed && self.steps[..self.taken].iter().map(len).sum::<usize>() <= self.limit
    }

    fn take_over(&mut self) -> bool {
        if self.is_complete() {
            self.taken_over_at.get_or_insert(self.taken);
        }
        self.taken_over_at.is_some()
    }

    fn read(&mut self) -> Seen {
        let Some(&step) = self.steps.get(self.taken).filter(|_| !self.ended) else {
            self.ended = true;
            return Seen::End;
        };
        self.taken += 1;
        match step {
            Step::Data(0) => Seen::Empty,
            Step::Data(_) | Step::Trailers(_) => Seen::Step(self.taken - 1),
            Step::Pending => Seen::Pending,
            Step::Error => {
                (self.ended, self.failed) = (true, true);
                Seen::Failed
            }
        }
    }

    fn first(&mut self) -> Seen {
        if self.taken_over_at.is_some() {
            Seen::TakenOver
        } else {
            self.read()
        }
    }

    fn second(&mut self) -> Seen {
        if !self.take_over() {
            return Seen::Incomplete;
        }
        let replayed = self.recorded().next();
        match replayed {
            Some(step) => {
                self.second = step + 1;
                Seen::Step(step)
            }
            None => {
                self.second = self.taken_over_at.unwrap_or(0);
                self.read()
            }
        }
    }

    /// The steps that the second handle has yet to replay.
    fn recorded(&self) -> impl Iterator<Item = usize> {
        let end = self.taken_over_at.unwrap_or(self.taken);
        let is_recorded =
            |&step: &usize| matches!(self.steps[step], Step::Data(1..) | Step::Trailers(_));
        (self.second..end).filter(is_recorded)
    }

    fn unread(&self) -> &[Step] {
        if self.ended {
            &[]
        } else {
            &self.steps[self.taken..]
        }
    }
}

struct Case {
    model: Model,
    hint: Hint,
    foresees_end: bool,
    addresses: Vec<usize>,
    alive: Arc<AtomicUsize>,
    first: Option<ReplayBody<Original>>,
    second: Option<ReplayBody<Original>>,
    /// The claims of the first handle before the first poll.
    announced: (u64, Option<u64>, bool),
    second_was_read: bool,
}

impl Case {
    fn new(steps: Vec<Step>, hint: Hint, foresees_end: bool, limit: usize) -> Self {
        let (original, addresses, alive) = Original::new(&steps, hint, foresees_end);
        let (first, second) = ReplayBody::record(original, limit);
        let model = Model {
            steps,
            limit,
            taken: 0,
            ended: false,
            failed: false,
            taken_over_at: None,
            second: 0,
        };
        let announced = claims(&first);
        let (first, second, second_was_read) = (Some(first), Some(second), false);
        Self {
            model,
            hint,
            foresees_end,
            addresses,
            alive,
            first,
            second,
            announced,
            second_was_read,
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::First => drop(self.poll_first()),
            Op::Second => drop(self.poll_second()),
            Op::TakeOver => {
                if let Some(second) = &self.second {
                    assert_eq!(second.take_over(), self.model.take_over());
                }
            }
            Op::DropFirst => self.first = None,
            Op::DropSecond => self.second = None,
        }
        self.check();
    }

    fn poll_first(&mut self) -> Option<Seen> {
        let seen = see(self.first.as_mut()?, &self.model.steps, &self.addresses);
        assert_eq!(seen, self.model.first());
        Some(seen)
    }

    fn poll_second(&mut self) -> Option<Seen> {
        let seen = see(self.second.as_mut()?, &self.model.steps, &self.addresses);
        assert_eq!(seen, self.model.second());
        self.second_was_read = true;
        Some(seen)
    }

    /// Reads both handles to their end, in a bounded number of polls.
    fn drain(&mut self, first_first: bool) {
        for first in [first_first, !first_first] {
            let enough = self.model.steps.len() * 2 + 1;
            let over = (0..enough).any(|_| {
                let seen = if first {
                    self.poll_first()
                } else {
                    self.poll_second()
                };
                self.check();
                !matches!(seen, Some(Seen::Step(_) | Seen::Empty | Seen::Pending))
            });
            assert!(over, "no end in {enough} polls");
        }
    }

    fn check(&self) {
        let model = &self.model;
        let recorded: Vec<_> = model.recorded().map(|step| model.steps[step]).collect();
        if let Some(first) = &self.first {
            let is_lost = model.taken_over_at.is_some();
            self.check_claims(first, is_lost, model.unread());
        }
        if let Some(second) = &self.second {
            assert_eq!(
                second.is_complete() || model.taken_over_at.is_some(),
                model.is_complete()
            );
            let is_lost = !model.is_complete();
            if self.second_was_read || is_lost {
                self.check_claims(second, is_lost, &[&recorded, model.unread()].concat());
            } else {
                assert_eq!(claims(second), self.announced);
            }
        }
        self.check_memory(&recorded);
    }

    /// The claims of a handle hold for the steps that follow.
    fn check_claims(&self, handle: &ReplayBody<Original>, is_lost: bool, following: &[Step]) {
        let (hint, at_end) = (handle.size_hint(), handle.is_end_stream());
        if is_lost {
            // An error follows.
            return assert_eq!((hint.lower(), hint.upper(), at_end), (0, None, false));
        }
        let bytes: u64 = following.iter().map(|step| step.data()).sum();
        assert!(
            hint.lower() <= bytes && hint.upper().is_none_or(|upper| bytes <= upper),
            "{hint:?} {bytes}"
        );
        if matches!(self.hint, Hint::Exact) {
            assert_eq!(hint.exact(), Some(bytes));
        }
        assert_eq!(
            at_end,
            following.is_empty() && (self.foresees_end || self.model.ended)
        );
    }

    /// The chunks alive are those unread and those recorded for the replay.
    fn check_memory(&self, recorded: &[Step]) {
        let chunks = |steps: &[Step]| {
            steps
                .iter()
                .filter(|step| matches!(step, Step::Data(_)))
                .count()
        };
        let unread = if self.first.is_some() || self.second.is_some() {
            self.model.unread()
        } else {
            &[]
        };
        let alive = self.alive.load(Ordering::SeqCst) - chunks(unread);
        match self.model.taken_over_at {
            _ if self.second.is_none() || !self.model.is_complete() => assert_eq!(alive, 0),
            None => assert_eq!(alive, chunks(recorded)),
            // Replayed chunks may live until the end.
            Some(step) => {
                assert!(alive >= chunks(recorded) && alive <= chunks(&self.model.steps[..step]))
            }
        }
    }
}

fn claims(handle: &ReplayBody<Original>) -> (u64, Option<u64>, bool) {
    let hint = handle.size_hint();
    (hint.lower(), hint.upper(), handle.is_end_stream())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..40_usize).prop_map(Step::Data),
        1 => Just(Step::Data(0)),
        1 => (1..20_usize).prop_map(Step::Trailers),
        2 => Just(Step::Pending),
    ];
    // Half of the scripts fail at some step.
    (vec(step, 0..10), any::<Option<Index>>()).prop_map(|(mut steps, error)| {
        if let Some(index) = error {
            steps.truncate(index.index(steps.len() + 1));
            steps.push(Step::Error);
        }
        steps
    })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        12 => Just(Op::First),
        5 => Just(Op::Second),
        1 => Just(Op::TakeOver),
        1 => Just(Op::DropFirst),
        1 => Just(Op::DropSecond),
    ];
    vec(op, 0..20)
}

fn hint() -> impl Strategy<Value = Hint> {
    prop_oneof![
        Just(Hint::Exact),
        Just(Hint::Unknown),
        Just(Hint::Loose),
        Just(Hint::Huge)
    ]
}

proptest! {
    // Failing seeds are kept in `proptest-regressions/replay/tests/property.txt`.
    #![proptest_config(ProptestConfig {
        cases: CASES.max(ProptestConfig::default().cases),
        ..ProptestConfig::default()
    })]

    #[test]
    fn case_53_54_55_a_replay_is_the_original_or_an_error(
        steps in steps(), hint in hint(), foresees_end: bool, ops in ops(), first_first: bool,
        limit in prop_oneof![Just(0), 1..300_usize, Just(usize::MAX)],
    ) {
        let mut case = Case::new(steps, hint, foresees_end, limit);
        case.check();
        for op in ops {
            case.run(op);
        }
        case.drain(first_first);
        let alive = Arc::clone(&case.alive);
        drop(case);
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}
