//! The page in the docs: written from the rows, or compared with them.

use std::{collections::BTreeMap, env, fs, path::Path};

const PAGE: &str = "src/docs/fleet_faults.md";
const PROSE: &str = include_str!("page.md");

/// A cell of the table. Columns that are measured have their header in italics.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Same(String),
    Measured(String),
}

pub(crate) fn same(value: &impl ToString) -> Cell {
    Cell::Same(value.to_string())
}

pub(crate) fn measured(value: &impl ToString) -> Cell {
    Cell::Measured(value.to_string())
}

impl Cell {
    fn text(&self) -> &str {
        let (Self::Same(text) | Self::Measured(text)) = self;
        text
    }
}

/// The rows of one table, in order.
pub(crate) type Rows = Vec<(&'static str, Vec<Cell>)>;

/// Writes the page with `FLEET_FAULTS=write`, or compares it with this run.
pub(crate) fn check(tables: &BTreeMap<usize, (&str, Rows)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let mut page = PROSE.to_owned();
    for (number, (header, rows)) in tables {
        let columns = header.matches('|').count() - 1;
        let mut lines = format!("{header}\n|{}\n", "---|".repeat(columns));
        for (name, cells) in rows {
            let cells: Vec<_> = cells.iter().map(Cell::text).collect();
            assert_eq!(cells.len() + 1, columns, "{name}");
            lines += &format!("| {name} | {} |\n", cells.join(" | "));
        }
        page = page.replace(&format!("{{table {number}}}"), lines.trim_end());
    }
    if env::var("FLEET_FAULTS").is_ok_and(|todo| todo == "write") {
        fs::write(path, page).unwrap();
        return;
    }
    let written = unmeasured(&fs::read_to_string(path).unwrap());
    let seen = unmeasured(&page);
    let only_in = |these: &[String], those: &[String], sign| {
        let lines = these.iter().filter(|line| !those.contains(line));
        lines
            .map(|line| format!("{sign} {line}\n"))
            .collect::<String>()
    };
    assert!(
        seen == written,
        "{PAGE} differs from this run; to write it: FLEET_FAULTS=write\n{}{}",
        only_in(&written, &seen, '-'),
        only_in(&seen, &written, '+'),
    );
}

/// The lines of a page without the columns whose header is in italics.
fn unmeasured(page: &str) -> Vec<String> {
    let mut measured = Vec::new();
    let keep = |line: &str| {
        let cells: Vec<_> = line.split(" | ").collect();
        if line.starts_with("| fault ") {
            measured = cells.iter().map(|cell| cell.starts_with('*')).collect();
        }
        if !line.starts_with("| ") || cells.len() != measured.len() {
            return line.to_owned();
        }
        let kept = cells
            .into_iter()
            .zip(&measured)
            .filter(|(_, measured)| !**measured);
        kept.map(|(cell, _)| cell.trim_end_matches(" |"))
            .collect::<Vec<_>>()
            .join(" | ")
    };
    page.lines().map(keep).collect()
}
