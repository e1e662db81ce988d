//! The names of the IANA time zones: what a `TimeZone` value may hold. The names only; nobody here
//! converts times.

use std::sync::OnceLock;

/// One name a line, sorted by bytes: the zones and links of tzdata 2025b, without its placeholder
/// `Factory`.
const NAMES: &str = include_str!("timezones.txt");

/// Whether a text is the name of a time zone, such as `Europe/London`; letter case counts.
pub fn is_known(name: &str) -> bool {
    static SORTED: OnceLock<Vec<&'static str>> = OnceLock::new();
    SORTED.get_or_init(|| NAMES.lines().collect()).binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_has_each_name_once() {
        let names: Vec<_> = NAMES.lines().collect();
        assert!(names.len() > 590, "{}", names.len());
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn zones_and_links_are_known() {
        for name in [
            "UTC",
            "Europe/London",
            "America/Argentina/ComodRivadavia",
            "Etc/GMT+12",
            "GB-Eire",
            "EST",
        ] {
            assert!(is_known(name), "{name}");
        }
    }

    #[test]
    fn other_texts_are_not() {
        for name in ["", "utc", "Europe", "Europe/London\n", "Factory", "Mars/Olympus"] {
            assert!(!is_known(name), "{name}");
        }
    }
}
