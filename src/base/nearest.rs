//! The name that was meant where another one was written: for messages that say "did you mean".
//!
//! Pure, and deliberately ignorant of what the names are names of.

/// Comparing names takes the product of their lengths.
const LONG_NAME: usize = 64;

/// The name among others that is most like one that is wrong, if any is much like it.
pub fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if wrong.len() > LONG_NAME {
        return None;
    }
    let allowed = if wrong.len() < 4 { 1 } else { 2 };
    let distance = |name: &str| distance(&wrong.to_ascii_lowercase(), &name.to_ascii_lowercase());
    let names = names.filter(|name| name.len() <= LONG_NAME);
    let near = names
        .map(|name| (distance(name), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.len().min(wrong.len()));
    near.min().map(|(_, name)| name)
}

/// As [`nearest`]; if there is none, a name that is the beginning or the end of the wrong one up to
/// a dash or an underscore, or the other way round: `log` for `log-level`.
pub fn related<'n>(wrong: &str, names: impl Iterator<Item = &'n str> + Clone) -> Option<&'n str> {
    let is_separator = |char: char| matches!(char, '-' | '_');
    let is_part = |part: &str, whole: &str| {
        whole.strip_prefix(part).is_some_and(|rest| rest.starts_with(is_separator))
            || whole.strip_suffix(part).is_some_and(|rest| rest.ends_with(is_separator))
    };
    let mut parts = names.clone().filter(|name| is_part(name, wrong) || is_part(wrong, name));
    nearest(wrong, names).or_else(|| parts.next())
}

/// Letters to change, to add, to take away, or to swap with the next.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_a_finger_is_near_and_another_word_is_not() {
        let names = ["workers", "worker-tokens", "store", "log", "api"];
        for (wrong, right) in [
            ("wrokers", Some("workers")),
            ("worker", Some("workers")),
            ("Store", Some("store")),
            ("stoer", Some("store")),
            ("lgo", Some("log")),
            ("worker_token", Some("worker-tokens")),
            ("threads", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names.into_iter()), right, "{wrong}");
        }
        assert_eq!(nearest(&"workers".repeat(200_000), names.into_iter()), None, "and at once");
    }

    #[test]
    fn a_name_that_is_part_of_another_is_related_to_it() {
        let names = ["workers", "worker-tokens", "store", "log", "vm-idle"];
        for (wrong, right) in [
            ("log-level", Some("log")),
            ("idle", Some("vm-idle")),
            ("store_url", Some("store")),
            ("tokens", Some("worker-tokens")),
            ("wrokers", Some("workers")),
            ("logs", Some("log")),
            ("blog", Some("log")),
            ("logging", None),
            ("", None),
        ] {
            assert_eq!(related(wrong, names.into_iter()), right, "{wrong}");
        }
    }
}
