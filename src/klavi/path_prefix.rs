//! The path prefix of a product.

use percent_encoding::percent_decode;

/// `{base path}/{product}`, the prefix of all paths of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPrefix(pub(super) Box<str>);

impl PathPrefix {
    /// Whether a path belongs to the product, and no server can take it for another product's.
    ///
    /// The comparison is literal: `/MONITOR`, `//monitor` and `/%6donitor` are the product to some
    /// servers and something else to others.
    #[inline]
    pub(crate) fn contains(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&*self.0) else {
            return false;
        };
        (rest.is_empty() || rest.starts_with('/')) && !may_traverse_up(rest)
    }
}

/// Whether a server could find a `..` segment in the path, decoded or not.
#[inline]
fn may_traverse_up(path: &str) -> bool {
    // Most paths have neither a dot nor a percent sign.
    has_dot_or_percent(path.as_bytes()) && decodes_to_parent(path.as_bytes(), MAX_DECODE_ROUNDS)
}

/// Searches eight bytes at a time, without an early exit. This takes a fraction of the instructions
/// of a byte-wise search, and it runs for every request.
#[inline]
fn has_dot_or_percent(path: &[u8]) -> bool {
    let has = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(false, |found, byte| found | matches!(byte, b'.' | b'%'))
    };
    match path.last_chunk::<8>() {
        // The last eight bytes may overlap the last chunk, so that no remainder is left.
        Some(end) => path
            .chunks_exact(8)
            .fold(has(end), |found, chunk| found | has(chunk)),
        None => has(path),
    }
}

/// How many times a path is decoded, since each server on its way may decode it once. A path with
/// more layers of encoding counts as one with a `..` segment.
const MAX_DECODE_ROUNDS: u32 = 4;

#[cold]
#[inline(never)]
fn decodes_to_parent(path: &[u8], rounds_left: u32) -> bool {
    let decoded = percent_decode(path);
    if has_parent_segment(decoded.clone()) {
        return true;
    }
    if !decoded.clone().any(|byte| byte == b'%') {
        return false;
    }
    let decoded: Vec<_> = decoded.collect();
    let is_decoded = decoded.len() == path.len();
    !is_decoded && (rounds_left == 0 || decodes_to_parent(&decoded, rounds_left - 1))
}

/// Whether a segment is `..`. Some servers take a backslash for a slash, and end a segment at its
/// parameters (`..;a=b`).
fn has_parent_segment(path: impl Iterator<Item = u8>) -> bool {
    // The number of dots in the segment, `None` after any other byte.
    let mut dots = None;
    for byte in path {
        match byte {
            b'/' | b'\\' | b';' | b'?' | b'#' if dots == Some(2) => return true,
            b'/' | b'\\' => dots = Some(0),
            b'.' => dots = dots.map(|dots: u32| dots + 1),
            _ => dots = None,
        }
    }
    dots == Some(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_monitors(path: &str) -> bool {
        PathPrefix("/proxy/monitor".into()).contains(path)
    }

    #[test]
    fn case_57_a_products_paths_are_whole_segments_below_the_base() {
        for path in [
            "/proxy/monitor",
            "/proxy/monitor/",
            "/proxy/monitor/v1/monitors",
            "/proxy/monitor//data/v1",
            "/proxy/monitor/data/v1",
        ] {
            assert!(is_monitors(path), "{path}");
        }
        for path in [
            "",
            "/",
            "*",
            "/proxy",
            "/proxy/",
            "/monitor/v1",
            "/proxy/monitoring",
            "/proxy/monitor-2/v1",
            "/proxy/monitor.v2/v1",
            "/proxy/monitor;a=b/v1",
            "/proxy/monitor%2fv1",
            "/proxy/data/v1",
            "/data/proxy/monitor/v1",
        ] {
            assert!(!is_monitors(path), "{path}");
        }
    }

    #[test]
    fn case_57_another_spelling_of_the_prefix_is_not_the_products() {
        for path in [
            "/proxy/Monitor/v1",
            "/PROXY/monitor/v1",
            "//proxy/monitor/v1",
            "/proxy//monitor/v1",
            "/proxy/./monitor/v1",
            "/proxy/x/../monitor/v1",
            "/proxy/%6donitor/v1",
            "/proxy\\monitor/v1",
            "/proxy/monitor\\v1",
        ] {
            assert!(!is_monitors(path), "{path}");
        }
    }

    #[test]
    fn case_57_a_path_with_a_dot_dot_segment_is_not_the_products() {
        for rest in [
            "/..",
            "/../",
            "/../data/v1/links",
            "/v1/../../data/v1",
            "/../monitor/v1",
            "/%2e%2e/data",
            "/%2E%2E/data",
            "/.%2e/data",
            "/%2e./data",
            "/v1/..",
            "/v1/%2e%2e",
            "/..%2fdata",
            "/..%2Fdata",
            "/v1%2f..%2f..%2fdata",
            "/..\\data",
            "/v1\\..\\..\\data",
            "/..%5cdata",
            "/..;/data",
            "/..;a=b/data",
            "/..%3b/data",
            "/..%3f",
            "/..%23",
            "/%252e%252e/data",
            "/%25252e./data",
            "/..%252fdata",
            "/%%32%65%2%65/data",
            "/%25%32%65./data",
            "/%2525252525252525",
            "/v1/%252525252561",
            "//../data",
        ] {
            assert!(!is_monitors(&format!("/proxy/monitor{rest}")), "{rest}");
        }
    }

    #[test]
    fn case_57_other_dots_and_percent_signs_are_the_products() {
        for rest in [
            "/.",
            "/./v1",
            "/...",
            "/.../v1",
            "/v1/report.pdf",
            "/v1/a..b",
            "/v1/..a",
            "/v1/a..",
            "/v1/.hidden",
            "/v1/a%2fb",
            "/v1/a%20b",
            "/v1/100%25",
            "/v1/100%25%20off",
            "/v1/%25252525",
            "/v1/%2525252561",
            "/v1/100%",
            "/v1/%zz",
            "/v1/%2",
            "/v1/a;..",
            "/v1/%2e",
            "/v1/~..",
        ] {
            assert!(is_monitors(&format!("/proxy/monitor{rest}")), "{rest}");
        }
    }
}
