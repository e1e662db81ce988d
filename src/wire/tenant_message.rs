//! A message as the event that brings it.

use super::pack::plain::{PlainToken, PlainWalk};
use super::pack::writer::Writer;
use crate::wire::data::{CreateEvent, EncodedJson, EventData, TENANT_MESSAGE};

/// What of it is first in the event's data.
const DEPTH: &str = "depth";

/// The event for the receiver; `from` is what it is told of the sender.
pub fn event(from: &str, topic: &str, data: &EncodedJson, depth: u64) -> CreateEvent {
    let data = data.as_bytes();
    let mut writer = Writer::with_capacity(from.len() + topic.len() + data.len() + 48);
    writer.map(4);
    writer.text(DEPTH);
    writer.unsigned(depth);
    writer.text("from");
    writer.text(from);
    writer.text("topic");
    writer.text(topic);
    writer.text("data");
    writer.encoded(data);
    // Texts, a number, and what was checked.
    let data = EventData::Json(EncodedJson::from_checked(writer.into_bytes()));
    CreateEvent { name: TENANT_MESSAGE.to_owned(), author: None, data }
}

/// How many messages in a row led to this event: 0 if it brings none. One that [`event`] did not
/// make counts as the first.
pub fn depth(event: &CreateEvent) -> u64 {
    if event.name != TENANT_MESSAGE {
        return 0;
    }
    let EventData::Json(data) = &event.data else { return 1 };
    let mut walk = PlainWalk::new(data);
    let mut next = || walk.next().ok().flatten();
    match (next(), next(), next()) {
        (
            Some(PlainToken::Object(_)),
            Some(PlainToken::Key(DEPTH)),
            Some(PlainToken::Unsigned(depth)),
        ) => depth.max(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::{event_data_from_json, json_from_encoded};

    #[test]
    fn the_event_has_what_was_sent_and_its_depth() {
        let data = event_data_from_json(br#"{"depth":0,"stake":5}"#).expect("JSON");
        for depth_sent in [1, 4, u64::MAX] {
            let event = event("guild:9", "duel.accept", &data, depth_sent);
            assert_eq!((event.name.as_str(), &event.author), (TENANT_MESSAGE, &None));
            assert_eq!(depth(&event), depth_sent);
            let EventData::Json(json) = &event.data else { panic!("JSON") };
            let text = format!(
                r#"{{"depth":{depth_sent},"from":"guild:9","topic":"duel.accept","data":{{"depth":0,"stake":5}}}}"#
            );
            assert_eq!(json_from_encoded(json), Ok(text));
        }
    }

    #[test]
    fn what_else_is_called_so_counts_as_a_first_message() {
        let with = |name: &str, data: &[u8]| {
            let data = EventData::Json(event_data_from_json(data).expect("JSON"));
            depth(&CreateEvent { name: name.to_owned(), author: None, data })
        };
        assert_eq!(with("MESSAGE_CREATE", br#"{"depth":3}"#), 0);
        for data in
            ["null", "{}", r#"{"from":"x","depth":3}"#, r#"{"depth":"3"}"#, r#"{"depth":0}"#]
        {
            assert_eq!(with(TENANT_MESSAGE, data.as_bytes()), 1, "{data}");
        }
    }
}
