//! The table of errors that callers of the internal API see: a code for programs, a message for
//! people, and whether what was asked may have been done (docs/api.md).

use serde::{Deserialize, Serialize};

use crate::base::error::{DbError, DispatchError};
use crate::base::labels::{Label as _, labels};
use crate::net::http::{BodyError, Refusal, Response};
use crate::net::stream::Peer;

labels! {
    /// A code; its status is fixed, but for what HTTP itself has a status for (408, 411, 417, 431,
    /// 505).
    #[derive(Serialize)]
    #[allow(missing_docs)] // docs/api.md says when each occurs.
    Code {
        NoAuthToken = "NoAuthToken",
        InvalidToken = "InvalidToken",
        Restricted = "Restricted",
        Banned = "Banned",
        Quarantined = "Quarantined",
        NotFound = "NotFound",
        BadRequest = "BadRequest",
        MethodNotAllowed = "MethodNotAllowed",
        Conflict = "Conflict",
        TooLarge = "TooLarge",
        Refused = "Refused",
        ScriptError = "ScriptError",
        Busy = "Busy",
        NoWorker = "NoWorker",
        Unavailable = "Unavailable",
        NotOwner = "NotOwner",
        Deadline = "Deadline",
        OutcomeUnknown = "OutcomeUnknown",
        InternalError = "InternalError",
    }
}

impl Code {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Code::BadRequest => 400,
            Code::NoAuthToken | Code::InvalidToken => 401,
            Code::Restricted | Code::Banned | Code::Quarantined => 403,
            Code::NotFound => 404,
            Code::MethodNotAllowed => 405,
            Code::Conflict => 409,
            Code::TooLarge => 413,
            Code::NotOwner => 421,
            Code::Refused | Code::ScriptError => 422,
            Code::InternalError => 500,
            Code::OutcomeUnknown => 502,
            Code::Busy | Code::NoWorker | Code::Unavailable => 503,
            Code::Deadline => 504,
        }
    }
}

/// When a caller that found no room may come again: most requests take milliseconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// What a source that is not trusted learns.
const ONLY_TRUSTED: &str =
    "only trusted sources are answered here; the master's --trusted-source lets others in";

/// An error on its way to a caller. Its message carries no token, no path of the store and no
/// internal type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ApiError {
    message: String,
    code: Code,
    sent: bool,
    #[serde(skip)]
    status: u16,
    /// The connection ends with it.
    #[serde(skip)]
    closes: bool,
    /// What goes beside it.
    #[serde(skip)]
    header: Option<(&'static str, String)>,
}

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code,
            sent: false,
            status: code.status(),
            closes: false,
            header: None,
        }
    }

    /// The same of something that was carried out, or may have been.
    pub(super) fn sent(self) -> Self {
        Self { sent: true, ..self }
    }

    /// Whether it was carried out, or may have been.
    pub(super) fn was_sent(&self) -> bool {
        self.sent
    }

    /// Of an event in a line that was refused before it was dispatched; named as in a replay.
    pub(super) fn kind(&self) -> &'static str {
        if self.code == Code::Restricted { "refused" } else { "bad_input" }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    /// The error of a request that does not ask for the WebSocket that its route is.
    pub(super) fn upgrade_required(message: String) -> Self {
        let error = Self { status: 426, ..Self::bad_request(message) };
        error.with_header("Upgrade", "websocket")
    }

    pub(super) fn method_not_allowed(allow: String) -> Self {
        Self::new(Code::MethodNotAllowed, "this path has other methods").with_header("Allow", allow)
    }

    /// The same with a header.
    pub(super) fn with_header(self, name: &'static str, value: impl Into<String>) -> Self {
        Self { header: Some((name, value.into())), ..self }
    }

    /// Whether another master has the tenant, and nothing was done.
    pub(super) fn is_not_owner(&self) -> bool {
        self.code == Code::NotOwner && !self.sent
    }

    /// The error that another master answered; `None` if it is none.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Read {
            message: String,
            code: String,
            sent: bool,
        }
        let Read { message, code, sent } = serde_json::from_slice(text).ok()?;
        Some(Self { sent, ..Self::new(Code::of_name(code.as_bytes())?, message) })
    }

    /// The same as the error of a dispatch.
    pub(super) fn into_dispatch_error(self) -> DispatchError {
        let Self { message, code, sent, .. } = self;
        match code {
            Code::ScriptError => DispatchError::Script(message),
            Code::Deadline => DispatchError::Deadline { sent },
            _ if sent => DispatchError::OutcomeUnknown(message),
            Code::Busy => DispatchError::Busy(message),
            Code::Banned => DispatchError::Banned,
            Code::Quarantined => DispatchError::Quarantined,
            Code::NoWorker | Code::NotOwner | Code::Unavailable => DispatchError::NoWorker(message),
            Code::BadRequest | Code::TooLarge => DispatchError::BadInput(message),
            _ => DispatchError::NotSent(message),
        }
    }

    /// The error of something that never became a request, or to a source that is not answered.
    pub(super) fn of_refusal(refusal: &Refusal) -> Self {
        let code = match refusal.status {
            408 => Code::Deadline,
            413 | 431 => Code::TooLarge,
            500 => Code::InternalError,
            503 => Code::Busy,
            _ => Code::BadRequest,
        };
        Self { status: refusal.status, ..Self::new(code, refusal.text) }
    }

    pub(super) fn restricted(peer: Peer) -> Self {
        log::debug!("refused {peer}: not a trusted source");
        // A caller that is not to be answered is not to hold a connection either.
        Self { closes: true, ..Self::new(Code::Restricted, ONLY_TRUSTED) }
    }

    /// Whether it is ours to mend, and not the caller's, a script's, or the load's.
    pub(super) fn is_a_bug(&self) -> bool {
        self.code == Code::InternalError
    }

    /// For a log: short and on one line, as a script may have written the message.
    pub(super) fn in_a_log(&self) -> String {
        let message: String = self.message.chars().take(200).collect();
        format!("{} {:?}: {message:?}", self.status, self.code)
    }

    pub(super) fn into_response(self) -> Response {
        // A struct of text, names and a bool always has a JSON form.
        let text = serde_json::to_string(&self).unwrap_or_default();
        let response = Response::json(self.status, text);
        let response = if self.closes { response.closing() } else { response };
        match (self.code, self.header) {
            (Code::NoAuthToken | Code::InvalidToken, _) => {
                response.with_header("WWW-Authenticate", "Internal")
            }
            (Code::Busy, _) if !self.sent => {
                response.with_header("Retry-After", RETRY_AFTER_SECONDS)
            }
            (_, Some((name, value))) => response.with_header(name, value),
            _ => response,
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::TooLarge => Code::TooLarge,
            BodyError::Timeout => Code::Deadline,
            BodyError::NoRoom => Code::Busy,
            BodyError::LengthRequired | BodyError::Malformed | BodyError::Disconnected => {
                Code::BadRequest
            }
        };
        Self { status: error.status(), ..Self::new(code, error.to_string()) }
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        let code = match &error {
            // Forbidden is what tenants are told of each other's entries; staff is not.
            DbError::Refused(_) | DbError::Forbidden(_) => Code::Refused,
            DbError::Conflict(_) => Code::Conflict,
            DbError::NotFound(_) => Code::NotFound,
            DbError::Busy(_) => Code::Busy,
            DbError::Unavailable(_) => Code::Unavailable,
            DbError::NotOwner(_) => Code::NotOwner,
            DbError::OutcomeUnknown(_) => Code::OutcomeUnknown,
            DbError::Internal(_) => Code::InternalError,
        };
        Self { sent: code == Code::OutcomeUnknown, ..Self::new(code, error.to_string()) }
    }
}

