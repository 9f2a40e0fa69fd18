//! The cost of recording a body of 1 MiB in frames of 16 KiB while it is sent.
//!
//! `cargo bench --bench replay`. The frames exist already. They go over a loopback socket with both
//! ends on this thread, or are only dropped, which measures the recording alone. Over the limit,
//! recording stops and drops its frames.

mod support;

use std::{
    future::{Future, Ready, ready},
    hint::black_box,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    pin::{Pin, pin},
    slice::Iter,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use allocation_counter::measure;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use klavi_auth::{BoxError, KlaviApi, KlaviAuth, KlaviAuthLayer, Product, RecordBody};
use support::{
    rounds::{Case, Effort, median, ratio, times},
    table::{Options, Tables},
    variants::{TOKEN, cache},
};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::auth::AddAuthorizationLayer;

const FRAME: usize = 16 * 1024;
const FRAMES: usize = 64;

type Boxed = UnsyncBoxBody<Bytes, BoxError>;

fn main() {
    let options = Options::of_command_line();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let frames: &[Bytes] = Vec::leak(
        (0..FRAMES)
            .map(|number| Bytes::from(vec![number as u8; FRAME]))
            .collect(),
    );
    check(frames, &runtime);
    let mut tables = Tables::default();
    for sent in [true, false] {
        let effort = Effort::new(301, if sent { 10 } else { 200 }, options.quick);
        report(&mut tables, sent, frames, effort, &runtime);
    }
    tables.print(options);
}

fn report(
    tables: &mut Tables,
    sent: bool,
    frames: &'static [Bytes],
    effort: Effort,
    runtime: &Runtime,
) {
    let reader = Reader {
        socket: sent.then(|| Arc::new(Socket::new().expect("a loopback socket"))),
    };
    let inner = || reader.clone();
    let body = &Frames(frames.iter());
    let constant = AddAuthorizationLayer::bearer(&"x".repeat(TOKEN)).layer(inner());
    let once = warm_layer(runtime).send_once().layer(inner());
    let variants = [
        variant("not recorded: AddAuthorization", constant, body),
        variant("not recorded: klavi-auth, send once", once, body),
        variant(
            "klavi-auth, recorded whole (limit 2 MiB)",
            recording(2 << 20, inner(), runtime),
            body,
        ),
        variant(
            "klavi-auth, over the limit (64 KiB)",
            recording(64 << 10, inner(), runtime),
            body,
        ),
    ];
    let (names, cases): (Vec<_>, Vec<_>) = variants.into_iter().unzip();
    let times = times(&cases, 1, effort);
    let what = if sent {
        "over a loopback socket"
    } else {
        "that nobody looks at"
    };
    let table = format!("Sending 1 MiB in 64 frames of 16 KiB, {what}");
    for ((name, case), of) in names.into_iter().zip(&cases).zip(&times) {
        let mut add = |column: &str, value| tables.add(&table, name, column, value);
        let above = median(of.iter().zip(&times[0]).map(|(of, to)| of - to)) / FRAMES as f64;
        add("µs", format!("{:.2}", median(of.iter().copied()) / 1e3));
        add("÷ not recorded", format!("{:.3}", ratio(of, &times[0])));
        add("ns more per frame", format!("{above:.0}"));
        let mut run = case();
        run(1);
        let counted = measure(|| run(100));
        add("allocations", (counted.count_total / 100).to_string());
        add("bytes allocated", (counted.bytes_total / 100).to_string());
    }
}

/// Checks that both attempts send the caller's own bytes, without a copy.
fn check(frames: &'static [Bytes], runtime: &Runtime) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by_inner = Arc::clone(&seen);
    let inner = service_fn(move |request: Request<Boxed>| {
        let mut places = Vec::new();
        read(request.into_body(), |data| {
            places.push((data.as_ptr() as usize, data.len()))
        });
        let mut seen = seen_by_inner.lock().expect("nobody panics");
        seen.push(places);
        let status = if seen.len() == 1 {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        let mut response = Response::new(());
        *response.status_mut() = status;
        ready(Ok::<_, BoxError>(response))
    });
    let service = recording(2 << 20, inner, runtime);
    let body = Frames(frames.iter());
    let response = runtime
        .block_on(service.oneshot(request(&body)))
        .expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    let places: Vec<_> = frames
        .iter()
        .map(|data| (data.as_ptr() as usize, data.len()))
        .collect();
    assert_eq!(
        *seen.lock().expect("nobody panics"),
        [places.clone(), places]
    );
}

fn warm_layer(runtime: &Runtime) -> KlaviAuthLayer {
    let cache = cache(TOKEN);
    runtime.block_on(cache.warm_up()).expect("a token");
    KlaviAuthLayer::new(&KlaviApi::production(Product::Monitor), cache)
}

fn recording<S: Clone>(
    limit: usize,
    inner: S,
    runtime: &Runtime,
) -> KlaviAuth<S, RecordBody<Boxed>> {
    warm_layer(runtime)
        .replay_with(Boxed::new)
        .replay_limit(limit)
        .layer(inner)
}

fn variant<'a, S>(name: &'a str, service: S, body: &Frames) -> (&'a str, Case<'a>)
where
    S: Service<Request<Boxed>, Response = Response<()>, Error = BoxError> + Clone + Sync + 'a,
{
    let body = body.clone();
    let case = move || {
        let (mut service, body) = (service.clone(), body.clone());
        let run = move |calls: u32| {
            let cx = &mut Context::from_waker(Waker::noop());
            for _ in 0..calls {
                assert!(service.poll_ready(cx).is_ready());
                let response = pin!(service.call(request(&body))).poll(cx);
                assert!(matches!(response, Poll::Ready(Ok(_))));
            }
        };
        Box::new(run) as Box<dyn FnMut(u32)>
    };
    (name, Box::new(case))
}

fn request(body: &Frames) -> Request<Boxed> {
    Request::post("/monitor/v1/files")
        .body(Boxed::new(body.clone()))
        .expect("a request")
}

/// A body of frames in memory.
#[derive(Clone)]
struct Frames(Iter<'static, Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.next().map(|data| Ok(Frame::data(data.clone()))))
    }
}

/// Reads bodies to their end.
#[derive(Clone)]
struct Reader {
    socket: Option<Arc<Socket>>,
}

/// Both ends of a connection.
struct Socket {
    there: TcpStream,
    here: TcpStream,
}

impl Socket {
    fn new() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let there = TcpStream::connect(listener.local_addr()?)?;
        there.set_nodelay(true)?;
        Ok(Self {
            there,
            here: listener.accept()?.0,
        })
    }

    /// There and back to this thread. A frame fits into the socket's buffer.
    fn send(&self, data: &[u8]) -> io::Result<()> {
        (&self.there).write_all(data)?;
        (&self.here).read_exact(&mut [0; FRAME][..data.len()])
    }
}

impl Service<Request<Boxed>> for Reader {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Ready<Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Boxed>) -> Self::Future {
        assert!(
            request.headers().contains_key(AUTHORIZATION),
            "it has a token"
        );
        read(request.into_body(), |data| match &self.socket {
            Some(socket) => socket.send(data).expect("the connection holds"),
            None => drop(black_box(data)),
        });
        ready(Ok(Response::new(())))
    }
}

fn read(body: Boxed, mut each: impl FnMut(&Bytes)) {
    let mut body = pin!(body);
    let cx = &mut Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(cx) {
        each(frame.expect("no frame fails").data_ref().expect("data"));
    }
}
