//! Each claim of SECURITY.md names tests that exist.

use std::{fs, path::Path};

const PAGE: &str = include_str!("../../SECURITY.md");

#[test]
fn every_threat_on_the_page_names_tests_that_exist() {
    let (_, threats) = PAGE.split_once("## Threats").unwrap();
    let (threats, _) = threats.split_once("\n## ").unwrap();
    let threats: Vec<_> = threats.split("\n* **").skip(1).collect();
    assert!(threats.len() >= 13);
    for threat in threats {
        let (_, tests) = threat.split_once("Shown by").expect(threat);
        for test in tests.split(',') {
            let test = test.trim().strip_prefix('`');
            let test = test.and_then(|test| test.strip_suffix('`'));
            let (file, name) = test.and_then(|test| test.split_once("::")).expect(threat);
            let source =
                fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file);
            let at = source
                .find(&format!("fn {name}("))
                .unwrap_or_else(|| panic!("{file} has no test {name}"));
            let before: Vec<_> = source[..at].lines().rev().take(4).collect();
            assert!(
                before
                    .iter()
                    .any(|line| line.contains("test]") || line.contains("test(")),
                "{name}"
            );
        }
    }
}
