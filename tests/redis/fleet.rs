//! A fleet of processes, and the Klavi that they call.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use klavi_auth::sandbox::Sandbox;

use crate::{
    server,
    worker::{ACCESS_KEY, Outcome, SECRET_KEY, Setup},
};

/// Klavi with the keys of the fleet.
pub(crate) async fn klavi() -> Sandbox {
    let sandbox = Sandbox::builder().customer(ACCESS_KEY, SECRET_KEY);
    sandbox.start().await.unwrap()
}

pub(crate) fn token_calls(klavi: &Sandbox) -> u64 {
    klavi.counts().auth + klavi.counts().refresh
}

pub(crate) struct Fleet {
    pub(crate) processes: Vec<Process>,
}

pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Fleet {
    /// Starts the processes and waits until all are ready. None has a token.
    pub(crate) fn start(count: usize, klavi: &Sandbox, redis: impl Into<Option<String>>) -> Self {
        Self::with(
            count,
            &Setup {
                klavi: klavi.base_url().to_owned(),
                redis: redis.into(),
                ..Setup::default()
            },
        )
    }

    pub(crate) fn with(count: usize, setup: &Setup) -> Self {
        let mut processes: Vec<_> = (0..count).map(|_| Process::spawn(setup)).collect();
        for process in &mut processes {
            assert_eq!(process.line().as_deref(), Some("ready"));
        }
        Self { processes }
    }

    pub(crate) fn send(&mut self, command: &str) {
        for process in &mut self.processes {
            process.send(command);
        }
    }

    /// What the callers of all processes saw, once all have run the command.
    pub(crate) fn receive(&mut self) -> Outcome {
        let mut total = Outcome::default();
        for process in &mut self.processes {
            total.add(&process.receive());
        }
        total
    }

    /// Runs a command in all processes at once.
    pub(crate) fn run(&mut self, command: &str) -> Outcome {
        self.send(command);
        self.receive()
    }

    /// So many requests in each process at once.
    pub(crate) fn get(&mut self, count: usize) -> Outcome {
        self.run(&format!("get {count}"))
    }

    /// Starts a request in each process and interval.
    pub(crate) fn start_load(&mut self, every: Duration, duration: Duration) {
        let (every, duration) = (every.as_millis(), duration.as_millis());
        self.send(&format!("load {every} {duration}"));
    }
}

impl Process {
    fn spawn(setup: &Setup) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "worker::process", "--ignored", "--nocapture"])
            .envs(setup.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub(crate) fn send(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    pub(crate) fn receive(&mut self) -> Outcome {
        self.line().expect("the process runs").parse().unwrap()
    }

    /// The next line of the protocol. The test harness prints as well.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, text)) = line.trim_end().split_once('@') {
                return Some(text.to_owned());
            }
            line.clear();
        }
        None
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        server::signal(self.child.id(), name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for something that another process does.
pub(crate) fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}
