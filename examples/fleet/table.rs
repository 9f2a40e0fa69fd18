//! A table that is drawn again and again, from the log of the sandbox and the processes' reports.

use std::{
    fmt::Write,
    io::{IsTerminal, stdout},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use klavi_auth::sandbox::{Endpoint, RecordedRequest, Sandbox};
use tokio::time::{Instant, sleep};

use crate::worker::PROCESS;

const FRAME: Duration = Duration::from_millis(200);

pub(crate) struct Table {
    klavi: Sandbox,
    states: Vec<State>,
    totals: Vec<Totals>,
    start: Instant,
    /// How many lines a frame has that the next one covers.
    drawn: usize,
}

type State = Arc<Mutex<String>>;

#[derive(Clone, Copy, Default)]
struct Totals {
    token: u64,
    ok: u64,
    unauthorized: u64,
}

impl Table {
    pub(crate) fn new(klavi: &Sandbox, processes: usize) -> Self {
        Self {
            klavi: klavi.clone(),
            states: (0..processes).map(|_| State::default()).collect(),
            totals: vec![Totals::default(); processes],
            start: Instant::now(),
            drawn: 0,
        }
    }

    /// Sets the last column of a process.
    pub(crate) fn reporter(&self, process: usize) -> impl Fn(&str) + Send + Sync + use<> {
        let state = Arc::clone(&self.states[process]);
        move |text| set(&state, text)
    }

    pub(crate) fn set_state(&self, process: usize, text: &str) {
        set(&self.states[process], text);
    }

    /// Shows what happens for so many seconds.
    pub(crate) async fn show(&mut self, title: &str, is_redis_up: bool, seconds: u32) {
        self.drawn = 0;
        let end = Instant::now() + Duration::from_secs(1) * seconds;
        while Instant::now() < end {
            sleep(FRAME).await;
            self.read();
            if stdout().is_terminal() {
                self.draw(title, is_redis_up);
            }
        }
        if !stdout().is_terminal() {
            self.draw(title, is_redis_up);
            self.drawn = 0;
        }
    }

    /// The process that calls `/auth` next.
    pub(crate) async fn next_fetch(&mut self) -> usize {
        self.read();
        loop {
            sleep(Duration::from_millis(5)).await;
            let log = self.klavi.log();
            let mut calls = log
                .iter()
                .filter(|call| call.endpoint() == Some(Endpoint::Auth));
            if let Some(process) = calls.find_map(process) {
                return process;
            }
        }
    }

    pub(crate) fn finish(&self) {
        let counts = self.klavi.counts();
        let (ok, unauthorized) = self.totals.iter().fold((0, 0), |(ok, unauthorized), it| {
            (ok + it.ok, unauthorized + it.unauthorized)
        });
        println!(
            "\n{} attempts of {} processes: {ok} got a 200, {unauthorized} a 401, while Redis was gone for \
             the most part. {} token calls.",
            counts.resource,
            self.states.len(),
            counts.auth + counts.refresh,
        );
    }

    /// Counts the log and clears it.
    fn read(&mut self) {
        let log = self.klavi.log();
        self.klavi.clear_log();
        for request in log
            .iter()
            .filter(|it| it.endpoint() == Some(Endpoint::Resource))
        {
            let Some(totals) = process(request).and_then(|at| self.totals.get_mut(at)) else {
                continue;
            };
            totals.token = request.token().unwrap_or(totals.token);
            match request.status() {
                Some(StatusCode::OK) => totals.ok += 1,
                Some(StatusCode::UNAUTHORIZED) => totals.unauthorized += 1,
                _ => {}
            }
        }
    }

    fn draw(&mut self, title: &str, is_redis_up: bool) {
        let counts = self.klavi.counts();
        let mut frame = String::new();
        if self.drawn > 0 {
            // Up to the first line of the frame before, and clear from there.
            let _ = write!(frame, "\x1b[{}A\x1b[J", self.drawn);
        }
        let seconds = self.start.elapsed().as_secs_f64();
        let redis = if is_redis_up { "up" } else { "down" };
        let _ = writeln!(frame, "\n{seconds:4.1} s  {title}");
        let _ = writeln!(
            frame,
            "        store {redis} · /auth {} · /refresh {}",
            counts.auth, counts.refresh
        );
        let _ = writeln!(frame, "        process  token   200   401  last event");
        for (number, (state, totals)) in self.states.iter().zip(&self.totals).enumerate() {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(
                frame,
                "        {:>7}  {:>5}  {:>4}  {:>4}  {state}",
                number + 1,
                format!("#{}", totals.token),
                totals.ok,
                totals.unauthorized,
            );
        }
        self.drawn = frame.matches('\n').count();
        print!("{frame}");
    }
}

fn set(state: &State, text: &str) {
    text.clone_into(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
}

fn process(request: &RecordedRequest) -> Option<usize> {
    request.headers().get(PROCESS)?.to_str().ok()?.parse().ok()
}
