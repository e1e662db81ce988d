//! What a template's author sees of an error: the message with name and line, and a short traceback
//! of script frames.
//!
//! Never an address, a path of the host, or a frame of ours. mlua hands errors over as texts with a
//! traceback glued on; this takes them apart.

use std::fmt::Write;

use crate::base::limits::{SCRIPT_ERROR_FRAMES, SCRIPT_ERROR_MAX_BYTES};

/// The name of our own chunks in tracebacks and positions.
pub(super) const HOST_CHUNK: &str = "[host]";

/// How the names of mlua's own chunks begin, which look up the members of its objects.
const MLUA_CHUNK: &str = "__mlua_";

/// Luau's own text for a failed allocation.
pub(super) const OUT_OF_MEMORY: &str = "not enough memory";

/// The text of an error that ended a coroutine: message, then a line for each script frame.
/// `value`: what was raised, as JSON, if it is no text, or why it cannot be shown.
pub(super) fn describe(error: &mlua::Error, value: Option<Result<String, String>>) -> String {
    let parts = Parts::of(error);
    let frames: Vec<String> = parts.frames().collect();
    let is_value = value.is_some();
    let mut message = match value {
        Some(Ok(json)) => format!("error value: {json}"),
        Some(Err(why)) => format!("{}; {why}", clean(&parts.message)),
        None => clean(&parts.message),
    };
    if (is_value || parts.is_unplaced || is_ours(&parts.message))
        && let Some(place) = frames.first().and_then(|frame| place(frame))
    {
        // A builtin that the prelude called, or one of ours, complains: the line that matters is
        // the script's.
        message = format!("{place}: {message}");
    }
    let mut text = cut(&message, SCRIPT_ERROR_MAX_BYTES).to_owned();
    for frame in frames.iter().take(SCRIPT_ERROR_FRAMES) {
        let _ = write!(text, "\n  {frame}");
    }
    if frames.len() > SCRIPT_ERROR_FRAMES {
        let _ = write!(text, "\n  … and {} more", frames.len() - SCRIPT_ERROR_FRAMES);
    }
    text
}

/// The text of an error of ours as a script that caught it sees it: the message with the position
/// that raised it.
pub(super) fn caught(error: &mlua::Error) -> String {
    let parts = Parts::of(error);
    let message = clean(&parts.message);
    let frame = parts.frames().next();
    match frame.as_deref().and_then(place) {
        Some(place) if !parts.positioned => format!("{place}: {message}"),
        _ => message,
    }
}

/// The `main.luau:12` of a frame.
fn place(frame: &str) -> Option<&str> {
    frame.strip_prefix("in ").and_then(|frame| frame.split(' ').next())
}

/// Whether an error is this value, raised as it is. A table that tells its text by itself is not
/// asked again: it is the script's.
pub(super) fn is_of(error: &mlua::Error, value: &mlua::Value) -> bool {
    let message = Parts::of(error).message;
    // mlua has a text of its own for null.
    !tells_its_text(value)
        && (value.is_null() && message.contains("userdata")
            || value.to_string().is_ok_and(|text| text == message))
}

/// Whether a value is a table with a `__tostring`.
pub(super) fn tells_its_text(value: &mlua::Value) -> bool {
    let tells = |metatable: mlua::Table| {
        !metatable.raw_get("__tostring").is_ok_and(|tells: mlua::Value| tells.is_nil())
    };
    value.as_table().and_then(mlua::Table::metatable).is_some_and(tells)
}

/// Whether memory was what an error was about.
pub(super) fn is_out_of_memory(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::MemoryError(_) => true,
        mlua::Error::CallbackError { cause, .. } => is_out_of_memory(cause),
        _ => false,
    }
}

#[derive(Default)]
struct Parts {
    message: String,
    traceback: String,
    /// The message says by itself where it comes from.
    positioned: bool,
    /// A function of ours that a script called raised it: the message has no position.
    is_unplaced: bool,
}

impl Parts {
    fn of(error: &mlua::Error) -> Self {
        match error {
            mlua::Error::CallbackError { traceback, cause } => {
                let parts = Self::of(cause);
                let is_unplaced = !parts.positioned && parts.message != OUT_OF_MEMORY;
                Self { traceback: traceback.clone(), is_unplaced, ..parts }
            }
            mlua::Error::RuntimeError(text) => match text.rsplit_once("\nstack traceback:") {
                Some((message, traceback)) => Self {
                    message: shown(message),
                    traceback: traceback.to_owned(),
                    positioned: true,
                    is_unplaced: is_of_mlua(traceback),
                },
                None => Self { message: shown(text), ..Self::default() },
            },
            mlua::Error::MemoryError(_) => {
                Self { message: OUT_OF_MEMORY.to_owned(), ..Self::default() }
            }
            mlua::Error::BadArgument { cause, .. } => Self::of(cause),
            mlua::Error::FromLuaConversionError { from, to, .. } => {
                let to = if to == "f64" { "number" } else { to };
                Self { message: format!("a {to} was expected, not {from}"), ..Self::default() }
            }
            other => Self { message: other.to_string(), ..Self::default() },
        }
    }

