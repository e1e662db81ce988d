//! `KhronosValue` ↔ its bytes: the tree form, and the bytes alone, checked and brought into their
//! canonical form.
//!
//! Values travel as [`EncodedValue`]s, which are canonical: a reader of one (a [`Walk`])
//! finds one form only. A value that comes in another form is written anew, once, where it enters.
//! Nothing here recurses: open containers are on stacks that `WIRE_DEPTH_MAX` bounds.

use super::reader::Reader;
use super::shape::{Decode, Encode};
use super::token::{Token, write_string_map};
use super::walk::Walk;
use super::writer::Writer;
use crate::wire::WireError;
use crate::wire::data::{EncodedValue, KhronosValue};

pub use super::storable::storable;

/// The bytes of a value.
///
/// A value that was built by hand and nests deeper than `WIRE_DEPTH_MAX` is encoded too, but no
/// peer decodes it.
pub fn encode(value: &KhronosValue) -> EncodedValue {
    let mut writer = Writer::default();
    write(value, &mut writer);
    EncodedValue::from_checked(writer.into_bytes())
}

/// The value that the bytes stand for, as a tree.
///
/// # Errors
/// None for bytes that were checked where they entered.
pub fn decode(value: &EncodedValue) -> Result<KhronosValue, WireError> {
    tree(&mut Walk::new(value))
}

/// Takes bytes as a value, in its canonical form.
///
/// # Errors
/// The bytes are not one value, or nest too deep.
pub fn check(bytes: Vec<u8>) -> Result<EncodedValue, WireError> {
    let mut walk = Walk::over(Reader::new(&bytes));
    walk.finish()?;
    let reader = walk.into_reader();
    reader.end()?;
    if reader.is_canonical() {
        return Ok(EncodedValue::from_checked(bytes));
    }
    write_anew(Reader::new(&bytes))
}

impl Encode for EncodedValue {
    fn encode(&self, writer: &mut Writer) {
        writer.shared(self.shared());
    }
}

impl Decode for EncodedValue {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let start = reader.rest();
        let mut walk = Walk::over(Reader::new(start));
        walk.finish()?;
        let behind = walk.into_reader();
        let is_canonical = behind.is_canonical();
        reader.join(behind);
        if is_canonical {
            Ok(EncodedValue::from_checked(reader.since(start)))
        } else {
            write_anew(Reader::new(start))
        }
    }
}

fn write_anew(reader: Reader<'_>) -> Result<EncodedValue, WireError> {
    let mut writer = Writer::default();
    let mut walk = Walk::over(reader);
    loop {
        let is_key = walk.next_is_key();
        let Some(token) = walk.next()? else {
            return Ok(EncodedValue::from_checked(writer.into_bytes()));
        };
        if is_key {
            writer.array(2);
        }
        // Not through a Builder: the lengths are known, and filling them in afterwards would move
        // what stands behind.
        token.write(&mut writer);
    }
}

/// What is still to be written.
enum Todo<'v> {
    Value(&'v KhronosValue),
    List(std::slice::Iter<'v, KhronosValue>),
    Map(std::slice::Iter<'v, (KhronosValue, KhronosValue)>),
}

fn write(value: &KhronosValue, writer: &mut Writer) {
    let mut todo = vec![Todo::Value(value)];
    while let Some(next) = todo.last_mut() {
        let value = match next {
            Todo::Value(value) => {
                let value = *value;
                todo.pop();
                Some(value)
            }
            Todo::List(values) => values.next(),
            Todo::Map(pairs) => pairs.next().map(|(key, value)| {
                writer.array(2);
                todo.push(Todo::Value(value));
                key
            }),
        };
        match value {
            None => drop(todo.pop()),
            Some(KhronosValue::List(values)) => {
                Token::List(values.len()).write(writer);
                todo.push(Todo::List(values.iter()));
            }
            Some(KhronosValue::Map(pairs)) => {
                Token::Map(pairs.len()).write(writer);
                todo.push(Todo::Map(pairs.iter()));
            }
            Some(leaf) => write_leaf(leaf, writer),
        }
    }
}

fn write_leaf(value: &KhronosValue, writer: &mut Writer) {
    match value {
        KhronosValue::Text(text) => Token::Text(text),
        KhronosValue::Integer(number) => Token::Integer(*number),
        KhronosValue::UnsignedInteger(number) => Token::UnsignedInteger(*number),
        KhronosValue::Float(number) => Token::Float(*number),
        KhronosValue::Boolean(value) => Token::Boolean(*value),
        KhronosValue::Buffer(bytes) => Token::Buffer(bytes.as_slice().into()),
        KhronosValue::Vector(numbers) => Token::Vector(*numbers),
        KhronosValue::Timestamptz(time) => Token::Timestamptz(*time),
        KhronosValue::Interval(span) => Token::Interval(*span),
        KhronosValue::TimeZone(name) => Token::TimeZone(name),
        KhronosValue::LazyStringMap(pairs) => {
            return write_string_map(
                pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())),
                writer,
            );
        }
        KhronosValue::Null => Token::Null,
        KhronosValue::Map(_) | KhronosValue::List(_) => return,
    }
    .write(writer);
}

