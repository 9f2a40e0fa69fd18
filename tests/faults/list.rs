//! The faults: what goes wrong, and what that is on the wire.

use std::{io::Write, sync::OnceLock};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use crate::wire::Wire;

pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Only a timeout ends it, at the token endpoints and for a caller.
    pub(crate) is_slow: bool,
}

pub(crate) enum Kind {
    /// In place of the response to a request.
    Wire(Wire),
    /// In place of the server's part in the TLS handshake.
    Tls(Wire),
    /// As the response to a request, by a client that decompresses.
    Compressed(Wire),
    /// In place of the response to the first request, which rejects the token.
    Rejection(Wire),
    /// A redirect to another server, or in circles at the API.
    Redirect(u16),
    NobodyListens,
    NoSuchName,
    NoNameServer,
}

/// A good response of a token endpoint, and one that the API can give as well.
const BODY: &str = r#"{"accessToken":"token-0","expireIn":1800}"#;
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
const MIB: usize = 1024 * 1024;

pub(crate) fn all() -> Vec<Fault> {
    [
        connecting(),
        breaking_off(),
        slow(),
        lengths(),
        endless(),
        versions(),
        unusual(),
        garbage(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn connecting() -> Vec<Fault> {
    let tls = |name, wire| Fault {
        name,
        kind: Kind::Tls(wire),
        is_slow: false,
    };
    vec![
        Fault {
            name: "connection refused",
            kind: Kind::NobodyListens,
            is_slow: false,
        },
        Fault {
            name: "DNS: the name does not exist",
            kind: Kind::NoSuchName,
            is_slow: false,
        },
        Fault {
            name: "DNS: no response",
            kind: Kind::NoNameServer,
            is_slow: true,
        },
        tls(
            "TLS: closed in the handshake",
            Wire::HalfClose(Bytes::new()),
        ),
        tls("TLS: reset in the handshake", Wire::Reset(Bytes::new())),
        tls(
            "TLS: plain HTTP response",
            Wire::HalfClose(whole("HTTP/1.1 400 Bad Request\r\n", "no")),
        ),
        tls(
            "TLS: untrusted certificate",
            Wire::Hold(crate::tls::self_signed()),
        ),
        Fault {
            name: "TLS: silence in the handshake",
            kind: Kind::Tls(Wire::Hold(Bytes::new())),
            is_slow: true,
        },
    ]
}

fn breaking_off() -> Vec<Fault> {
    let in_head = || Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-ty");
    let in_body = || {
        bytes(format!(
            "{HEAD}content-length: {}\r\n\r\n{}",
            BODY.len(),
            &BODY[..20]
        ))
    };
    vec![
        quick("reset before the head", Wire::Reset(Bytes::new())),
        quick("reset in the head", Wire::Reset(in_head())),
        quick("reset in the body", Wire::Reset(in_body())),
        quick("reset after the response", Wire::Reset(whole(HEAD, BODY))),
        quick("half-closed before the head", Wire::HalfClose(Bytes::new())),
        quick("half-closed in the head", Wire::HalfClose(in_head())),
        quick("half-closed in the body", Wire::HalfClose(in_body())),
        quick(
            "half-closed after the response",
            Wire::HalfClose(whole(HEAD, BODY)),
        ),
    ]
}

fn slow() -> Vec<Fault> {
    let slow = |name, wire| Fault {
        name,
        kind: Kind::Wire(wire),
        is_slow: true,
    };
    let head = || bytes(format!("{HEAD}content-length: {}\r\n\r\n", BODY.len()));
    vec![
        slow("silence", Wire::Hold(Bytes::new())),
        slow("silence after the head", Wire::Hold(head())),
        slow(
            "head trickled at 1 byte per second",
            Wire::Trickle(Bytes::new(), whole(HEAD, BODY)),
        ),
        slow(
            "body trickled at 1 byte per second",
            Wire::Trickle(head(), BODY.into()),
        ),
        slow(
            "`Content-Length` too long, held open",
            Wire::Hold(bytes(format!("{HEAD}content-length: 999\r\n\r\n{BODY}"))),
        ),
    ]
}

fn lengths() -> Vec<Fault> {
    let respond =
        |fields: &str, body: &str| Wire::Respond(bytes(format!("{HEAD}{fields}\r\n\r\n{body}")));
    let len = BODY.len();
    vec![
        quick(
            "`Content-Length` too long, closed",
            Wire::HalfClose(bytes(format!("{HEAD}content-length: 999\r\n\r\n{BODY}"))),
        ),
        quick(
            "`Content-Length` too short, cuts the JSON",
            respond("content-length: 20", BODY),
        ),
        quick(
            "`Content-Length` too short, by a line break",
            respond(&length(len), &format!("{BODY}\r\n")),
        ),
        quick(
            "`Content-Length` not a number",
            respond("content-length: many", BODY),
        ),
        quick(
            "two different `Content-Length`",
            respond(&format!("{}\r\n{}", length(len), length(20)), BODY),
        ),
        quick("`Content-Length` and `chunked`", {
            let fields = format!("content-length: 20\r\n{CHUNKED}");
            respond(&fields, &format!("{len:x}\r\n{BODY}\r\n0\r\n\r\n"))
        }),
        quick(
            "chunk without a length",
            respond(CHUNKED, &format!("many\r\n{BODY}\r\n0\r\n\r\n")),
        ),
        quick("a second, unsolicited response", {
            let second = BODY.replace("token-0", "nobodys-0");
            Wire::Respond([whole(HEAD, BODY), whole(HEAD, &second)].concat().into())
        }),
    ]
}

const CHUNKED: &str = "transfer-encoding: chunked";

fn endless() -> Vec<Fault> {
    let spaces = |n| Bytes::from(vec![b' '; n]);
    let forever = |first: String, piece: Bytes| Wire::Repeat(bytes(first), piece, usize::MAX);
    let chunk = [&b"1000\r\n"[..], &spaces(0x1000), b"\r\n"].concat();
    vec![
        quick(
            "endless body, chunked",
            forever(format!("{HEAD}{CHUNKED}\r\n\r\n"), chunk.into()),
        ),
        quick(
            "endless body, no length",
            forever(format!("{HEAD}\r\n"), spaces(0x1000)),
        ),
        quick("16 MiB of headers, one of them", {
            let first = bytes(format!("{HEAD}x-long: "));
            Wire::Repeat(first, vec![b'x'; MIB / 16].into(), 16 * 16)
        }),
        quick("16 MiB of headers, many of them", {
            let piece = format!("x-many: {}\r\n", "x".repeat(1014)).repeat(64);
            Wire::Repeat(HEAD.into(), piece.into(), 16 * 16)
        }),
        quick("gzip bomb of 48 MiB, not requested", Wire::Respond(bomb())),
        Fault {
            name: "gzip bomb of 48 MiB, decompressed by the transport",
            kind: Kind::Compressed(Wire::Respond(bomb())),
            is_slow: false,
        },
    ]
}

fn versions() -> Vec<Fault> {
    let before =
        |interim: &str| Wire::Respond([interim.as_bytes(), &whole(HEAD, BODY)].concat().into());
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n";
    vec![
        quick(
            "HTTP/1.0",
            Wire::HalfClose(bytes(format!("HTTP/1.0 200 OK\r\n\r\n{BODY}"))),
        ),
        quick(
            "HTTP/3.7",
            Wire::HalfClose(whole("HTTP/3.7 200 OK\r\n", BODY)),
        ),
        quick(
            "not HTTP",
            Wire::HalfClose(Bytes::from_static(b"SSH-2.0-OpenSSH_9.9\r\n")),
        ),
        quick(
            "100 Continue, then the response",
            before("HTTP/1.1 100 Continue\r\n\r\n"),
        ),
        quick("103 Early Hints, then the response", before(early)),
        quick(
            "103 Early Hints a hundred times, then the response",
            before(&early.repeat(100)),
        ),
        Fault {
            name: "103 Early Hints, endlessly",
            kind: Kind::Wire(Wire::Repeat(Bytes::new(), early.into(), usize::MAX)),
            is_slow: true,
        },
        quick(
            "101 Switching Protocols",
            Wire::HalfClose(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n"
                    .into(),
            ),
        ),
    ]
}

fn unusual() -> Vec<Fault> {
    let redirect = |name, status| Fault {
        name,
        kind: Kind::Redirect(status),
        is_slow: false,
    };
    let rejection = |name, wire| Fault {
        name,
        kind: Kind::Rejection(wire),
        is_slow: true,
    };
    let rejected = "HTTP/1.1 401 Unauthorized\r\n";
    let throttled = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n";
    vec![
        quick(
            "204 with a body",
            Wire::Respond(whole("HTTP/1.1 204 No Content\r\n", BODY)),
        ),
        quick(
            "304 with a body",
            Wire::Respond(whole("HTTP/1.1 304 Not Modified\r\n", BODY)),
        ),
        Fault {
            name: "429 with `Retry-After: 1`, and silence in the body",
            kind: Kind::Wire(Wire::Hold(bytes(format!("{throttled}{CHUNKED}\r\n\r\n")))),
            is_slow: true,
        },
        rejection(
            "401, and silence in the body",
            Wire::Hold(bytes(format!("{rejected}{CHUNKED}\r\n\r\n"))),
        ),
        rejection("401, and an endless body", {
            Wire::Repeat(
                bytes(format!("{rejected}\r\n")),
                vec![b' '; 0x1000].into(),
                usize::MAX,
            )
        }),
        rejection(
            "401, and reset in the body",
            Wire::Reset(bytes(format!("{rejected}{}\r\n\r\nno", length(9)))),
        ),
        redirect("redirect, 302", 302),
        redirect("redirect, 307", 307),
        redirect("redirect, 308", 308),
    ]
}

fn garbage() -> Vec<Fault> {
    let respond = |body: Vec<u8>| {
        let head = format!("{HEAD}{}\r\n\r\n", length(body.len()));
        Wire::Respond([head.into_bytes(), body].concat().into())
    };
    let deep = "[".repeat(30_000) + &"]".repeat(30_000);
    vec![
        quick("invalid UTF-8 in a header", {
            Wire::Respond(
                [
                    HEAD.as_bytes(),
                    b"x-name: \xff\xfe\r\n",
                    &whole("", BODY)[..],
                ]
                .concat()
                .into(),
            )
        }),
        quick(
            "NUL in a header",
            Wire::Respond(whole(&format!("{HEAD}x-name: a\0b\r\n"), BODY)),
        ),
        quick(
            "invalid UTF-8 in the token",
            respond(b"{\"accessToken\":\"token-\xff\xfe\"}".to_vec()),
        ),
        quick("invalid UTF-8 beside the token", {
            respond(
                [
                    &BODY.as_bytes()[..BODY.len() - 1],
                    b",\"name\":\"\xff\xfe\"}",
                ]
                .concat(),
            )
        }),
        quick("JSON 30,000 deep", respond(deep.clone().into_bytes())),
        quick("JSON 30,000 deep beside the token", {
            respond(format!("{},\"more\":{deep}}}", &BODY[..BODY.len() - 1]).into_bytes())
        }),
        quick("an empty body", respond(Vec::new())),
    ]
}

fn quick(name: &'static str, wire: Wire) -> Fault {
    Fault {
        name,
        kind: Kind::Wire(wire),
        is_slow: false,
    }
}

fn length(len: usize) -> String {
    format!("content-length: {len}")
}

/// A valid response, if `head` is.
fn whole(head: &str, body: &str) -> Bytes {
    bytes(format!("{head}{}\r\n\r\n{body}", length(body.len())))
}

fn bytes(text: String) -> Bytes {
    text.into()
}

/// A redirect with a token in its body.
pub(crate) fn redirect(status: u16, location: &str) -> Wire {
    let head = format!("HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\n");
    Wire::Respond(whole(&head, BODY))
}

/// 48 MiB of spaces in less than 64 KiB.
fn bomb() -> Bytes {
    static BOMB: OnceLock<Bytes> = OnceLock::new();
    let bomb = BOMB.get_or_init(|| {
        let mut member = GzEncoder::new(Vec::new(), Compression::best());
        member.write_all(&vec![b' '; MIB]).unwrap();
        let body = member.finish().unwrap().repeat(48);
        assert!(body.len() < 64 * 1024);
        let head = format!(
            "{HEAD}content-encoding: gzip\r\n{}\r\n\r\n",
            length(body.len())
        );
        [head.into_bytes(), body].concat().into()
    });
    bomb.clone()
}
