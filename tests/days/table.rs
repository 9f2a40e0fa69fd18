//! The page in the docs: written from the outcomes, or compared with them.

use std::{env, fmt::Write, fs, path::Path, time::Duration};

use crate::Outcome;

const PAGE: &str = "src/docs/days.md";

/// Compares the table under `heading` with these outcomes, or writes it.
pub(crate) fn check(heading: &str, outcomes: &[Outcome]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(heading).expect("the page has this heading");
    let start = rest.find("\n|").expect("a table follows it") + 1;
    let end = rest[start..]
        .find("\n\n")
        .map_or(rest.len(), |end| start + end + 1);
    let rows = rows(outcomes);
    if env::var("DAYS").is_ok_and(|todo| todo == "write") {
        let page = format!("{before}{heading}{}{rows}{}", &rest[..start], &rest[end..]);
        fs::write(path, page).unwrap();
        return;
    }
    let should = &rest[start..end];
    assert!(
        should == rows,
        "{PAGE} differs; to write it: DAYS=write\nthe page:\n{should}\nthis run:\n{rows}"
    );
}

pub(crate) fn rows(outcomes: &[Outcome]) -> String {
    let columns = [
        "day",
        "requests",
        "failed",
        "could have succeeded",
        "of these in one of the two delays",
        "`/auth`",
        "`/refresh`",
        "most in 60 s",
        "longest wait of a success",
        "of a failure",
    ];
    let mut lines = format!(
        "| {} |\n|{}\n",
        columns.join(" | "),
        "---|".repeat(columns.len())
    );
    for outcome in outcomes {
        let Outcome {
            name,
            requests,
            failed,
            delayed,
            wrong,
            auth,
            refresh,
            in_60_s,
            ..
        } = outcome;
        let could = delayed + wrong;
        let (success, failure) = (wait(outcome.longest_success), wait(outcome.longest_failure));
        writeln!(
            lines,
            "| {name} | {requests} | {failed} | {could} | {delayed} | {auth} | {refresh} | {in_60_s} | {success} | {failure} |"
        )
        .unwrap();
    }
    lines
}

fn wait(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
