//! The lines that a host process sends (`host`), read: what it serves, and its answers. Pure.

use super::error::ApiError;
use super::request::Fields;
use crate::base::limits::{HOST_ANSWER_MAX_BYTES, HOST_CREDITS_MAX, HOST_NAMES_MAX};
use crate::wire::data::{HostError, HostOutcome, HostResult};

/// Limit: what a program says of a failure; the rest is cut off.
const ERROR_MAX_CHARS: usize = 1024;

/// The names that a first line wants to serve, and how many calls at once.
///
/// # Errors
/// What is wrong with the line.
pub fn wanted(text: &str) -> Result<(Vec<String>, usize), String> {
    wanted_fields(text).map_err(|error| error.message().to_owned())
}

fn wanted_fields(text: &str) -> Result<(Vec<String>, usize), ApiError> {
    let mut fields = Fields::of(text.as_bytes(), r#"{"serve": ["discord.send"], "credits": 64}"#)?;
    let names = fields.texts("serve")?;
    let credits = fields.whole::<usize>("credits", "a whole number")?;
    fields.finish()?;
    let is_twice = |(at, name): (usize, &String)| names[..at].contains(name);
    if names.is_empty() || names.len() > HOST_NAMES_MAX || names.iter().enumerate().any(is_twice) {
        return Err(ApiError::bad_request(format!(
            "\"serve\" names 1 to {HOST_NAMES_MAX} calls, each once"
        )));
    } else if !(1..=HOST_CREDITS_MAX).contains(&credits) {
        return Err(ApiError::bad_request(format!("\"credits\" are 1 to {HOST_CREDITS_MAX}")));
    }
    Ok((names, credits))
}

/// Which call a line answers, and with what. Where only that can be read, the call has failed: it
/// must not wait for another answer.
///
/// # Errors
/// It answers no call: why.
pub fn answer_of(text: &str) -> Result<(u64, HostResult), String> {
    let (call, fields) = call_of(text).map_err(|error| error.message().to_owned())?;
    Ok((call, result_of(fields).unwrap_or_else(|error| Err(failed(error.message().to_owned())))))
}

fn call_of(text: &str) -> Result<(u64, Fields<'_>), ApiError> {
    let mut fields = Fields::of(text.as_bytes(), r#"{"id": 1, "ok": …}"#)?;
    Ok((fields.whole::<u64>("id", "a whole number")?, fields))
}

fn failed(text: String) -> HostError {
    HostError { outcome: HostOutcome::Failed, text }
}

fn result_of(mut fields: Fields<'_>) -> Result<HostResult, ApiError> {
    if let Some(text) = fields.optional::<String>("error", "a string")? {
        fields.finish()?;
        return Ok(Err(failed(text.chars().take(ERROR_MAX_CHARS).collect())));
    }
    let value = fields.value("ok")?;
    fields.finish()?;
    Ok(if value.as_bytes().len() <= HOST_ANSWER_MAX_BYTES {
        Ok(value)
    } else {
        Err(failed(format!("the answer has more than {HOST_ANSWER_MAX_BYTES} bytes")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_says_what_is_served() {
        let names = vec!["a.b".to_owned(), "c".to_owned()];
        assert_eq!(wanted(r#"{"serve":["a.b","c"],"credits":8}"#).ok(), Some((names, 8)));
        for line in [
            "",
            "[]",
            r#"{"serve":[],"credits":8}"#,
            r#"{"serve":["a","a"],"credits":8}"#,
            r#"{"serve":["a"],"credits":0}"#,
            r#"{"serve":["a"],"credits":1025}"#,
            r#"{"serve":"a","credits":8}"#,
            r#"{"serve":["a"],"credits":8,"more":1}"#,
        ] {
            assert!(wanted(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_answer_is_a_value_or_an_error_of_its_call() {
        let outcome = |line: &str| {
            let (call, result) = answer_of(line).expect("an answer");
            (call, result.map_err(|error| (error.outcome.as_str(), error.text)).err())
        };
        assert_eq!(outcome(r#"{"id":7,"ok":{"a":[1,null]}}"#), (7, None));
        let said = Some(("failed", "no such channel".to_owned()));
        assert_eq!(outcome(r#"{"id":8,"error":"no such channel"}"#), (8, said));
        let large = format!(r#"{{"id":9,"ok":"{}"}}"#, "x".repeat(HOST_ANSWER_MAX_BYTES));
        assert_eq!(outcome(&large).1.map(|(kind, _)| kind), Some("failed"));
        assert_eq!(outcome(r#"{"id":9}"#).1.map(|(kind, _)| kind), Some("failed"));
        for line in [r#"{"id":1,"ok":1,"more":1}"#, r#"{"id":1,"ok":1,"error":"x"}"#] {
            assert_eq!(outcome(line).1.map(|(kind, _)| kind), Some("failed"), "{line}");
        }
        for line in ["x", r#"{"ok":1}"#, r#"{"id":-1,"ok":1}"#] {
            assert!(answer_of(line).is_err(), "{line}");
        }
    }
}
