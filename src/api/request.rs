//! What the routes share in reading a request: the tenant of its path, its deadline, its body, and
//! the body's fields.
//!
//! Strict on purpose: an unknown or repeated field is an error that names it, since a misspelt one
//! is not to be ignored.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::admission::Permit;
use super::error::ApiError;
use super::{Api, Call, shortened};
use crate::base::limits::{API_LIST_MAX, DISPATCH_DEADLINE_MAX, EVENT_NAME_MAX_BYTES};
use crate::net::http::router::PathParams;
use crate::net::http::{Body, BodyError};
use crate::wire::data::{EncodedJson, EncodedValue, TenantId};
use crate::wire::json;

/// The tenant that the path names; its short form is a guild's.
pub(super) fn tenant(call: &Call<'_>) -> Result<TenantId, ApiError> {
    tenant_named(&call.params).ok_or_else(|| {
        ApiError::bad_request("a tenant is named by its type, guild or user, and its id, a decimal number below 2^64-1")
    })
}

/// As [`tenant`], where there need be none.
pub(super) fn tenant_named(params: &PathParams<'_>) -> Option<TenantId> {
    let (kind, id) = match params.get("guild_id") {
        Some(id) => ("guild", id),
        None => (params.get("tenant_type")?, params.get("tenant_id")?),
    };
    TenantId::from_parts(kind, id).ok()
}

/// How long the caller wants to wait, if it says so; of a request that has waited for its tenant's
/// place already, what is left.
pub(super) fn deadline(call: &Call<'_>) -> Result<Option<Duration>, ApiError> {
    if let Some(until) = call.until {
        return Ok(Some(until.saturating_duration_since(Instant::now())));
    }
    let Some(text) = call.head.query("deadline_ms") else { return Ok(None) };
    let millis =
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    deadline_of(millis).map(Some)
}

/// The same of a line of events.
pub(super) fn deadline_in(fields: &mut Fields<'_>) -> Result<Option<Duration>, ApiError> {
    let millis: Option<Whole> = fields.optional("deadline_ms", "a number")?;
    millis.map(|Whole(millis)| deadline_of(u64::try_from(millis).ok())).transpose()
}

fn deadline_of(millis: Option<u64>) -> Result<Duration, ApiError> {
    let deadline = millis.map(Duration::from_millis);
    match deadline.filter(|deadline| !deadline.is_zero() && *deadline <= DISPATCH_DEADLINE_MAX) {
        Some(deadline) => Ok(deadline),
        None => Err(ApiError::bad_request(format!(
            "deadline_ms is a number from 1 to {}",
            DISPATCH_DEADLINE_MAX.as_millis()
        ))),
    }
}

impl Api {
    /// Reads a body, and takes a place for its request. `tenant` is the one whose share it counts
    /// in: dispatches and scripts only, as a tenant whose share they fill is still to be banned,
    /// dropped and looked at.
    ///
    /// # Blocks
    /// Until the body is there, or the server's deadline for bodies.
    pub(super) fn read_body<'b>(
        &self,
        tenant: Option<TenantId>,
        body: &mut Body<'b>,
        max_bytes: usize,
    ) -> Result<(Permit, Cow<'b, [u8]>), ApiError> {
        let bytes = body.announced_bytes()?;
        if bytes > max_bytes as u64 {
            return Err(BodyError::TooLarge.into());
        }
        let mut permit = self.admission.admit(tenant, bytes)?;
        let body = body.read_within(max_bytes, &mut |bytes| permit.expect_body(bytes).is_ok())?;
        Ok((permit, body))
    }

    /// A place for a request that says everything in its path, in no tenant's share. A body is
    /// refused, as it would be a mistake; so is nothing else, not even the missing length
    /// of none.
    ///
    /// # Blocks
    /// Until the first chunk of a body in chunks, as only that says whether it is empty.
    pub(super) fn admit_without_body(&self, body: &mut Body<'_>) -> Result<Permit, ApiError> {
        let permit = self.admission.admit(None, 0)?;
        match body.announced_bytes() {
            Ok(_) => match body.read_to_end(0) {
                Ok(_) => Ok(permit),
                Err(_) => Err(ApiError::bad_request("this route takes no body")),
            },
            Err(_) => Ok(permit),
        }
    }
}

/// The fields of a body that have not been taken yet: names unescaped, values as they stand. An
/// event's data can be megabytes that are to be streamed into MessagePack, not built into a tree.
#[derive(Debug)]
pub(super) struct Fields<'t>(Vec<(String, &'t RawValue)>);

/// Limit: more fields than any request of ours has; an unknown one is refused anyway.
const FIELDS_MAX: usize = 16;

