// SPDX-License-Identifier: Apache-2.0
//! Words and tables for a person.

use std::io::{IsTerminal, stdout};
use std::time::Duration;

/// Whether words are coloured.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Colours when standard output is a terminal and `NO_COLOR` is not set.
    pub fn of_stdout() -> Self {
        Self { on: stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    /// Never colours.
    pub fn off() -> Self {
        Self { on: false }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// Something that is as it should be.
    pub fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Something that is not.
    pub fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    /// Something that matters less.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Rows under a heading, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    pub fn new<const N: usize>(titles: [&str; N]) -> Self {
        Self::with_titles(titles.map(str::to_owned))
    }

    /// A table whose columns are known only when it is made.
    pub fn with_titles(titles: impl IntoIterator<Item = String>) -> Self {
        Self { rows: vec![titles.into_iter().collect()] }
    }

    /// Adds a row of as many cells as there are titles.
    pub fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.add(cells);
    }

    /// The lines, indented by two; titles are dim. Numbers stand to the right, all else to the left.
    pub fn lines(&self, paint: Paint) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let right: Vec<bool> = (0..columns).map(|column| self.cells(column).skip(1).all(is_number)).collect();
        let mut lines = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::from("  ");
            for (cell, (width, right)) in row.iter().zip(widths.iter().zip(&right)) {
                let pad = " ".repeat(width - cell.chars().count());
                let cell = if *right { format!("{pad}{cell}") } else { format!("{cell}{pad}") };
                line.push_str(&cell);
                line.push_str("  ");
            }
            let line = line.trim_end();
            let painted = match (number, row.last().map(String::as_str)) {
                (0, _) => paint.dim(line),
                (_, Some("missed" | "no")) => paint.bad(line),
                _ => line.to_owned(),
            };
            lines.push_str(&painted);
            lines.push('\n');
        }
        lines
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(move |row| row.get(column)).map(String::as_str)
    }
}

fn is_number(cell: &str) -> bool {
    cell.starts_with(|first: char| first.is_ascii_digit())
        && !cell.contains(['/', ':'])
        && cell.matches('.').count() < 2
}

/// Milliseconds with as many digits as matter.
pub fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        ..1.0 => format!("{millis:.2} ms"),
        1.0..100.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_addresses_to_the_left() {
        let mut table = Table::new(["pod", "address", "time"]);
        table.row(["xwing".into(), "10.0.0.1".into(), "1.0 ms".into()]);
        table.row(["y".into(), "10.0.0.100".into(), "12.0 ms".into()]);
        assert_eq!(
            table.lines(Paint::off()),
            "  pod    address        time\n  xwing  10.0.0.1     1.0 ms\n  y      10.0.0.100  12.0 ms\n"
        );
    }
}
