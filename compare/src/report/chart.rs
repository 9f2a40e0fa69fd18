//! The chart: one bar per peer, as SVG for light and dark pages, and as text.

use std::fmt::Write;

use super::Cell;
use crate::peers::Peer;

const TITLE: &str = "Requests that failed needlessly";

/// Large letters and few words: it is read on a phone, 400 pixels wide.
const WIDTH: usize = 560;
const LEFT: usize = 194;
const RIGHT: usize = 72;
const TOP: usize = 88;
const ROW: usize = 36;

const STYLE: &str = "
:root { color-scheme: light dark }
text { font: 20px -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 26px; font-weight: 600 }
.note { fill: #59636e }
.ours { font-weight: 700 }
.page { fill: #fff }
.bar { fill: #8c959f }
.ours-bar { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .note { fill: #9198a1 }
  .page { fill: #0d1117 }
  .bar { fill: #6e7681 }
  .ours-bar { fill: #4493f8 }
}
";

pub struct Total {
    name: &'static str,
    needless: usize,
}

/// Fewest failures first; the peer's place in the table decides between equals.
pub fn totals(peers: &[Peer], cells: &[Option<Cell>]) -> Vec<Total> {
    let total = |(column, peer): (usize, &Peer)| {
        let own = cells.iter().skip(column).step_by(peers.len()).flatten();
        Total {
            name: peer.name,
            needless: own.map(|cell| cell.needless).sum(),
        }
    };
    let mut totals: Vec<_> = peers.iter().enumerate().map(total).collect();
    totals.sort_by_key(|total| total.needless);
    totals
}

pub fn svg(totals: &[Total]) -> String {
    let height = TOP + ROW * totals.len() + 12;
    let most = most(totals);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         role=\"img\">\n<title>{TITLE}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"16\" y=\"38\">{TITLE}</text>\n\
         <text class=\"note\" x=\"16\" y=\"66\">in 11 situations that users fear</text>\n"
    );
    for (row, total) in totals.iter().enumerate() {
        let y = TOP + ROW * row;
        let baseline = y + 25;
        let (text, bar) = if total.is_ours() {
            ("ours", "ours-bar")
        } else {
            ("", "bar")
        };
        let width = ((WIDTH - LEFT - RIGHT) * total.needless)
            .div_ceil(most)
            .max(2);
        let (bar_top, end, value) = (y + 6, LEFT + width + 8, total.needless);
        let _ = writeln!(
            svg,
            "<text class=\"{text}\" text-anchor=\"end\" x=\"{}\" y=\"{baseline}\">{}</text>\
             <rect class=\"{bar}\" x=\"{LEFT}\" y=\"{bar_top}\" width=\"{width}\" height=\"24\" rx=\"3\"/>\
             <text class=\"{text}\" x=\"{end}\" y=\"{baseline}\">{value}</text>",
            LEFT - 10,
            total.name,
        );
    }
    svg + "</svg>\n"
}

/// At most 60 columns.
pub fn text(totals: &[Total]) -> String {
    const BAR: usize = 32;
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let mut text = format!("{TITLE}, in 11 situations\n\n");
    for total in totals {
        let eighths = (total.needless * BAR * 8).div_ceil(most(totals));
        let bar = "█".repeat(eighths / 8) + EIGHTHS[eighths % 8];
        let name = total.name;
        let _ = writeln!(text, "{name:>17} {bar} {}", total.needless);
    }
    text
}

impl Total {
    fn is_ours(&self) -> bool {
        self.name == "klavi-auth"
    }
}

fn most(totals: &[Total]) -> usize {
    totals
        .iter()
        .map(|total| total.needless)
        .max()
        .unwrap_or_default()
        .max(1)
}
