//! JSON text of answers, put together from pieces that are JSON already, so that no value is ever
//! built into a tree.

use serde::Serialize;

use super::admission::Permit;
use super::error::{ApiError, Code};
use crate::net::http::Response;
use crate::wire::data::{EncodedJson, EncodedValue, KvRecord, Timestamp};
use crate::wire::json;

/// A list up to this size is sent with its length; a longer one in pieces, made while it is sent.
const WHOLE_LIST_BYTES: usize = 64 * 1024;

/// An object under construction.
#[derive(Debug, Default)]
pub(super) struct ObjectText(String);

impl ObjectText {
    /// Adds a member whose value is JSON text.
    pub(super) fn raw(mut self, name: &str, json: &str) -> Self {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&plain(&name));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    /// Adds a member of a plain type.
    pub(super) fn member(self, name: &str, value: &impl Serialize) -> Self {
        let text = plain(value);
        self.raw(name, &text)
    }

    /// Adds a time, or null.
    pub(super) fn time(self, name: &str, time: Option<Timestamp>) -> Self {
        self.member(name, &time.map(|time| time.to_string()))
    }

    /// The object.
    pub(super) fn finish(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}

fn plain(value: &impl Serialize) -> String {
    // Texts, numbers, flags and lists of them always have a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}

fn unreadable(_: json::JsonError) -> ApiError {
    ApiError::new(Code::InternalError, "what the store holds there cannot be written as JSON")
}

/// Plain data as JSON.
pub(super) fn data(data: &EncodedJson) -> Result<String, ApiError> {
    json::json_from_encoded(data).map_err(unreadable)
}

/// A typed value in its JSON form.
pub(super) fn value(value: &EncodedValue) -> Result<String, ApiError> {
    json::value_to_json(value).map_err(unreadable)
}

/// A record (docs/api.md).
pub(super) fn record(record: &KvRecord) -> Result<String, ApiError> {
    let text = ObjectText::default()
        .member("id", &record.id)
        .member("key", &record.key)
        .raw("value", &value(&record.value)?)
        .member("scopes", &record.scopes)
        .time("created_at", record.created_at)
        .time("last_updated_at", record.last_updated_at);
    Ok(text.finish())
}

/// Answers a list, holding its permit until the last of it was sent. A long one is turned into text
/// while it is sent; should an item then turn out to have no text, the answer ends without its
/// closing bracket.
pub(super) fn list<T: Send + 'static>(
    items: Vec<T>,
    text_of: fn(&T) -> Result<String, ApiError>,
    permit: Permit,
) -> Result<Response, ApiError> {
    let mut items = items.into_iter();
    let mut start = String::from("[");
    let mut is_first = true;
    let mut separated = move |item: &T| -> Result<String, ApiError> {
        let text = text_of(item)?;
        Ok(if std::mem::take(&mut is_first) { text } else { format!(",{text}") })
    };
    while start.len() < WHOLE_LIST_BYTES {
        let Some(item) = items.next() else {
            start.push(']');
            return Ok(Response::json(200, start).holding(permit));
        };
        start.push_str(&separated(&item)?);
    }
    let mut is_whole = true;
    let mut ended = false;
    let rest = std::iter::from_fn(move || match items.next() {
        Some(item) => match separated(&item) {
            Ok(text) => Some(text.into_bytes()),
            Err(_) => {
                is_whole = false;
                None
            }
        },
        None if is_whole && !std::mem::replace(&mut ended, true) => Some(b"]".to_vec()),
        None => None,
    });
    let chunks = std::iter::once(start.into_bytes()).chain(rest.fuse());
    Ok(Response::chunked(200, "application/json", chunks).holding(permit))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::admission::{Admission, Amounts};
    use super::*;
    use crate::net::http::ResponseBody;

    #[test]
    fn an_object_is_put_together_from_pieces() {
        assert_eq!(ObjectText::default().finish(), "{}");
        let text =
            ObjectText::default().member("a\"", &"x\n").raw("b", "[1]").time("c", None).finish();
        assert_eq!(text, r#"{"a\"":"x\n","b":[1],"c":null}"#);
    }

    #[test]
    fn a_list_is_the_same_whole_and_in_pieces() {
        for count in [0_usize, 1, 3, 30_000] {
            let one = Amounts { places: 1, ..Amounts::default() };
            let permit = Arc::new(Admission::new(one, one)).admit(None, 0).expect("a place");
            let items: Vec<usize> = (0..count).collect();
            let response =
                list(items.clone(), |item| Ok(item.to_string()), permit).expect("a list");
            let (text, in_pieces) = match response.body {
                ResponseBody::Bytes(bytes) => (bytes, false),
                ResponseBody::Chunked(chunks) => (chunks.flatten().collect(), true),
            };
            assert_eq!(serde_json::from_slice::<Vec<usize>>(&text).expect("JSON"), items);
            assert_eq!(in_pieces, count == 30_000);
        }
    }
}
