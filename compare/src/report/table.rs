//! `RESULTS.md`.

use std::fmt::Write;

use super::{Cell, notes};
use crate::{load::PATIENCE, peers::Peer, situations::Situation};

/// A peer that cannot be asked.
const NONE: &str = "–";

pub fn draw(
    peers: &[Peer],
    situations: &[Situation],
    cells: &[Option<Cell>],
    chart: &str,
) -> String {
    let mut page = String::from(notes::HEAD);
    let _ = write!(page, "\n```text\n{chart}```\n\n{}\n", notes::READING);
    let _ = writeln!(
        page,
        "A caller waits {} s for its response.\n",
        PATIENCE.as_secs()
    );
    grid(&mut page, peers, situations, cells, |situation, cell| {
        if situation.is_redirect() {
            let leaks = if cell.leaked > 0 {
                "**leaks**"
            } else {
                "no leak"
            };
            return format!("{leaks} / {}", cell.token_calls);
        }
        let needless = match cell.needless {
            0 => "0".to_owned(),
            needless => format!("**{needless}**"),
        };
        format!("{needless} / {}", cell.token_calls)
    });
    page += notes::BETTER;
    page += "\n## The situations\n\n| situation | requests | what happens |\n|---|--:|---|\n";
    for situation in situations {
        let counted = situation
            .calls
            .iter()
            .filter(|call| call.hangs_up.is_none())
            .count();
        let _ = writeln!(
            page,
            "| {} | {counted} | {} |",
            situation.name, situation.what
        );
    }
    let _ = write!(page, "\n## All failed requests\n\n{}\n", notes::ALL_FAILED);
    grid(&mut page, peers, situations, cells, |_, cell| {
        cell.failed.to_string()
    });
    page += "\n## The peers\n\n| peer | resends on 401 | how it is driven, and by which docs |\n|---|---|---|\n";
    for peer in peers {
        let resends = if peer.resends { "yes" } else { "no" };
        let _ = writeln!(
            page,
            "| {}<br>{} | {resends} | {} |",
            peer.name, peer.version, peer.how
        );
    }
    page += "\n## Situations that do not apply\n\n| peer | situation | why |\n|---|---|---|\n";
    for peer in peers {
        if let Some(why) = peer.no_panic {
            let _ = writeln!(page, "| {} | provider panics once | {why} |", peer.name);
        }
    }
    page + notes::LEFT_OUT
}

fn grid(
    page: &mut String,
    peers: &[Peer],
    situations: &[Situation],
    cells: &[Option<Cell>],
    show: impl Fn(&Situation, &Cell) -> String,
) {
    *page += "| |";
    for peer in peers {
        let _ = write!(page, " {} |", peer.name);
    }
    let _ = writeln!(page, "\n|---|{}", "--:|".repeat(peers.len()));
    for (situation, row) in situations.iter().zip(cells.chunks(peers.len())) {
        let _ = write!(page, "| {} |", situation.name);
        for cell in row {
            let shown = cell
                .as_ref()
                .map_or_else(|| NONE.to_owned(), |cell| show(situation, cell));
            let _ = write!(page, " {shown} |");
        }
        *page += "\n";
    }
    *page += "\n";
}
