//! Any original, any order of polls, any moment of the hand-over and of the drops, against a model
//! that has no tape.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// A case runs for about 50 µs.
const CASES: u32 = 20_000;

#[derive(Clone, Copy, Debug)]
enum Op {
    First,
    Second,
    TakeOver,
    DropFirst,
    DropSecond,
}

/// Says what must come, from the script alone.
struct Model {
    steps: Vec<Step>,
    limit: usize,
    /// The steps that the original has taken.
    taken: usize,
    /// It came to its end, or failed.
    ended: bool,
    failed: bool,
    /// At which step the second handle took over.
    handed_over: Option<usize>,
    /// At which step the second handle is.
    second: usize,
}

impl Model {
    /// Within the limit, and without an error.
    fn is_complete(&self) -> bool {
        let len = |step: &Step| match *step {
            Step::Data(len) => len,
            Step::Trailers(len) => "grpc-status".len() + len,
            Step::Pending | Step::Error => 0,
        };
        self.handed_over.is_some()
            || !self.failed && self.steps[..self.taken].iter().map(len).sum::<usize>() <= self.limit
    }

    fn take_over(&mut self) -> bool {
        if self.is_complete() {
            self.handed_over.get_or_insert(self.taken);
        }
        self.handed_over.is_some()
    }

    fn read(&mut self) -> Seen {
        let Some(&step) = self.steps.get(self.taken).filter(|_| !self.ended) else {
            self.ended = true;
            return Seen::End;
        };
        self.taken += 1;
        match step {
            Step::Data(0) => Seen::Nothing,
            Step::Data(_) | Step::Trailers(_) => Seen::Step(self.taken - 1),
            Step::Pending => Seen::Pending,
            Step::Error => {
                (self.ended, self.failed) = (true, true);
                Seen::Failed
            }
        }
    }

    fn first(&mut self) -> Seen {
        if self.handed_over.is_some() {
            Seen::TakenOver
        } else {
            self.read()
        }
    }

    fn second(&mut self) -> Seen {
        if !self.take_over() {
            return Seen::Incomplete;
        }
        let repeated = self.recorded().next();
        match repeated {
            Some(step) => {
                self.second = step + 1;
                Seen::Step(step)
            }
            None => {
                self.second = self.handed_over.unwrap_or(0);
                self.read()
            }
        }
    }

    /// The steps that the second handle has yet to repeat.
    fn recorded(&self) -> impl Iterator<Item = usize> {
        let end = self.handed_over.unwrap_or(self.taken);
        let says_something =
            |&step: &usize| matches!(self.steps[step], Step::Data(1..) | Step::Trailers(_));
        (self.second..end).filter(says_something)
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
    /// What the first handle said of its size and its end when nothing was read yet.
    announced: (u64, Option<u64>, bool),
    second_was_read: bool,
}

impl Case {
    fn new(steps: Vec<Step>, hint: Hint, foresees_end: bool, limit: usize) -> Self {
        let (original, addresses, alive) = Original::new(&steps, hint, foresees_end);
        let first = ReplayBody::record(original, limit);
        let second = first.replay();
        let model = Model {
            steps,
            limit,
            taken: 0,
            ended: false,
            failed: false,
            handed_over: None,
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

    /// Reads what is still there to its end, in a number of polls that is known: nothing hangs.
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
                !matches!(seen, Some(Seen::Step(_) | Seen::Nothing | Seen::Pending))
            });
            assert!(over, "it goes on and on");
        }
    }

    fn check(&self) {
        let model = &self.model;
        let recorded: Vec<_> = model.recorded().map(|step| model.steps[step]).collect();
        if let Some(first) = &self.first {
            let lost = model.handed_over.is_some();
            self.check_claims(first, lost, model.unread());
        }
        if let Some(second) = &self.second {
            assert_eq!(
                second.is_complete() || model.handed_over.is_some(),
                model.is_complete()
            );
            let lost = !model.is_complete();
            if self.second_was_read || lost {
                self.check_claims(second, lost, &[&recorded, model.unread()].concat());
            } else {
                assert_eq!(claims(second), self.announced);
            }
        }
        self.check_memory(&recorded);
    }

    /// What a handle says of itself is true to what follows.
    fn check_claims(&self, handle: &ReplayBody<Original>, lost: bool, following: &[Step]) {
        let (hint, at_end) = (handle.size_hint(), handle.is_end_stream());
        if lost {
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

    /// What is not read yet is there, what can be asked for again is there, and nothing else.
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
        match self.model.handed_over {
            _ if self.second.is_none() || !self.model.is_complete() => assert_eq!(alive, 0),
            None => assert_eq!(alive, chunks(recorded)),
            // What was repeated may stay until the end.
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
    // Half of them fail somewhere.
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
    #![proptest_config(ProptestConfig { cases: CASES.max(ProptestConfig::default().cases), ..ProptestConfig::default() })]

    #[test]
    fn case_53_54_55_the_replay_is_the_original_or_refuses(
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