impl<'t> Fields<'t> {
    /// Takes an object apart; `shape` shows in an error what it should look like.
    pub(super) fn of(text: &'t [u8], shape: &str) -> Result<Self, ApiError> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let members = reader.deserialize_map(MemberByMember).and_then(|members| {
            reader.end()?;
            Ok(members)
        });
        let members = members.map_err(|error| {
            // What is wrong with data may quote it, however long it is.
            let place = if error.is_data() { String::new() } else { format!(": {error}") };
            ApiError::bad_request(format!("the body must be a JSON object such as {shape}{place}"))
        })?;
        for (at, (name, _)) in members.iter().enumerate() {
            if members[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(ApiError::bad_request(format!(
                    "the field {:?} is repeated",
                    shortened(name)
                )));
            }
        }
        Ok(Self(members))
    }

    /// Ends the taking: what is left is not known.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(ApiError::bad_request(format!("unknown field {:?}", shortened(name))))
            }
        }
    }

    fn take(&mut self, name: &str) -> Option<&'t str> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1.get())
    }

    fn need(&mut self, name: &str) -> Result<&'t str, ApiError> {
        self.take(name)
            .ok_or_else(|| ApiError::bad_request(format!("the field {name:?} is missing")))
    }

    /// A field of a plain type; `what` says in an error what it should be.
    pub(super) fn typed<T: DeserializeOwned>(
        &mut self,
        name: &str,
        what: &str,
    ) -> Result<T, ApiError> {
        let text = self.need(name)?;
        serde_json::from_str(text)
            .map_err(|_| ApiError::bad_request(format!("the field {name:?} is not {what}")))
    }

    /// As [`Fields::typed`], where it may be missing or null.
    pub(super) fn optional<T: DeserializeOwned>(
        &mut self,
        name: &str,
        what: &str,
    ) -> Result<Option<T>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(text) => serde_json::from_str(text)
                .map_err(|_| ApiError::bad_request(format!("the field {name:?} is not {what}"))),
        }
    }

    /// A whole number of a type.
    pub(super) fn whole<T: TryFrom<i128>>(
        &mut self,
        name: &str,
        what: &str,
    ) -> Result<T, ApiError> {
        let Whole(number) = self.typed(name, what)?;
        T::try_from(number)
            .map_err(|_| ApiError::bad_request(format!("the field {name:?} is not {what}")))
    }

    /// A string.
    pub(super) fn text(&mut self, name: &str) -> Result<String, ApiError> {
        self.typed(name, "a string")
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        let text = self.need(name)?;
        list(text.as_bytes(), &format!("the field {name:?}"), "strings")
    }

    /// As [`Fields::texts`], where it may be missing or null.
    pub(super) fn optional_texts(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        match self.take(name) {
            None | Some("null") => Ok(Vec::new()),
            Some(text) => list(text.as_bytes(), &format!("the field {name:?}"), "strings"),
        }
    }

    /// The name of an event or a script.
    pub(super) fn name(&mut self) -> Result<String, ApiError> {
        let name = self.text("name")?;
        if name.is_empty() || name.len() > EVENT_NAME_MAX_BYTES {
            return Err(ApiError::bad_request(format!(
                "\"name\" must have 1 to {EVENT_NAME_MAX_BYTES} bytes"
            )));
        }
        Ok(name)
    }

    /// Any JSON, streamed into its encoding; null if it is missing.
    pub(super) fn json(&mut self, name: &str) -> Result<EncodedJson, ApiError> {
        let Some(text) = self.take(name) else { return Ok(EncodedJson::null()) };
        json::event_data_from_json(text.as_bytes()).map_err(|error| {
            ApiError::bad_request(format!("{name:?} is not acceptable JSON: {error}"))
        })
    }

    /// A typed value in its JSON form.
    pub(super) fn value(&mut self, name: &str) -> Result<EncodedValue, ApiError> {
        let text = self.need(name)?;
        json::value_from_json(text.as_bytes()).map_err(|error| {
            ApiError::bad_request(format!("{name:?} is not an acceptable value: {error}"))
        })
    }
}

struct MemberByMember;

impl<'de> Visitor<'de> for MemberByMember {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut read = Vec::new();
        while let Some(member) = members.next_entry()? {
            if read.len() == FIELDS_MAX {
                return Err(A::Error::custom("too many fields"));
            }
            read.push(member);
        }
        Ok(read)
    }
}

/// A whole number, also one that is written with a fraction of zero or an exponent: to JSON they
/// are one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole(pub(super) i128);

/// Above it a float no longer says which whole number it is: 2^53.
const EXACT_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let is_exact = |float: &f64| float.fract() == 0.0 && float.abs() <= EXACT_FLOAT_MAX;
        let of_float = || number.as_f64().filter(is_exact).map(|float| float as i128);
        let whole = number.as_i128().or_else(of_float);
        whole.map(Whole).ok_or_else(|| D::Error::custom("it is no whole number"))
    }
}

