//! What is looked at every few seconds, and what "flat" means.

use std::fs;

use allocation_counter::measure;
use klavi_auth::{Product, sandbox::Sandbox};
use tokio::runtime::Handle;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Bytes allocated and not freed since the shift began, without what the sandbox remembers of
    /// its tokens, dead and alive; only where one thread does everything.
    pub(crate) live: Option<i64>,
    /// Resident memory of the process, and its open sockets; only where there is a `/proc`.
    pub(crate) resident: Option<u64>,
    pub(crate) sockets: Option<u64>,
    pub(crate) tasks: u64,
}

/// Counts what is allocated while something runs on this very thread.
pub(crate) struct Meter {
    live: Option<i64>,
    /// What the sandbox remembers of a token.
    per_token: i64,
}

impl Meter {
    pub(crate) fn new(one_thread: bool) -> Self {
        Self {
            live: one_thread.then_some(0),
            per_token: 0,
        }
    }

    /// Finds out what a token costs a sandbox, with one that is thrown away.
    pub(crate) fn weigh_tokens(&mut self, sandbox: &Sandbox) {
        const MANY: i64 = 3_000;
        let issue = || (0..MANY).for_each(|_| drop(sandbox.issue_token(&Product::Monitor)));
        self.per_token = measure(issue).bytes_current / MANY;
    }

    pub(crate) fn run<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let Some(live) = &mut self.live else {
            return run();
        };
        let mut result = None;
        *live += measure(|| result = Some(run())).bytes_current;
        result.expect("it ran")
    }

    pub(crate) fn sample(&self, runtime: &Handle, tokens: u64) -> Sample {
        Sample {
            live: self.live.map(|live| live - tokens as i64 * self.per_token),
            resident: resident(),
            sockets: sockets(),
            tasks: runtime.metrics().num_alive_tasks() as u64,
        }
    }
}

fn resident() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()?
        .split(' ')
        .nth(1)?
        .parse::<u64>()
        .ok()?;
    Some(pages * 4096)
}

pub(crate) fn sockets() -> Option<u64> {
    let files = fs::read_dir("/proc/self/fd").ok()?;
    let is_socket = |link: std::path::PathBuf| link.to_string_lossy().starts_with("socket:");
    Some(
        files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .filter(|to| is_socket(to.clone()))
            .count() as u64,
    )
}

/// A quantity in the first and in the last third of a shift, after its warm-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trend {
    pub(crate) first: f64,
    pub(crate) last: f64,
    pub(crate) most: f64,
}

/// The first fifth warms up: pools fill, tables grow to their size.
pub(crate) fn trend(samples: &[Sample], of: impl Fn(&Sample) -> Option<f64>) -> Option<Trend> {
    let values: Option<Vec<f64>> = samples[samples.len() / 5..].iter().map(of).collect();
    let values = values?;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let third = values.len() / 3;
    Some(Trend {
        first: mean(&values[..third]),
        last: mean(&values[values.len() - third..]),
        most: values.iter().copied().fold(0.0, f64::max),
    })
}

impl Trend {
    pub(crate) fn is_flat(&self, tolerance: f64) -> bool {
        self.last <= self.first + tolerance
    }
}
