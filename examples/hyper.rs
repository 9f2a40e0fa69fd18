//! hyper-util's client, over HTTP/1.1 and HTTP/2: a whole body and a stream, each resent after a
//! revocation.
//!
//! ```sh
//! cargo run -p examples --example hyper --features http2
//! ```
//!
//! Offline, against a simulated Klavi in this process.
#![allow(clippy::print_stdout, reason = "it tells its story on the terminal")]

use std::{convert::Infallible, future::ready};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use klavi_auth::{BoxError, KlaviAuthLayer, Product, sandbox::Sandbox};
use tower::{Layer, Service, ServiceExt};

/// A boxed body. It cannot be cloned.
type Stream = UnsyncBoxBody<Bytes, BoxError>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let sandbox = Sandbox::start().await?;
    let token_calls = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let auth = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), sandbox.credentials())
        .transport(token_calls)
        .build()?;

    for http2 in [false, true] {
        let mut http = Client::builder(TokioExecutor::new());
        http.http2_only(http2);

        // `Full` can be cloned: the backup is a clone, which shares its bytes.
        let whole = auth.layer(http.build_http::<Full<Bytes>>());
        post(&sandbox, "a whole body", whole, || {
            Full::from("carga única")
        })
        .await?;

        // A stream cannot: the layer records it, and the constructor makes the body to resend.
        let recording = auth.clone().replay_with(UnsyncBoxBody::new);
        post(
            &sandbox,
            "a stream",
            recording.layer(http.build_http()),
            stream,
        )
        .await?;
    }
    Ok(())
}

fn stream() -> Stream {
    let pieces =
        ["peça ", "por ", "peça"].map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from(part))));
    StreamBody::new(stream::iter(pieces).then(ready))
        .map_err(Into::into)
        .boxed_unsync()
}

/// Sends two requests with a revocation in between, and prints what the sandbox and the caller saw
/// of the second.
async fn post<S, B, A>(
    sandbox: &Sandbox,
    what: &str,
    klavi: S,
    body: fn() -> B,
) -> Result<(), BoxError>
where
    S: Service<Request<B>, Response = Response<A>, Error = BoxError> + Clone,
    A: Body<Error: Into<BoxError>>,
{
    let request =
        || Request::post(format!("{}/monitor/v1/echo/raw", sandbox.base_url())).body(body());
    klavi.clone().oneshot(request()?).await?;
    sandbox.revoke_all();
    sandbox.clear_log();
    let (head, response) = klavi.oneshot(request()?).await?.into_parts();
    let body = response.collect().await.map_err(Into::into)?.to_bytes();

    println!(
        "{what} over {:?}, after the token was revoked",
        head.version
    );
    for seen in sandbox.log() {
        let status = seen
            .status()
            .map(|status| status.as_u16())
            .unwrap_or_default();
        println!(
            "   the sandbox: {:4} {} → {status}",
            seen.method(),
            seen.path()
        );
    }
    println!(
        "   the caller:  {}, and its own body back: {:?}\n",
        head.status,
        String::from_utf8_lossy(&body)
    );
    Ok(())
}
