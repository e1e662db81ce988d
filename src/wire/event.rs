//! Tenants, events and tenant states on the wire: what messages and `/db/*` operations have in
//! common.

use super::WireError;
use super::pack::reader::{Item, Reader};
use super::pack::shape::{Decode, Encode, Envelope, text, utf8, wire_struct};
use super::pack::writer::Writer;
use crate::wire::data::{CreateEvent, EventData, TenantId, TenantKind, TenantState};

impl Encode for TenantId {
    fn encode(&self, writer: &mut Writer) {
        writer.variant(match self.kind() {
            TenantKind::Guild => "Guild",
            TenantKind::User => "User",
        });
        write_decimal(self.snowflake(), writer);
    }
}

/// Writes a number as text in decimal, without an allocation: every message to a tenant has one.
fn write_decimal(mut number: u64, writer: &mut Writer) {
    // A str's head and at most 20 digits, from behind.
    let mut text = [0; 21];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let len = text.len() - at;
    at -= 1;
    text[at] = 0xa0 | len as u8;
    writer.encoded(&text[at..]);
}

/// The number that is written so.
///
/// As Rust parses numbers, like the reference: a plus sign and leading zeros are accepted.
fn snowflake(digits: &[u8]) -> Result<Option<u64>, WireError> {
    // Nineteen digits are no more than a u64 holds.
    if matches!(digits.len(), 1..=19) && digits.iter().all(u8::is_ascii_digit) {
        return Ok(Some(
            digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
        ));
    }
    Ok(utf8(digits)?.parse().ok())
}

impl Decode for TenantId {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let variant = Envelope::variant_with_value(reader, &["Guild", "User"])?;
        let snowflake = match reader.item()? {
            Item::Str(digits) => snowflake(digits)?,
            Item::Unsigned(number) => Some(number),
            _ => None,
        };
        match snowflake {
            None | Some(u64::MAX) => Err(WireError::Invalid("not a snowflake")),
            Some(number) if variant == 0 => Ok(TenantId::Guild(number)),
            Some(number) => Ok(TenantId::User(number)),
        }
    }
}

wire_struct!(CreateEvent { name, author, data });

/// About how many bytes an event takes that are not shared, so that a message is one allocation.
pub(crate) fn event_len(event: &CreateEvent) -> usize {
    let data_len = match &event.data {
        EventData::Json(json) => json.shared().own_len(),
        EventData::KhronosValue(value) => value.shared().own_len(),
        EventData::RawValue(text) => text.len(),
    };
    event.name.len() + data_len + 64
}

impl Encode for EventData {
    fn encode(&self, writer: &mut Writer) {
        match self {
            EventData::Json(json) => {
                writer.variant("Json");
                json.encode(writer);
            }
            EventData::KhronosValue(value) => {
                writer.variant("KhronosValue");
                value.encode(writer);
            }
            EventData::RawValue(json) => {
                writer.variant("RawValue");
                writer.array(1);
                writer.text(json);
            }
        }
    }
}

impl Decode for EventData {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match Envelope::variant_with_value(reader, &["Json", "KhronosValue", "RawValue"])? {
            0 => Decode::decode(reader).map(EventData::Json),
            1 => Decode::decode(reader).map(EventData::KhronosValue),
            _ => raw_value(reader).map(EventData::RawValue),
        }
    }
}

/// The one form in which the reference sends JSON text, and cannot read it back.
fn raw_value(reader: &mut Reader<'_>) -> Result<String, WireError> {
    match reader.item()? {
        Item::Array(1) => text(reader).map(str::to_owned),
        _ => Err(WireError::Invalid("expected JSON text in an array")),
    }
}

wire_struct!(TenantState { events, data });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snowflakes_are_written_as_rust_writes_numbers() {
        for text in [
            "0",
            "+5",
            "007",
            "",
            "+",
            "-1",
            " 1",
            "1 ",
            "1a",
            "9999999999999999999",
            "18446744073709551614",
        ] {
            assert_eq!(snowflake(text.as_bytes()), Ok(text.parse().ok()), "{text:?}");
        }
        for text in [
            "18446744073709551616",
            "00000000000000000000000001",
            "+9999999999999999999",
            "\u{665}",
        ] {
            assert_eq!(snowflake(text.as_bytes()), Ok(text.parse().ok()), "{text:?}");
        }
        assert!(snowflake(b"\xff").is_err());
        for number in [0, 9, 10, 1 << 22, 9_999_999_999_999_999_999, u64::MAX - 1] {
            let (mut by_hand, mut writer) = (Writer::default(), Writer::default());
            write_decimal(number, &mut writer);
            by_hand.text(&number.to_string());
            assert_eq!(writer.into_bytes(), by_hand.into_bytes());
        }
    }
}
