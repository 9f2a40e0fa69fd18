//! A redis-server for one test: on a free loopback port, in a temporary folder.

use std::{
    env, fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The server to test: `KLAVI_REDIS_SERVER=valkey-server` selects Valkey.
fn program() -> String {
    env::var("KLAVI_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// Whether there is a redis-server, which the tests of this binary need. Says so if not, and fails
/// where it is required.
pub(crate) fn is_missing() -> bool {
    is_program_missing(&program())
}

pub(crate) fn is_program_missing(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    if found.is_ok_and(|output| output.status.success()) {
        return false;
    }
    let hint = &format!("{program} is not installed (Debian, Ubuntu: apt-get install {program})");
    assert!(
        env::var_os("KLAVI_REQUIRE_REDIS").is_none(),
        "{hint}, and KLAVI_REQUIRE_REDIS is set"
    );
    say_skipped(hint);
    true
}

/// Past the test harness, which shows the output of failed tests only.
pub(crate) fn say_skipped(hint: &str) {
    let line = format!("\n*** SKIPPED: {hint}. This test has shown nothing. ***\n\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A temporary folder, removed when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("klavi-auth-{}-{number}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

pub(crate) struct RedisServer {
    port: u16,
    program: String,
    options: Vec<String>,
    child: Mutex<Child>,
    folder: Folder,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With further options of its command line.
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::of(&program(), options)
    }

    pub(crate) fn of(program: &str, options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        // Another process may take the port between the two statements.
        for _ in 0..10 {
            let port = free_port();
            let folder = Folder::new();
            let mut child = spawn(program, port, &options, folder.path());
            if is_up(port, &mut child) {
                return Self {
                    port,
                    program: program.to_owned(),
                    options,
                    child: Mutex::new(child),
                    folder,
                };
            }
            stop(&mut child);
        }
        panic!("redis-server does not start");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Kills it. Its data is lost.
    pub(crate) fn kill(&self) {
        stop(&mut self.child.lock().unwrap());
    }

    /// Starts it again, on the same port and without data.
    pub(crate) fn restart(&self) {
        self.kill();
        let mut child = spawn(&self.program, self.port, &self.options, self.folder.path());
        assert!(is_up(self.port, &mut child), "the port is free");
        *self.child.lock().unwrap() = child;
    }

    /// Stops it without closing its connections, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        signal(
            self.child.lock().unwrap().id(),
            if frozen { "STOP" } else { "CONT" },
        );
    }

    /// Runs one command.
    pub(crate) fn run(&self, command: &[&str]) -> redis::Value {
        self.try_run(command).unwrap()
    }

    pub(crate) fn try_run(&self, command: &[&str]) -> redis::RedisResult<redis::Value> {
        let (name, arguments) = command.split_first().unwrap();
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        redis::cmd(name).arg(arguments).query(&mut connection)
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        redis::from_redis_value(self.run(&["KEYS", "*"])).unwrap()
    }

    /// The one key that a fleet has.
    pub(crate) fn key(&self) -> String {
        let keys = self.keys();
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys[0].clone()
    }

    /// What a jump of the server's wall clock does to the key: Redis keeps the date on which it
    /// ends. The clock itself cannot be moved, because libfaketime does not work with the memory
    /// allocator of redis-server.
    pub(crate) fn move_clock(&self, milliseconds: i64) {
        let key = self.key();
        let left: i64 = redis::from_redis_value(self.run(&["PTTL", &key])).unwrap();
        let left = (left - milliseconds).to_string();
        self.run(&["PEXPIRE", &key, &left]);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &str, port: u16, options: &[String], folder: &Path) -> Child {
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--maxclients", "2000"])
        .arg("--dir")
        .arg(folder)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Whether the server responds before it ends.
fn is_up(port: u16, child: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        let is_ours = client.get_connection().and_then(|mut connection| {
            let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
            Ok(info.contains(&format!("process_id:{}\r", child.id())))
        });
        if let Ok(is_ours) = is_ours {
            return is_ours;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

fn stop(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(status.unwrap().success());
}
