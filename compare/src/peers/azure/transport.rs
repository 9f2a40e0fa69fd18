//! The simulated transport, for token calls and requests.

use std::fmt;

use azure_core::http::{AsyncRawResponse, HttpClient, Request, headers::Headers};
use http_body_util::BodyExt;

use crate::{peers::respond, world::World};

pub struct Simulated(pub World);

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Simulated")
    }
}

#[async_trait::async_trait]
impl HttpClient for Simulated {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let mut simulated = http::Request::get(request.url().as_str());
        for (name, value) in request.headers().iter() {
            simulated = simulated.header(name.as_str(), value.as_str());
        }
        let response = respond(&self.0, simulated.body(()).expect("a valid request")).await;
        let (head, body) = response.into_parts();
        let mut headers = Headers::new();
        for (name, value) in &head.headers {
            headers.insert(name.to_string(), value.to_str().expect("ASCII").to_owned());
        }
        let body = body.collect().await.expect("in memory").to_bytes();
        Ok(AsyncRawResponse::from_bytes(
            head.status.as_u16().into(),
            headers,
            body,
        ))
    }
}