impl From<DispatchError> for ApiError {
    fn from(error: DispatchError) -> Self {
        let code = match &error {
            DispatchError::Script(_) => Code::ScriptError,
            DispatchError::Busy(_) => Code::Busy,
            DispatchError::Deadline { .. } => Code::Deadline,
            // To a caller both mean: no worker took it, nothing was run.
            DispatchError::NoWorker(_) | DispatchError::NotSent(_) => Code::NoWorker,
            DispatchError::OutcomeUnknown(_) => Code::OutcomeUnknown,
            DispatchError::Banned => Code::Banned,
            DispatchError::Quarantined => Code::Quarantined,
            DispatchError::NotOwner => Code::NotOwner,
            DispatchError::TooLarge { .. } => Code::TooLarge,
            DispatchError::BadInput(_) => Code::BadRequest,
        };
        Self { sent: error.sent(), ..Self::new(code, error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_store_has_its_status_and_code() {
        let text = || "why".to_owned();
        for (error, status, code, sent) in [
            (DbError::Refused(text()), 422, Code::Refused, false),
            (DbError::Forbidden(text()), 422, Code::Refused, false),
            (DbError::Conflict(text()), 409, Code::Conflict, false),
            (DbError::NotFound(text()), 404, Code::NotFound, false),
            (DbError::Busy(text()), 503, Code::Busy, false),
            (DbError::Unavailable(text()), 503, Code::Unavailable, false),
            (DbError::NotOwner(text()), 421, Code::NotOwner, false),
            (DbError::OutcomeUnknown(text()), 502, Code::OutcomeUnknown, true),
            (DbError::Internal(text()), 500, Code::InternalError, false),
        ] {
            let error = ApiError::from(error);
            assert_eq!(
                (error.status, error.code, error.sent, error.message()),
                (status, code, sent, "why")
            );
        }
    }

    #[test]
    fn codes_are_written_as_the_contract_names_them() {
        let table = "NoAuthToken 401, InvalidToken 401, Restricted 403, Banned 403, Quarantined 403, NotFound 404, \
            BadRequest 400, MethodNotAllowed 405, Conflict 409, TooLarge 413, Refused 422, ScriptError 422, Busy 503, \
            NoWorker 503, Unavailable 503, NotOwner 421, Deadline 504, OutcomeUnknown 502, InternalError 500";
        let ours: Vec<_> =
            Code::ALL.iter().map(|code| format!("{code:?} {}", code.status())).collect();
        assert_eq!(ours.join(", "), table);
        for code in Code::ALL {
            assert_eq!(serde_json::to_string(&code).expect("JSON"), format!("\"{code:?}\""));
        }
    }
}
