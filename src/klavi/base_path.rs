//! The path of a base URL.

/// Normalizes a path as the `url` crate does: without dot segments, and percent-encoded where `Uri`
/// does not require it. Removes slashes at the end.
pub(super) fn normalized_path(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split(['/', '\\']).skip(1) {
        match &*segment.to_ascii_lowercase().replace("%2e", ".") {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    // reqwest sends this spelling, and paths are compared literally.
    let mut normalized = String::new();
    for byte in segments
        .iter()
        .flat_map(|segment| "/".bytes().chain(segment.bytes()))
    {
        match byte {
            b'"' | b'{' | b'}' | 0x80.. => normalized.push_str(&format!("%{byte:02X}")),
            _ => normalized.push(byte.into()),
        }
    }
    // Paths that start with a slash are appended.
    normalized.truncate(normalized.trim_end_matches('/').len());
    normalized
}
