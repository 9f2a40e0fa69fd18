//! Runs a case: each op is applied to the crate and to the reference, then every task runs until
//! none can.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use klavi_auth::{Budget, TokenCache};
use tokio::{runtime::Runtime, task::yield_now, time::Instant};

use crate::{
    api::Api,
    budget::FULL_REFILL,
    caller_task::CallerTask,
    callers::Caller,
    flight::{OVERDUE, Stage},
    ops::{Call, Case, Edge, Moment, Op, Readiness, Reply, Token, What},
    shared::Shared,
    snapshot::check_snapshot,
    source::Source,
    stack::Stack,
    time::{HEAD_START, MS, Ns, Ticks},
};

pub(crate) struct Driver {
    shared: Arc<Shared>,
    source: Source,
    api: Api,
    /// All that holds the cache, together with the tasks, until the end.
    stack: Option<Stack>,
    background_refresh: bool,
    tasks: Vec<Arc<CallerTask>>,
    /// The one that runs, and the stalled one, with their numbers.
    runtime: Option<(usize, Runtime)>,
    still: Option<(usize, Runtime)>,
}

impl Driver {
    pub(crate) fn new(case: &Case) -> Self {
        let runtime = paused();
        let epoch = runtime.block_on(async {
            let epoch = Instant::now();
            tokio::time::advance(Duration::from_nanos(HEAD_START)).await;
            epoch
        });
        let shared = Arc::new(Shared::new(case, epoch));
        let source = Source::new(Arc::clone(&shared));
        let api = Api::new(Arc::clone(&shared));
        let drawing = Arc::clone(&shared);
        let cache = TokenCache::builder(source.clone())
            .randomness(move || drawing.draw())
            .budget(
                Budget::default()
                    .burst(case.burst)
                    .full_refill(Duration::from_nanos(FULL_REFILL)),
            )
            .background_refresh(case.background_refresh)
            .build()
            .unwrap();
        Self {
            stack: Some(Stack::new(cache, &api, case.small_limit)),
            background_refresh: case.background_refresh,
            tasks: Vec::new(),
            runtime: Some((0, runtime)),
            still: None,
            shared,
            source,
            api,
        }
    }

    fn stack(&self) -> &Stack {
        self.stack.as_ref().expect("the case has not ended")
    }

    /// Runs an op.
    ///
    /// # Errors
    ///
    /// The difference that was found.
    pub(crate) fn run(&mut self, op: &Op) -> Result<(), String> {
        match *op {
            Op::Restart => self.restart(),
            // Where the task of the background refresh goes from a stalled runtime is not
            // part of the model.
            Op::Switch if self.background_refresh => {}
            Op::Switch => self.switch(),
            ref op => self.inside(|driver| driver.act(op)),
        }
        self.settle()
    }

    fn act(&mut self, op: &Op) {
        match *op {
            Op::Call(times, call) => (0..times).for_each(|_| self.call(call)),
            Op::Source(reply) => self.source.respond(reply),
            Op::SourceAlways(reply) => self.shared.model().source_always = reply,
            Op::Api(which, reply) => drop(self.api.respond(which, reply)),
            Op::ApiAlways(reply) => self.shared.model().env.always = reply,
            Op::Readiness(readiness) => self.api.set_readiness(readiness),
            Op::Pass(ms) => self.pass_to(self.shared.now() + ms * MS),
            Op::PassTo(moment, edge) => {
                if let Some(moment) = self.find(moment, edge) {
                    self.pass_to(moment);
                }
            }
            Op::Drop(which) => {
                if let Some(task) = self.pending(which) {
                    task.leave();
                }
            }
            Op::Hold(which) => {
                if let Some(task) = self.pending(which) {
                    self.hold(&task, true);
                }
            }
            Op::Release => self.tasks.iter().for_each(|task| self.hold(task, false)),
            Op::Move(which) => {
                if let Some(task) = self.pending(which) {
                    task.poll();
                }
            }
            Op::Invalidate(back) => self.invalidate(back),
            Op::Revoke => {
                let env = &mut self.shared.model().env;
                env.revoked.extend(env.last_seen);
            }
            Op::ReadOn(which) => self.api.read_on(which),
            Op::Restart | Op::Switch => {}
        }
    }

