//! The program: its start, its log, its metrics, and its end.

use std::{process::Stdio, time::Duration};

use futures_util::StreamExt;
use http_body_util::BodyExt;
use klavi_auth::sandbox::Sandbox;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, Command},
};

use crate::support::{Front, channel, http, pass, soon, until, upstream::Upstream};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klavi-gateway"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KLAVI_")) {
        command.env_remove(name);
    }
    command
        .args(args)
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

struct Program {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    front: Front,
}

impl Program {
    async fn start(upstream: &str, args: &[&str]) -> Self {
        let mut command = command(&[&["--bind", "127.0.0.1:0"], args].concat());
        let keys = [
            ("KLAVI_ACCESS_KEY", "access"),
            ("KLAVI_SECRET_KEY", "secret"),
        ];
        let mut child = command
            .envs(keys)
            .env("KLAVI_API_URL", upstream)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = find(&mut log, "listening on ").await;
        let (_, rest) = line.split_once("listening on ").unwrap();
        let base = rest.split(',').next().unwrap().to_owned();
        let (stop, _) = tokio::sync::oneshot::channel();
        let front = Front {
            base,
            stop,
            served: tokio::spawn(async { Ok(()) }),
            http: http(),
        };
        Self { child, log, front }
    }

    async fn terminate(&mut self) -> std::process::ExitStatus {
        let id = self.child.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-TERM", &id]).status().await;
        assert!(kill.unwrap().success());
        soon(self.child.wait()).await.unwrap()
    }
}

/// The next line of the log with this text.
async fn find(log: &mut Lines<BufReader<ChildStderr>>, text: &str) -> String {
    soon(async {
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("no line with {text}");
    })
    .await
}

#[tokio::test]
async fn the_access_log_has_status_bytes_duration_and_id() {
    let upstream = Upstream::start().await;
    let mut program = Program::start(&upstream.url, &[]).await;
    let response = program
        .front
        .raw(
            "POST /monitor/v1/any?cpf=1 HTTP/1.1\r\nhost: localhost\r\nx-request-id: \
             id-7\r\nconnection: close\r\ncontent-length: 5\r\n\r\nabcde",
        )
        .await;
    assert!(response.ends_with("fine"), "{response}");
    let line = find(&mut program.log, "klavi_gateway::access").await;
    for field in [
        r#"id="id-7""#,
        "method=POST",
        r#"path="/monitor/v1/any""#,
        "status=200",
        "received=5",
        "sent=4",
        "ms=",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    assert!(!line.contains('\u{1b}') && !line.contains("cpf"), "{line}");
    assert!(program.terminate().await.success());
}

#[tokio::test]
async fn metrics_count_requests_bytes_and_tokens() {
    let upstream = Upstream::start().await;
    let program = Program::start(&upstream.url, &["--admin-bind", "127.0.0.1:0"]).await;
    assert_eq!(program.front.get("/monitor/v1/any").await.status(), 200);
    assert_eq!(program.front.get("/livez").await.body(), "alive\n");
    let metrics = program.front.get("/metrics").await;
    let metrics = std::str::from_utf8(metrics.body()).unwrap();
    for line in [
        r#"klavi_gateway_requests_total{status="200"} 1"#,
        "klavi_gateway_sent_bytes_total 4",
        "klavi_gateway_request_duration_seconds_count 1",
        "klavi_gateway_requests_in_flight 0",
        "klavi_auth_tokens_fetched_total",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn start_errors_are_in_words() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let missing = ["--ca-file", "/no/such.pem"];
    for (args, code, says) in [
        (
            &["--bind", "8484"][..],
            2,
            "invalid value '8484' for '--bind <BIND>': invalid socket address syntax",
        ),
        (&["--idle-timeout", "0"], 2, "0 is not in 1..=86400"),
        (
            &["--upstream-timeout", "soon"],
            2,
            "invalid digit found in string",
        ),
        (&["--max-head", "10"], 2, "10 is not in 8192.."),
        (&["--client-cert", "x"], 2, "--client-key <CLIENT_KEY>"),
        (&["--product", "a b"], 2, "has the character ' '"),
        (&missing, 1, "/no/such.pem: "),
        (
            &["--keys-dir", "/no/such"],
            1,
            "cannot open the key file /no/such/access-key",
        ),
        (&["--bind", &taken], 1, "cannot listen on"),
    ] {
        let _listener = std::net::TcpListener::bind(&taken);
        let keys = [
            ("KLAVI_ACCESS_KEY", "access"),
            ("KLAVI_SECRET_KEY", "secret"),
        ];
        let output = soon(command(args).envs(keys).output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(says), "{args:?}: {said}");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let output = soon(command(&[]).output()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("KLAVI_ACCESS_KEY"), "{said}");
    let output = soon(command(&[]).env("KLAVI_GATEWAY_GRACE", "x").output())
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("'--grace <GRACE>'"), "{said}");
}

#[tokio::test]
async fn an_address_beyond_loopback_is_a_warning() {
    let mut command = command(&["--bind", "0.0.0.0:0"]);
    let keys = [
        ("KLAVI_ACCESS_KEY", "access"),
        ("KLAVI_SECRET_KEY", "secret"),
    ];
    let upstream = Upstream::start().await;
    command.envs(keys).env("KLAVI_API_URL", &upstream.url);
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = find(&mut log, "WARN").await;
    assert!(line.contains("is not loopback"), "{line}");
}

#[tokio::test]
async fn a_shutdown_finishes_requests_and_takes_no_new_ones() {
    let sandbox = Sandbox::start().await.unwrap();
    let front = Front::of_sandbox(&sandbox, &[]).await;
    let (pieces, body) = channel();
    let request = front.request("POST", "/monitor/v1/echo/raw").body(body);
    let response = soon(front.http.request(request.unwrap())).await.unwrap();
    let mut response = response.into_body().into_data_stream();
    front.stop.send(()).unwrap();
    let address = front.base.trim_start_matches("http://").to_owned();
    soon(async { while TcpStream::connect(&address).await.is_ok() {} }).await;
    assert!(!front.served.is_finished());

    pieces.send("the rest").await.unwrap();
    assert_eq!(soon(response.next()).await.unwrap().unwrap(), "the rest");
    drop(pieces);
    assert!(soon(response.next()).await.is_none());
    assert!(soon(front.served).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_shutdown_cuts_off_what_takes_longer() {
    let upstream = Upstream::start().await;
    let front = Front::of(
        &upstream.url,
        &["--grace", "500", "--upstream-timeout", "86400"],
    )
    .await;
    let request = front.request("GET", "/monitor/v1/silent");
    let request = request.body(crate::support::full("")).unwrap();
    let response = tokio::spawn(front.http.request(request));
    until(|| upstream.requests() == 1).await;
    front.stop.send(()).unwrap();
    let address = front.base.trim_start_matches("http://").to_owned();
    soon(async { while TcpStream::connect(&address).await.is_ok() {} }).await;
    pass(Duration::from_secs(400)).await;
    assert!(!front.served.is_finished());
    pass(Duration::from_millis(100_001)).await;
    assert!(soon(front.served).await.unwrap().is_ok());
    assert!(!response.is_finished());
}
