//! What is kept of a head is the head.

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header::AUTHORIZATION};
use proptest::{collection::vec, prelude::*};

use super::super::head::SavedHead;

type Head = (Method, Uri, Version, Vec<(String, Vec<u8>, bool)>);

/// All of a head that can be seen from outside.
fn shown<B>(request: &Request<B>) -> Head {
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

fn kept<B: Clone>(request: &Request<B>) -> Request<B> {
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
    fn case_52_a_head_comes_back_as_it_was(request in any_head()) {
        let again = kept(&request);
        prop_assert_eq!(shown(&again), shown(&request));
        prop_assert_eq!(again.uri().to_string(), request.uri().to_string());
        prop_assert_eq!(again.body(), request.body());
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
    let again = kept(&request.unwrap());
    let values: Vec<_> = again.headers().get_all("b").iter().collect();
    assert_eq!(values, ["1", "3", ""]);
    assert_eq!(again.headers().keys().collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn case_52_a_head_of_any_length_comes_back() {
    for length in (0..2_000).chain([100_000]) {
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        let request = Request::post("https://api.klavi.ai/x")
            .header("a", "b".repeat(length))
            .header("c", secret);
        let request = request.body(7_u8).unwrap();
        assert_eq!(shown(&kept(&request)), shown(&request), "{length}");
    }
}

#[test]
fn case_52_a_long_head_comes_back_whatever_makes_it_long() {
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
                shown(&kept(&request)),
                shown(&request),
                "{uri} {names} {name} {value}"
            );
        }
    }
}

#[test]
fn case_52_extensions_come_back() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(u8);
    let request = Request::get("/").extension(Mark(7)).body(()).unwrap();
    assert_eq!(kept(&request).extensions().get::<Mark>(), Some(&Mark(7)));
}

#[test]
fn case_61_no_copy_is_made_of_a_value_that_is_marked_sensitive() {
    let mut secret = HeaderValue::from_static("session=secret");
    secret.set_sensitive(true);
    let request = Request::get("/")
        .header("cookie", secret)
        .header("accept", "*/*")
        .body(())
        .unwrap();
    let head = SavedHead::of(&request).unwrap();
    let has = |text: &str| {
        head.parts
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(has("cookie") && has("*/*"));
    assert!(!has("secret"));
    assert!(!format!("{head:?}").contains("secret"));
    let again = head.restore(()).unwrap();
    assert_eq!(again.headers()["cookie"], "session=secret");
    assert!(again.headers()["cookie"].is_sensitive());
}

#[test]
fn the_authorization_is_not_kept_for_each_sending_has_its_own() {
    let request = Request::get("/")
        .header(AUTHORIZATION, "Bearer t1")
        .header("a", "b")
        .body(())
        .unwrap();
    let again = kept(&request);
    assert_eq!(again.headers().keys().collect::<Vec<_>>(), ["a"]);
}
