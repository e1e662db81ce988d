//! Which cases `--only` asks for, by their own names or by those of the rows that they print.

use std::cell::Cell;

/// What a row's name has behind its case's.
const FIGURES: [&str; 4] = ["_p50", "_p99", "_p999", "_worst"];

/// What a row's name has before its case's, which loses `dispatch_` for it.
const COSTS: [&str; 2] = ["cpu_per_million_", "peak_memory_"];

/// The names that were asked for; none means every case.
#[derive(Debug, Default)]
pub struct Selection(Vec<Asked>);

#[derive(Debug)]
struct Asked {
    text: String,
    is_found: Cell<bool>,
}

impl Selection {
    /// Asks for one more.
    pub fn add(&mut self, text: &str) {
        self.0.push(Asked { text: text.to_owned(), is_found: Cell::new(false) });
    }

    /// Whether a case is to be run.
    pub fn has(&self, case: &str) -> bool {
        let mut is_wanted = self.0.is_empty();
        for asked in self.0.iter().filter(|asked| is_meant(&asked.text, case)) {
            asked.is_found.set(true);
            is_wanted = true;
        }
        is_wanted
    }

    /// Those that no case had, of all that there were to be run.
    pub fn missed(&self) -> Vec<&str> {
        let missed = self.0.iter().filter(|asked| !asked.is_found.get());
        missed.map(|asked| asked.text.as_str()).collect()
    }
}

fn is_meant(text: &str, case: &str) -> bool {
    match text.strip_prefix('=') {
        Some(name) => name == case || is_row_of(name, case),
        None => case.contains(text) || is_row_of(text, case),
    }
}

/// Whether a row's name is one of this case's.
fn is_row_of(row: &str, case: &str) -> bool {
    let (cost, row) =
        COSTS.iter().find_map(|cost| Some((true, row.strip_prefix(cost)?))).unwrap_or((false, row));
    let row = FIGURES.iter().find_map(|figure| row.strip_suffix(figure)).unwrap_or(row);
    let case = case.strip_prefix("dispatch_").filter(|_| cost).unwrap_or(case);
    let callers = row.strip_prefix(case);
    callers.is_some_and(|rest| {
        let digits = rest.strip_prefix('_').unwrap_or(rest);
        digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Selection {
        let mut selection = Selection::default();
        texts.iter().for_each(|text| selection.add(text));
        selection
    }

    #[test]
    fn without_a_name_every_case_is_run() {
        assert!(of(&[]).has("dispatch_tiny"));
    }

    #[test]
    fn a_case_is_found_by_its_name_a_part_of_it_and_its_rows() {
        let all = ["dispatch_tiny", "tiny", "dispatch_tiny_64", "=dispatch_tiny_64_p999"];
        for text in all.into_iter().chain(["cpu_per_million_tiny_64", "peak_memory_tiny_64"]) {
            assert!(of(&[text]).has("dispatch_tiny"), "{text}");
        }
        assert!(of(&["kv_set_pg_http2_p50"]).has("kv_set_pg_http2"));
    }

    #[test]
    fn a_row_s_name_is_not_that_of_another_case() {
        assert!(!of(&["=kv_set_pg_http2_16"]).has("kv_set_pg"));
        assert!(!of(&["=dispatch_tiny"]).has("dispatch_tiny_unix"));
        assert!(!of(&["dispatch_2k_64"]).has("dispatch_tiny"));
    }

    #[test]
    fn what_no_case_is_named_is_told() {
        let selection = of(&["tiny", "tinny"]);
        selection.has("dispatch_tiny");
        assert_eq!(selection.missed(), ["tinny"]);
    }
}