    /// Frames of scripts as `in main.luau:12 function 'f'`.
    fn frames(&self) -> impl Iterator<Item = String> {
        let lines = self
            .traceback
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && *line != "stack traceback:");
        lines.filter(|line| !is_ours(line)).map(|line| match line.split_once(": in ") {
            Some((place, function)) if function.starts_with("function '") => {
                format!("in {place} {function}")
            }
            Some((place, _)) => format!("in {place}"),
            None => line.to_owned(),
        })
    }
}

/// As much of a message as is ever shown, and a little: a script may throw a text as large as the
/// VM.
fn shown(message: &str) -> String {
    cut(message, 2 * SCRIPT_ERROR_MAX_BYTES).to_owned()
}

/// Whether a chunk of mlua's own raised what has this traceback.
fn is_of_mlua(traceback: &str) -> bool {
    let mut frames = traceback.lines().map(str::trim);
    let raised_in = frames.find(|frame| !frame.is_empty() && !frame.starts_with("[C]"));
    raised_in.is_some_and(|frame| frame.starts_with(MLUA_CHUNK))
}

fn is_ours(frame: &str) -> bool {
    frame.starts_with("[C]")
        || frame.starts_with(MLUA_CHUNK)
        || frame.starts_with(&format!("{HOST_CHUNK}:"))
}

/// Takes positions of ours from the front of a message, and the address from a value that was
/// thrown as it is.
fn clean(message: &str) -> String {
    let message = match message.strip_prefix(HOST_CHUNK).and_then(|rest| rest.strip_prefix(':')) {
        Some(rest) => rest.split_once(": ").map_or(rest, |(_, message)| message),
        None => message,
    };
    match message.rsplit_once(": 0x") {
        Some((kind, address))
            if !kind.contains([':', '\n'])
                && address.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            format!("an error that is not text but a {kind}")
        }
        _ => message.to_owned(),
    }
}

/// Cuts a text at a character's boundary.
pub(super) fn cut(text: &str, max_bytes: usize) -> &str {
    let mut end = max_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn runtime(text: &str) -> mlua::Error {
        mlua::Error::RuntimeError(text.to_owned())
    }

    #[test]
    fn a_script_error_keeps_its_message_and_script_frames_only() {
        let error = runtime(
            "main.luau:3: boom\nstack traceback:\n\tmain.luau:3: in function 'deep'\n\t[C]: in ?\n\tmain.luau:9: in ?\n\t[host]:12: in ?",
        );
        assert_eq!(
            describe(&error, None),
            "main.luau:3: boom\n  in main.luau:3 function 'deep'\n  in main.luau:9"
        );
    }

    #[test]
    fn a_long_traceback_is_cut() {
        let frames: String =
            (0..20).map(|line| format!("\n\tmain.luau:{line}: in function 'f'")).collect();
        let text =
            describe(&runtime(&format!("main.luau:1: boom\nstack traceback:{frames}")), None);
        assert_eq!(text.lines().count(), SCRIPT_ERROR_FRAMES + 2);
        assert!(text.ends_with("… and 12 more"), "{text}");
    }

    #[test]
    fn neither_addresses_nor_our_own_positions_are_shown() {
        assert_eq!(
            describe(&runtime("table: 0x00007f1234567890"), None),
            "an error that is not text but a table"
        );
        assert_eq!(describe(&runtime("[host]:12: attempt to yield"), None), "attempt to yield");
        let traceback =
            "\nstack traceback:\n\t[C]: in ?\n\t[host]:12: in function 'find'\n\tmain.luau:3: in ?";
        let error = runtime(&format!("[host]:12: malformed pattern{traceback}"));
        assert_eq!(describe(&error, None), "main.luau:3: malformed pattern\n  in main.luau:3");
    }

    #[test]
    #[allow(clippy::arc_with_non_send_sync)] // mlua's own type.
    fn an_error_of_ours_that_a_script_catches_says_where() {
        let error = mlua::Error::CallbackError {
            traceback: "stack traceback:\n\t[C]: in ?\n\tmain.luau:7: in function 'add'".to_owned(),
            cause: Arc::new(runtime("the result does not fit into 64 bits")),
        };
        assert_eq!(caught(&error), "main.luau:7: the result does not fit into 64 bits");
        assert_eq!(
            describe(&error, None),
            "main.luau:7: the result does not fit into 64 bits\n  in main.luau:7 function 'add'"
        );
    }

    #[test]
    fn an_unknown_member_is_told_at_the_script_s_line() {
        let error = runtime(
            "no field 'x'\nstack traceback:\n\t[C]: in ?\n\t__mlua_index:33\n\tmain.luau:7: in ?",
        );
        assert_eq!(describe(&error, None), "main.luau:7: no field 'x'\n  in main.luau:7");
    }

    #[test]
    fn a_huge_message_is_cut_at_a_character() {
        let text = describe(&runtime(&"ä".repeat(SCRIPT_ERROR_MAX_BYTES)), None);
        assert!(text.len() <= SCRIPT_ERROR_MAX_BYTES);
    }
}
