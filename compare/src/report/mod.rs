//! Writes the results.

mod chart;
mod notes;
mod table;

use std::{fs, path::Path};

use crate::{peers::Peer, situations::Situation};

/// What one peer did in one situation.
pub struct Cell {
    /// Requests that failed needlessly.
    pub needless: usize,
    /// All that failed.
    pub failed: usize,
    pub token_calls: usize,
    /// Tokens that arrived at another host.
    pub leaked: usize,
}

impl Cell {
    /// Rounded up, so that no failure disappears.
    pub fn mean(runs: &[Self]) -> Self {
        let mean =
            |value: fn(&Self) -> usize| runs.iter().map(value).sum::<usize>().div_ceil(runs.len());
        Self {
            needless: mean(|cell| cell.needless),
            failed: mean(|cell| cell.failed),
            token_calls: mean(|cell| cell.token_calls),
            leaked: mean(|cell| cell.leaked),
        }
    }
}

/// A cell in words, to watch the run.
pub fn line(cell: Option<&Cell>) -> String {
    let Some(Cell {
        needless,
        failed,
        token_calls,
        leaked,
    }) = cell
    else {
        return "cannot be asked".to_owned();
    };
    format!("{needless} needless of {failed} failed, {token_calls} token calls, {leaked} leaked")
}

/// `cells` has a row per situation.
pub fn write(
    peers: &[Peer],
    situations: &[Situation],
    cells: &[Option<Cell>],
) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let totals = chart::totals(peers, cells);
    let text = chart::text(&totals);
    fs::write(
        folder.join("RESULTS.md"),
        table::draw(peers, situations, cells, &text),
    )?;
    fs::write(folder.join("chart.svg"), chart::svg(&totals))?;
    fs::write(folder.join("chart.txt"), &text)?;
    println!("{text}");
    Ok(())
}
