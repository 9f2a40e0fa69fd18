//! tonic's `Channel` under the layer, over HTTP/2 on loopback: a resend on HTTP 401 and on
//! `grpc-status: 16`.

use std::time::Duration;

use crate::grpc::{Rejects, Seen, Server, grpc_layer, message, rejects_status_16, request};
use crate::revoking::{CALLS, a_hundred_calls, all_of_them, kibibyte};
use futures_util::StreamExt;
use klavi_auth::{
    Budget, Error, KlaviAuth, KlaviAuthLayer, RecordBody, SkipAuth, TokenCache, source_fn,
};
use tonic::{Code, body::Body, transport::Channel};
use tonic_health::pb::health_client::HealthClient;
use tower::Layer;

type Client = HealthClient<KlaviAuth<Channel, RecordBody<Body>>>;

/// A client whose requests have no authority of their own: they go wherever the channel is bound
/// to.
fn client(server: &Server, layer: &KlaviAuthLayer<RecordBody<Body>>) -> Client {
    HealthClient::new(layer.layer(server.channel()))
}

const KINDS: [Rejects; 3] = [
    Rejects::FromTheHead,
    Rejects::AfterTheBody,
    Rejects::WithStatus16,
];

/// What the server sees of a call that it rejects once.
fn twice(kind: Rejects, service: &str) -> Vec<Seen> {
    let first = (kind != Rejects::FromTheHead).then(|| message(service));
    vec![
        ("Bearer t1".into(), first),
        ("Bearer t2".into(), Some(message(service))),
    ]
}

#[tokio::test]
async fn case_1_calls_carry_one_token_with_and_without_an_origin() {
    let server = Server::start(Rejects::FromTheHead).await;
    let layer = grpc_layer(&server);
    let with_origin =
        HealthClient::with_origin(layer.layer(server.channel()), server.url().parse().unwrap());
    for mut client in [client(&server, &layer), with_origin] {
        for _ in 0..2 {
            assert_eq!(
                client
                    .check(request("a"))
                    .await
                    .unwrap()
                    .into_inner()
                    .status,
                1
            );
        }
    }
    assert_eq!(
        server.seen(),
        vec![("Bearer t1".to_owned(), Some(message("a"))); 4]
    );
    assert_eq!(server.fetches(), 1);
}

#[tokio::test]
async fn case_57_a_call_to_a_foreign_origin_gets_no_token() {
    let server = Server::start(Rejects::FromTheHead).await;
    let elsewhere = "http://elsewhere.example".parse().unwrap();
    let mut client =
        HealthClient::with_origin(grpc_layer(&server).layer(server.channel()), elsewhere);
    assert_eq!(
        client.check(request("a")).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(server.seen(), [(String::new(), None)]);
    assert_eq!(server.fetches(), 0);
}

#[tokio::test]
async fn case_4_a_call_opts_out_by_an_extension() {
    let server = Server::start(Rejects::FromTheHead).await;
    let mut request = request("a");
    request.extensions_mut().insert(SkipAuth);
    let status = client(&server, &grpc_layer(&server))
        .check(request)
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), server.fetches()),
        (Code::Unauthenticated, 0)
    );
    assert_eq!(server.seen(), [(String::new(), None)]);
}

#[tokio::test]
async fn case_40_46_53_a_unary_call_is_resent_on_401_and_status_16() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let mut client = client(&server, &grpc_layer(&server));
        server.reject(1);
        assert_eq!(
            client
                .check(request("a service"))
                .await
                .unwrap()
                .into_inner()
                .status,
            1
        );
        assert_eq!(server.seen(), twice(kind, "a service"), "{kind:?}");
        assert_eq!(
            (server.fetches(), server.handled()),
            (2, vec!["a service".to_owned()])
        );
    }
}

#[tokio::test]
async fn case_40_46_53_a_streaming_call_is_resent_whole_and_streams() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let mut client = client(&server, &grpc_layer(&server));
        server.reject(1);
        let watched = client
            .watch(request("a service"))
            .await
            .unwrap()
            .into_inner();
        let statuses: Vec<_> = watched.map(|status| status.unwrap().status).collect().await;
        assert_eq!(statuses, [2, 1]);
        assert_eq!(server.seen(), twice(kind, "a service"), "{kind:?}");
        assert_eq!(
            (server.fetches(), server.handled()),
            (2, vec!["a service".to_owned()])
        );
    }
}

