//! A restored head equals the saved one.

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header::AUTHORIZATION};
use proptest::{collection::vec, prelude::*};

use super::super::{CloneBody, Replay, head::SavedHead};

type Head = (Method, Uri, Version, Vec<(String, Vec<u8>, bool)>);

/// The visible parts of a head.
fn visible<B>(request: &Request<B>) -> Head {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| {
        (
            name.to_string(),
            value.as_bytes().to_vec(),
            value.is_sensitive(),
        )
    });
    (
        request.method().clone(),
        request.uri().clone(),
        request.version(),
        headers.collect(),
    )
}

fn round_trip<B: Clone>(request: &Request<B>) -> Request<B> {
    SavedHead::of(request)
        .unwrap()
        .restore(request.body().clone())
        .unwrap()
}

fn any_head() -> impl Strategy<Value = Request<u8>> {
    let method = prop_oneof![
        Just("GET"),
        Just("POST"),
        Just("PROPFIND"),
        Just("A-METHOD-OF-SOMEBODYS-OWN")
    ];
    let uri = prop_oneof![
        Just("/monitor/v1/monitors?page=2&x=%20"),
        Just("https://API.klavi.ai:443/a//b?"),
        Just("https://api.klavi.ai"),
        Just("http://user:word@[::1]:8080/?q"),
        Just("odd+scheme://host/x"),
        Just("host:443"),
        Just("host"),
        Just("*"),
        Just("/"),
    ];
    let version = prop_oneof![
        Just(Version::HTTP_10),
        Just(Version::HTTP_11),
        Just(Version::HTTP_2)
    ];
    let name = prop_oneof![
        Just("accept"),
        Just("x-request-id"),
        Just("cookie"),
        "x-[a-z0-9]{0,9}".prop_map(|name| &*name.leak())
    ];
    let value = vec(
        prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8],
        0..40,
    );
    let headers = vec((name, value, any::<bool>()), 0..12);
    (method, uri, version, headers, any::<u8>()).prop_map(
        |(method, uri, version, headers, body)| {
            let mut request = Request::builder()
                .method(method)
                .uri(uri)
                .version(version)
                .body(body)
                .unwrap();
            for (name, value, sensitive) in headers {
                let mut value = HeaderValue::from_bytes(&value).unwrap();
                value.set_sensitive(sensitive);
                request
                    .headers_mut()
                    .append(HeaderName::from_static(name), value);
            }
            request
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn case_52_a_restored_head_equals_the_saved_one(request in any_head()) {
        let restored = round_trip(&request);
        prop_assert_eq!(visible(&restored), visible(&request));
        prop_assert_eq!(restored.uri().to_string(), request.uri().to_string());
        prop_assert_eq!(restored.body(), request.body());
    }
}

#[test]
fn case_52_values_of_one_name_keep_their_order_among_others() {
    let request = Request::get("/")
        .header("b", "1")
        .header("a", "2")
        .header("b", "3")
        .header("b", "")
        .body(());
    let restored = round_trip(&request.unwrap());
    let values: Vec<_> = restored.headers().get_all("b").iter().collect();
    assert_eq!(values, ["1", "3", ""]);
    assert_eq!(restored.headers().keys().collect::<Vec<_>>(), ["b", "a"]);
}

/// A text in which a byte at the wrong place shows.
fn varied(length: usize) -> String {
    ('!'..='~').cycle().take(length).collect()
}

#[test]
fn case_52_a_head_of_any_length_is_restored() {
    for length in (0..2_000).chain([100_000]) {
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        let request = Request::post("https://api.klavi.ai/x")
            .header("a", varied(length))
            .header("c", secret);
        let request = request.body(7_u8).unwrap();
        assert_eq!(
            visible(&round_trip(&request)),
            visible(&request),
            "{length}"
        );
    }
}

#[test]
fn case_52_a_head_with_any_long_part_is_restored() {
    for uri in [
        "/",
        "https://api.klavi.ai",
        "https://api.klavi.ai/monitor/v1",
    ] {
        for (names, name, value) in [
            (1, 3_000, 0),
            (1, 100, 3_000),
            (300, 0, 0),
            (300, 0, 1),
            (100, 20, 10),
        ] {
            let mut request = Request::get(uri);
            for number in 0..names {
                request =
                    request.header(format!("{number}{}", "n".repeat(name)), "v".repeat(value));
            }
            let request = request.body(7_u8).unwrap();
            assert_eq!(
                visible(&round_trip(&request)),
                visible(&request),
                "{uri} {names} {name} {value}"
            );
        }
    }
}

#[test]
fn case_52_extensions_are_restored() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(u8);
    let request = Request::get("/").extension(Mark(7)).body(()).unwrap();
    assert_eq!(
        round_trip(&request).extensions().get::<Mark>(),
        Some(&Mark(7))
    );
}

#[test]
fn case_61_a_sensitive_value_is_not_copied() {
    let mut secret = HeaderValue::from_static("session=secret");
    secret.set_sensitive(true);
    let mut request = Request::get("/")
        .header("cookie", secret)
        .header("accept", "*/*")
        .body(())
        .unwrap();
    let backup = CloneBody.back_up(&mut request).unwrap();
    let has = |text: &str| {
        let parts = &backup.head.parts;
        parts
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(has("cookie") && has("*/*"));
    assert!(!has("secret"));
    assert!(!format!("{backup:?}").contains("secret"));
    let restored: Request<()> = CloneBody.restore(backup).unwrap();
    assert_eq!(restored.headers()["cookie"], "session=secret");
    assert!(restored.headers()["cookie"].is_sensitive());
}

#[test]
fn the_authorization_header_is_not_backed_up() {
    let request = Request::get("/")
        .header(AUTHORIZATION, "Bearer t1")
        .header("a", "b")
        .body(())
        .unwrap();
    let restored = round_trip(&request);
    assert_eq!(restored.headers().keys().collect::<Vec<_>>(), ["a"]);
}
