//! Tenants, events and tenant states on the wire: what messages and `/db/*` operations have in common.

use super::WireError;
use super::reader::{Item, Reader};
use super::shape::{Decode, Encode, Envelope, read_fields, text, utf8};
use super::writer::Writer;
use crate::model::{CreateEvent, EventData, TenantId, TenantKind, TenantState};

impl Encode for TenantId {
    fn encode(&self, writer: &mut Writer) {
        writer.variant(match self.kind() {
            TenantKind::Guild => "Guild",
            TenantKind::User => "User",
        });
        let mut digits = [0; 20];
        writer.text(decimal(self.snowflake(), &mut digits));
    }
}

/// A number in decimal, without an allocation: every message to a tenant has one.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[at..]).expect("digits are ASCII")
}

impl Decode for TenantId {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let variant = Envelope::variant_with_value(reader, &["Guild", "User"])?;
        let snowflake = match reader.item()? {
            // As Rust parses numbers, like the reference: a plus sign and leading zeros are accepted.
            Item::Str(digits) => utf8(digits)?.parse().ok(),
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

impl Encode for CreateEvent {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3);
        writer.text(&self.name);
        writer.text_or_nil(self.author.as_deref());
        self.data.encode(writer);
    }
}

impl Decode for CreateEvent {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        read_fields!(reader => name, author, data);
        Ok(Self { name, author, data })
    }
}

/// About how many bytes an event takes, so that a message is one allocation.
pub(crate) fn event_len(event: &CreateEvent) -> usize {
    let data_len = match &event.data {
        EventData::Json(json) => json.as_bytes().len(),
        EventData::KhronosValue(value) => value.as_bytes().len(),
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

impl Encode for TenantState {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2);
        self.events.encode(writer);
        self.data.encode(writer);
    }
}

impl Decode for TenantState {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        read_fields!(reader => events, data);
        Ok(Self { events, data })
    }
}
