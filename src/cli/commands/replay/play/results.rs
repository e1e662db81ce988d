//! What a replay prints while it runs: a line a result on stdout, and a progress line on a
//! terminal's stderr.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::base::error::DispatchError;
use crate::dispatch::DispatchResult;
use crate::wire::data::TenantId;
use crate::wire::json::{failure_to_json, value_to_json};

use super::summary::ReplaySummary;

/// How often the progress line is drawn anew.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// A result as it is printed, which an answer that has no JSON form is not.
pub(super) fn as_json(result: DispatchResult) -> Result<String, DispatchError> {
    result.and_then(|value| {
        value_to_json(&value)
            .map_err(|error| DispatchError::Script(format!("the result has no JSON form: {error}")))
    })
}

/// One line of output (docs/operations.md: "Replay events").
pub(super) fn result_line(
    number: u64,
    about: Option<&(TenantId, String)>,
    result: Result<String, DispatchError>,
    took: Duration,
) -> String {
    let mut text = format!("{{\"line\":{number}");
    if let Some((tenant, name)) = about {
        text.push_str(&format!(
            ",\"tenant\":\"{tenant}\",\"name\":{}",
            serde_json::Value::from(name.as_str())
        ));
    }
    match result {
        Ok(json) => {
            text.push_str(",\"ok\":");
            text.push_str(&json);
        }
        Err(error) => {
            text.push_str(",\"error\":");
            text.push_str(&failure_to_json(error.kind(), error.sent(), &error.to_string()));
        }
    }
    text.push_str(&format!(",\"ms\":{:.2}}}\n", took.as_secs_f64() * 1000.0));
    text
}

/// A line on a terminal's stderr that is drawn over and over.
pub(super) struct ReplayProgress {
    is_on: bool,
    drawn_at: Option<Instant>,
}

impl ReplayProgress {
    pub(super) fn new() -> Self {
        Self { is_on: io::stderr().is_terminal(), drawn_at: None }
    }

    pub(super) fn draw(&mut self, summary: &ReplaySummary) {
        if !self.is_on || self.drawn_at.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.drawn_at = Some(Instant::now());
        // A terminal that has gone away needs no progress.
        let _ = write!(io::stderr(), "\r\x1b[K{}", summary.progress());
    }

    pub(super) fn clear(&mut self) {
        if self.drawn_at.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::EncodedValue;

    #[test]
    fn a_result_line_has_the_form_of_the_contract() {
        let about = (TenantId::Guild(123), "A \"b\"".to_owned());
        let ms = Duration::from_micros(420);
        assert_eq!(
            result_line(1, Some(&about), as_json(Ok(EncodedValue::null())), ms),
            "{\"line\":1,\"tenant\":\"guild:123\",\"name\":\"A \\\"b\\\"\",\"ok\":null,\"ms\":0.42}\n"
        );
        assert_eq!(
            result_line(2, None, Err(DispatchError::Busy("no".to_owned())), ms),
            "{\"line\":2,\"error\":{\"kind\":\"busy\",\"sent\":false,\"message\":\"no\"},\"ms\":0.42}\n"
        );
    }
}
