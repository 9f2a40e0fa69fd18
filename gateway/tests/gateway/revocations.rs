//! A hundred POSTs while tokens are revoked.

#[path = "../../../tests/support/revocations.rs"]
mod common;

use klavi_auth::sandbox::Sandbox;

use crate::support::{Front, full};

#[tokio::test]
async fn case_40_53_100_posts_survive_revocations() {
    for seed in 1..=5 {
        let sandbox = Sandbox::start().await.unwrap();
        let front = Front::of_sandbox(&sandbox, &[]).await;
        // As many as the default budget allows for.
        common::a_hundred_posts(&sandbox, seed, 5, |monitor| {
            let request = front
                .request("POST", "/monitor/v1/monitors")
                .body(full(monitor));
            let response = front.send(request.unwrap());
            async { response.await.status() }
        })
        .await;
    }
}
