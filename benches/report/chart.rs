//! The chart for the README: two bars per variant, relative to a constant header.

use std::fmt::Write;

use crate::table::Tables;

const TABLE: &str = "A request with a fresh token, long-lived service";
const COLUMNS: [&str; 2] = ["÷ AddAuthorization, 1T", "÷ AddAuthorization, 2T"];

/// The rows of the chart. The other ones are in the table only.
const SHOWN: [&str; 6] = [
    "AddAuthorization (a constant)",
    "klavi-auth, send once",
    "klavi-auth, own cache, send once",
    "klavi-auth, resendable POST",
    "tower::retry + AddAuthorization",
    "emulated: kube-client's way",
];

/// The width of a telephone: the text must be readable there.
const WIDTH: f64 = 400.0;
const LEFT: f64 = 12.0;
const RIGHT: f64 = 52.0;
const TOP: f64 = 96.0;
/// A name, and two bars below it.
const ROW: f64 = 52.0;
const NAME: f64 = 20.0;
const BAR: f64 = 13.0;

/// The style sheet. No background, for light and dark pages. `color-scheme` makes the page dark if
/// the chart is opened by itself.
const STYLE: &str = "
:root { color-scheme: light dark }
text { font: 13px -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif; \
      fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.note, .tick { fill: #59636e }
.tick, .value { font-size: 12px }
.value { font-variant-numeric: tabular-nums; stroke: #fff; stroke-width: 4px; paint-order: stroke }
.ours { font-weight: 600 }
.grid { stroke: #d1d9e0 }
.one { stroke: #59636e; stroke-dasharray: 4 3 }
.ours1 { fill: #0969da } .ours2 { fill: #80b8f5 }
.other1 { fill: #6e7781 } .other2 { fill: #b7bec6 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .note, .tick { fill: #9198a1 }
  .value { stroke: #0d1117 }
  .grid { stroke: #3d444d }
  .one { stroke: #9198a1 }
  .ours1 { fill: #4493f8 } .ours2 { fill: #24578f }
  .other1 { fill: #9198a1 } .other2 { fill: #545d68 }
}
";

/// One variant, its name and its two values.
struct Line<'a> {
    name: &'a str,
    values: [f64; 2],
}

/// The chart. `None` without results for one and two threads.
pub(crate) fn draw(tables: &Tables) -> Option<String> {
    let value = |row, column| {
        tables
            .value(TABLE, row, column)
            .and_then(|value| value.parse().ok())
    };
    let line = |name| {
        Some(Line {
            name,
            values: [value(name, COLUMNS[0])?, value(name, COLUMNS[1])?],
        })
    };
    let lines: Vec<_> = SHOWN.into_iter().filter_map(line).collect();
    let most = lines
        .iter()
        .flat_map(|line| line.values)
        .fold(1.0, f64::max)
        .ceil();
    if lines.is_empty() {
        return None;
    }

    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value / most;
    let bottom = TOP + ROW * lines.len() as f64;
    let mut svg = head(bottom + 26.0);
    for tick in (0..=most as u32).map(f64::from) {
        let (x, class) = (x(tick), if tick == 1.0 { "one" } else { "grid" });
        svg +=
            &format!(r#"<line class="{class}" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/>"#);
        svg += &text("tick", "middle", x, bottom + 17.0, &format!("{tick}×"));
    }
    for (row, line) in lines.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let kind = if line.name.starts_with("klavi-auth") {
            "ours"
        } else {
            "other"
        };
        svg += &text(kind, "start", LEFT, y + NAME - 5.0, line.name);
        for (bar, value) in line.values.into_iter().enumerate() {
            let (y, width) = (y + NAME + BAR * bar as f64, x(value) - LEFT);
            let (class, height) = (format!("{kind}{}", bar + 1), BAR - 1.0);
            let bar = format!(
                r#"<rect class="{class}" x="{LEFT}" y="{y}" width="{width:.1}" height="{height}" rx="2"/>"#
            );
            svg = svg
                + &bar
                + "\n"
                + &text(
                    "value",
                    "start",
                    x(value) + 6.0,
                    y + BAR - 2.5,
                    &format!("{value:.2}"),
                );
        }
    }
    Some(svg + "</svg>\n")
}

fn head(height: f64) -> String {
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">"#
    );
    let title = "What a fresh token costs a request";
    let _ = write!(svg, "<title>{title}</title>\n<style>{STYLE}</style>\n");
    svg += &text("title", "start", 12.0, 26.0, title);
    let note = "Time of a call ÷ the same call with a constant header";
    svg += &text("note", "start", 12.0, 48.0, note);
    for (place, (classes, label)) in [
        (["ours1", "other1"], "1 thread"),
        (["ours2", "other2"], "2 threads share the token"),
    ]
    .into_iter()
    .enumerate()
    {
        let x = 12.0 + 104.0 * place as f64;
        for (at, class) in classes.into_iter().enumerate() {
            let x = x + 14.0 * at as f64;
            let _ = writeln!(
                svg,
                r#"<rect class="{class}" x="{x}" y="62" width="12" height="12" rx="2"/>"#
            );
        }
        svg += &text("note", "start", x + 32.0, 72.5, label);
    }
    svg
}

fn text(class: &str, anchor: &str, x: f64, y: f64, text: &str) -> String {
    format!(
        "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>\n"
    )
}
