//! Case 35 for keys that change while the program runs: in files, and from a function.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use klavi_auth::{BoxError, Budget, Credentials, Error, KlaviAuthLayer, Product, sandbox::Sandbox};

use crate::support::sockets::{
    Caller, TestStack, Transport, chain, client, pass, secs, soon, through_each,
};

/// A folder of keys as Kubernetes mounts a secret: the files are links into `..data`, which is
/// itself a link, and is replaced in one step.
struct Mounted {
    folder: PathBuf,
    version: AtomicU64,
}

impl Mounted {
    fn empty() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let folder =
            std::env::temp_dir().join(format!("klavi-auth-keys-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self {
            folder,
            version: AtomicU64::new(0),
        }
    }

    fn with(access: &str, secret: &str) -> Self {
        let mounted = Self::empty();
        mounted.replace(access, secret);
        mounted
    }

    #[cfg(unix)]
    fn replace(&self, access: &str, secret: &str) {
        use std::os::unix::fs::symlink;
        let version = self.version.fetch_add(1, Ordering::SeqCst);
        let data = self.folder.join(format!("..{version}"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("access-key"), access).unwrap();
        fs::write(data.join("secret-key"), secret).unwrap();
        symlink(&data, self.folder.join("..next")).unwrap();
        fs::rename(self.folder.join("..next"), self.folder.join("..data")).unwrap();
        for path in [self.access(), self.secret()] {
            if version == 0 {
                symlink(Path::new("..data").join(path.file_name().unwrap()), path).unwrap();
            }
        }
    }

    #[cfg(not(unix))]
    fn replace(&self, access: &str, secret: &str) {
        self.version.fetch_add(1, Ordering::SeqCst);
        fs::write(self.access(), access).unwrap();
        fs::write(self.secret(), secret).unwrap();
    }

    fn access(&self) -> PathBuf {
        self.folder.join("access-key")
    }

    fn secret(&self) -> PathBuf {
        self.folder.join("secret-key")
    }

    fn credentials(&self) -> Credentials {
        Credentials::from_files(self.access(), self.secret())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn layer_with(stack: &TestStack, credentials: Credentials) -> KlaviAuthLayer {
    let builder = stack.builder_for(Product::Monitor, credentials);
    builder
        .budget(Budget::default().burst(u32::MAX))
        .randomness(|| 0.0)
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_35_keys_rotated_on_disk_under_load_fail_no_request() {
    const CLIENTS: usize = 8;
    const ROTATIONS: u64 = 20;
    let stack = TestStack {
        sandbox: Sandbox::start().await.unwrap(),
        transport: Transport::Hyper,
    };
    let keys = |version| (format!("access-{version}"), format!("secret-{version}"));
    let mounted = Mounted::with(&keys(0).0, &keys(0).1);
    stack.sandbox.add_customer(keys(0).0, keys(0).1);
    let layer = layer_with(&stack, mounted.credentials());
    let done: Arc<[AtomicU64; CLIENTS]> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (client, done, stop) = (client(&layer), Arc::clone(&done), Arc::clone(&stop));
            let url = format!("{}/monitor/v1/echo", stack.sandbox.base_url());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let request = http::Request::get(&url).body(Default::default()).unwrap();
                    match client.exchange(request).await {
                        Ok(response) if response.status() == 200 => {}
                        other => failed.push(format!("{other:?}")),
                    }
                    done[number].fetch_add(1, Ordering::SeqCst);
                }
                failed
            })
        })
        .collect();
    // Of every client, so that no request in flight has met a revocation: a second one would cause
    // a second 401.
    let three_requests_each = async || {
        let counts = || done.each_ref().map(|count| count.load(Ordering::SeqCst));
        let before = counts();
        soon(async {
            while counts()
                .iter()
                .zip(before)
                .any(|(now, before)| *now < before + 3)
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    };
    for version in 1..=ROTATIONS {
        three_requests_each().await;
        stack.sandbox.add_customer(keys(version).0, keys(version).1);
        // The fetch that this causes reads the keys before, while or after they are replaced.
        stack.sandbox.revoke_all();
        mounted.replace(&keys(version).0, &format!("{}\n", keys(version).1));
        stack.sandbox.remove_customer(&keys(version - 1).0);
    }
    three_requests_each().await;
    // All of the old keys are gone.
    stack.sandbox.revoke_all();
    three_requests_each().await;
    stop.store(true, Ordering::SeqCst);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), [""; 0]);
    }
    assert!(
        stack.counts()[0] > 1 + ROTATIONS,
        "every revocation caused a fetch"
    );
    let auths = stack.log_of(klavi_auth::sandbox::Endpoint::Auth);
    assert!(String::from_utf8_lossy(auths.last().unwrap().body()).contains("access-20"));
}

