//! Walks a `KhronosValue` on its bytes, token by token: the one place that knows how each variant is written.
//!
//! Everything that looks inside a value stands on it: checks, trees, JSON, Luau. It builds nothing and does not recurse:
//! open containers are on a stack of its own, bounded by `WIRE_DEPTH_MAX`.

use super::WireError;
use super::reader::{Item, Reader};
use super::shape::{Decode, Envelope, Name, array, text, text_from_str};
use super::timezone;
use super::writer::Writer;
use crate::limits::WIRE_DEPTH_MAX;
use crate::model::{EncodedValue, Interval, Timestamp};

/// The variants of `KhronosValue`, in the order that their indices have.
const VARIANTS: [Variant; 14] = [
    Variant::Text,
    Variant::Integer,
    Variant::UnsignedInteger,
    Variant::Float,
    Variant::Boolean,
    Variant::Buffer,
    Variant::Vector,
    Variant::Map,
    Variant::List,
    Variant::Timestamptz,
    Variant::Interval,
    Variant::TimeZone,
    Variant::LazyStringMap,
    Variant::Null,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Text,
    Integer,
    UnsignedInteger,
    Float,
    Boolean,
    Buffer,
    Vector,
    Map,
    List,
    Timestamptz,
    Interval,
    TimeZone,
    LazyStringMap,
    Null,
}

impl Variant {
    fn of(name: Name<'_>) -> Option<Self> {
        match name {
            Name::Text(name) => Self::named(name),
            Name::Index(index) => usize::try_from(index).ok().and_then(|index| VARIANTS.get(index).copied()),
        }
    }

    /// A match, not a search: this runs for every value of every message.
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"Text" => Variant::Text,
            b"Integer" => Variant::Integer,
            b"UnsignedInteger" => Variant::UnsignedInteger,
            b"Float" => Variant::Float,
            b"Boolean" => Variant::Boolean,
            b"Buffer" => Variant::Buffer,
            b"Vector" => Variant::Vector,
            b"Map" => Variant::Map,
            b"List" => Variant::List,
            b"Timestamptz" => Variant::Timestamptz,
            b"Interval" => Variant::Interval,
            b"TimeZone" => Variant::TimeZone,
            b"LazyStringMap" => Variant::LazyStringMap,
            b"Null" => Variant::Null,
            _ => return None,
        })
    }
}

/// A step of a [`Walk`]: a value that has no values inside, or the start or end of one that has.
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
    /// The name of the variant that it is, or begins; nothing for [`Token::End`].
    pub fn variant(&self) -> &'static str {
        match self {
            Token::Text(_) => "Text",
            Token::Integer(_) => "Integer",
            Token::UnsignedInteger(_) => "UnsignedInteger",
            Token::Float(_) => "Float",
            Token::Boolean(_) => "Boolean",
            Token::Buffer(_) => "Buffer",
            Token::Vector(_) => "Vector",
            Token::Timestamptz(_) => "Timestamptz",
            Token::Interval(_) => "Interval",
            Token::TimeZone(_) => "TimeZone",
            Token::LazyStringMap(_) => "LazyStringMap",
            Token::Null => "Null",
            Token::Map(_) => "Map",
            Token::List(_) => "List",
            Token::End => "",
        }
    }

    /// Writes it in its canonical form: a leaf whole, of a `Map` or `List` the beginning. Nothing for [`Token::End`].
    ///
    /// Who writes a map puts `writer.array(2)` before each of its keys: the head of the pair.
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
pub(crate) fn write_string_map<'s>(pairs: impl ExactSizeIterator<Item = (&'s str, &'s str)>, writer: &mut Writer) {
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
    source: Source<'a>,
    len: usize,
}

#[derive(Debug, Clone)]
enum Source<'a> {
    Bin(&'a [u8]),
    /// Behind the head of the array; the items have been checked.
    Items(Reader<'a>),
}

impl<'a> From<&'a [u8]> for Octets<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { source: Source::Bin(bytes), len: bytes.len() }
    }
}

impl Octets<'_> {
    fn write(&self, writer: &mut Writer) {
        writer.encoded(b"\x81\xa6Buffer");
        writer.array(self.len);
        match &self.source {
            Source::Bin(bytes) => bytes.iter().for_each(|byte| writer.unsigned((*byte).into())),
            Source::Items(_) => self.to_vec().iter().for_each(|byte| writer.unsigned((*byte).into())),
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
            Source::Bin(bytes) => bytes.to_vec(),
            Source::Items(items) => {
                let mut items = items.clone();
                // Every byte takes at least one in the message, so this room is no larger than the message.
                let mut bytes = Vec::with_capacity(self.len);
                bytes.extend((0..self.len).map_while(|_| octet(&mut items).ok()));
                bytes
            }
        }
    }
}

