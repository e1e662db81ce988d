//! How a dispatch's error travels: as the text of `{"Err": text}`, whose prefix is its kind
//! (protocol.md, rule 8).
//!
//! Pure; used by both ends.

use crate::base::error::DispatchError;

const SCRIPT: &str = "script: ";
const BUSY: &str = "busy: ";
const DEADLINE: &str = "deadline: ";
const BAD_INPUT: &str = "bad_input: ";

/// The text for an error that a worker answers with. A master that has said Hello knows kinds; to
/// the reference's, which never does, a prefix would be a part of the text.
#[cfg(any(test, feature = "worker"))]
pub(super) fn to_wire(error: &DispatchError, has_said_hello: bool) -> String {
    if !has_said_hello {
        return error.to_string();
    }
    match error {
        DispatchError::Script(text) => format!("{SCRIPT}{text}"),
        DispatchError::Busy(_) | DispatchError::NotSent(_) | DispatchError::NoWorker(_) => {
            format!("{BUSY}{error}")
        }
        DispatchError::Deadline { .. } => format!("{DEADLINE}{error}"),
        DispatchError::TooLarge { .. } | DispatchError::BadInput(_) => {
            format!("{BAD_INPUT}{error}")
        }
        // A worker does not know more than that it failed; an error without a prefix is a script
        // error.
        DispatchError::OutcomeUnknown(_)
        | DispatchError::Banned
        | DispatchError::Quarantined
        | DispatchError::NotOwner => error.to_string(),
    }
}

/// The error in a text from a worker that announced itself as ours. What has no known prefix is a
/// script error, so a template cannot forge a kind: its own text always follows `script: `.
pub(super) fn from_wire(text: String) -> DispatchError {
    if let Some(text) = text.strip_prefix(BUSY) {
        DispatchError::Busy(text.to_owned())
    } else if text.starts_with(DEADLINE) {
        DispatchError::Deadline { sent: true }
    } else if let Some(text) = text.strip_prefix(BAD_INPUT) {
        DispatchError::BadInput(text.to_owned())
    } else {
        DispatchError::Script(text.strip_prefix(SCRIPT).map(str::to_owned).unwrap_or(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_the_wire() {
        for error in [
            DispatchError::Script("main.luau:3: oops".to_owned()),
            DispatchError::Busy("1,024 events wait already".to_owned()),
            DispatchError::Deadline { sent: true },
            DispatchError::BadInput("the event nests too deep".to_owned()),
        ] {
            assert_eq!(from_wire(to_wire(&error, true)), error);
            assert_eq!(to_wire(&error, false), error.to_string());
        }
    }

    #[test]
    fn a_template_cannot_forge_a_kind() {
        let forged = DispatchError::Script("busy: try again".to_owned());
        assert_eq!(from_wire(to_wire(&forged, true)), forged);
    }
}
