//! The fuzz targets as tests: the seeds and the corpus are replayed, and then some thousands of
//! inputs made from them.
//!
//! The targets themselves run with cargo-fuzz (`fuzz/README.md`), from the same code. `FUZZ_RUNS`
//! says how many inputs are made here, `FUZZ_SEED` which.

mod mutate;
mod origin;
mod reading;
mod response;
mod token_response;

use std::{env, fs, path::Path};

use mutate::{Random, mutant};

const RUNS: usize = 5_000;
const SEED: u64 = 0x6b6c_6176_6921;

#[test]
fn case_7_9_36_39_61_any_token_response_is_read_as_specified() {
    let words = [
        "200",
        "401",
        "404",
        "429",
        "503",
        "keys",
        "live",
        "bearer",
        "\n\n",
        "\n%%\n",
        "retry-after: ",
        "cut",
        "chunk: 1",
        "fill: x 16384",
        "fill: x 65505",
        "~",
        "\"accessToken\":",
        "\"accesstoken\":",
        "\"expireIn\":",
        "\"message\":",
        "\"error\":",
        "null",
        "1e3",
        "18446744073709551616",
        "-0",
        "0.5",
        "NaN",
        "\\u0000",
        "\\u200b",
        "\\n",
        "{}",
        "[",
        "q7Zx4Vn2K",
        "m6Yp1Gf8X",
        "b3Fw8Ht5D",
        "Fri, 01 Jan 1999 00:00:00 GMT",
        "Tue, 01 Jan 2999 00:00:00 GMT",
    ];
    replay(
        "token_response",
        include_str!("token_response.seeds"),
        &words,
        token_response::run,
    );
}

#[test]
fn case_57_58_59_any_uri_gets_the_token_where_it_may_go_only() {
    let words = [
        "https://",
        "http://",
        "HTTPS://",
        "ftp://",
        "api.klavi.ai",
        "API.KLAVI.AI",
        "evil.com",
        ".evil.com",
        "localhost",
        "127.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "user@",
        "user:pass@",
        "@",
        ":443",
        ":0443",
        ":+443",
        ":80",
        ":65979",
        ":",
        "/",
        "//",
        "\\",
        "?",
        "#",
        "%2e",
        "%00",
        "/monitor/v1/auth",
        "/monitor/v1/refresh",
        "/monitor/",
        "/monitoring",
        "/data/",
        "..",
        "%2f",
        "%5c",
        "%25",
        "%",
        ";",
        "0x7f.1",
        "[0:0:0:0:0:0:0:1]",
        "*",
        "\n",
    ];
    replay("origin", include_str!("origin.seeds"), &words, origin::run);
}

fn replay(target: &str, seeds: &str, words: &[&str], run: fn(&[u8])) {
    let mut inputs: Vec<Vec<u8>> = seeds
        .split("=====\n")
        .map(|seed| seed.strip_suffix('\n').unwrap_or(seed).into())
        .collect();
    inputs.extend(corpus(target));
    for input in &inputs {
        checked(input, run);
    }
    let mut random = Random::new(setting("FUZZ_SEED").unwrap_or(SEED));
    for _ in 0..setting("FUZZ_RUNS").map_or(RUNS, |runs| runs as usize) {
        checked(&mutant(&mut random, &inputs, words), run);
    }
}

/// What the fuzzer found worth keeping. The published package has no `fuzz/`, and only the seeds.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        return Vec::new();
    }
    let mut files: Vec<_> = fs::read_dir(fuzz.join("corpus").join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!files.is_empty(), "the corpus is gone");
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn setting(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

fn checked(input: &[u8], run: fn(&[u8])) {
    let _shown = ShownOnPanic(input);
    run(input);
}

struct ShownOnPanic<'a>(&'a [u8]);

impl Drop for ShownOnPanic<'_> {
    #[expect(clippy::print_stderr, reason = "the input is what one wants to see")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was b\"{}\"", self.0.escape_ascii());
        }
    }
}