    fn call(&mut self, call: Call) {
        let number = self.tasks.len();
        self.shared.model().callers.push(Caller::new(call));
        let running = self.stack().run(number, call);
        let task = CallerTask::new(
            number,
            call,
            &self.shared,
            (&self.stack().cache, &self.api),
            running,
        );
        self.tasks.push(task);
    }

    /// One of the callers that still wait.
    fn pending(&self, which: u8) -> Option<Arc<CallerTask>> {
        let pending: Vec<_> = self.tasks.iter().filter(|task| task.is_pending()).collect();
        let index = usize::from(which).checked_rem(pending.len())?;
        Some(Arc::clone(pending[index]))
    }

    fn hold(&self, task: &CallerTask, held: bool) {
        task.held.store(held, Ordering::SeqCst);
        task.was_held.fetch_or(held, Ordering::SeqCst);
        self.shared.model().callers[task.number()].held = held;
    }

    /// Invalidates a token that some caller got, the newest or one of `back` before.
    fn invalidate(&self, back: u8) {
        let handle = self
            .stack()
            .handles
            .lock()
            .unwrap()
            .values()
            .nth_back(back.into())
            .cloned();
        let Some(token) = handle else { return };
        let text = token
            .expose()
            .strip_prefix("token-")
            .unwrap()
            .parse()
            .unwrap();
        let cache = &self.stack().cache;
        let is_current = cache.snapshot().generation() == Some(token.generation());
        self.shared
            .model()
            .cache
            .invalidate(text, token.generation());
        cache.invalidate(&token);
        if is_current {
            self.shared.model().audit.invalidated(token.generation());
        }
    }

    fn find(&self, moment: Moment, edge: Edge) -> Option<Ns> {
        let model = self.shared.model();
        let (cache, now) = (&model.cache, model.env.now);
        let flight = cache.flight.map(|number| &cache.flights[number]);
        let token = cache.token.as_ref();
        let (at, step) = match moment {
            Moment::Refresh => (token?.refresh_at, 1),
            Moment::Expiring => (token?.expiring_at, 1),
            Moment::End => (token?.end, 1),
            Moment::RefreshBackoffOver(asker) => (cache.refreshes.until(asker), 1),
            Moment::FetchBackoffOver(asker) => (cache.fetches.until(asker), 1),
            Moment::Release => (flight?.release_at?, MS),
            Moment::FlightTimeout => (flight?.deadline?, MS),
            Moment::NextAttempt => match flight?.stage {
                Stage::Pausing { until } => (until, MS),
                _ => return None,
            },
            Moment::FlightOverdue => (flight?.begun + OVERDUE, 1),
            Moment::Refill => (cache.bucket.refill_at, 1),
        };
        let at = edge.of(at, step);
        (at >= now).then_some(at)
    }

    fn pass_to(&self, moment: Ns) {
        let by = Duration::from_nanos(moment - self.shared.now());
        // The first poll advances the clock, the others let tasks run.
        let _moved = tokio::time::advance(by).now_or_never();
    }

    /// Drops the runtime, whatever runs in it. Time continues where it was.
    fn restart(&mut self) {
        let Some((number, runtime)) = self.runtime.take() else {
            return;
        };
        let now = self.now_in(&runtime);
        // A caller polled while a runtime is dropped would start a flight in that runtime.
        self.shared.no_eagerness.store(true, Ordering::SeqCst);
        drop(runtime);
        self.shared.no_eagerness.store(false, Ordering::SeqCst);
        self.start(now);
        self.inside(|driver| driver.shared.runtime_lost(number));
    }

    /// The runtime is stalled from now on; the stalled one, or a new one, runs.
    fn switch(&mut self) {
        let Some((number, runtime)) = self.runtime.take() else {
            return;
        };
        let now = self.now_in(&runtime);
        let other = self.still.replace((number, runtime));
        match other {
            None => self.start(now),
            Some(other) => self.go_on(other, now),
        }
    }