/// A JSON list of bounded length: its items may take many times the memory of their text, so they
/// are counted before they are read.
pub(super) fn list<T: DeserializeOwned>(
    text: &[u8],
    what: &str,
    of: &str,
) -> Result<Vec<T>, ApiError> {
    let counted: Result<Vec<IgnoredAny>, _> = serde_json::from_slice(text);
    let is_short = counted.is_ok_and(|items| items.len() <= API_LIST_MAX);
    let items = if is_short { serde_json::from_slice(text).ok() } else { None };
    items.ok_or_else(|| {
        ApiError::bad_request(format!("{what} is not a list of at most {API_LIST_MAX} {of}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_once_and_what_is_left_is_named() {
        let mut fields = Fields::of(br#"{"a":"x","b":[1],"c":null}"#, "{}").expect("an object");
        assert_eq!(fields.text("a"), Ok("x".to_owned()));
        assert_eq!(fields.typed::<Vec<u8>>("b", "numbers"), Ok(vec![1]));
        assert!(fields.text("a").is_err(), "it is taken");
        assert!(fields.finish().expect_err("c is left").message().contains("\"c\""));
        let mut fields = Fields::of(br#"{"c":null}"#, "{}").expect("an object");
        assert_eq!(fields.optional::<u8>("c", "a number"), Ok(None));
        assert_eq!(fields.finish(), Ok(()));
        let twice = Fields::of(br#"{"a":1,"\u0061":2}"#, "{}")
            .expect_err("the same name, differently written");
        assert!(twice.message().contains("repeated"));
    }

    #[test]
    fn an_object_falls_into_its_members() {
        let members = |text: &'static str| {
            let Fields(members) = Fields::of(text.as_bytes(), "{}").expect("an object");
            members.into_iter().map(|(name, value)| (name, value.get())).collect::<Vec<_>>()
        };
        assert_eq!(members(" { } "), []);
        let text = "\n{ \"a\" :\t[1, {\"b\": \"]}\"}] ,\"c\": \"x\\\"\\\\\" }\r\n";
        let (a, c) = ("[1, {\"b\": \"]}\"}]", "\"x\\\"\\\\\"");
        assert_eq!(members(text), [("a".to_owned(), a), ("c".to_owned(), c)]);
        let text = r#"{"\u0061\"":null,"a":-1.5e3 ,"":{}}"#;
        let names = [("a\"".to_owned(), "null"), ("a".to_owned(), "-1.5e3"), (String::new(), "{}")];
        assert_eq!(members(text), names);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in [
            "",
            " ",
            "null",
            "[]",
            "\"a\"",
            "{",
            "}",
            "{\"",
            "{\"a",
            "{\"a\"",
            "{\"a\"}",
            "{\"a\":",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":1}}",
            "{\"a\":1}x",
            "{\"a\":1 \"b\":2}",
            "{a:1}",
            "{1:1}",
            "{\"a\":[1}",
            "{\"a\":\"\\",
            "{\"a\":\"\\\"}",
            "{\"\\x\":1}",
            "{\"a\":1:2}",
            "{\"a\":nonsense}",
            "{\"a\":[1,]}",
            "{\"a\":\"b\" c}",
            "{\"a\":{} {}}",
            "\u{feff}{}",
        ] {
            assert!(Fields::of(text.as_bytes(), "{}").is_err(), "{text}");
        }
        assert!(Fields::of(b"{\"\xff\":1}", "{}").is_err());
        let many: Vec<String> = (0..17).map(|n| format!("\"{n}\":1")).collect();
        assert!(Fields::of(format!("{{{}}}", many.join(",")).as_bytes(), "{}").is_err());
        let quoted = format!("\"{}\"", "x".repeat(1000));
        let error = Fields::of(quoted.as_bytes(), "{}").expect_err("a string");
        assert!(error.message().len() < 100, "{}", error.message());
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        let whole =
            |text: &str| serde_json::from_str::<Whole>(text).ok().map(|Whole(number)| number);
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("258.0", 258),
            ("1e3", 1000),
            ("-9223372036854775808", i64::MIN.into()),
            ("18446744073709551615", u64::MAX.into()),
            ("9007199254740992.0", 1 << 53),
        ] {
            assert_eq!(whole(text), Some(number), "{text}");
        }
        for text in [
            "1.5",
            "1e-1",
            "1e16",
            "18446744073709551616",
            "-9223372036854775809",
            "\"1\"",
            "null",
            "true",
            "[1]",
        ] {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let of = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert_eq!(
            list::<u8>(of(API_LIST_MAX).as_bytes(), "it", "numbers").map(|list| list.len()),
            Ok(API_LIST_MAX)
        );
        assert!(list::<u8>(of(API_LIST_MAX + 1).as_bytes(), "it", "numbers").is_err());
        assert!(list::<u8>(b"{}", "it", "numbers").is_err());
        assert!(list::<u8>(b"[[]]", "it", "numbers").is_err());
    }
}