/// An open container whose values are still to come.
enum Unfinished {
    List(Vec<KhronosValue>),
    Map(Vec<(KhronosValue, KhronosValue)>, Option<KhronosValue>),
}

fn tree(walk: &mut Walk<'_>) -> Result<KhronosValue, WireError> {
    let mut open: Vec<Unfinished> = Vec::new();
    while let Some(token) = walk.next()? {
        let value = match token {
            // Limit: a value in memory is several times its least encoding, so room is not made by
            // the claim alone.
            Token::List(len) => {
                open.push(Unfinished::List(Vec::with_capacity(len.min(64))));
                continue;
            }
            Token::Map(len) => {
                open.push(Unfinished::Map(Vec::with_capacity(len.min(64)), None));
                continue;
            }
            Token::End => match open.pop() {
                Some(Unfinished::List(values)) => KhronosValue::List(values),
                Some(Unfinished::Map(pairs, _)) => KhronosValue::Map(pairs),
                None => break,
            },
            leaf => tree_leaf(leaf),
        };
        match open.last_mut() {
            Some(Unfinished::List(values)) => values.push(value),
            Some(Unfinished::Map(pairs, key)) => match key.take() {
                Some(key) => pairs.push((key, value)),
                None => *key = Some(value),
            },
            None => return Ok(value),
        }
    }
    // A walk yields exactly one value or an error.
    Err(WireError::Truncated)
}

fn tree_leaf(token: Token<'_>) -> KhronosValue {
    match token {
        Token::Text(text) => KhronosValue::Text(text.to_owned()),
        Token::Integer(number) => KhronosValue::Integer(number),
        Token::UnsignedInteger(number) => KhronosValue::UnsignedInteger(number),
        Token::Float(number) => KhronosValue::Float(number),
        Token::Boolean(value) => KhronosValue::Boolean(value),
        Token::Buffer(octets) => KhronosValue::Buffer(octets.to_vec()),
        Token::Vector(numbers) => KhronosValue::Vector(numbers),
        Token::Timestamptz(time) => KhronosValue::Timestamptz(time),
        Token::Interval(span) => KhronosValue::Interval(span),
        Token::TimeZone(name) => KhronosValue::TimeZone(name.to_owned()),
        Token::LazyStringMap(pairs) => KhronosValue::LazyStringMap(
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        ),
        Token::Null | Token::Map(_) | Token::List(_) | Token::End => KhronosValue::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::WIRE_DEPTH_MAX;

    fn nested_lists(depth: usize) -> Vec<u8> {
        let mut writer = Writer::default();
        (0..depth).for_each(|_| Token::List(1).write(&mut writer));
        Token::Null.write(&mut writer);
        writer.into_bytes()
    }

    #[test]
    fn a_value_at_the_greatest_depth_needs_a_small_stack() {
        let bytes = nested_lists(WIRE_DEPTH_MAX - 1);
        let work = move || {
            let checked = check(bytes.clone()).expect("deep enough");
            assert_eq!(checked.as_bytes(), bytes);
            let tree = decode(&checked).expect("deep enough");
            assert_eq!(encode(&tree), checked);
            assert_eq!(tree.clone(), tree);
            assert!(format!("{tree:?}").contains("Null"));
        };
        let thread =
            std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).expect("a thread");
        thread.join().expect("no overflow");
    }

    #[test]
    fn a_level_more_is_refused() {
        assert_eq!(check(nested_lists(WIRE_DEPTH_MAX)), Err(WireError::TooDeep));
        assert_eq!(check(nested_lists(1_000_000)), Err(WireError::TooDeep));
    }
}
