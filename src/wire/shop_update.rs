//! What is told of an entry of the shop, as the event that tells it.

use super::pack::writer::Writer;
use crate::wire::data::{CreateEvent, EncodedJson, EventData, SHOP_UPDATE};

/// The event about an entry; without `review_state` it is none that the receiver may know.
pub fn event(
    (scope, key, version): (&str, &str, i32),
    change: &str,
    review_state: Option<&str>,
) -> CreateEvent {
    let mut writer = Writer::with_capacity(scope.len() + key.len() + 96);
    writer.map(4 + usize::from(review_state.is_some()));
    for (name, text) in [("scope", scope), ("key", key), ("change", change)] {
        writer.text(name);
        writer.text(text);
    }
    writer.text("version");
    writer.integer(version.into());
    if let Some(review_state) = review_state {
        writer.text("review_state");
        writer.text(review_state);
    }
    of(writer)
}

/// The event that says that some were missed.
pub fn gap_event() -> CreateEvent {
    let mut writer = Writer::with_capacity(8);
    writer.map(1);
    writer.text("gap");
    writer.boolean(true);
    of(writer)
}

/// Texts, a number and a boolean.
fn of(writer: Writer) -> CreateEvent {
    let data = EventData::Json(EncodedJson::from_checked(writer.into_bytes()));
    CreateEvent { name: SHOP_UPDATE.to_owned(), author: None, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::json_from_encoded;

    #[test]
    fn the_event_names_the_entry_and_what_became_of_it() {
        let json = |event: CreateEvent| {
            assert_eq!((event.name.as_str(), event.author), (SHOP_UPDATE, None));
            let EventData::Json(data) = event.data else { panic!("JSON") };
            json_from_encoded(&data).expect("JSON")
        };
        let told = event(("s", "key", -1), "approved", Some("approved"));
        let text = r#"{"scope":"s","key":"key","change":"approved","version":-1,"review_state":"approved"}"#;
        assert_eq!(json(told), text);
        let text = r#"{"scope":"s","key":"key","change":"withdrawn","version":2}"#;
        assert_eq!(json(event(("s", "key", 2), "withdrawn", None)), text);
        assert_eq!(json(gap_event()), r#"{"gap":true}"#);
    }
}
