//! The parts that a `KhronosValue` is read and written in, and how each of them is written.
//!
//! [`super::walk`] reads them, [`super::build`] takes them; they borrow from the message and
//! allocate nothing.

use super::reader::{Item, Reader};
use super::shape::text;
use super::writer::Writer;
use crate::wire::WireError;
use crate::wire::data::{Interval, Timestamp};

/// A step of a walk: a value that has no values inside, or the start or end of one that has.
#[derive(Debug, Clone)]
pub enum Token<'a> {
    /// `Text`
    Text(&'a str),
    /// `Integer`
    Integer(i64),
    /// `UnsignedInteger`
    UnsignedInteger(u64),
    /// `Float`
    Float(f64),
    /// `Boolean`
    Boolean(bool),
    /// `Buffer`
    Buffer(Octets<'a>),
    /// `Vector`
    Vector([f32; 3]),
    /// `Timestamptz`
    Timestamptz(Timestamp),
    /// `Interval`
    Interval(Interval),
    /// `TimeZone`, a known name
    TimeZone(&'a str),
    /// `LazyStringMap`
    LazyStringMap(StringPairs<'a>),
    /// `Null`
    Null,
    /// `Map` of so many pairs: key, value, key, value … and an [`Token::End`] follow.
    Map(usize),
    /// `List` of so many values: they and an [`Token::End`] follow.
    List(usize),
    /// The end of the innermost open `Map` or `List`.
    End,
}

impl Token<'_> {
    /// Writes it in its canonical form: a leaf whole, of a `Map` or `List` the beginning. Nothing
    /// for [`Token::End`].
    ///
    /// The writer of a map puts `writer.array(2)` before each of its keys: the head of the pair.
    pub fn write(&self, writer: &mut Writer) {
        match self {
            Token::Text(value) => {
                writer.encoded(b"\x81\xa4Text");
                writer.text(value);
            }
            Token::Integer(value) => {
                writer.encoded(b"\x81\xa7Integer");
                writer.integer(*value);
            }
            Token::UnsignedInteger(value) => {
                writer.encoded(b"\x81\xafUnsignedInteger");
                writer.unsigned(*value);
            }
            Token::Float(value) => {
                writer.encoded(b"\x81\xa5Float");
                writer.f64(*value);
            }
            Token::Boolean(value) => {
                writer.encoded(b"\x81\xa7Boolean");
                writer.boolean(*value);
            }
            Token::Buffer(octets) => octets.write(writer),
            Token::Vector(numbers) => {
                writer.encoded(b"\x81\xa6Vector\x93");
                numbers.iter().for_each(|number| writer.f32(*number));
            }
            Token::Timestamptz(time) => {
                writer.encoded(b"\x81\xabTimestamptz");
                writer.text(&time.to_string());
            }
            Token::Interval(span) => {
                writer.encoded(b"\x81\xa8Interval\x92");
                writer.integer(span.secs());
                writer.unsigned(span.nanos().into());
            }
            Token::TimeZone(name) => {
                writer.encoded(b"\x81\xa8TimeZone");
                writer.text(name);
            }
            Token::LazyStringMap(pairs) => write_string_map(pairs.clone(), writer),
            Token::Null => writer.encoded(b"\xa4Null"),
            Token::Map(len) => {
                writer.encoded(b"\x81\xa3Map");
                writer.array(*len);
            }
            Token::List(len) => {
                writer.encoded(b"\x81\xa4List");
                writer.array(*len);
            }
            Token::End => {}
        }
    }
}

/// Writes a `LazyStringMap`.
pub(crate) fn write_string_map<'s>(
    pairs: impl ExactSizeIterator<Item = (&'s str, &'s str)>,
    writer: &mut Writer,
) {
    writer.encoded(b"\x81\xadLazyStringMap");
    writer.map(pairs.len());
    for (key, value) in pairs {
        writer.text(key);
        writer.text(value);
    }
}

/// The bytes of a `Buffer`, still as they lie in the message.
#[derive(Debug, Clone)]
pub struct Octets<'a> {
    source: OctetSource<'a>,
    len: usize,
}

#[derive(Debug, Clone)]
enum OctetSource<'a> {
    Bin(&'a [u8]),
    /// Behind the head of the array; the items have been checked.
    Items(Reader<'a>),
}

impl<'a> Octets<'a> {
    /// Reads an array of bytes behind its head.
    pub(super) fn read(reader: &mut Reader<'a>, len: usize) -> Result<Self, WireError> {
        let source = OctetSource::Items(reader.clone());
        for _ in 0..len {
            octet(reader)?;
        }
        Ok(Octets { source, len })
    }
}

impl<'a> From<&'a [u8]> for Octets<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { source: OctetSource::Bin(bytes), len: bytes.len() }
    }
}

impl Octets<'_> {
    fn write(&self, writer: &mut Writer) {
        writer.encoded(b"\x81\xa6Buffer");
        writer.array(self.len);
        match &self.source {
            OctetSource::Bin(bytes) => {
                bytes.iter().for_each(|byte| writer.unsigned((*byte).into()))
            }
            OctetSource::Items(_) => {
                self.to_vec().iter().for_each(|byte| writer.unsigned((*byte).into()))
            }
        }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes themselves.
    pub fn to_vec(&self) -> Vec<u8> {
        match &self.source {
            OctetSource::Bin(bytes) => bytes.to_vec(),
            OctetSource::Items(items) => {
                let mut items = items.clone();
                // Every byte takes at least one in the message, so this room is no larger than the
                // message.
                let mut bytes = Vec::with_capacity(self.len);
                bytes.extend((0..self.len).map_while(|_| octet(&mut items).ok()));
                bytes
            }
        }
    }
}

fn octet(reader: &mut Reader<'_>) -> Result<u8, WireError> {
    let not_a_byte = WireError::Invalid("expected a byte");
    match reader.item()? {
        Item::Unsigned(number) => u8::try_from(number).map_err(|_| not_a_byte),
        _ => Err(not_a_byte),
    }
}

/// The pairs of a `LazyStringMap`, still as they lie in the message. Iterates over them in their
/// order.
#[derive(Debug, Clone)]
pub struct StringPairs<'a> {
    /// Behind the head of the map; the pairs have been checked.
    items: Reader<'a>,
    left: usize,
}

impl<'a> StringPairs<'a> {
    /// Reads a map of texts behind its head.
    pub(super) fn read(reader: &mut Reader<'a>, len: usize) -> Result<Self, WireError> {
        let pairs = StringPairs { items: reader.clone(), left: len };
        for _ in 0..len * 2 {
            text(reader)?;
        }
        Ok(pairs)
    }
}

impl<'a> Iterator for StringPairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((text(&mut self.items).ok()?, text(&mut self.items).ok()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for StringPairs<'_> {}