#[tokio::test]
async fn case_46_without_the_predicate_status_16_is_returned() {
    let server = Server::start(Rejects::WithStatus16).await;
    let layer = KlaviAuthLayer::new(&server.api(), server.tokens())
        .whole_origin()
        .replay_with(Body::new);
    let mut client = client(&server, &layer);
    server.reject(1);
    assert_eq!(
        client.check(request("a")).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(
        client
            .check(request("a"))
            .await
            .unwrap()
            .into_inner()
            .status,
        1
    );
    assert_eq!(
        server.seen(),
        vec![("Bearer t1".to_owned(), Some(message("a"))); 2]
    );
    assert_eq!(server.fetches(), 1);
}

#[tokio::test]
async fn case_41_a_second_rejection_is_returned_after_1_fetch() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        server.reject(2);
        let status = client(&server, &grpc_layer(&server))
            .check(request("a"))
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), server.seen().len(), server.fetches()),
            (Code::Unauthenticated, 2, 2)
        );
        assert_eq!(
            status.message() == "rejected",
            kind == Rejects::WithStatus16,
            "the status arrives as it was"
        );
    }
}

#[tokio::test]
async fn case_8_without_a_token_the_status_carries_the_error() {
    let server = Server::start(Rejects::FromTheHead).await;
    let tokens = TokenCache::new(source_fn(async |_| {
        Err(Error::permanent("the vault is sealed"))
    }));
    let layer = KlaviAuthLayer::new(&server.api(), tokens)
        .whole_origin()
        .replay_with(Body::new);
    let status = client(&server, &layer)
        .check(request("a"))
        .await
        .unwrap_err();
    let causes = std::iter::successors(std::error::Error::source(&status), |error| error.source());
    assert!(
        causes
            .filter_map(|error| error.downcast_ref::<Error>())
            .any(Error::is_no_token),
        "{status:?}"
    );
    assert_eq!(server.seen(), []);
}

#[tokio::test]
async fn case_54_a_message_over_the_limit_is_sent_once() {
    let server = Server::start(Rejects::AfterTheBody).await;
    let mut client = client(&server, &grpc_layer(&server).replay_limit(1024));
    let long = "x".repeat(2000);
    server.reject(1);
    assert_eq!(
        client.check(request(&long)).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(server.fetches(), 1);
    assert_eq!(
        client
            .check(request(&long))
            .await
            .unwrap()
            .into_inner()
            .status,
        1
    );
    let seen: Vec<Seen> = ["Bearer t1", "Bearer t2"]
        .map(|t| (t.to_owned(), Some(message(&long))))
        .into();
    assert_eq!(server.seen(), seen);
}

#[tokio::test]
async fn case_54_with_send_once_a_call_gets_its_own_rejection() {
    let server = Server::start(Rejects::FromTheHead).await;
    let layer = KlaviAuthLayer::new(&server.api(), server.tokens())
        .whole_origin()
        .send_once();
    let mut client = HealthClient::new(layer.layer(server.channel()));
    server.reject(1);
    assert_eq!(
        client.check(request("a")).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(
        client
            .check(request("a"))
            .await
            .unwrap()
            .into_inner()
            .status,
        1
    );
    assert_eq!((server.seen().len(), server.fetches()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_40_100_calls_amid_revocations_are_handled_once() {
    for (kind, seed) in KINDS.into_iter().zip(6..) {
        let server = Server::start(kind).await;
        // More revocations than the default budget allows.
        let tokens = TokenCache::builder(server.source()).budget(
            Budget::default()
                .burst(100)
                .full_refill(Duration::from_secs(1)),
        );
        let tokens = tokens.build().unwrap();
        let layer = KlaviAuthLayer::new(&server.api(), tokens.clone());
        let layer = layer
            .whole_origin()
            .rejected_when(rejects_status_16)
            .replay_with(Body::new);
        let client = client(&server, &layer);
        let call = |number| {
            let mut client = client.clone();
            async move {
                let response = client.check(request(&kibibyte(number))).await;
                assert_eq!(
                    response.unwrap().into_inner().status,
                    1,
                    "no caller sees a rejection"
                );
            }
        };
        let revoked = a_hundred_calls(seed, &tokens, || server.revoke(), call).await;
        assert!(revoked >= 5, "{revoked}");
        let mut handled = server.handled();
        handled.sort();
        assert_eq!(handled, all_of_them(), "every message once");
        assert!((revoked..=revoked + 1).contains(&server.fetches()));
        assert!(server.seen().len() >= CALLS + revoked - 1);
    }
}
