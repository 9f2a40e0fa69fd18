//! The headers of one hop, and the headers that name it.

use std::net::SocketAddr;

use http::header::{CONNECTION, HOST, TE, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, request::Parts};

/// Removes the hop-by-hop headers (RFC 9110, 7.6.1), and adds `Via` if it is asked for. `Trailer`
/// and a `TE` that accepts trailers stay: trailers are passed on.
pub(crate) fn next_hop(headers: &mut HeaderMap, via: bool) {
    const ALWAYS: &str = "connection, keep-alive, proxy-authenticate, proxy-authorization, \
                          proxy-connection, te, transfer-encoding, upgrade";
    let accepts_trailers = tokens(headers, &TE).any(|token| token == "trailers");
    let listed: Vec<_> = tokens(headers, &CONNECTION).collect();
    for name in ALWAYS.split(", ").chain(listed.iter().map(String::as_str)) {
        headers.remove(name);
    }
    if accepts_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if via {
        headers.append(VIA, HeaderValue::from_static("1.1 klavi-gateway"));
    }
}

/// Whether the request asks for a tunnel or another protocol. An offer of HTTP/2 (curl's and
/// Java's) may be ignored, and is.
pub(crate) fn wants_upgrade(head: &Parts) -> bool {
    head.method == Method::CONNECT
        || tokens(&head.headers, &UPGRADE).any(|protocol| protocol != "h2c")
}

/// The host that the caller has addressed, without the port.
pub(crate) fn host(head: &Parts) -> Option<String> {
    let header = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let header = header.and_then(|host| host.parse::<Uri>().ok());
    let host = head.uri.host().or_else(|| header.as_ref()?.host());
    host.map(str::to_owned)
}

/// Appends the caller's address to those that are there.
pub(crate) fn add_forwarded(head: &mut Parts) {
    let peer = head.extensions.get::<SocketAddr>();
    let address = peer.and_then(|peer| HeaderValue::from_str(&peer.ip().to_string()).ok());
    let headers = &mut head.headers;
    if let Some(address) = address {
        headers.append("x-forwarded-for", address);
    }
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry("x-forwarded-host").or_insert(host);
    }
    let http = HeaderValue::from_static("http");
    headers.entry("x-forwarded-proto").or_insert(http);
}

/// The elements of a header that is a list, in lower case.
fn tokens(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> {
    let lists = headers.get_all(name).into_iter();
    let lists = lists.filter_map(|list| list.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
}
