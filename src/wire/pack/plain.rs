//! Plain JSON as MessagePack: what an event's data or a tenant state's data is. Checked and walked
//! over, never built into a tree.
//!
//! The sender's key order and header widths are kept: the data of an event is copied as it came.
//! [`canonical`] is for a caller that needs one form. Nothing here recurses: open containers are on
//! stacks that `WIRE_DEPTH_MAX` bounds.

use super::reader::{Item, Reader};
use super::shape::{Decode, Encode, utf8};
use super::skim;
use super::writer::{Open, Writer};
use crate::base::limits::WIRE_DEPTH_MAX;
use crate::wire::WireError;
use crate::wire::data::EncodedJson;

/// Takes bytes as plain JSON.
///
/// # Errors
/// They are not one value that JSON can express: a bin or ext, a key that is not text, nested too
/// deep.
pub fn check(bytes: Vec<u8>) -> Result<EncodedJson, WireError> {
    let mut walk = PlainWalk::over(Reader::new(&bytes));
    walk.finish()?;
    walk.into_reader().end()?;
    Ok(EncodedJson::from_checked(bytes))
}

/// A step of a [`PlainWalk`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PlainToken<'a> {
    /// null
    Null,
    /// true or false
    Boolean(bool),
    /// a negative whole number
    Negative(i64),
    /// a whole number from zero on
    Unsigned(u64),
    /// any other number; may be NaN or infinite
    Float(f64),
    /// text
    Text(&'a str),
    /// a key of an object; its value follows
    Key(&'a str),
    /// an array of so many values; they and an [`PlainToken::End`] follow
    Array(usize),
    /// an object of so many keys; they, each with its value, and an [`PlainToken::End`] follow
    Object(usize),
    /// the end of the innermost open array or object
    End,
}

/// A walk over one plain value.
#[derive(Debug)]
pub struct PlainWalk<'a> {
    reader: Reader<'a>,
    open: Vec<OpenPlain>,
    started: bool,
}

#[derive(Debug, Clone, Copy)]
struct OpenPlain {
    /// Items still to come; an object's keys and values count one each.
    left: usize,
    is_object: bool,
}

impl<'a> PlainWalk<'a> {
    /// Starts a walk.
    pub fn new(json: &'a EncodedJson) -> Self {
        Self::over(Reader::new(json.as_bytes()))
    }

    pub(super) fn over(reader: Reader<'a>) -> Self {
        Self { reader, open: Vec::new(), started: false }
    }

    pub(super) fn into_reader(self) -> Reader<'a> {
        self.reader
    }

    /// The next step, or nothing when the value is at its end.
    ///
    /// # Errors
    /// The bytes there are no plain value.
    // An iterator of results invites to drop errors in adaptors.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<PlainToken<'a>>, WireError> {
        match self.open.last_mut() {
            None if self.started => return Ok(None),
            None => self.started = true,
            Some(OpenPlain { left: 0, .. }) => {
                self.open.pop();
                return Ok(Some(PlainToken::End));
            }
            Some(OpenPlain { left, is_object }) => {
                let is_key = *is_object && *left % 2 == 0;
                *left -= 1;
                if is_key {
                    return self.key().map(Some);
                }
            }
        }
        self.value().map(Some)
    }

    /// Walks to the end.
    ///
    /// # Errors
    /// The bytes are no plain value.
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
        let Some(OpenPlain { left, is_object }) = self.open.last_mut() else { return };
        let rest = self.reader.rest();
        let behind = match *is_object {
            false => skim::plain_leaves(rest, left),
            true if *left % 2 == 0 => skim::plain_pairs(rest, left),
            true => return,
        };
        self.reader.go_on_at(behind);
    }

    fn key(&mut self) -> Result<PlainToken<'a>, WireError> {
        match self.reader.item()? {
            Item::Str(key) => utf8(key).map(PlainToken::Key),
            _ => Err(WireError::Invalid("a key of an object that is not text")),
        }
    }

    fn value(&mut self) -> Result<PlainToken<'a>, WireError> {
        Ok(match self.reader.item()? {
            Item::Nil => PlainToken::Null,
            Item::Boolean(value) => PlainToken::Boolean(value),
            Item::Negative(number) => PlainToken::Negative(number),
            Item::Unsigned(number) => PlainToken::Unsigned(number),
            Item::F32(number) => PlainToken::Float(number.into()),
            Item::F64(number) => PlainToken::Float(number),
            Item::Str(text) => PlainToken::Text(utf8(text)?),
            Item::Array(len) => {
                self.descend(OpenPlain { left: len, is_object: false })?;
                PlainToken::Array(len)
            }
            Item::Map(len) => {
                self.descend(OpenPlain { left: len * 2, is_object: true })?;
                PlainToken::Object(len)
            }
            Item::Bin(_) | Item::Ext => {
                return Err(WireError::Invalid("bytes where JSON was expected"));
            }
        })
    }

    fn descend(&mut self, level: OpenPlain) -> Result<(), WireError> {
        if self.open.len() + 1 >= WIRE_DEPTH_MAX {
            return Err(WireError::TooDeep);
        }
        self.open.push(level);
        Ok(())
    }
}

