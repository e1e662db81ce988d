//! The options about what becomes of events by their names and authors.

use super::values::{names, wrong};
use super::{ConfigError, Options};
use crate::base::limits::EVENT_NAME_MAX_BYTES;
use crate::pool::EventRules;

pub(super) fn from_options(options: &impl Options) -> Result<EventRules, ConfigError> {
    let mut rules = EventRules::default();
    for given in options.options("event-alias") {
        let names = given.split_once('=').map(|(old, new)| (old.trim(), new.trim()));
        let Some((old, new)) = names.filter(|(old, new)| is_name(old) && is_name(new)) else {
            let text =
                format!("{given:?} is not of the form OLD=NEW, such as MESSAGE=MESSAGE_CREATE");
            return Err(wrong(options, "event-alias", &text));
        };
        if rules.aliases.insert(old.to_owned(), new.to_owned()).is_some_and(|other| other != new) {
            return Err(wrong(options, "event-alias", &format!("{old} has two new names")));
        }
    }
    if let Some((given, _)) = options.option("skip-events") {
        rules.skipped = names(given);
        if !rules.skipped.iter().all(|name| is_name(name)) {
            return Err(wrong(
                options,
                "skip-events",
                "is a list of event names with commas between them",
            ));
        }
    }
    if let Some((given, _)) = options.option("skip-author") {
        if given.parse::<u64>().is_err() || !given.starts_with(|first| ('1'..='9').contains(&first))
        {
            return Err(wrong(options, "skip-author", "is a user's id, a decimal number"));
        }
        rules.skipped_author = Some(given.to_owned());
    }
    Ok(rules)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= EVENT_NAME_MAX_BYTES
}