/// The pairs of a `LazyStringMap`, still as they lie in the message. Iterates over them in their order.
#[derive(Debug, Clone)]
pub struct StringPairs<'a> {
    /// Behind the head of the map; the pairs have been checked.
    items: Reader<'a>,
    left: usize,
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

/// A walk over one value.
#[derive(Debug)]
pub struct Walk<'a> {
    reader: Reader<'a>,
    open: Vec<Level>,
    /// Levels as the reference counts them: arrays and maps, but not the map around an enum's value.
    depth: usize,
    started: bool,
}

#[derive(Debug)]
struct Level {
    /// Values still to come; a map's keys and values count one each.
    left: usize,
    is_map: bool,
    /// What it adds to the depth: a list is an array, a map an array of arrays.
    depth: usize,
}

impl<'a> Walk<'a> {
    /// Starts a walk over an encoded value.
    pub fn new(value: &'a EncodedValue) -> Self {
        Self::over(Reader::new(value.as_bytes()))
    }

    /// Starts a walk at a reader's position; [`Walk::into_reader`] gives it back.
    pub(crate) fn over(reader: Reader<'a>) -> Self {
        Self { reader, open: Vec::new(), depth: 0, started: false }
    }

    /// The reader, behind what has been walked over.
    pub(crate) fn into_reader(self) -> Reader<'a> {
        self.reader
    }

    /// How many maps and lists are open.
    pub fn open_levels(&self) -> usize {
        self.open.len()
    }

    /// The next step, or nothing when the value is at its end.
    ///
    /// # Errors
    /// The bytes there are no value.
    #[allow(clippy::should_implement_trait)] // An iterator of results invites to drop errors in adaptors.
    pub fn next(&mut self) -> Result<Option<Token<'a>>, WireError> {
        match self.open.last_mut() {
            None if self.started => return Ok(None),
            None => self.started = true,
            Some(Level { left: 0, depth, .. }) => {
                self.depth -= *depth;
                self.open.pop();
                return Ok(Some(Token::End));
            }
            Some(Level { left, is_map, .. }) => {
                if *is_map && *left % 2 == 0 {
                    pair(&mut self.reader)?;
                }
                *left -= 1;
            }
        }
        self.value().map(Some)
    }

    /// Whether the innermost open container is a map, and no pair of it has been begun and not completed.
    pub fn is_between_pairs(&self) -> bool {
        self.open.last().is_some_and(|level| level.is_map && level.left % 2 == 0)
    }

    /// Whether the next step is, or starts, a key of a map.
    pub fn next_is_key(&self) -> bool {
        self.is_between_pairs() && self.open.last().is_some_and(|level| level.left > 0)
    }

    /// Walks to the end.
    ///
    /// # Errors
    /// The bytes are no value.
    pub fn finish(&mut self) -> Result<(), WireError> {
        while self.next()?.is_some() {}
        Ok(())
    }

    fn value(&mut self) -> Result<Token<'a>, WireError> {
        let reader = &mut self.reader;
        let envelope = Envelope::read(reader)?;
        let variant = Variant::of(envelope.name).ok_or(WireError::Invalid("not a variant of a value"))?;
        if !envelope.has_value && variant != Variant::Null {
            return Err(WireError::Invalid("a variant without its value"));
        }
        Ok(match variant {
            Variant::Text => Token::Text(text(reader)?),
            Variant::Integer => Token::Integer(i64::decode(reader)?),
            Variant::UnsignedInteger => Token::UnsignedInteger(u64::decode(reader)?),
            Variant::Float => Token::Float(float(reader)?),
            Variant::Boolean => Token::Boolean(bool::decode(reader)?),
            Variant::Buffer => Token::Buffer(self.buffer()?),
            Variant::Vector => Token::Vector(self.vector()?),
            Variant::Map => self.map()?,
            Variant::List => self.list()?,
            Variant::Timestamptz => Token::Timestamptz(timestamp(reader)?),
            Variant::Interval => Token::Interval(self.interval()?),
            Variant::TimeZone => Token::TimeZone(time_zone(reader)?),
            Variant::LazyStringMap => Token::LazyStringMap(self.string_map()?),
            Variant::Null => null(reader, envelope.has_value)?,
        })
    }

    fn list(&mut self) -> Result<Token<'a>, WireError> {
        let len = array(&mut self.reader)?;
        self.descend(Level { left: len, is_map: false, depth: 1 })?;
        Ok(Token::List(len))
    }

    fn map(&mut self) -> Result<Token<'a>, WireError> {
        let len = array(&mut self.reader)?;
        self.descend(Level { left: len * 2, is_map: true, depth: if len == 0 { 1 } else { 2 } })?;
        Ok(Token::Map(len))
    }

    fn descend(&mut self, level: Level) -> Result<(), WireError> {
        if self.depth + level.depth >= WIRE_DEPTH_MAX {
            return Err(WireError::TooDeep);
        }
        self.depth += level.depth;
        self.open.push(level);
        Ok(())
    }

    fn buffer(&mut self) -> Result<Octets<'a>, WireError> {
        match self.reader.item()? {
            Item::Bin(bytes) => {
                self.reader.not_canonical();
                Ok(Octets { source: Source::Bin(bytes), len: bytes.len() })
            }
            Item::Array(len) => {
                self.check_depth_of_leaf()?;
                let source = Source::Items(self.reader.clone());
                for _ in 0..len {
                    octet(&mut self.reader)?;
                }
                Ok(Octets { source, len })
            }
            _ => Err(WireError::Invalid("expected bytes")),
        }
    }

    fn vector(&mut self) -> Result<[f32; 3], WireError> {
        match self.reader.item()? {
            Item::Array(3) => {
                self.check_depth_of_leaf()?;
                let reader = &mut self.reader;
                Ok([float32(reader)?, float32(reader)?, float32(reader)?])
            }
            Item::Bin(&[x, y, z]) => {
                self.reader.not_canonical();
                Ok([x.into(), y.into(), z.into()])
            }
            _ => Err(WireError::Invalid("expected three numbers")),
        }
    }

    fn interval(&mut self) -> Result<Interval, WireError> {
        let (secs, nanos) = match self.reader.item()? {
            Item::Array(2) => {
                self.check_depth_of_leaf()?;
                (i64::decode(&mut self.reader)?, i32::decode(&mut self.reader)?)
            }
            Item::Bin(&[secs, nanos]) => {
                self.reader.not_canonical();
                (secs.into(), nanos.into())
            }
            _ => return Err(WireError::Invalid("expected seconds and nanoseconds")),
        };
        let nanos = u32::try_from(nanos).ok();
        nanos.and_then(|nanos| Interval::new(secs, nanos)).ok_or(WireError::Invalid("a span of time out of bounds"))
    }

    fn string_map(&mut self) -> Result<StringPairs<'a>, WireError> {
        let Item::Map(len) = self.reader.item()? else {
            return Err(WireError::Invalid("expected a map of texts"));
        };
        self.check_depth_of_leaf()?;
        let pairs = StringPairs { items: self.reader.clone(), left: len };
        for _ in 0..len * 2 {
            text(&mut self.reader)?;
        }
        Ok(pairs)
    }

    /// A leaf that is an array or a map is a level too.
    fn check_depth_of_leaf(&self) -> Result<(), WireError> {
        if self.depth + 1 >= WIRE_DEPTH_MAX { Err(WireError::TooDeep) } else { Ok(()) }
    }
}

