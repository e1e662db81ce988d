//! JSON text of answers. A long list is never whole in memory.

use serde::Serialize;

use super::admission::Permit;
use super::error::{ApiError, Code};
use crate::net::http::Response;

/// A list up to this size is sent with its length; a longer one in pieces, made while it is sent.
const WHOLE_LIST_BYTES: usize = 64 * 1024;

/// Something as JSON text.
fn json(value: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|_| {
        ApiError::new(Code::InternalError, "what the store holds there cannot be written as JSON")
    })
}

/// Answers with JSON.
pub(super) fn answer(status: u16, value: &impl Serialize) -> Result<Response, ApiError> {
    Ok(Response::json(status, json(value)?))
}

/// Answers a list, holding its permit until the last of it was sent. A long one is turned into text
/// while it is sent; should an item then turn out to have no text, the answer ends without its
/// closing bracket.
pub(super) fn list<T: Serialize + Send + 'static>(
    items: Vec<T>,
    permit: Permit,
) -> Result<Response, ApiError> {
    let mut items = items.into_iter();
    let mut start = String::from("[");
    let mut is_first = true;
    let mut separated = move |item: &T| -> Result<String, ApiError> {
        let text = json(item)?;
        Ok(if std::mem::take(&mut is_first) { text } else { format!(",{text}") })
    };
    while start.len() < WHOLE_LIST_BYTES {
        let Some(item) = items.next() else {
            start.push(']');
            return Ok(Response::json(200, start).holding(permit));
        };
        start.push_str(&separated(&item)?);
    }
    let rest = items.map(move |item| separated(&item)).chain([Ok("]".to_owned())]);
    let rest = rest.map_while(|text| text.ok().map(String::into_bytes)).fuse();
    let chunks = std::iter::once(start.into_bytes()).chain(rest);
    Ok(Response::chunked(200, "application/json", chunks).holding(permit))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::admission::{Admission, Amounts};
    use super::*;
    use crate::net::http::ResponseBody;

    #[test]
    fn a_list_is_the_same_whole_and_in_pieces() {
        for count in [0_usize, 1, 3, 30_000] {
            let one = Amounts { places: 1, ..Amounts::default() };
            let permit = Arc::new(Admission::new(one, one)).admit(None, 0).expect("a place");
            let items: Vec<usize> = (0..count).collect();
            let response = list(items.clone(), permit).expect("a list");
            let (text, in_pieces) = match response.body {
                ResponseBody::Bytes(bytes) => (bytes, false),
                ResponseBody::Chunked(chunks) => (chunks.flatten().collect(), true),
            };
            assert_eq!(serde_json::from_slice::<Vec<usize>>(&text).expect("JSON"), items);
            assert_eq!(in_pieces, count == 30_000);
        }
    }
}
