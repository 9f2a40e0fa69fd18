//! The course of a request: arrive, be decided on, wait, be answered.

use std::{future::pending, sync::Arc};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    response::Response,
};
use tokio::time::sleep;

use super::{
    body::{Keep, read},
    endpoints,
    io::Link,
    state::Server,
};

pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new().fallback(handle).with_state(server)
}

async fn handle(
    State(server): State<Arc<Server>>,
    ConnectInfo(link): ConnectInfo<Link>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let mut arrival = server.lock().arrive(&parts);
    let response = match arrival.fault.take() {
        None => Some(endpoints::answer(&server, &arrival, &parts, body).await),
        Some(fault) if fault.is_never() => {
            // A connection sees that the client is gone only as long as somebody reads from it, and
            // does not tell a second time: a body that breaks off is all there is to learn.
            match read(&server, arrival.number, body, usize::MAX, Keep::Nothing).await {
                Ok(_) => pending().await,
                Err(_) => None,
            }
        }
        Some(fault) => fault.answer(&link),
    };
    if !arrival.latency.is_zero() {
        sleep(arrival.latency).await;
    }
    let Some(response) = response else {
        return link.reset();
    };
    server.lock().answered(&arrival, response.status());
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::response::IntoResponse;
    use http::{StatusCode, header::AUTHORIZATION};
    use tokio::time::Instant;
    use tower::ServiceExt;

    use super::*;
    use crate::sandbox::{Endpoint, Fault, state};

    fn server() -> Arc<Server> {
        Arc::new(Server::new(state::State::new()))
    }

    async fn get(server: &Arc<Server>, path: &str, token: &str) -> Response {
        let mut request = Request::get(path).header(AUTHORIZATION, format!("Bearer {token}"));
        request
            .extensions_mut()
            .unwrap()
            .insert(ConnectInfo(Link::new()));
        let request = request.body(Body::empty()).unwrap();
        router(Arc::clone(server))
            .oneshot(request)
            .await
            .into_response()
    }

    #[tokio::test(start_paused = true)]
    async fn latency_comes_after_the_decision_and_before_every_answer() {
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

        let answer = get(&server, "/monitor/v1/monitors", &token);
        let (response, ()) = tokio::join!(answer, async {
            tokio::time::advance(second).await;
            assert_eq!(server.lock().log.to_vec()[3].status(), None);
            server.lock().tokens.kill_all();
        });
        assert_eq!(
            response.status(),
            StatusCode::OK,
            "the token was alive when its request arrived"
        );
        assert_eq!(server.lock().log.to_vec()[3].status(), Some(StatusCode::OK));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_opens_nothing_and_is_not_renewed() {
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
    async fn a_token_that_dies_while_it_is_refreshed_is_not_renewed_twice() {
        let server = server();
        server.lock().refresh_kills_old = true;
        server.lock().issue("a".into(), "monitor".into());
        assert!(server.lock().renew(1).is_some());
        assert!(server.lock().renew(1).is_none());
        assert_eq!(server.lock().tokens.alive(), 1);
    }
}