impl Encode for EncodedJson {
    fn encode(&self, writer: &mut Writer) {
        writer.shared(self.shared());
    }
}

impl Decode for EncodedJson {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let start = reader.rest();
        let mut walk = PlainWalk::over(reader.clone());
        walk.finish()?;
        *reader = walk.into_reader();
        Ok(EncodedJson::from_checked(reader.since(start)))
    }
}

/// The form in which the reference would write it: keys sorted by bytes, of a key that comes twice
/// the last value, the shortest numbers and lengths, 8-byte floats, and null for what JSON has no
/// number for.
pub fn canonical(json: &EncodedJson) -> EncodedJson {
    rewritten(json, |number| number)
}

/// The form in which a store keeps it: canonical, and −0.0 is 0.0, as PostgreSQL's numbers know no
/// other zero.
pub fn storable(json: &EncodedJson) -> EncodedJson {
    // Adding zero makes 0.0 of -0.0 and leaves everything else.
    rewritten(json, |number| number + 0.0)
}

fn rewritten(json: &EncodedJson, float: impl Fn(f64) -> f64) -> EncodedJson {
    let mut walk = PlainWalk::new(json);
    let mut writer = Writer::with_capacity(json.as_bytes().len());
    let mut open: Vec<Unsorted<'_>> = Vec::new();
    // Invariant of EncodedJson: the walk meets no error.
    while let Ok(Some(token)) = walk.next() {
        match token {
            PlainToken::Null => writer.nil(),
            PlainToken::Boolean(value) => writer.boolean(value),
            PlainToken::Negative(number) => writer.integer(number),
            PlainToken::Unsigned(number) => writer.unsigned(number),
            PlainToken::Float(number) if number.is_finite() => writer.f64(float(number)),
            PlainToken::Float(_) => writer.nil(),
            PlainToken::Text(text) => writer.text(text),
            PlainToken::Key(key) => {
                if let Some(Unsorted::Object(_, entries)) = open.last_mut() {
                    entries.push((key, writer.len()));
                }
                writer.text(key);
            }
            PlainToken::Array(len) => {
                writer.array(len);
                open.push(Unsorted::Array);
            }
            PlainToken::Object(_) => open.push(Unsorted::Object(writer.open(), Vec::new())),
            PlainToken::End => {
                if let Some(Unsorted::Object(head, entries)) = open.pop() {
                    let len = sort(&mut writer, entries);
                    writer.close_map(head, len);
                }
            }
        }
    }
    EncodedJson::from_checked(writer.into_bytes())
}

enum Unsorted<'a> {
    Array,
    /// Where each key, with its value behind it, was written.
    Object(Open, Vec<(&'a str, usize)>),
}

/// Sorts an object's entries, which are the last that was written, and returns how many are left.
fn sort(writer: &mut Writer, entries: Vec<(&str, usize)>) -> usize {
    let Some((_, start)) = entries.first().copied() else {
        return 0;
    };
    if entries.is_sorted_by(|(a, _), (b, _)| a < b) {
        return entries.len();
    }
    let ends = entries.iter().skip(1).map(|(_, at)| *at).chain([writer.len()]);
    let mut entries: Vec<_> =
        entries.iter().zip(ends).map(|((key, at), end)| (*key, at - start..end - start)).collect();
    // Stable, so that of equal keys the last one stands last; it is the one that is kept.
    entries.sort_by_key(|(key, _)| *key);
    let unsorted = writer.split_off(start);
    let mut kept = 0;
    for (index, (key, range)) in entries.iter().enumerate() {
        if entries.get(index + 1).is_none_or(|(next, _)| next != key) {
            writer.encoded(&unsorted[range.clone()]);
            kept += 1;
        }
    }
    kept
}
