//! Checks the tests themselves: each is in the folder of its section, and each case has one.

use std::{collections::BTreeSet, fs, path::Path};

/// The folders, and the last case of each section.
const SECTIONS: [(&str, u32); 9] = [
    ("a_attach", 8),
    ("b_lifetime", 15),
    ("c_refresh", 22),
    ("d_single_flight", 32),
    ("e_failures", 39),
    ("f_unauthorized", 50),
    ("g_bodies", 56),
    ("h_scope", 60),
    ("i_signals", 64),
];

/// The names of the tests in a folder.
fn tests_in(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(tests_in(&path));
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let mut is_test = false;
        for line in source.lines() {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            if let (true, Some((_, name))) = (is_test, line.split_once("fn ")) {
                names.push(name.split('(').next().unwrap().to_owned());
                is_test = false;
            }
        }
    }
    names
}

/// The cases that a test is named for.
fn cases(name: &str) -> Vec<u32> {
    let numbers = name.strip_prefix("case_").unwrap_or_default().split('_');
    numbers
        .map_while(|number| number.trim_end_matches('a').parse().ok())
        .collect()
}

#[test]
fn every_test_is_in_the_section_of_its_first_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract");
    let mut first = 1;
    for (folder, last) in SECTIONS {
        let names = tests_in(&root.join(folder));
        let elsewhere = |name: &&String| {
            let case = cases(name).first().copied();
            case.is_some_and(|case| !(first..=last).contains(&case))
        };
        assert!(!names.is_empty(), "in {folder}");
        assert_eq!(names.iter().find(elsewhere), None, "in {folder}");
        assert_eq!(names.iter().find(|name| name.len() > 60), None);
        first = last + 1;
    }
}

#[test]
fn every_case_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let tested: BTreeSet<u32> = tests_in(&root)
        .iter()
        .flat_map(|name| cases(name))
        .collect();
    assert_eq!((1..=64).find(|case| !tested.contains(case)), None);
}
