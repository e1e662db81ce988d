//! What becomes of events by their names and authors before any tenant gets them: some have another
//! name here, and some are for none. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::data::CreateEvent;

/// The rules of a pool; by default there are none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventRules {
    /// Old names with the new ones.
    pub aliases: BTreeMap<String, String>,
    /// Names of events that no tenant gets: as they come, or the new ones.
    pub skipped: BTreeSet<String>,
    /// The user whose events no tenant gets, which is the bot's own.
    pub skipped_author: Option<String>,
}

impl EventRules {
    /// Whether no tenant is to get the event.
    pub(super) fn skips(&self, event: &CreateEvent) -> bool {
        let alias = self.aliases.get(&event.name);
        (self.skipped_author.is_some() && event.author == self.skipped_author)
            || self.skipped.contains(&event.name)
            || alias.is_some_and(|new| self.skipped.contains(new))
    }

    /// Gives the event its name here; returns the one that it had, if that is another.
    pub(super) fn rename(&self, event: &mut CreateEvent) -> Option<String> {
        let new = self.aliases.get(&event.name)?;
        Some(std::mem::replace(&mut event.name, new.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::{EncodedJson, EventData};

    #[test]
    fn a_name_is_replaced_once_and_skipped_under_either() {
        let rules = EventRules {
            aliases: [("A", "B"), ("B", "C"), ("D", "E")]
                .map(|(old, new)| (old.to_owned(), new.to_owned()))
                .into(),
            skipped: ["E".to_owned(), "F".to_owned()].into(),
            skipped_author: Some("7".to_owned()),
        };
        let named = |name: &str, author: Option<&str>| {
            let data = EventData::Json(EncodedJson::null());
            let author = author.map(str::to_owned);
            let mut event = CreateEvent { name: name.to_owned(), author, data };
            (!rules.skips(&event)).then(|| {
                let old = rules.rename(&mut event);
                assert!(old.is_none_or(|old| old == name));
                event.name
            })
        };
        for (old, new) in [
            ("A", Some("B")),
            ("B", Some("C")),
            ("C", Some("C")),
            ("D", None),
            ("E", None),
            ("F", None),
            ("", Some("")),
        ] {
            assert_eq!(named(old, None).as_deref(), new, "{old}");
        }
        assert_eq!(named("A", Some("7")), None);
        assert_eq!(named("A", Some("77")).as_deref(), Some("B"));
    }
}
