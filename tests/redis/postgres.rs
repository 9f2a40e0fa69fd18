//! The store of the documentation against a real PostgreSQL.

use std::{
    env, fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio_postgres::{Client, NoTls};

use crate::server::Folder;

#[path = "../../src/docs/fleet_postgres.rs"]
#[allow(unreachable_pub, missing_docs)]
mod documented;

use documented::{PostgresStore, TABLE};

/// PostgreSQL does not run as root: then it runs as this user, which has no rights.
const NOBODY: u32 = 65534;

/// A server for one test: on a socket in a temporary folder.
struct Postgres {
    child: Child,
    folder: Folder,
}

impl Postgres {
    /// `None`, and a line that says so, if it is not installed.
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let hint = "PostgreSQL is not installed (Debian, Ubuntu: apt-get install postgresql)";
            let is_required = env::var_os("KLAVI_REQUIRE_POSTGRES").is_some();
            assert!(!is_required, "{hint}, and KLAVI_REQUIRE_POSTGRES is set");
            crate::server::say_skipped(hint);
            return None;
        };
        let folder = Folder::new();
        let path = folder.path();
        let is_root = fs::metadata(path).unwrap().uid() == 0;
        if is_root {
            std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
        }
        let run = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir(path).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.env("LC_ALL", "C");
            if is_root {
                command.uid(NOBODY);
            }
            command
        };
        let data = path.join("data");
        let init = run("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "klavi", "-D"])
            .arg(&data)
            .status();
        assert!(init.unwrap().success(), "initdb");
        let child = run("postgres")
            .args(["-F", "-h", "", "-k"])
            .arg(path)
            .arg("-D")
            .arg(&data)
            .spawn()
            .unwrap();
        Some(Self { child, folder })
    }

    async fn connect(&self) -> Client {
        let folder = self.folder.path().display();
        let config = format!("host={folder} user=klavi dbname=postgres");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match tokio_postgres::connect(&config, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT ends the server's own processes too. SIGKILL would leave them.
        crate::server::signal(self.child.id(), "QUIT");
        drop(self.child.wait());
    }
}

/// Where `initdb` is: Debian has it outside of the path.
fn programs() -> Option<PathBuf> {
    let has_it = |folder: &PathBuf| folder.join("initdb").is_file();
    let in_path = env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir(Path::new("/usr/lib/postgresql")).into_iter();
    let debian = versions.flatten().flatten();
    let debian = debian.map(|version| version.path().join("bin"));
    let mut folders: Vec<_> = env::split_paths(&in_path).chain(debian).collect();
    folders.retain(has_it);
    folders.into_iter().next()
}

#[tokio::test]
async fn the_documented_store_in_postgresql_keeps_the_contract() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let client = server.connect().await;
    client.batch_execute(TABLE).await.unwrap();
    let store = PostgresStore { client };
    crate::contract::keeps_its_contract(&store).await;

    // Of two clients as well.
    let other = PostgresStore {
        client: server.connect().await,
    };
    other
        .client
        .batch_execute("DELETE FROM klavi_fleet")
        .await
        .unwrap();
    let swaps = (0_u8..40).map(|number| {
        let client = if number % 2 == 0 { &store } else { &other };
        async move {
            let minute = Duration::from_secs(60);
            klavi_auth::FleetStore::swap(client, "key", None, &[number], minute)
                .await
                .unwrap()
        }
    });
    let swapped = futures_util::future::join_all(swaps).await;
    assert_eq!(swapped.iter().filter(|swapped| **swapped).count(), 1);
}
