//! The page in the docs: written from the rows, or compared with them.

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path, thread};

use crate::rows::{Cell, Section};

const PAGE: &str = "src/docs/faults.md";
const PROSE: &str = include_str!("page.md");

/// What was seen in the rows of each section, by their numbers.
#[derive(Default)]
pub(crate) struct Table(BTreeMap<(Section, usize), Seen>);

#[derive(Default)]
struct Seen {
    name: String,
    by_client: Vec<(&'static str, Vec<Cell>)>,
}

/// The environment says that the page is to be written, rather than compared.
pub(crate) fn is_to_be_written() -> bool {
    env::var("FAULTS").is_ok_and(|todo| todo == "write")
}

impl Table {
    pub(crate) fn add(&mut self, row: &crate::rows::Row, cells: Vec<Cell>) {
        let seen = self.0.entry((row.section, row.number)).or_default();
        row.name.clone_into(&mut seen.name);
        seen.by_client.push((row.client, cells));
    }

    /// Compares the page with this table, or writes it.
    pub(crate) fn check(&self, most_memory: u64) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
        let page = self.page(most_memory);
        if is_to_be_written() {
            fs::write(path, page).unwrap();
            return;
        }
        let (is, should) = (
            unmeasured(&page),
            unmeasured(&fs::read_to_string(path).unwrap()),
        );
        let only_in = |these: &[String], those: &[String], sign| {
            let lines = these.iter().filter(|line| !those.contains(line));
            lines
                .map(|line| format!("{sign} {line}\n"))
                .collect::<String>()
        };
        let difference = only_in(&should, &is, '-') + &only_in(&is, &should, '+');
        assert!(
            is == should,
            "{PAGE} differs from this run; to write it: FAULTS=write\n{difference}"
        );
    }

    fn page(&self, most_memory: u64) -> String {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let machine = format!(
            "Measured on {cores} cores ({} {}), debug build, one row at a time. At its peak no row had more than {} KiB \
             allocated, client and server together.",
            env::consts::OS,
            env::consts::ARCH,
            most_memory.div_ceil(1024),
        );
        let page = PROSE.replace("{machine}", &machine);
        Section::ALL
            .iter()
            .enumerate()
            .fold(page, |page, (number, section)| {
                page.replace(
                    &format!("{{table {}}}", number + 1),
                    self.section(*section).trim_end(),
                )
            })
    }

    fn section(&self, section: Section) -> String {
        let columns = section.columns();
        let mut lines = format!(
            "| fault | {} |\n|{}\n",
            columns.join(" | "),
            "---|".repeat(columns.len() + 1)
        );
        for (_, Seen { name, by_client }) in self.0.iter().filter(|((of, _), _)| *of == section) {
            for (client, cells) in merged(by_client) {
                let cells: Vec<_> = cells.iter().map(text).collect();
                writeln!(lines, "| {name}{client} | {} |", cells.join(" | ")).unwrap();
            }
        }
        lines
    }
}

/// One row, if all clients saw the same.
fn merged(by_client: &[(&'static str, Vec<Cell>)]) -> Vec<(String, Vec<Cell>)> {
    if let [(_, only)] = by_client {
        return vec![(String::new(), only.clone())];
    }
    if let [(_, one), (_, other)] = by_client {
        if let Some(both) = one
            .iter()
            .zip(other)
            .map(|(one, other)| both(one, other))
            .collect()
        {
            return vec![(String::new(), both)];
        }
    }
    by_client
        .iter()
        .map(|(client, cells)| (format!(" ({client})"), cells.clone()))
        .collect()
}

fn both(one: &Cell, other: &Cell) -> Option<Cell> {
    match (one, other) {
        (Cell::Same(one), Cell::Same(other)) => (one == other).then(|| Cell::Same(one.clone())),
        _ if text(one) == text(other) => Some(one.clone()),
        _ => Some(Cell::Measured(format!("{} / {}", text(one), text(other)))),
    }
}

fn text(cell: &Cell) -> &str {
    let (Cell::Same(text) | Cell::Measured(text)) = cell;
    text
}

/// The lines of a page, without the columns whose header is in italics and the line that says what
/// was measured.
fn unmeasured(page: &str) -> Vec<String> {
    let mut measured = Vec::new();
    let lines = page
        .lines()
        .filter(|line| !line.starts_with("Measured on "));
    lines
        .map(|line| {
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
            kept.map(|(cell, _)| cell).collect::<Vec<_>>().join(" | ")
        })
        .collect()
}
