//! For tests: compares a page of the documentation with what the tables in the code make of it.

use std::path::Path;

/// Compares a page with the file at `path`. `make docs` sets the variable that writes the file
/// instead.
pub(crate) fn assert_current(path: &str, page: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("MESOPHYLL_WRITE_DOCS").is_some() {
        return std::fs::write(&file, page).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "{path} differs from the tables in the code: run `make docs`");
}

/// A text as a cell of a Markdown table.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
