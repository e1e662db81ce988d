//! Tables for people: columns as wide as they need to be, and no character in them that a terminal would obey.

/// Rows under a head.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|name| (*name).to_owned()).collect()] }
    }

    /// Adds a row of as many cells as the head has.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| harmless(&cell)).collect());
    }

    /// The whole of it, without a line end behind the last row.
    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// A text that comes from a tenant, for a terminal: control characters, which could move the cursor or worse, are escaped.
pub(super) fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            harmless.extend(char.escape_default());
        } else {
            harmless.push(char);
        }
    }
    harmless
}

/// As [`harmless`], for text of several lines.
pub(super) fn harmless_lines(text: &str) -> String {
    text.split('\n')
        .map(|line| line.split('\t').map(harmless).collect::<Vec<_>>().join("\t"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// As [`harmless`], for JSON, which stays the same JSON: only inside of its texts are there such characters.
pub(super) fn harmless_json(json: &str) -> String {
    let mut harmless = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_control() && !matches!(char, '\n' | '\r' | '\t') {
            harmless.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else {
            harmless.push(char);
        }
    }
    harmless
}

/// A text of at most so many characters.
pub(super) fn shortened(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    text.chars().take(max_chars.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_in_them_moves_the_cursor() {
        let mut table = Table::new(&["KEY", "VALUE"]);
        table.row(["é".to_owned(), "1".to_owned()]);
        table.row(["longer".to_owned(), "\u{1b}[2J\n".to_owned()]);
        assert_eq!(table.text(), "KEY     VALUE\né       1\nlonger  \\u{1b}[2J\\n");
    }

    #[test]
    fn what_a_tenant_wrote_cannot_reach_the_terminal_as_a_command() {
        assert_eq!(harmless_lines("a\n\tb\u{1b}[2J\u{9b}c"), "a\n\tb\\u{1b}[2J\\u{9b}c");
        let json = "[\n\"\u{9b}31m\u{7f}é\"]";
        let shown = harmless_json(json);
        assert!(!shown.contains(['\u{9b}', '\u{7f}']), "{shown}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(value(&shown), value(json));
    }

    #[test]
    fn a_shortened_text_says_so() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }
}
