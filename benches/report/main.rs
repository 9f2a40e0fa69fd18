//! The results of all benches as tables in Markdown, and a chart of the hot path. `benches/run`
//! calls this.
//!
//! `cargo bench --bench report -- results.tsv chart.svg`
#![expect(clippy::print_stdout, reason = "it prints the tables")]

mod chart;
#[path = "../support/table.rs"]
#[allow(dead_code, unreachable_pub, reason = "the benches use the rest")]
mod table;

use std::{env, fs, io};

use table::Tables;

fn main() -> io::Result<()> {
    let files: Vec<_> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    // A plain `cargo bench` passes no arguments, and there is nothing to report.
    let [results, chart] = files.as_slice() else {
        return Ok(());
    };
    let tables = Tables::parse(&fs::read_to_string(results)?);
    print!("{}", tables.markdown());
    match chart::draw(&tables) {
        Some(drawing) => fs::write(chart, drawing),
        None => Ok(()),
    }
}
