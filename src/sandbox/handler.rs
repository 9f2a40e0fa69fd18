//! Serves requests: receive, decide, delay, respond.

use std::{future::pending, sync::Arc};

use http::{Method, Request, Version};
use tokio::time::sleep;

use super::{
    endpoints,
    listener::Connection,
    read_body::{BodyRecord, read},
    response::{Body, Response},
    state::Server,
};

pub(super) async fn handle(
    server: &Arc<Server>,
    connection: &Connection,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    // At arrival, so that a delay does not change the outcome.
    let mut received = server.lock().receive(&parts);
    let response = match received.fault.take() {
        None => Some(endpoints::respond(server, &received, &parts, body).await),
        Some(fault) if fault.hangs() => {
            // Only a read notices that the client has disconnected, and only once: the body that
            // breaks off here.
            match read(
                server,
                received.number,
                body,
                usize::MAX,
                BodyRecord::Length,
            )
            .await
            {
                Ok(_) => pending().await,
                Err(_) => None,
            }
        }
        Some(fault) => fault.into_response(connection),
    };
    // A token that is revoked during the delay was valid when the request arrived.
    if !received.latency.is_zero() {
        sleep(received.latency).await;
    }
    let Some(mut response) = response else {
        return connection.reset();
    };
    // Over HTTP/1.1 hyper drops the body itself.
    if parts.method == Method::HEAD && parts.version == Version::HTTP_2 {
        *response.body_mut() = Body::default();
    }
    // After the delay: until then the client has no response, and the log must not have one either.
    server.lock().set_status(&received, response.status());
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{StatusCode, header::AUTHORIZATION};
    use tokio::time::Instant;

    use super::*;
    use crate::sandbox::{Endpoint, Fault, state};

    fn server() -> Arc<Server> {
        Arc::new(Server::new(state::State::new()))
    }

    async fn get(server: &Arc<Server>, path: &str, token: &str) -> Response {
        let request = Request::get(path)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::default())
            .unwrap();
        handle(server, &Connection::new(), request).await
    }

    #[tokio::test(start_paused = true)]
    async fn latency_follows_the_decision_and_precedes_every_response() {
        let server = server();
        let (token, _) = server.lock().issue("a".into(), "monitor".into());
        let second = Duration::from_secs(1);
        server.lock().controls(Endpoint::Resource).latency = 2 * second;
        server
            .lock()
            .controls(Endpoint::Resource)
            .fail_next(1, Fault::status(StatusCode::BAD_GATEWAY));

        for status in [StatusCode::BAD_GATEWAY, StatusCode::OK] {
            let start = Instant::now();
            assert_eq!(
                get(&server, "/monitor/v1/monitors", &token).await.status(),
                status
            );
            assert_eq!(start.elapsed(), 2 * second);
        }
        let start = Instant::now();
        assert_eq!(
            get(&server, "/monitor/v1/refresh", &token).await.status(),
            StatusCode::OK
        );
        assert_eq!(start.elapsed(), Duration::ZERO);

        let response = get(&server, "/monitor/v1/monitors", &token);
        let (response, ()) = tokio::join!(response, async {
            tokio::time::advance(second).await;
            assert_eq!(server.lock().log.to_vec()[3].status(), None);
            server.lock().tokens.revoke_all();
        });
        assert_eq!(
            response.status(),
            StatusCode::OK,
            "the token was live when its request arrived"
        );
        assert_eq!(server.lock().log.to_vec()[3].status(), Some(StatusCode::OK));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_is_rejected_and_not_refreshed() {
        let server = server();
        let (token, _) = server.lock().issue("a".into(), "monitor".into());
        for (age, status) in [(1799, StatusCode::OK), (1, StatusCode::UNAUTHORIZED)] {
            tokio::time::advance(Duration::from_secs(age)).await;
            assert_eq!(
                get(&server, "/monitor/v1/monitors", &token).await.status(),
                status
            );
            assert_eq!(
                get(&server, "/monitor/v1/refresh", &token).await.status(),
                status
            );
        }
        assert_eq!(server.lock().counts.unauthorized, 1);
        assert!(
            server
                .lock()
                .log
                .to_vec()
                .iter()
                .all(|entry| entry.token() == Some(1))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_revoked_by_its_refresh_is_not_refreshed_again() {
        let server = server();
        server.lock().refresh_revokes_old = true;
        server.lock().issue("a".into(), "monitor".into());
        assert!(server.lock().refresh(1).is_some());
        assert!(server.lock().refresh(1).is_none());
        assert_eq!(server.lock().tokens.live_count(), 1);
    }
}
