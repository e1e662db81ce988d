//! Tables for people: columns as wide as they need to be, and no character in them that a terminal
//! would obey.

use serde::de::DeserializeOwned;

use super::client::understood;
use super::output;
use crate::base::escape;
use crate::cli::CliError;
use crate::cli::parse::args::Args;

/// Rows under a head, without a line end behind the last row.
pub(in crate::cli) fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows = std::iter::once(head.map(str::to_owned)).chain(rows);
    let rows: Vec<[String; N]> =
        rows.map(|row| row.map(|cell| escape::one_line(&cell).into_owned())).collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Prints a list that the API answered: as it is where JSON is asked for, else as a table. `none`
/// says that there is nothing in it.
///
/// # Errors
/// The answer is not understood, or stdout is broken.
pub(in crate::cli) fn print_list<T: DeserializeOwned, const N: usize>(
    args: &Args,
    answer: &str,
    none: &str,
    head: [&str; N],
    row: impl Fn(T) -> [String; N],
) -> Result<(), CliError> {
    if args.is_on("json") {
        return output::print_json(answer);
    }
    let items: Vec<T> = understood(answer)?;
    if items.is_empty() {
        output::tell(none);
        return Ok(());
    }
    output::print(&table(head, items.into_iter().map(row)))
}

/// A text of at most so many characters.
pub(in crate::cli) fn shortened(text: &str, max_chars: usize) -> String {
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
        let rows = [["é", "1"], ["longer", "\u{1b}[2J\n"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            table(["KEY", "VALUE"], rows),
            "KEY     VALUE\né       1\nlonger  \\u{1b}[2J\\n"
        );
    }

    #[test]
    fn a_shortened_text_says_so() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }
}
