//! Each claim of SECURITY.md names tests that exist.

use std::{fs, path::Path};

const PAGE: &str = include_str!("../../SECURITY.md");

#[test]
fn every_threat_on_the_page_names_tests_that_exist() {
    let rows: Vec<_> = PAGE
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .collect();
    assert!(rows.len() >= 13);
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let [_, _, tests] = cells[..] else {
            panic!("three cells are expected: {row}")
        };
        for test in tests.trim().split(", ") {
            let test = test
                .strip_prefix('`')
                .and_then(|test| test.strip_suffix('`'));
            let (file, name) = test.and_then(|test| test.split_once("::")).expect(row);
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
