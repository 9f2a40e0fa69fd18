//! A proxy in front of a server that cuts connections, or delays or drops responses.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::AbortHandle,
    time::sleep,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Closes all connections, and new ones at once.
    Cut,
    /// Each response is late.
    Delay(Duration),
    /// Reads everything and returns nothing.
    Swallow,
    /// One response in so many is lost after the server has sent it: the connection is closed.
    Lose(u64),
}

pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accept: AbortHandle,
}

struct Shared {
    target: Mutex<u16>,
    mode: Mutex<Mode>,
    /// How often all connections were closed.
    cuts: watch::Sender<u64>,
    responses: AtomicU64,
    connections: AtomicU64,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            mode: Mutex::new(Mode::Pass),
            cuts: watch::channel(0).0,
            responses: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        let accept = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(Arc::clone(&serving), client));
            }
        });
        let accept = accept.abort_handle();
        Self {
            port,
            shared,
            accept,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        if mode == Mode::Cut {
            self.shared.cuts.send_modify(|number| *number += 1);
        }
    }

    /// Leads new connections to another server.
    pub(crate) fn lead_to(&self, target: u16) {
        *self.shared.target.lock().unwrap() = target;
    }

    /// Closes all connections, and leads new ones to another server.
    pub(crate) fn fail_over(&self, target: u16) {
        self.lead_to(target);
        self.set(Mode::Cut);
        self.set(Mode::Pass);
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.set(Mode::Cut);
    }
}

async fn serve(shared: Arc<Shared>, client: TcpStream) {
    let mut changed = shared.cuts.subscribe();
    let cuts = *changed.borrow_and_update();
    if shared.mode() == Mode::Cut {
        return;
    }
    let target = *shared.target.lock().unwrap();
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let cut =
        async { while *changed.borrow_and_update() == cuts && changed.changed().await.is_ok() {} };
    tokio::select! {
        () = requests(&shared, from_client, to_server) => {}
        () = responses(&shared, from_server, to_client) => {}
        () = cut => {}
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }
}

async fn requests(shared: &Shared, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if shared.mode() == Mode::Swallow {
            continue;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn responses(shared: &Shared, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        match shared.mode() {
            Mode::Swallow => continue,
            Mode::Delay(delay) => sleep(delay).await,
            // Those to scripts: a new connection begins with others.
            Mode::Lose(every) if !buffer.starts_with(b"+OK") => {
                let number = shared.responses.fetch_add(1, Ordering::Relaxed) + 1;
                if number % every == 0 {
                    return;
                }
            }
            Mode::Pass | Mode::Cut | Mode::Lose(_) => {}
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
