//! The request target: a path and a query, decoded once and strictly. Pure.
//!
//! The absolute form (`http://host/path`) means the same as its path, as RFC 9112 (3.2.2) wants:
//! its host goes before the Host header, and we serve one site. Deliberately refused: the authority
//! form, `*`, empty and dot segments, encoded slashes, control characters and anything that is not
//! UTF-8, so that no two parties can read one target in two ways.

use std::ops::Range;

/// A decoded path and query.
#[derive(Default)]
pub(super) struct Target {
    /// The path; no segment contains an encoded slash, so it can be split at the slashes.
    pub(super) path: String,
    pub(super) query: Query,
}

/// The pairs of a query, in order.
#[derive(Default)]
pub(super) struct Query {
    text: String,
    pairs: Vec<(Range<usize>, Range<usize>)>,
}

impl Query {
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }

    fn parse(raw: &str) -> Result<Self, &'static str> {
        let mut query = Query::default();
        let mut decoded = Vec::with_capacity(raw.len());
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let start = decoded.len();
            decode(name, is_query_char, Plus::IsSpace, &mut decoded)?;
            let middle = decoded.len();
            decode(value, is_query_char, Plus::IsSpace, &mut decoded)?;
            let end = decoded.len();
            // Each part on its own must be text: two halves of one character do not make a whole.
            for part in [&decoded[start..middle], &decoded[middle..end]] {
                std::str::from_utf8(part).map_err(|_| NOT_TEXT)?;
            }
            query.pairs.push((start..middle, middle..end));
        }
        query.text = String::from_utf8(decoded).map_err(|_| NOT_TEXT)?;
        Ok(query)
    }
}

const NOT_TEXT: &str = "the target is not UTF-8 text";

/// Takes a target in origin or absolute form apart.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn parse(raw: &str) -> Result<Target, &'static str> {
    let raw = without_host(raw)?;
    let (path, query) = raw.split_once('?').unwrap_or((raw, ""));
    // What an absolute form without a path means.
    let path = if path.is_empty() { "/" } else { path };
    if path.contains("//") {
        return Err("the path has an empty segment");
    }
    let mut decoded = Vec::with_capacity(path.len());
    for segment in path[1..].split('/') {
        decoded.push(b'/');
        let start = decoded.len();
        decode(segment, is_path_char, Plus::IsPlus, &mut decoded)?;
        match &decoded[start..] {
            b"." | b".." => return Err("the path has a dot segment"),
            segment if segment.contains(&b'/') => return Err("the path has an encoded slash"),
            _ => {}
        }
    }
    let path = String::from_utf8(decoded).map_err(|_| NOT_TEXT)?;
    Ok(Target { path, query: Query::parse(query)? })
}

/// What comes behind scheme and host, if there are any: it begins with a slash, or of an absolute
/// form with a query or not at all.
fn without_host(raw: &str) -> Result<&str, &'static str> {
    if raw.starts_with('/') {
        return Ok(raw);
    }
    let (scheme, rest) = raw.split_once("://").ok_or("the target must be a path")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, rest) = rest.split_at(end);
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if is_http && !host.is_empty() && host.bytes().all(is_host_char) {
        return Ok(rest);
    }
    Err("the target must be a path, or begin with http:// and a host")
}

/// RFC 3986's host and port, without looking closer: we serve one site.
pub(super) fn is_host_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte)
}

#[derive(Clone, Copy)]
enum Plus {
    IsPlus,
    IsSpace,
}

/// Appends the decoded form of `raw`.
fn decode(
    raw: &str,
    allowed: fn(u8) -> bool,
    plus: Plus,
    decoded: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match (byte, plus) {
            (b'%', _) => {
                let digits = (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit));
                let (Some(high), Some(low)) = digits else {
                    return Err("the target has a bad percent-encoding");
                };
                high << 4 | low
            }
            (b'+', Plus::IsSpace) => b' ',
            (byte, _) if allowed(byte) => byte,
            _ => return Err("the target has a character that must be percent-encoded"),
        };
        if byte.is_ascii_control() {
            return Err("the target has a control character");
        }
        decoded.push(byte);
    }
    Ok(())
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 3986's pchar.
fn is_path_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// Any visible ASCII but the fragment's sign: browsers leave brackets and bars as they are.
fn is_query_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded() {
        for (raw, path) in [
            ("/", "/"),
            ("/livez", "/livez"),
            ("/livez/", "/livez/"),
            ("/a/b%20c?x", "/a/b c"),
            ("/%E2%82%ac", "/€"),
            ("/a+b:c@d", "/a+b:c@d"),
            ("http://host/livez", "/livez"),
            ("HTTPS://[::1]:7451/livez?x=/", "/livez"),
            ("http://host", "/"),
            ("http://host?a=b", "/"),
        ] {
            assert_eq!(parse(raw).map(|target| target.path), Ok(path.to_owned()), "{raw}");
        }
    }

    #[test]
    fn queries_are_decoded_in_order() {
        let target =
            parse("/ws?id=1&token=a%26b+c&&verbose&x=%E2%82%AC&id=2&a=b=c").expect("a good target");
        let pairs: Vec<_> = target.query.pairs().collect();
        assert_eq!(
            pairs,
            [
                ("id", "1"),
                ("token", "a&b c"),
                ("verbose", ""),
                ("x", "€"),
                ("id", "2"),
                ("a", "b=c")
            ]
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for raw in [
            "",
            "*",
            "livez",
            "host:443",
            "http:///livez",
            "http://user@host/livez",
            "http://host//livez",
            "http://host/../livez",
            "http://host\\/livez",
            "http://host#/livez",
            "ftp://host/livez",
            "://host/livez",
            "http:/livez",
            "//",
            "//host/livez",
            "/a//b",
            "/a//",
            "/./a",
            "/a/..",
            "/a/%2e%2E/b",
            "/%2f",
            "/a%2Fb",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%00",
            "/%0a",
            "/%7f",
            "/%ff",
            "/%c3/%a9",
            "/a\\b",
            "/a\"b",
            "/<a>",
            "/é",
            "/#a",
            "/?a#b",
            "/?%",
            "/?a=%0d%0a",
            "/?a=%ff",
            "/?%c3=%a9",
            "/?é",
        ] {
            assert!(parse(raw).is_err(), "{raw}");
        }
    }
}