    fn start(&mut self, now: Ns) {
        let runtime = paused();
        let origin = runtime.block_on(async { self.shared.now() });
        let number = self.shared.add_runtime(Ticks { origin });
        self.go_on((number, runtime), now);
    }

    fn go_on(&mut self, (number, runtime): (usize, Runtime), now: Ns) {
        self.shared.set_runtime(number);
        self.move_clock(&runtime, now);
        self.runtime = Some((number, runtime));
    }

    fn move_clock(&self, runtime: &Runtime, now: Ns) {
        let _entered = runtime.enter();
        self.pass_to(now);
    }

    fn now_in(&self, runtime: &Runtime) -> Ns {
        let _entered = runtime.enter();
        self.shared.now()
    }

    /// Runs a function within the current runtime.
    fn inside(&mut self, act: impl FnOnce(&mut Self)) {
        let Some((number, runtime)) = self.runtime.take() else {
            return;
        };
        runtime.block_on(async { act(self) });
        self.runtime = Some((number, runtime));
    }

    /// Runs every task that can run, and checks everything.
    fn settle(&mut self) -> Result<(), String> {
        let Some((_, runtime)) = &self.runtime else {
            return Ok(());
        };
        runtime.block_on(async {
            loop {
                let before = self.shared.events();
                // A task that is due needs one turn to be found, and one to run. That of
                // the background refresh lets others go first, and begins a flight.
                for _ in 0..8 {
                    yield_now().await;
                }
                for task in &self.tasks {
                    let may = !task.held.load(Ordering::SeqCst) && task.is_pending();
                    if may && task.woken.load(Ordering::SeqCst) {
                        task.poll();
                    }
                }
                if self.shared.events() == before {
                    break;
                }
            }
            let snapshot = self.stack().cache.snapshot();
            self.shared.check_settled();
            self.source.check(1 + usize::from(self.still.is_some()));
            check_snapshot(&snapshot, &self.shared);
        });
        let faults = self.shared.faults();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults.join("\n"))
        }
    }

    /// No faults from now on: every request gets its response.
    ///
    /// # Errors
    ///
    /// The difference that was found.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        let reply = Reply {
            what: What::Honest,
            read: u8::MAX,
        };
        let token = Token::New {
            life: 1_800_000,
            age: None,
        };
        if let (Some((number, runtime)), Some((_, current))) = (self.still.take(), &self.runtime) {
            // It is dropped now, not when it was stalled.
            let now = self.now_in(current);
            self.move_clock(&runtime, now);
            self.shared.no_eagerness.store(true, Ordering::SeqCst);
            drop(runtime);
            self.shared.no_eagerness.store(false, Ordering::SeqCst);
            self.inside(|driver| driver.shared.runtime_lost(number));
        }
        for op in [
            Op::Release,
            Op::Readiness(Readiness::Ready),
            Op::ApiAlways(Some(reply)),
        ] {
            self.run(&op)?;
        }
        self.run(&Op::SourceAlways(Some(token)))?;
        self.run(&Op::Source(token))?;
        // A pause between two attempts ends within the timeout of the flight.
        self.run(&Op::PassTo(Moment::NextAttempt, Edge::After))?;
        for _ in 0..self.tasks.len() {
            self.run(&Op::Api(0, reply))?;
        }
        let pending: Vec<_> = self
            .tasks
            .iter()
            .filter(|task| task.is_pending())
            .map(|it| it.number())
            .collect();
        if !pending.is_empty() {
            return Err(format!("callers {pending:?} were never got a response"));
        }
        // [20] With the last handle even the background refresh ends.
        drop((self.tasks.split_off(0), self.stack.take()));
        let Some((_, runtime)) = &self.runtime else {
            return Ok(());
        };
        runtime.block_on(async {
            for _ in 0..4 {
                yield_now().await;
            }
        });
        match runtime.metrics().num_alive_tasks() {
            0 => Ok(()),
            tasks => Err(format!("{tasks} tasks are left")),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Waiting callers hold wakers, which must not poll callers that are being dropped.
        self.shared.no_eagerness.store(true, Ordering::SeqCst);
        self.api.forget_bodies();
        let tasks = std::mem::take(&mut self.tasks);
        drop(tasks);
    }
}

pub(crate) fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}
