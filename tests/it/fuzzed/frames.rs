//! Lines that callers and host processes send over a WebSocket of the internal API: what is read
//! can be written, and reads the same again; what is refused is answered, in a bounded text.

use std::time::{Duration, Instant};

use mesophyll::api::host_line::{answer_of, wanted};
use mesophyll::api::{EventLine, InternalEndpoint, LineTerms, STREAM_ID_MAX, WantedAnswer};
use mesophyll::base::limits::{
    DISPATCH_DEADLINE_MAX, EVENT_NAME_MAX_BYTES, HOST_ANSWER_MAX_BYTES, HOST_CREDITS_MAX,
    HOST_NAMES_MAX,
};
use mesophyll::dispatch::Job;
use mesophyll::wire::data::EventData;
use mesophyll::wire::json::{json_from_encoded, value_to_json};
use serde_json::Value;

/// Any text about a line that is refused is shorter, however long the line is.
const REFUSAL_MAX_BYTES: usize = 2048;

/// The first byte says which peer sends the line: a caller for its own user, one that may name any
/// author, one without a token, or a host process.
pub(super) fn stream_frames(bytes: &[u8]) {
    let Some((who, text)) = bytes.split_first() else { return };
    // A link has checked that its texts are UTF-8.
    let Ok(text) = std::str::from_utf8(text) else { return };
    let caller = |acts_as_any| Some(InternalEndpoint { user_id: 7, acts_as_any });
    match who % 4 {
        0 => event(caller(false), text),
        1 => event(caller(true), text),
        2 => event(None, text),
        _ => host(text),
    }
}

fn event(caller: Option<InternalEndpoint>, text: &str) {
    let terms = LineTerms { caller, default_deadline: Duration::from_secs(5) };
    let begun = Instant::now();
    let (id, line) = match terms.stream_line(text) {
        Ok(read) => read,
        Err(refusal) => return check_refusal(&refusal),
    };
    assert!(id <= STREAM_ID_MAX);
    assert!(line.until > begun && line.until <= Instant::now() + DISPATCH_DEADLINE_MAX);
    let written = event_line(id, &line);
    let (id_again, again) = terms.stream_line(&written).expect("the event that was read");
    assert_eq!((id_again, again.tenant, again.want), (id, line.tenant, line.want));
    assert_eq!(event_line(id, &again), written);
    let Job::Dispatch(event) = line.job else { panic!("a stream has events only") };
    assert!((1..=EVENT_NAME_MAX_BYTES).contains(&event.name.len()));
    match (caller, &event.author) {
        (None, author) => assert_eq!(*author, None),
        (Some(caller), author) if !caller.acts_as_any => assert_eq!(author.as_deref(), Some("7")),
        (Some(_), author) => assert!(author.as_ref().is_some_and(|id| id.parse::<u64>().is_ok())),
    }
}

/// An event as a caller writes it.
fn event_line(id: u64, line: &EventLine) -> String {
    let Job::Dispatch(event) = &line.job else { panic!("a stream has events only") };
    let EventData::Json(data) = &event.data else { panic!("a caller's data is JSON") };
    let data = json_from_encoded(data).expect("what was read can be written");
    let (tenant, name) = (line.tenant.to_string(), Value::from(event.name.as_str()));
    let want = match line.want {
        WantedAnswer::Result => "result",
        WantedAnswer::Ack => "ack",
        WantedAnswer::Nothing => "none",
    };
    let author = event.author.as_ref().map(|author| format!(r#","author":"{author}""#));
    let author = author.unwrap_or_default();
    format!(
        r#"{{"id":{id},"tenant":"{tenant}","name":{name},"want":"{want}"{author},"data":{data}}}"#
    )
}

/// The answer to a line that is no event: JSON of the line's id and an error, never sent.
fn check_refusal(refusal: &str) {
    assert!(refusal.len() <= REFUSAL_MAX_BYTES, "{refusal}");
    let refusal: Value = serde_json::from_str(refusal).expect("an answer is JSON");
    assert!(refusal["id"].is_null() || refusal["id"].as_u64() <= Some(STREAM_ID_MAX));
    let kind = refusal["error"]["kind"].as_str();
    assert!(matches!(kind, Some("bad_input" | "refused")), "{refusal}");
    assert_eq!(refusal["error"]["sent"], false, "{refusal}");
}

/// A line of a host process, as its first one and as any other.
fn host(text: &str) {
    match wanted(text) {
        Ok((names, credits)) => {
            assert!((1..=HOST_NAMES_MAX).contains(&names.len()));
            assert!((1..=HOST_CREDITS_MAX).contains(&credits));
            let written = format!(r#"{{"serve":{},"credits":{credits}}}"#, Value::from(&names[..]));
            assert_eq!(wanted(&written), Ok((names, credits)));
        }
        Err(why) => assert!(why.len() <= REFUSAL_MAX_BYTES, "{why}"),
    }
    let (call, result) = match answer_of(text) {
        Ok(answer) => answer,
        Err(why) => return assert!(why.len() <= REFUSAL_MAX_BYTES, "{why}"),
    };
    let written = match &result {
        Ok(value) => {
            assert!(value.as_bytes().len() <= HOST_ANSWER_MAX_BYTES);
            let value = value_to_json(value).expect("what was read can be written");
            format!(r#"{{"id":{call},"ok":{value}}}"#)
        }
        Err(error) => {
            assert!(error.text.len() <= 4 * 1024, "{}", error.text);
            format!(r#"{{"id":{call},"error":{}}}"#, Value::from(error.text.as_str()))
        }
    };
    assert_eq!(answer_of(&written), Ok((call, result)), "{written}");
}
