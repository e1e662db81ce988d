//! What stands on the command lines of several commands: tenants, files, JSON, deadlines; each with
//! the error that says what to write instead.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use serde_json::value::RawValue;

use crate::base::limits::{DISPATCH_DEADLINE, DISPATCH_DEADLINE_MAX};
use crate::master::config::{span, wrong};
use crate::wire::data::TenantId;

use super::args::{Args, OptionSpec};
use crate::cli::CliError;

/// How long a command waits for a tenant.
pub(in crate::cli) const DEADLINE: OptionSpec =
    OptionSpec::value("deadline", "D", "how long to wait (default: 35s)");

/// Answers as the API gives them, for programs.
pub(in crate::cli) const JSON: OptionSpec =
    OptionSpec::switch("json", "print JSON, as the API answers it");

/// The tenant that a word names.
pub(in crate::cli) fn tenant(word: &str) -> Result<TenantId, CliError> {
    word.parse().map_err(|error| CliError::usage(format!("{word:?}: {error}")))
}

/// A route of the API for a tenant: `/i/{what}/guild/123`.
pub(in crate::cli) fn path(what: &str, tenant: TenantId) -> String {
    format!("/i/{what}/{}/{}", tenant.kind().as_str(), tenant.snowflake())
}

/// The same for what waits for the tenant so long.
pub(in crate::cli) fn path_within(what: &str, tenant: TenantId, deadline: Duration) -> String {
    format!("{}?deadline_ms={}", path(what, tenant), deadline.as_millis())
}

/// The deadline option.
pub(in crate::cli) fn deadline(args: &Args) -> Result<Duration, CliError> {
    let deadline = span(args, "deadline", DISPATCH_DEADLINE)?;
    if deadline > DISPATCH_DEADLINE_MAX {
        return Err(wrong(args, "deadline", "is 5m at most").into());
    }
    Ok(deadline)
}

/// Text that goes on as it is, once it is known to be JSON.
pub(in crate::cli) fn json(what: &str, text: &str) -> Result<Box<RawValue>, CliError> {
    RawValue::from_string(text.trim().to_owned()).map_err(|error| {
        let hint =
            if looks_like_bare_text(text) { r#"; a text needs its quotes: '"text"'"# } else { "" };
        CliError::usage(format!("{what} is not JSON: {error}{hint}"))
    })
}

fn looks_like_bare_text(text: &str) -> bool {
    text.trim_start().starts_with(|char: char| char.is_alphabetic())
}

/// A file's text, or stdin's for `-`.
///
/// # Blocks
/// Until the end of the file.
///
/// # Errors
/// It cannot be read, is larger than `max_bytes`, or is no UTF-8.
pub(in crate::cli) fn file(name: &str, max_bytes: usize) -> Result<String, CliError> {
    let shown = if name == "-" { "stdin" } else { name };
    let failed = |what: String| CliError::config(format!("{shown}: {what}"));
    let read: Result<Box<dyn Read>, io::Error> = match name {
        "-" => Ok(Box::new(io::stdin().lock())),
        path => File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let mut bytes = Vec::new();
    let room = max_bytes as u64 + 1;
    read.and_then(|file| file.take(room).read_to_end(&mut bytes))
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() > max_bytes {
        return Err(failed(format!("it is larger than {max_bytes} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8 text".to_owned()))?;
    Ok(without_bom(&text).to_owned())
}

/// A file's text without the byte order mark that some editors write before it.
pub(in crate::cli) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// An object of JSON from members that are JSON already.
pub(in crate::cli) fn object(members: &[(&str, impl AsRef<str>)]) -> String {
    let members: Vec<String> =
        members.iter().map(|(name, json)| format!("{}:{}", quoted(name), json.as_ref())).collect();
    format!("{{{}}}", members.join(","))
}

/// A text as JSON.
pub(in crate::cli) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list of texts as JSON.
pub(in crate::cli) fn list(texts: &[&str]) -> String {
    serde_json::Value::from(texts).to_string()
}
