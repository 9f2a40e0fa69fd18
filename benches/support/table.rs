//! Results: tables for people, or lines for `benches/report`.
#![expect(clippy::print_stdout, reason = "it prints results")]

/// The command line.
#[derive(Clone, Copy)]
pub struct Options {
    /// Just enough to see that the bench works. Also set without cargo's `--bench`, as under `cargo
    /// test --benches`.
    pub quick: bool,
    /// Lines of four columns (table, row, column, value), separated by tabs.
    pub tsv: bool,
}

impl Options {
    pub fn of_command_line() -> Self {
        let has = |name| std::env::args().any(|arg| arg == name);
        Self {
            quick: has("--quick") || !has("--bench"),
            tsv: has("--tsv"),
        }
    }

    /// The numbers of threads from `--threads 1,2,4`, or the default.
    pub fn threads<const N: usize>(self, usual: [usize; N]) -> Vec<usize> {
        let mut arguments = std::env::args()
            .skip_while(|argument| argument != "--threads")
            .skip(1);
        let Some(list) = arguments.next() else {
            return usual.to_vec();
        };
        list.split(',')
            .map(|number| number.parse().expect("--threads takes numbers"))
            .collect()
    }
}

/// Values by table, row and column, in order of insertion.
#[derive(Default)]
pub struct Tables {
    cells: Vec<[String; 4]>,
}

impl Tables {
    pub fn add(&mut self, table: &str, row: &str, column: &str, value: impl Into<String>) {
        self.cells
            .push([table.into(), row.into(), column.into(), value.into()]);
    }

    /// Parses the lines that [`print`](Self::print) printed. Skips others.
    pub fn parse(text: &str) -> Self {
        let cell = |line: &str| {
            line.split('\t')
                .map(String::from)
                .collect::<Vec<_>>()
                .try_into()
                .ok()
        };
        Self {
            cells: text.lines().filter_map(cell).collect(),
        }
    }

    pub fn print(&self, options: Options) {
        if options.tsv {
            self.cells
                .iter()
                .for_each(|cell| println!("{}", cell.join("\t")));
        } else {
            print!("{}", self.markdown());
        }
    }

    pub fn value(&self, table: &str, row: &str, column: &str) -> Option<&str> {
        let cell = self
            .cells
            .iter()
            .find(|cell| cell[..3] == [table, row, column])?;
        Some(&cell[3])
    }

    /// All tables in Markdown, each with its title.
    pub fn markdown(&self) -> String {
        distinct(&self.cells, |cell| &cell[0])
            .into_iter()
            .map(|table| self.one(table))
            .collect()
    }

    pub fn rows<'a>(&'a self, table: &'a str) -> Vec<&'a str> {
        distinct(self.of(table), |cell| &cell[1])
    }

    fn columns<'a>(&'a self, table: &'a str) -> Vec<&'a str> {
        distinct(self.of(table), |cell| &cell[2])
    }

    fn of<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a [String; 4]> {
        self.cells.iter().filter(move |cell| cell[0] == table)
    }

    fn one(&self, table: &str) -> String {
        let columns = self.columns(table);
        let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
        let head = [&[""], columns.as_slice()].concat();
        let rule = vec!["---"; head.len()];
        let mut text = format!("{table}\n\n{}{}", line(&head), line(&rule));
        for row in self.rows(table) {
            let value = |column: &&str| self.value(table, row, column).unwrap_or_default();
            let cells: Vec<_> = std::iter::once(row)
                .chain(columns.iter().map(value))
                .collect();
            text += &line(&cells);
        }
        text + "\n"
    }
}

fn distinct<'a>(
    cells: impl IntoIterator<Item = &'a [String; 4]>,
    part: impl Fn(&'a [String; 4]) -> &'a String,
) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for cell in cells {
        let part = part(cell).as_str();
        if !found.contains(&part) {
            found.push(part);
        }
    }
    found
}