fn null<'a>(reader: &mut Reader<'_>, has_value: bool) -> Result<Token<'a>, WireError> {
    if has_value {
        reader.not_canonical();
        if reader.item()? != Item::Nil {
            return Err(WireError::Invalid("a value for Null"));
        }
    }
    Ok(Token::Null)
}

fn pair(reader: &mut Reader<'_>) -> Result<(), WireError> {
    match reader.item()? {
        Item::Array(2) => Ok(()),
        _ => Err(WireError::Invalid("expected a pair of a key and a value")),
    }
}

fn octet(reader: &mut Reader<'_>) -> Result<u8, WireError> {
    let not_a_byte = WireError::Invalid("expected a byte");
    match reader.item()? {
        Item::Unsigned(number) => u8::try_from(number).map_err(|_| not_a_byte),
        _ => Err(not_a_byte),
    }
}

fn float(reader: &mut Reader<'_>) -> Result<f64, WireError> {
    let item = reader.item()?;
    if let Item::F64(number) = item {
        return Ok(number);
    }
    reader.not_canonical();
    match item {
        Item::F32(number) => Ok(number.into()),
        Item::Unsigned(number) => Ok(number as f64),
        Item::Negative(number) => Ok(number as f64),
        _ => Err(WireError::Invalid("expected a number")),
    }
}

fn float32(reader: &mut Reader<'_>) -> Result<f32, WireError> {
    let item = reader.item()?;
    if let Item::F32(number) = item {
        return Ok(number);
    }
    reader.not_canonical();
    match item {
        Item::F64(number) => Ok(number as f32),
        Item::Unsigned(number) => Ok(number as f32),
        Item::Negative(number) => Ok(number as f32),
        _ => Err(WireError::Invalid("expected a number")),
    }
}

fn timestamp(reader: &mut Reader<'_>) -> Result<Timestamp, WireError> {
    let text = text_from_str(reader)?;
    let time: Timestamp = text.parse().map_err(|_| WireError::Invalid("not a date and time"))?;
    if time.to_string() != text {
        reader.not_canonical();
    }
    Ok(time)
}

fn time_zone<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    let name = text_from_str(reader)?;
    if timezone::is_known(name) { Ok(name) } else { Err(WireError::Invalid("not the name of a time zone")) }
}
