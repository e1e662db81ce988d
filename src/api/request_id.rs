//! What a request is called in the log, and in the header that goes back with its answer.
//!
//! A caller may name it, in a header of the same name, so that its own log and ours have the same
//! words; else it gets a random name, which is also that of the dispatch that it makes: a worker's
//! lines about that event have it too.

use std::fmt;

use crate::dispatch::RequestId;
use crate::dispatch::worker_like::next_request_id;
use crate::net::http::RequestHead;

/// The header, in requests and in answers.
pub(super) const HEADER: &str = "X-Request-Id";

/// Limit: of a name that a caller gives; longer than any trace's id.
const GIVEN_MAX_BYTES: usize = 64;

/// A request's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestName {
    text: String,
    request_id: RequestId,
}

impl RequestName {
    /// That of the header, if it is one that can stand in a log as it is; else a new one.
    pub(super) fn of(head: &RequestHead) -> Self {
        let request_id = next_request_id();
        let given = head.header(HEADER).filter(|text| is_harmless(text));
        Self { text: given.map_or_else(|| request_id.to_string(), str::to_owned), request_id }
    }

    /// What goes back to the caller.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Under which a job of this request is submitted: never the caller's, as two callers may
    /// choose the same.
    pub(super) fn request_id(&self) -> RequestId {
        self.request_id
    }
}

/// Says also under which name its dispatch goes, if that is another one.
impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        let name = self.request_id.to_string();
        if name == self.text { Ok(()) } else { write!(f, ", dispatched as {name}") }
    }
}

fn is_harmless(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (1..=GIVEN_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str) -> RequestName {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{header}\r\n");
        RequestName::of(&RequestHead::parse(head, ([127, 0, 0, 1], 1).into()).expect("a head"))
    }

    #[test]
    fn a_caller_names_its_request_and_never_its_dispatch() {
        let given = of("x-request-id: Root=1-67891233-abcdef/a.b_c:d+e=\r\n");
        assert_eq!(given.as_str(), "Root=1-67891233-abcdef/a.b_c:d+e=");
        assert_ne!(
            given.request_id(),
            of("x-request-id: Root=1-67891233-abcdef/a.b_c:d+e=\r\n").request_id()
        );
    }

    #[test]
    fn a_doubtful_request_name_is_replaced_by_one_of_ours() {
        let long = format!("X-Request-Id: {}\r\n", "a".repeat(GIVEN_MAX_BYTES + 1));
        for header in [
            "",
            "X-Request-Id:\r\n",
            "X-Request-Id: a b\r\n",
            "X-Request-Id: \"a\r\n",
            "X-Request-Id: é\r\n",
            &long,
        ] {
            let id = of(header);
            assert_eq!(id.as_str(), id.request_id().to_string(), "{header:?}");
            assert_eq!(id.as_str().len(), 16);
        }
        assert_ne!(of("").as_str(), of("").as_str());
    }
}
