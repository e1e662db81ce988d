//! Walks a `KhronosValue` on its bytes, token by token: the one place that knows how each variant
//! is written.
//!
//! Everything that looks inside a value stands on it: checks, trees, JSON, Luau. It builds nothing
//! and does not recurse: open containers are on a stack of its own, bounded by `WIRE_DEPTH_MAX`.

use super::reader::{Item, Reader};
use super::shape::{Decode, Envelope, Name, array, text, text_from_str};
use super::skim;
use crate::base::limits::WIRE_DEPTH_MAX;
use crate::wire::WireError;
use crate::wire::data::timezone;
use crate::wire::data::{EncodedValue, Interval, Timestamp};

pub use super::token::{Octets, StringPairs, Token};

/// The variants of `KhronosValue`, in the order that their indices have.
const VARIANTS: [&[u8]; 14] = [
    b"Text",
    b"Integer",
    b"UnsignedInteger",
    b"Float",
    b"Boolean",
    b"Buffer",
    b"Vector",
    b"Map",
    b"List",
    b"Timestamptz",
    b"Interval",
    b"TimeZone",
    b"LazyStringMap",
    b"Null",
];

/// A walk over one value.
#[derive(Debug)]
pub struct Walk<'a> {
    reader: Reader<'a>,
    open: Vec<OpenValue>,
    /// Levels as the reference counts them: arrays and maps, but not the map around an enum's
    /// value.
    depth: usize,
    started: bool,
}

#[derive(Debug)]
struct OpenValue {
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
    // An iterator of results invites to drop errors in adaptors.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Token<'a>>, WireError> {
        match self.open.last_mut() {
            None if self.started => return Ok(None),
            None => self.started = true,
            Some(OpenValue { left: 0, depth, .. }) => {
                self.depth -= *depth;
                self.open.pop();
                return Ok(Some(Token::End));
            }
            Some(OpenValue { left, is_map, .. }) => {
                if *is_map && *left % 2 == 0 {
                    pair(&mut self.reader)?;
                }
                *left -= 1;
            }
        }
        self.value().map(Some)
    }

    /// Whether the innermost open container is a map, and no pair of it has been begun and not
    /// completed.
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
        loop {
            self.skim();
            if self.next()?.is_none() {
                return Ok(());
            }
        }
    }

    /// Passes over what needs no look of its own.
    fn skim(&mut self) {
        let rest = self.reader.rest();
        let behind = match self.open.last_mut() {
            None if self.started => return,
            None => {
                let Some(behind) = skim::leaf(rest) else { return };
                self.started = true;
                behind
            }
            Some(OpenValue { left, is_map: false, .. }) => skim::leaves(rest, left),
            Some(OpenValue { left, .. }) if *left % 2 == 0 => skim::pairs(rest, left),
            Some(_) => return,
        };
        self.reader.go_on_at(behind);
    }

    fn value(&mut self) -> Result<Token<'a>, WireError> {
        let reader = &mut self.reader;
        let envelope = Envelope::read(reader)?;
        let name = match envelope.name {
            Name::Text(name) => name,
            Name::Index(index) => {
                let index = usize::try_from(index).ok();
                index.and_then(|index| VARIANTS.get(index)).copied().unwrap_or_default()
            }
        };
        if !envelope.has_value && name != b"Null" && VARIANTS.contains(&name) {
            return Err(WireError::Invalid("a variant without its value"));
        }
        // A match, not a search: this runs for every value of every message.
        Ok(match name {
            b"Text" => Token::Text(text(reader)?),
            b"Integer" => Token::Integer(i64::decode(reader)?),
            b"UnsignedInteger" => Token::UnsignedInteger(u64::decode(reader)?),
            b"Float" => Token::Float(float(reader)?),
            b"Boolean" => Token::Boolean(bool::decode(reader)?),
            b"Buffer" => Token::Buffer(self.buffer()?),
            b"Vector" => Token::Vector(self.vector()?),
            b"Map" => self.map()?,
            b"List" => self.list()?,
            b"Timestamptz" => Token::Timestamptz(timestamp(reader)?),
            b"Interval" => Token::Interval(self.interval()?),
            b"TimeZone" => Token::TimeZone(time_zone(reader)?),
            b"LazyStringMap" => Token::LazyStringMap(self.string_map()?),
            b"Null" => null(reader, envelope.has_value)?,
            _ => return Err(WireError::Invalid("not a variant of a value")),
        })
    }

    fn list(&mut self) -> Result<Token<'a>, WireError> {
        let len = array(&mut self.reader)?;
        self.descend(OpenValue { left: len, is_map: false, depth: 1 })?;
        Ok(Token::List(len))
    }

    fn map(&mut self) -> Result<Token<'a>, WireError> {
        let len = array(&mut self.reader)?;
        self.descend(OpenValue {
            left: len * 2,
            is_map: true,
            depth: if len == 0 { 1 } else { 2 },
        })?;
        Ok(Token::Map(len))
    }

    fn descend(&mut self, level: OpenValue) -> Result<(), WireError> {
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
                Ok(bytes.into())
            }
            Item::Array(len) => {
                self.check_depth_of_leaf()?;
                Octets::read(&mut self.reader, len)
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
        nanos
            .and_then(|nanos| Interval::new(secs, nanos))
            .ok_or(WireError::Invalid("a span of time out of bounds"))
    }

    fn string_map(&mut self) -> Result<StringPairs<'a>, WireError> {
        let Item::Map(len) = self.reader.item()? else {
            return Err(WireError::Invalid("expected a map of texts"));
        };
        self.check_depth_of_leaf()?;
        StringPairs::read(&mut self.reader, len)
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
    if timezone::is_known(name) {
        Ok(name)
    } else {
        Err(WireError::Invalid("not the name of a time zone"))
    }
}
