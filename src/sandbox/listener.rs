//! The listener and its connections: closed at once when the sandbox stops, and reset on request.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::{FusedFuture, Shared};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    time::{Sleep, sleep},
};

use super::response::Response;

/// Ready once the last handle of the sandbox is gone.
pub(super) type Stop = Shared<oneshot::Receiver<()>>;

/// How long a closing connection keeps reading what the client sends.
const LINGER: Duration = Duration::from_secs(1);

/// A listening socket that can be closed from outside, immediately.
#[derive(Clone, Debug)]
pub(super) struct Socket(Arc<Mutex<Option<TcpListener>>>);

impl Socket {
    pub(super) async fn bind() -> io::Result<(Self, SocketAddr)> {
        // On loopback no other host can connect, and `KlaviApi` accepts plain http.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        Ok((Self(Arc::new(Mutex::new(Some(listener)))), addr))
    }

    /// Closes the port.
    pub(super) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<TcpListener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn accept(&self) -> TcpStream {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(stream) => return stream,
                // Such as out of file descriptors: some may be free again a little later.
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        match &*self.lock() {
            Some(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| stream),
            // Closed: `accept` is aborted with the sandbox.
            None => Poll::Pending,
        }
    }
}

/// The stream of a connection.
///
/// It behaves as its `TcpStream` until it is reset or the sandbox stops. After that every call
/// fails, so the task that serves it ends. A reset stream is closed with a linger time of zero,
/// which makes the system send RST instead of FIN.
pub(super) struct Io {
    stream: TcpStream,
    connection: Connection,
    stop: Stop,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Io {
    pub(super) fn new(stream: TcpStream, connection: Connection, stop: Stop) -> Self {
        // Responses are small, and tests wait for them. Without the option they are only slower.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            connection,
            stop,
            linger: None,
        }
    }

    /// Fails if the stream was reset or the sandbox has stopped. Otherwise registers the task to be
    /// woken when the sandbox stops.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // `Shared` panics if it is polled again after it was ready.
        let stopped = self.stop.is_terminated() || Pin::new(&mut self.stop).poll(cx).is_ready();
        if stopped || self.connection.is_reset() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.connection.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.connection.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Shuts the write half down, then reads what the client is still sending.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        // A socket that is closed with unread bytes sends RST, which can overtake the response (a
        // 401 to a request whose body was not read). A client that never stops sending is cut off
        // by the linger time.
        let mut scrap = [0; 4096];
        while linger.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut scrap);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // The task that serves the connection drops the stream after its write failed.
        if self.connection.is_reset() {
            // Deprecated because a linger time above zero blocks the thread on drop; zero does not.
            // The replacement does not exist in the oldest supported tokio.
            #[allow(deprecated)]
            let _ = self.stream.set_linger(Some(Duration::ZERO));
        }
    }
}

/// A handler's access to the connection of its request.
#[derive(Clone)]
pub(super) struct Connection(Arc<ConnectionState>);

struct ConnectionState {
    reset: AtomicBool,
    /// The number of bytes handed to the system.
    // A watch, because several responses of one HTTP/2 connection may wait for it.
    written: watch::Sender<usize>,
}

impl Connection {
    pub(super) fn new() -> Self {
        Self(Arc::new(ConnectionState {
            reset: AtomicBool::new(false),
            written: watch::Sender::new(0),
        }))
    }

    /// Resets the connection. The returned response makes the connection's task write, which fails.
    pub(super) fn reset(&self) -> Response {
        self.0.reset.store(true, Ordering::Release);
        Response::default()
    }

    /// Completes when `len` more bytes have been handed to the system, or the connection is closed.
    pub(super) fn written(&self, len: usize) -> impl Future<Output = ()> + Send + 'static {
        let mut written = self.0.written.subscribe();
        let goal = written.borrow().saturating_add(len);
        async move {
            // Fails if the connection is closed, which ends the wait as well.
            let _ = written.wait_for(|written| *written >= goal).await;
        }
    }

    fn wrote(&self, len: usize) {
        self.0
            .written
            .send_modify(|written| *written = written.wrapping_add(len));
    }

    fn is_reset(&self) -> bool {
        self.0.reset.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("reset", &self.is_reset())
            .finish_non_exhaustive()
    }
}
