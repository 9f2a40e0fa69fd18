//! Case 61 over sockets: texts from outside are masked where they repeat a key, and readable
//! elsewhere.

use http::StatusCode;
use klavi_auth::{
    Credentials, KlaviAuthLayer, Product,
    sandbox::{Endpoint, Fault, Sandbox},
};

use crate::support::sockets::{TO_REFRESH, chain, drawing, flight_ended, pass, soon, through_each};

#[tokio::test]
async fn case_61_a_message_that_repeats_the_access_key_is_masked() {
    through_each(async |stack| {
        let key = "access-4711";
        let credentials = klavi_auth::Credentials::new(key, "secret-0815").unwrap();
        let sandbox = Sandbox::builder()
            .customer(key, "secret-0815")
            .start()
            .await
            .unwrap();
        let builder = KlaviAuthLayer::builder(sandbox.api(Product::Monitor), credentials);
        let layer = drawing(stack.transport.on(builder), &[0.0])
            .build()
            .unwrap();
        layer.cache().warm_up().await.unwrap();
        pass(TO_REFRESH).await;
        let message = format!(r#"{{"message":"{key} is suspended"}}"#);
        let fault = Fault::body(
            StatusCode::INTERNAL_SERVER_ERROR,
            "application/json",
            message,
        );
        sandbox.fail_next(Endpoint::Refresh, 1, fault);
        layer.cache().get().await.unwrap();
        flight_ended(&layer).await;
        let error = layer.cache().snapshot().last_error().cloned().unwrap();
        let printed = format!("{error} {error:?} {:?}", chain(&error));
        // With the dash, because a port may have these digits.
        assert!(!printed.contains("-4711"), "{printed}");
    })
    .await;
}

#[tokio::test]
async fn case_61_connection_refused_is_readable_for_any_keys() {
    through_each(async |stack| {
        let keys = [
            ("a", "b"),
            ("klavi-connect-dev", "connection-refused"),
            ("error", "127.0.0.1:1/monitor"),
        ];
        for (access_key, secret_key) in keys {
            let api = klavi_auth::KlaviApi::at("http://127.0.0.1:1", Product::Monitor).unwrap();
            let credentials = Credentials::new(access_key, secret_key).unwrap();
            let builder = stack
                .transport
                .on(klavi_auth::KlaviAuthLayer::builder(api, credentials));
            let layer = crate::support::sockets::drawing(builder, &[0.0])
                .build()
                .unwrap();
            let error = soon(layer.cache().warm_up()).await.unwrap_err();
            let lines = chain(&error);
            assert!(
                lines
                    .last()
                    .unwrap()
                    .starts_with("Connection refused (os error "),
                "{lines:?}"
            );
            assert_eq!(
                lines[1],
                "POST /auth: the token endpoint at 127.0.0.1:1 could not be reached"
            );
            assert_eq!(error.io_kind(), Some(std::io::ErrorKind::ConnectionRefused));
            assert!(error.is_connect(), "{error:?}");
            // Masked or not, no line is missing.
            assert!(lines.len() >= 5, "{lines:?}");
        }
    })
    .await;
}