#[tokio::test]
async fn case_35_key_files_are_read_for_every_auth_and_trimmed() {
    through_each(async |stack| {
        stack.sandbox.add_customer("access-1", "secret-1");
        stack.sandbox.add_customer("access-2", "secret-2");
        let mounted = Mounted::with("access-1\n", "secret-1\r\n");
        let layer = layer_with(&stack, mounted.credentials());
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        mounted.replace("access-2", "secret-2\n\n");
        stack.sandbox.remove_customer("access-1");
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [1, 0, 2, 0], "a live token needs no keys");
        stack.sandbox.revoke_all();
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [2, 0, 4, 1]);
    })
    .await;
}

#[tokio::test]
async fn case_35_an_unreadable_key_file_is_a_transient_error() {
    through_each(async |stack| {
        stack.sandbox.add_customer("access-1", "secret-1");
        let mounted = Mounted::empty();
        let layer = layer_with(&stack, mounted.credentials());
        let client = client(&layer);
        let error = client.failure(stack.get("echo")).await;
        assert_eq!(
            chain(&error)[1..],
            [
                "the token source failed".to_owned(),
                format!(
                    "the access key cannot be read from `{}`",
                    mounted.access().display()
                ),
                io::Error::from_raw_os_error(2).to_string(),
            ]
        );
        assert_eq!(stack.counts(), [0; 4]);
        mounted.replace("access-1", "secret-1");
        assert_eq!(client.status(stack.get("echo")).await, 200);
        assert_eq!(stack.counts(), [1, 0, 1, 0]);
    })
    .await;
}

/// The chain of the error that a fetch with these credentials fails with.
async fn fails_with(stack: &TestStack, credentials: Credentials) -> String {
    let error = client(&layer_with(stack, credentials))
        .failure(stack.get("echo"))
        .await;
    chain(&error).join(" | ")
}

#[tokio::test]
async fn case_35_61_a_bad_key_file_is_named_but_not_quoted() {
    through_each(async |stack| {
        let mounted = Mounted::with("access-1", "secret-1");
        let secret = mounted.secret();
        for (content, says) in [
            (&b""[..], "the secret key is empty"),
            (b"\n", "the secret key is empty"),
            (
                b"hush\thush",
                "the secret key has a control character in it",
            ),
            (b"hush\xff", "it is not UTF-8"),
            (&b"hush".repeat(2049), "it is longer than 8 KiB"),
        ] {
            fs::write(&secret, content).unwrap();
            let error = fails_with(&stack, mounted.credentials()).await;
            assert!(
                error.ends_with(&format!("from `{}` | {says}", secret.display())),
                "{error}"
            );
            assert!(!error.contains("hush"), "{error}");
        }
        fs::remove_file(&secret).unwrap();
        fs::create_dir(&secret).unwrap();
        assert!(
            fails_with(&stack, mounted.credentials())
                .await
                .contains("cannot be read from")
        );
        assert_eq!(stack.counts(), [0; 4]);
    })
    .await;
}

