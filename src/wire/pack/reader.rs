//! Reads MessagePack from a slice, one item at a time: the primitive under every decoder of ours.
//!
//! Deliberately not serde: a serde decoder recurses with its input and cannot say where a value's
//! bytes lie, which is what lets values travel undecoded. Nothing here recurses or allocates by a
//! length that the input merely claims.

use std::sync::Arc;

use rmp::Marker;

use crate::base::shared_bytes::{Received, SharedBytes};
use crate::wire::WireError;

/// A position in MessagePack bytes, and whether everything so far was as [`super::writer::Writer`]
/// would write it.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    canonical: bool,
    /// What `rest` is the end of, if parts of it can be kept without a copy.
    whole: Option<&'a Arc<Vec<u8>>>,
}

/// One item: a scalar whole, or the head of a container whose items follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Item<'a> {
    /// nil
    Nil,
    /// true or false
    Boolean(bool),
    /// a negative whole number
    Negative(i64),
    /// a whole number from zero on
    Unsigned(u64),
    /// a 4-byte float
    F32(f32),
    /// an 8-byte float
    F64(f64),
    /// a str; its bytes may not be UTF-8
    Str(&'a [u8]),
    /// a bin
    Bin(&'a [u8]),
    /// an array of so many items
    Array(usize),
    /// a map of so many pairs
    Map(usize),
    /// an ext, which nothing of ours sends
    Ext,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, canonical: true, whole: None }
    }

    /// The same in a message that may be kept.
    pub(crate) fn of(message: Received<'a>) -> Self {
        let whole = match message {
            Received::Lent(_) => None,
            Received::Shared(whole) => Some(whole),
        };
        Self { whole, ..Self::new(message.bytes()) }
    }

    /// The bytes from `start`, which was the rest before, up to the rest of now.
    pub(super) fn since(&self, start: &[u8]) -> SharedBytes {
        let len = start.len() - self.rest.len();
        match self.whole {
            None => start[..len].to_vec().into(),
            Some(whole) => {
                let at = whole.len() - start.len();
                SharedBytes::part(whole, at..at + len)
            }
        }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything read so far was in its one canonical form. If so, bytes can be copied
    /// instead of written anew.
    pub fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// Notes that something was accepted which an encoder of ours writes otherwise.
    pub fn not_canonical(&mut self) {
        self.canonical = false;
    }

    /// Goes on where `rest` begins, behind what another walk has looked at and found to be as it
    /// should.
    pub(super) fn go_on_at(&mut self, rest: &'a [u8]) {
        self.rest = rest;
    }

    /// Goes to where another reader of the same bytes has come.
    pub(crate) fn join(&mut self, ahead: Reader<'a>) {
        self.canonical &= ahead.canonical;
        self.rest = ahead.rest;
    }

    /// Checks that everything was read.
    ///
    /// # Errors
    /// Bytes follow the value.
    pub fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }

    /// The kind of the next item, without reading it.
    ///
    /// # Errors
    /// The input ends here.
    pub fn peek(&self) -> Result<Marker, WireError> {
        self.rest.first().map(|byte| Marker::from_u8(*byte)).ok_or(WireError::Truncated)
    }

    /// Reads the name of an enum's variant that has a value, where it stands in its canonical form:
    /// the quick way to what [`Reader::item`] would find in two steps.
    #[inline]
    pub(crate) fn short_variant(&mut self) -> Option<&'a [u8]> {
        let [0x81, head @ 0xa0..=0xbf, rest @ ..] = self.rest else {
            return None;
        };
        let (name, rest) = rest.split_at_checked(usize::from(head & 0x1f))?;
        self.rest = rest;
        Some(name)
    }

    /// Reads a str of at most 31 bytes: the quick way to what [`Reader::item`] would find.
    #[inline]
    pub(crate) fn short_str(&mut self) -> Option<&'a [u8]> {
        let [head @ 0xa0..=0xbf, rest @ ..] = self.rest else {
            return None;
        };
        let (text, rest) = rest.split_at_checked(usize::from(head & 0x1f))?;
        self.rest = rest;
        Some(text)
    }

    /// Reads the head of an array of at most 15 items: the quick way to what [`Reader::item`] would
    /// find.
    #[inline]
    pub(crate) fn short_array(&mut self) -> Option<usize> {
        let [head @ 0x90..=0x9f, rest @ ..] = self.rest else {
            return None;
        };
        let len = usize::from(head & 0x0f);
        if len > rest.len() {
            return None;
        }
        self.rest = rest;
        Some(len)
    }

    /// The same if it has so many items.
    #[inline]
    pub(crate) fn short_array_of(&mut self, len: usize) -> bool {
        let mut ahead = self.clone();
        let is_it = ahead.short_array() == Some(len);
        if is_it {
            *self = ahead;
        }
        is_it
    }

    /// Reads nil, if it is that.
    #[inline]
    pub(crate) fn nil(&mut self) -> bool {
        let [0xc0, rest @ ..] = self.rest else {
            return false;
        };
        self.rest = rest;
        true
    }

    /// Reads a scalar, or the head of a container.
    ///
    /// # Errors
    /// The input ends too early, or holds the one byte that MessagePack does not use.
    pub fn item(&mut self) -> Result<Item<'a>, WireError> {
        let marker = self.peek()?;
        self.rest = &self.rest[1..];
        Ok(match marker {
            Marker::Null => Item::Nil,
            Marker::True => Item::Boolean(true),
            Marker::False => Item::Boolean(false),
            Marker::FixPos(number) => Item::Unsigned(number.into()),
            Marker::FixNeg(number) => Item::Negative(number.into()),
            Marker::U8 => {
                self.bytes().map(|bytes| self.unsigned(u8::from_be_bytes(bytes), 0x80))?
            }
            Marker::U16 => {
                self.bytes().map(|bytes| self.unsigned(u16::from_be_bytes(bytes), 0x100))?
            }
            Marker::U32 => {
                self.bytes().map(|bytes| self.unsigned(u32::from_be_bytes(bytes), 0x1_0000))?
            }
            Marker::U64 => {
                self.bytes().map(|bytes| self.unsigned(u64::from_be_bytes(bytes), 0x1_0000_0000))?
            }
            Marker::I8 => self.bytes().map(|bytes| self.signed(i8::from_be_bytes(bytes), -0x20))?,
            Marker::I16 => {
                self.bytes().map(|bytes| self.signed(i16::from_be_bytes(bytes), i8::MIN.into()))?
            }
            Marker::I32 => {
                self.bytes().map(|bytes| self.signed(i32::from_be_bytes(bytes), i16::MIN.into()))?
            }
            Marker::I64 => {
                self.bytes().map(|bytes| self.signed(i64::from_be_bytes(bytes), i32::MIN.into()))?
            }
            Marker::F32 => Item::F32(f32::from_be_bytes(self.bytes()?)),
            Marker::F64 => Item::F64(f64::from_be_bytes(self.bytes()?)),
            Marker::FixStr(len) => Item::Str(self.take(len.into())?),
            Marker::Str8 => self.len8(0x20).and_then(|len| self.take(len)).map(Item::Str)?,
            Marker::Str16 => self.len16(0x100).and_then(|len| self.take(len)).map(Item::Str)?,
            Marker::Str32 => self.len32(0x1_0000).and_then(|len| self.take(len)).map(Item::Str)?,
            // No encoder of ours writes bin or ext, so a decoder that accepts one notes that; their
            // lengths do not matter.
            Marker::Bin8 => self.len8(0).and_then(|len| self.take(len)).map(Item::Bin)?,
            Marker::Bin16 => self.len16(0).and_then(|len| self.take(len)).map(Item::Bin)?,
            Marker::Bin32 => self.len32(0).and_then(|len| self.take(len)).map(Item::Bin)?,
            Marker::FixArray(len) => self.array(len.into())?,
            Marker::Array16 => self.len16(0x10).and_then(|len| self.array(len))?,
            Marker::Array32 => self.len32(0x1_0000).and_then(|len| self.array(len))?,
            Marker::FixMap(len) => self.map(len.into())?,
            Marker::Map16 => self.len16(0x10).and_then(|len| self.map(len))?,
            Marker::Map32 => self.len32(0x1_0000).and_then(|len| self.map(len))?,
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 => self.len8(0).and_then(|len| self.ext(len))?,
            Marker::Ext16 => self.len16(0).and_then(|len| self.ext(len))?,
            Marker::Ext32 => self.len32(0).and_then(|len| self.ext(len))?,
            Marker::Reserved => return Err(WireError::Invalid("the byte c1 is not MessagePack")),
        })
    }

    /// Reads one whole value of at most `depth_max` open levels and returns its bytes.
    ///
    /// # Errors
    /// It is cut short, nests deeper, or holds the unused byte.
    pub fn skip(&mut self, depth_max: usize) -> Result<&'a [u8], WireError> {
        let start = self.rest;
        // How many items are still to come on each open level.
        let mut open: Vec<usize> = Vec::new();
        loop {
            let items = match self.item()? {
                Item::Array(len) => Some(len),
                Item::Map(len) => Some(len * 2),
                _ => None,
            };
            if let Some(items) = items {
                if open.len() >= depth_max {
                    return Err(WireError::TooDeep);
                }
                open.push(items);
            } else if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            while let Some(0) = open.last() {
                open.pop();
                if let Some(left) = open.last_mut() {
                    *left -= 1;
                }
            }
            if open.is_empty() {
                return Ok(&start[..start.len() - self.rest.len()]);
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    // `least`: the smallest number that does not fit into a shorter form.

    fn len8(&mut self, least: usize) -> Result<usize, WireError> {
        self.bytes().map(|bytes| self.len(u8::from_be_bytes(bytes).into(), least))
    }

    fn len16(&mut self, least: usize) -> Result<usize, WireError> {
        self.bytes().map(|bytes| self.len(u16::from_be_bytes(bytes).into(), least))
    }

    fn len32(&mut self, least: usize) -> Result<usize, WireError> {
        self.bytes().map(|bytes| self.len(u32::from_be_bytes(bytes) as usize, least))
    }

    fn len(&mut self, len: usize, least: usize) -> usize {
        self.canonical &= len >= least;
        len
    }

    fn unsigned(&mut self, number: impl Into<u64>, least: u64) -> Item<'a> {
        let number = number.into();
        self.canonical &= number >= least;
        Item::Unsigned(number)
    }

    // `fits`: the least number that a shorter form holds. From zero on, the unsigned forms are the
    // shortest.
    fn signed(&mut self, number: impl Into<i64>, fits: i64) -> Item<'a> {
        let number = number.into();
        self.canonical &= number < fits;
        match u64::try_from(number) {
            Ok(number) => Item::Unsigned(number),
            Err(_) => Item::Negative(number),
        }
    }

    // Every item takes at least a byte, so a length that claims more than what is left is refused
    // before anyone allocates by it.
    fn array(&self, len: usize) -> Result<Item<'a>, WireError> {
        if len > self.rest.len() { Err(WireError::Truncated) } else { Ok(Item::Array(len)) }
    }

    fn map(&self, len: usize) -> Result<Item<'a>, WireError> {
        if len > self.rest.len() / 2 { Err(WireError::Truncated) } else { Ok(Item::Map(len)) }
    }

    fn ext(&mut self, len: usize) -> Result<Item<'a>, WireError> {
        self.take(len + 1).map(|_| Item::Ext)
    }
}
