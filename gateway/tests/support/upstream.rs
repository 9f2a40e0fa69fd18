//! A server by hand that gives tokens, and misbehaves as its path says.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

const TOKEN: &str = r#"{"accessToken":"t1","expireIn":1800}"#;
const EARLY: &str = "HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nearly";

#[derive(Default)]
pub struct Seen {
    /// Requests whose head has arrived, without the token calls.
    pub requests: AtomicUsize,
    /// An endless response has broken off.
    pub broken: AtomicBool,
    /// Lines of chunked bodies that have arrived.
    pub lines: AtomicUsize,
    /// The last request, with its body as it is on the wire.
    pub last: Mutex<String>,
}

pub struct Upstream {
    pub url: String,
    pub seen: Arc<Seen>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let seeing = seen.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(connection(stream, seeing.clone()));
            }
        });
        Self { url, seen }
    }

    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    pub fn last(&self) -> String {
        self.seen.last.lock().unwrap().clone()
    }
}

/// One request on each connection.
async fn connection(stream: TcpStream, seen: Arc<Seen>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    if name == "auth" {
        let body = body(&head, &mut stream, &seen).await?;
        assert!(body.contains("secretKey"));
        return respond(stream, "200 OK", TOKEN).await;
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    match &*name {
        // Reads, and never responds.
        "silent" => {
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
        // Responds and closes, and discards the rest.
        "early" => {
            stream.write_all(EARLY.as_bytes()).await?;
            stream.shutdown().await?;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
        // Responds, and neither reads nor closes.
        "early-open" => {
            stream.write_all(EARLY.as_bytes()).await?;
            std::future::pending().await
        }
        "reset" => {}
        "switch" => {
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
        }
        // Half of a response.
        "stall" => {
            let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst";
            stream.write_all(half.as_bytes()).await?;
            std::future::pending().await
        }
        // A response without end.
        "endless" => {
            let head = "HTTP/1.1 200 OK\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
            seen.broken.store(true, Ordering::SeqCst);
        }
        "unauthorized" => {
            body(&head, &mut stream, &seen).await?;
            return respond(stream, "401 Unauthorized", "no").await;
        }
        "trailers" => {
            let body = body(&head, &mut stream, &seen).await?;
            *seen.last.lock().unwrap() = head + &body;
            let response = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\
                            \r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n";
            stream.write_all(response.as_bytes()).await?;
        }
        _ => {
            let body = body(&head, &mut stream, &seen).await?;
            *seen.last.lock().unwrap() = head + &body;
            return respond(stream, "200 OK", "fine").await;
        }
    }
    Ok(())
}

async fn respond(mut stream: BufReader<TcpStream>, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// The body as it is on the wire.
async fn body(head: &str, stream: &mut BufReader<TcpStream>, seen: &Seen) -> io::Result<String> {
    let head = head.to_lowercase();
    let mut body = String::new();
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.lines().next().unwrap().parse().unwrap();
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        body = String::from_utf8(bytes).unwrap();
    } else if head.contains("transfer-encoding: chunked") {
        let mut is_last = false;
        while !(is_last && body.ends_with("\r\n\r\n")) {
            let start = body.len();
            stream.read_line(&mut body).await?;
            seen.lines.fetch_add(1, Ordering::SeqCst);
            is_last |= body[start..].trim_end() == "0";
        }
    }
    Ok(body)
}
