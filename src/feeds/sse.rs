//! Server-Sent Events as a master writes them, read line by line. Pure but for the reader that it
//! is given.

use std::io::{self, BufRead, ErrorKind, Read};

use crate::base::limits::FEED_LINE_MAX_BYTES;

/// An event of a stream, or a position alone: then it has no data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// Its id; empty if it has none.
    pub id: String,
    /// Its kind; empty if it has none.
    pub event: String,
    /// Its data, in one line.
    pub data: String,
}

/// Reads the next event; `None` at the stream's end. Comments and unknown fields are passed over,
/// and what is cut off by the end is nothing.
///
/// # Blocks
/// As the reader does.
///
/// # Errors
/// The reader's, or a line is too long or no UTF-8.
pub fn read_event(from: &mut impl BufRead) -> io::Result<Option<SseEvent>> {
    let mut event = SseEvent::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        from.take(FEED_LINE_MAX_BYTES as u64).read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            return if line.len() < FEED_LINE_MAX_BYTES {
                Ok(None)
            } else {
                Err(ErrorKind::InvalidData.into())
            };
        };
        let text = std::str::from_utf8(text).map_err(|_| ErrorKind::InvalidData)?;
        if text.is_empty() {
            if event != SseEvent::default() {
                return Ok(Some(event));
            }
            continue;
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = value.to_owned(),
            "event" => event.event = value.to_owned(),
            "data" => event.data = value.to_owned(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_comments_passed_over() {
        let text = "id: a:1\n\n: keep\n\n: keep\nid: a:2\nevent: score\nretry: 5\ndata: {\"x\": 1}\n\
                    \nevent: gap\ndata:7\n\nevent: cut";
        let mut from = text.as_bytes();
        let mut next = || read_event(&mut from).expect("text");
        let event = |id: &str, event: &str, data: &str| {
            Some(SseEvent { id: id.to_owned(), event: event.to_owned(), data: data.to_owned() })
        };
        assert_eq!(next(), event("a:1", "", ""));
        assert_eq!(next(), event("a:2", "score", "{\"x\": 1}"));
        assert_eq!(next(), event("", "gap", "7"));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let long = vec![b'x'; FEED_LINE_MAX_BYTES + 1];
        assert!(read_event(&mut &long[..]).is_err());
        assert!(read_event(&mut &b"\xff\n"[..]).is_err());
    }
}
