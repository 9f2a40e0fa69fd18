//! The layer in tower-http's company, on either side of it.

use std::future::ready;

use crate::support::{
    MONITORS, ScriptedSource,
    api::{Api, ApiResult, Seen, get, status},
    monitor_layer,
};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, LOCATION},
};
use http_body_util::{BodyExt, Full};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::{
    decompression::DecompressionLayer,
    follow_redirect::{FollowRedirectLayer, policy::Limited},
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
};

/// Redirects `/monitor/v1/monitors` to `location`, and responds to everything else with `rest`.
fn redirecting(location: &'static str, rest: fn(&Seen) -> u16) -> Api {
    Api::new(move |seen| ready(redirect(&seen, location, rest)))
}

fn redirect(seen: &Seen, location: &'static str, rest: fn(&Seen) -> u16) -> ApiResult {
    if seen.uri != MONITORS {
        return status(rest(seen), "");
    }
    let response = Response::builder()
        .status(StatusCode::TEMPORARY_REDIRECT)
        .header(LOCATION, location);
    Ok(response.body(Full::default())?)
}

/// Where the calls went, and with what.
fn hops(api: &Api) -> Vec<(String, String)> {
    api.seen()
        .iter()
        .map(|seen| (seen.uri.to_string(), seen.authorization().join(", ")))
        .collect()
}

fn hop(uri: &str, authorization: &str) -> (String, String) {
    (uri.to_owned(), authorization.to_owned())
}

const WITHIN: &str = "https://api.klavi.ai/monitor/v2/monitors";
const ABROAD: &str = "https://files.example/monitors";

