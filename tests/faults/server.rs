//! A server over raw TCP: good responses, and the faults that were ordered.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use crate::wire::{Wire, play};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    Auth,
    Refresh,
    Api,
}

pub(crate) struct Server {
    addr: SocketAddr,
    state: Arc<State>,
    accept: AbortHandle,
}

#[derive(Default)]
struct State {
    orders: Mutex<Orders>,
    /// The place of each request, and the number of its connection.
    calls: Mutex<Vec<(Place, usize)>>,
    accepted: AtomicUsize,
    open: Mutex<HashSet<usize>>,
    /// The connections on which something else than a good response went out.
    struck: Mutex<HashSet<usize>>,
    issued: AtomicUsize,
}

#[derive(Default)]
struct Orders {
    at: HashMap<Place, Wire>,
    /// As `at`, for one request only.
    once: HashMap<Place, Wire>,
    /// In place of the server's part in a TLS handshake.
    tls: Option<Wire>,
    one_request_each: bool,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let served = Arc::clone(&state);
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = Connection::new(&served);
                // Errors of a connection are the client's to report.
                tokio::spawn(async move { drop(connection.serve(stream).await) });
            }
        });
        Self {
            addr,
            state,
            accept: accept.abort_handle(),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request to `place` gets this, until [`heal`](Self::heal).
    pub(crate) fn strike(&self, place: Place, wire: Wire) {
        self.state.orders().at.insert(place, wire);
    }

    pub(crate) fn strike_once(&self, place: Place, wire: Wire) {
        self.state.orders().once.insert(place, wire);
    }

    pub(crate) fn strike_tls(&self, wire: Wire) {
        self.state.orders().tls = Some(wire);
    }

    /// Closes each connection after one good response, so that the next request needs a new one.
    pub(crate) fn one_request_each(&self) {
        self.state.orders().one_request_each = true;
    }

    pub(crate) fn heal(&self) {
        let mut orders = self.state.orders();
        orders.at.clear();
        orders.tls = None;
    }

    pub(crate) fn calls(&self, place: Place) -> usize {
        lock(&self.state.calls)
            .iter()
            .filter(|(at, _)| *at == place)
            .count()
    }

    pub(crate) fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// How many connections have not been ended by both sides.
    pub(crate) fn open(&self) -> usize {
        lock(&self.state.open).len()
    }

    /// How many of those on which something went wrong have not been ended by both sides.
    pub(crate) fn open_and_struck(&self) -> usize {
        lock(&self.state.open)
            .intersection(&lock(&self.state.struck))
            .count()
    }

    /// The latest request to `place` came on a connection on which something had gone wrong.
    pub(crate) fn latest_came_on_struck(&self, place: Place) -> bool {
        let calls = lock(&self.state.calls);
        let latest = calls.iter().rev().find(|(at, _)| *at == place);
        latest.is_some_and(|(_, connection)| lock(&self.state.struck).contains(connection))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl State {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        lock(&self.orders)
    }
}

impl Orders {
    fn take(&mut self, place: Place) -> Option<Wire> {
        self.once
            .remove(&place)
            .or_else(|| self.at.get(&place).cloned())
    }
}

struct Connection {
    number: usize,
    state: Arc<State>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        lock(&self.state.open).remove(&self.number);
    }
}

impl Connection {
    fn new(state: &Arc<State>) -> Self {
        let number = state.accepted.fetch_add(1, Ordering::SeqCst);
        lock(&state.open).insert(number);
        Self {
            number,
            state: Arc::clone(state),
        }
    }

    async fn serve(self, stream: TcpStream) -> io::Result<()> {
        const TLS_HANDSHAKE: u8 = 0x16;
        let mut stream = BufReader::new(stream);
        while let Some(first) = stream.fill_buf().await?.first() {
            if *first == TLS_HANDSHAKE {
                let hello = stream.buffer().len();
                stream.consume(hello);
                let wire = self
                    .state
                    .orders()
                    .tls
                    .clone()
                    .expect("a TLS handshake was ordered");
                lock(&self.state.struck).insert(self.number);
                return play(wire, stream.into_inner()).await.map(|_| ());
            }
            let request = read_request(&mut stream).await?;
            lock(&self.state.calls).push((request.place, self.number));
            let ordered = self.state.orders().take(request.place);
            if ordered.is_some() {
                lock(&self.state.struck).insert(self.number);
            }
            let wire = ordered.unwrap_or_else(|| self.good_response(&request));
            let Some(open) = play(wire, stream.into_inner()).await? else {
                return Ok(());
            };
            stream = BufReader::new(open);
        }
        Ok(())
    }

    fn good_response(&self, request: &Request) -> Wire {
        let (status, body) = match request.place {
            Place::Api if !request.has_token => ("401 Unauthorized", "no".to_owned()),
            Place::Api => ("200 OK", "fine".to_owned()),
            Place::Auth | Place::Refresh => {
                let number = self.state.issued.fetch_add(1, Ordering::SeqCst) + 1;
                (
                    "200 OK",
                    format!(r#"{{"accessToken":"token-{number}","expireIn":1800}}"#),
                )
            }
        };
        let close = self.state.orders().one_request_each;
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
        if close {
            return Wire::HalfClose(format!("{head}connection: close\r\n\r\n{body}").into());
        }
        Wire::Respond(format!("{head}\r\n{body}").into())
    }
}

struct Request {
    place: Place,
    /// One of those that this server issues, or that the faults carry.
    has_token: bool,
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let len = rest.lines().next().unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; len]).await?;
    }
    let path = head.split(' ').nth(1).unwrap();
    let place = match path.rsplit('/').next() {
        Some("auth") => Place::Auth,
        Some("refresh") => Place::Refresh,
        _ => Place::Api,
    };
    Ok(Request {
        place,
        has_token: head.contains("authorization: bearer token-"),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
