//! One line of a replay's input:
//! `{"tenant":"guild:123","name":"MESSAGE_CREATE","author":"456","data":{…}}`. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::base::error::DispatchError;
use crate::base::limits::{
    API_BODY_MAX_BYTES, EVENT_ENVELOPE_BYTES, EVENT_NAME_MAX_BYTES, MESSAGE_MAX_BYTES,
};
use crate::wire::data::{CreateEvent, EncodedJson, EventData, TenantId};
use crate::wire::json::event_data_from_json;

/// Limit: one line: an event of the largest size, written as JSON text, like a body of the internal
/// API.
pub(super) const LINE_MAX_BYTES: usize = API_BODY_MAX_BYTES;

/// An event to dispatch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReplayEvent {
    pub(super) tenant: TenantId,
    pub(super) event: CreateEvent,
}

/// A line that is no event; tenant and name are told if it has them.
#[derive(Debug)]
pub(super) struct RefusedLine {
    pub(super) about: Option<(TenantId, String)>,
    pub(super) error: DispatchError,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineFields<'a> {
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    author: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    // What a stream's line says of its answer besides: each one is waited for here.
    #[serde(default, rename = "id")]
    _id: IgnoredAny,
    #[serde(default, rename = "deadline_ms")]
    _deadline_ms: IgnoredAny,
    #[serde(default, rename = "want")]
    _want: IgnoredAny,
    #[serde(default, rename = "key")]
    _key: IgnoredAny,
}

/// Reads a line.
pub(super) fn parse(line: &[u8]) -> Result<ReplayEvent, RefusedLine> {
    let refused =
        |message: String| RefusedLine { about: None, error: DispatchError::BadInput(message) };
    if line.len() > LINE_MAX_BYTES {
        return Err(RefusedLine {
            about: None,
            error: DispatchError::TooLarge { bytes: line.len(), limit: LINE_MAX_BYTES },
        });
    }
    let fields: LineFields<'_> = serde_json::from_slice(line)
        .map_err(|error| refused(format!("not an event in JSON: {error}")))?;
    let tenant: TenantId = fields
        .tenant
        .parse()
        .map_err(|error| refused(format!("tenant {:?}: {error}", fields.tenant)))?;
    let name = fields.name.into_owned();
    if name.is_empty() || name.len() > EVENT_NAME_MAX_BYTES {
        return Err(refused(format!("the name must have 1 to {EVENT_NAME_MAX_BYTES} bytes")));
    }
    let data = match fields.data {
        Some(raw) => event_data_from_json(raw.get().as_bytes()).map_err(|error| RefusedLine {
            about: Some((tenant, name.clone())),
            error: DispatchError::BadInput(format!("data: {error}")),
        })?,
        None => EncodedJson::null(),
    };
    let event = CreateEvent {
        name,
        author: fields.author.map(Cow::into_owned),
        data: EventData::Json(data),
    };
    let bytes = event.bytes() + EVENT_ENVELOPE_BYTES;
    if bytes > MESSAGE_MAX_BYTES {
        let error = DispatchError::TooLarge { bytes, limit: MESSAGE_MAX_BYTES };
        return Err(RefusedLine { about: Some((tenant, event.name)), error });
    }
    Ok(ReplayEvent { tenant, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_needs_a_tenant_and_a_name_only() {
        let event = parse(br#"{"tenant":"guild:1","name":"E"}"#).expect("valid");
        assert_eq!(event.tenant, TenantId::Guild(1));
        assert_eq!(event.event.author, None);
        assert_eq!(event.event.data, EventData::Json(EncodedJson::null()));
        let event =
            parse(br#"{"data":{"a":[1,2.5]},"author":"9","name":"\u0041","tenant":"user:2"}"#)
                .expect("valid");
        assert_eq!(event.event.name, "A");
        assert_eq!(event.event.author.as_deref(), Some("9"));
    }

    #[test]
    fn a_line_of_a_stream_is_one_of_a_replay() {
        let line = br#"{"id":1,"tenant":"guild:1","name":"E","data":[1],"author":"7",
            "deadline_ms":5000,"want":"ack","key":"k"}"#;
        let event = parse(line).expect("valid");
        assert_eq!((event.event.name.as_str(), event.event.author.as_deref()), ("E", Some("7")));
    }

    #[test]
    fn what_is_not_an_event_is_bad_input_with_a_reason() {
        for line in [
            "",
            "nonsense",
            "[]",
            "{}",
            r#"{"tenant":"role:1","name":"E"}"#,
            r#"{"tenant":"guild:1","name":""}"#,
            &format!(r#"{{"tenant":"guild:1","name":"{}"}}"#, "N".repeat(257)),
            r#"{"tenant":"guild:1"}"#,
            r#"{"tenant":"guild:1","name":"E","data":}"#,
            r#"{"tenant":"guild:1","name":"E","extra":1}"#,
            r#"{"tenant":"guild:1","name":"E"} x"#,
        ] {
            let refused = parse(line.as_bytes()).expect_err(line);
            assert_eq!(refused.error.kind(), "bad_input", "{line}");
            assert!(!refused.error.to_string().is_empty());
        }
    }
}
