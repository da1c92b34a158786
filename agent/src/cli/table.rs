// SPDX-License-Identifier: Apache-2.0

/// Rows under a head, in columns as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell shows as `-`.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let filled = cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        self.rows.push(filled.collect());
    }

    /// The table as text; with colour the head is bold.
    pub(crate) fn render(&self, colour: bool) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([self.head[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let head = line(&self.head.iter().map(ToString::to_string).collect::<Vec<_>>());
        let head = if colour { format!("\x1b[1m{head}\x1b[0m") } else { head };
        std::iter::once(head).chain(self.rows.iter().map(|row| line(row))).map(|line| line + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let mut table = Table::new(&["NAME", "X"]);
        table.row(["a".to_owned(), String::new()]);
        table.row(["long-name".to_owned(), "yes".to_owned()]);
        assert_eq!(table.render(false), "NAME       X\na          -\nlong-name  yes\n");
    }

    #[test]
    fn colour_is_only_in_the_head() {
        let mut table = Table::new(&["A"]);
        table.row(["b".to_owned()]);
        assert_eq!(table.render(true), "\x1b[1mA\x1b[0m\nb\n");
    }
}