#[tokio::test(start_paused = true)]
async fn case_60_redirects_carry_the_token_within_the_api_only() {
    for (location, bearer) in [
        (WITHIN, "Bearer t1"),
        ("/monitor/v2/monitors", "Bearer t1"),
        (ABROAD, ""),
    ] {
        let (api, source) = (redirecting(location, |_| 200), ScriptedSource::tokens());
        let stack = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(monitor_layer(source.clone()));
        assert_eq!(
            stack
                .service(api.clone())
                .oneshot(get(MONITORS))
                .await
                .unwrap()
                .status(),
            200
        );
        let target = if location == ABROAD { ABROAD } else { WITHIN };
        assert_eq!(
            hops(&api),
            [hop(MONITORS, "Bearer t1"), hop(target, bearer)]
        );
        assert_eq!(source.fetches(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn case_57_60_only_401s_from_the_api_count_after_a_redirect() {
    let (api, source) = (redirecting(ABROAD, |_| 401), ScriptedSource::tokens());
    let stack = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(monitor_layer(source.clone()));
    assert_eq!(
        stack
            .service(api.clone())
            .oneshot(get(MONITORS))
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!((api.calls(), source.fetches()), (2, 1));

    let rest = |seen: &Seen| {
        if seen.authorization() == ["Bearer t2"] {
            200
        } else {
            401
        }
    };
    let (api, source) = (redirecting(WITHIN, rest), ScriptedSource::tokens());
    let stack = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(monitor_layer(source.clone()));
    assert_eq!(
        stack
            .service(api.clone())
            .oneshot(get(MONITORS))
            .await
            .unwrap()
            .status(),
        200
    );
    let first = hop(MONITORS, "Bearer t1");
    assert_eq!(
        hops(&api),
        [first, hop(WITHIN, "Bearer t1"), hop(WITHIN, "Bearer t2")]
    );
    assert_eq!(source.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn case_60_inside_the_layer_the_standard_policy_drops_the_token() {
    for (location, bearer) in [(WITHIN, "Bearer t1"), (ABROAD, "")] {
        let api = redirecting(location, |_| 200);
        let stack = ServiceBuilder::new()
            .layer(monitor_layer(ScriptedSource::tokens()))
            .layer(FollowRedirectLayer::new());
        assert_eq!(
            stack
                .service(api.clone())
                .oneshot(get(MONITORS))
                .await
                .unwrap()
                .status(),
            200
        );
        assert_eq!(
            hops(&api),
            [hop(MONITORS, "Bearer t1"), hop(location, bearer)]
        );
    }
}

/// Why redirects are to be followed around the layer.
#[tokio::test(start_paused = true)]
async fn case_60_inside_the_layer_a_custom_policy_leaks_the_token() {
    let api = redirecting(ABROAD, |_| 200);
    let bare = FollowRedirectLayer::with_policy(Limited::new(5));
    let stack = ServiceBuilder::new()
        .layer(monitor_layer(ScriptedSource::tokens()))
        .layer(bare);
    assert_eq!(
        stack
            .service(api.clone())
            .oneshot(get(MONITORS))
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(
        hops(&api),
        [hop(MONITORS, "Bearer t1"), hop(ABROAD, "Bearer t1")]
    );

    let (api, source) = (redirecting(ABROAD, |_| 401), ScriptedSource::tokens());
    let stack = ServiceBuilder::new()
        .layer(monitor_layer(source.clone()))
        .layer(FollowRedirectLayer::new());
    assert_eq!(
        stack
            .service(api.clone())
            .oneshot(get(MONITORS))
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!((api.calls(), source.fetches()), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn case_52_a_request_id_is_the_same_on_the_resend() {
    const ID: HeaderName = HeaderName::from_static("x-request-id");
    let api = Api::new(async |seen| {
        let code = if seen.authorization() == ["Bearer t2"] {
            200
        } else {
            401
        };
        let mut response = status(code, "")?;
        response.headers_mut().insert(ID, seen.headers[ID].clone());
        Ok(response)
    });
    let set = || SetRequestIdLayer::x_request_id(MakeRequestUuid);
    let stack = ServiceBuilder::new()
        .layer(set())
        .layer(PropagateRequestIdLayer::x_request_id());
    let response = stack
        .layer(monitor_layer(ScriptedSource::tokens()))
        .service(api.clone())
        .oneshot(get(MONITORS))
        .await;
    let ids: Vec<HeaderValue> = api
        .seen()
        .iter()
        .map(|seen| seen.headers[ID].clone())
        .collect();
    assert_eq!((ids.len(), &ids[0]), (2, &ids[1]));
    assert_eq!(response.unwrap().headers()[ID], ids[0]);

    // Inside, every attempt has its own.
    let stack = ServiceBuilder::new()
        .layer(monitor_layer(ScriptedSource::tokens()))
        .layer(set());
    assert_eq!(
        stack
            .service(api.clone())
            .oneshot(get(MONITORS))
            .await
            .unwrap()
            .status(),
        200
    );
    let ids: Vec<HeaderValue> = api.seen()[2..]
        .iter()
        .map(|seen| seen.headers[ID].clone())
        .collect();
    assert_ne!(ids[0], ids[1]);
}

/// `fine`, as gzip.
const GZIP: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 75, 203, 204, 75, 5, 0, 146, 84, 169, 190, 4, 0, 0, 0,
];

#[tokio::test(start_paused = true)]
async fn decompression_on_either_side_reads_the_resends_response() {
    let api = Api::new(async |seen| {
        assert_eq!(seen.headers[ACCEPT_ENCODING], "gzip");
        if seen.authorization() != ["Bearer t2"] {
            return status(401, "not compressed");
        }
        let response = Response::builder().header(CONTENT_ENCODING, "gzip");
        Ok(response.body(Full::new(Bytes::from_static(GZIP)))?)
    });
    let around = ServiceBuilder::new()
        .layer(DecompressionLayer::new())
        .layer(monitor_layer(ScriptedSource::tokens()))
        .service(api.clone());
    let inside = ServiceBuilder::new()
        .layer(monitor_layer(ScriptedSource::tokens()))
        .layer(DecompressionLayer::new())
        .service(api.clone());
    for response in [
        around.oneshot(get(MONITORS)).await,
        inside.oneshot(get(MONITORS)).await,
    ] {
        let body = response
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(body, "fine");
    }
    assert_eq!(api.calls(), 4);
}