/// A function that returns these one after the other, the last one again and again, and how often
/// it was called.
fn in_turns(keys: &'static [&'static str]) -> (Credentials, Arc<Mutex<usize>>) {
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let credentials = Credentials::from_fn(move || {
        let mut calls = counted.lock().unwrap();
        let key = keys[(*calls).min(keys.len() - 1)];
        *calls += 1;
        async move { Ok(Credentials::new(key, "secret")?) }
    });
    (credentials, calls)
}

#[tokio::test]
async fn case_35_keys_replaced_during_the_call_are_read_once_more() {
    through_each(async |stack| {
        stack.sandbox.add_customer("new", "secret");
        let (credentials, calls) = in_turns(&["old", "new"]);
        assert_eq!(
            client(&layer_with(&stack, credentials))
                .status(stack.get("echo"))
                .await,
            200
        );
        assert_eq!((stack.counts(), *calls.lock().unwrap()), ([2, 0, 1, 0], 2));
    })
    .await;
}

#[tokio::test]
async fn case_35_rejected_keys_that_have_not_changed_are_sent_once() {
    through_each(async |stack| {
        let (credentials, calls) = in_turns(&["old"]);
        assert!(
            client(&layer_with(&stack, credentials))
                .failure(stack.get("echo"))
                .await
                .is_keys_rejected()
        );
        assert_eq!((stack.counts(), *calls.lock().unwrap()), ([1, 0, 0, 0], 2));

        let (credentials, calls) = in_turns(&["old", "older", "oldest"]);
        assert!(
            client(&layer_with(&stack, credentials))
                .failure(stack.get("echo"))
                .await
                .is_keys_rejected()
        );
        assert_eq!(
            (stack.counts(), *calls.lock().unwrap()),
            ([3, 0, 0, 0], 2),
            "twice at most"
        );
    })
    .await;
}

#[tokio::test]
async fn case_35_an_error_of_a_key_function_is_transient_by_default() {
    through_each(async |stack| {
        for (permanent, times) in [(false, 3), (true, 1)] {
            let asked = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&asked);
            let credentials = Credentials::from_fn(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                let sealed = BoxError::from("the vault is sealed");
                std::future::ready(Err(if permanent {
                    Error::permanent(sealed).into()
                } else {
                    sealed
                }))
            });
            let error = fails_with(&stack, credentials).await;
            assert!(
                error.ends_with("the token source failed | the vault is sealed"),
                "{error}"
            );
            assert_eq!(
                asked.load(Ordering::SeqCst),
                times,
                "permanent: {permanent}"
            );
        }
        let bearer = Credentials::from_fn(async || {
            Ok(Credentials::bearer("a-token", Duration::from_secs(9))?)
        });
        assert!(
            fails_with(&stack, bearer)
                .await
                .ends_with("something else than two keys")
        );
        assert_eq!(stack.counts(), [0; 4]);
    })
    .await;
}

#[tokio::test]
async fn case_33_a_key_function_that_fails_costs_no_request() {
    through_each(async |stack| {
        stack.sandbox.add_customer("access", "secret");
        let sealed = Arc::new(AtomicBool::new(false));
        let is_sealed = Arc::clone(&sealed);
        let credentials = Credentials::from_fn(move || {
            let is_sealed = is_sealed.load(Ordering::SeqCst);
            async move {
                if is_sealed {
                    Err("the vault is sealed".into())
                } else {
                    Ok(Credentials::new("access", "secret")?)
                }
            }
        });
        let layer = layer_with(&stack, credentials);
        let client = client(&layer);
        assert_eq!(client.status(stack.get("echo")).await, 200);
        sealed.store(true, Ordering::SeqCst);
        let fault = klavi_auth::sandbox::Fault::status(http::StatusCode::NOT_FOUND);
        stack
            .sandbox
            .fail_next(klavi_auth::sandbox::Endpoint::Refresh, 1, fault);
        for _ in 0..4 {
            pass(secs(430)).await;
            assert_eq!(client.status(stack.get("echo")).await, 200);
            crate::support::sockets::flight_ended(&layer).await;
        }
        assert_eq!(stack.counts(), [1, 1, 5, 0]);
    })
    .await;
}
