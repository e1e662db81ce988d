//! Luau values → bytes, as typed values or as plain JSON.
//!
//! Tables are read raw: metatables are ignored. A table with keys 1..n is a list, any other a map, whose text keys are
//! written in the order of their bytes: what a script returns does not depend on the history of its tables.

use std::cmp::Ordering;
use std::ffi::c_void;
use std::ops::Range;
use std::time::{Duration, Instant};

use mlua::{Table, Value};

use super::values::{Span, Time, Wide, Zone};
use super::{ConvertError, ConvertErrorKind, EXACT_MAX, number};
use crate::limits::{CONVERT_EMPTY_SLOTS_MAX, VALUE_DEPTH_MAX};
use crate::model::{EncodedJson, EncodedValue};
use crate::thread::cpu_time;
use crate::wire::walk::{Octets, Token};
use crate::wire::writer::Writer;

/// Writes a value as typed bytes, at most `limit` of them.
///
/// # Errors
/// See [`ConvertErrorKind`].
pub(in crate::runtime::luau) fn value_from_luau(value: &Value, limit: usize) -> Result<EncodedValue, ConvertError> {
    let mut encoder = Encoder::new(limit, Form::Typed);
    encoder.value(value)?;
    Ok(EncodedValue::from_checked(encoder.writer.into_bytes()))
}

/// Writes a value as plain JSON, at most `limit` bytes.
///
/// # Errors
/// See [`ConvertErrorKind`]; and JSON has no buffers, vectors, times, NaN, nor keys other than text.
pub(in crate::runtime::luau) fn json_from_luau(value: &Value, limit: usize) -> Result<EncodedJson, ConvertError> {
    let mut encoder = Encoder::new(limit, Form::Plain);
    encoder.value(value)?;
    Ok(EncodedJson::from_checked(encoder.writer.into_bytes()))
}

/// What writing an entry takes, and a little more.
const ENTRY: Duration = if cfg!(debug_assertions) { Duration::from_micros(3) } else { Duration::from_nanos(300) };

/// What writing a byte takes, and a little more.
const BYTE: Duration = Duration::from_nanos(if cfg!(debug_assertions) { 20 } else { 2 });

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Typed,
    Plain,
}

struct Encoder {
    writer: Writer,
    form: Form,
    limit: usize,
    /// Time that may have gone into empty slots.
    on_nothing: OnNothing,
    /// The tables around the one that is being written, to tell a cycle from mere depth.
    open: Vec<*const c_void>,
}

/// Tells time that went into entries and bytes from time that went into empty slots. Going through those of the largest
/// table takes the better part of a millisecond, and a value can have the same table in it thousands of times.
struct OnNothing {
    entries: u32,
    since: Mark,
    /// The processor time of the thread at `since`, once the clock alone says that it takes too long: what that shows
    /// may be other threads' doing, but asking for the processor time costs more than most tables.
    processor: Option<Duration>,
}

/// How far the work had come at a time.
struct Mark {
    at: Instant,
    entries: u32,
    bytes: usize,
}

impl OnNothing {
    fn new() -> Self {
        Self { entries: 0, since: Mark { at: Instant::now(), entries: 0, bytes: 0 }, processor: None }
    }

    /// Called after each table, when so many bytes have been written.
    fn check(&mut self, bytes: usize) -> Result<(), ConvertError> {
        let on_bytes = BYTE * u32::try_from(bytes.saturating_sub(self.since.bytes)).unwrap_or(u32::MAX);
        let allowed = CONVERT_EMPTY_SLOTS_MAX + ENTRY * (self.entries - self.since.entries) + on_bytes;
        let now = Instant::now();
        if now - self.since.at <= allowed {
            return Ok(());
        }
        let processor = cpu_time();
        if self.processor.is_some_and(|since| processor - since > allowed) {
            return Err(ConvertErrorKind::TooEmpty(CONVERT_EMPTY_SLOTS_MAX).into());
        }
        if self.processor.is_none() {
            self.since = Mark { at: now, entries: self.entries, bytes };
            self.processor = Some(processor);
        }
        Ok(())
    }
}

/// One pair of a map: what orders it, and where it was written, from the first pair on.
struct Entry {
    rank: Rank,
    bytes: Range<usize>,
}

/// The order of keys: numbers, then texts by their bytes, then the others as they come.
enum Rank {
    Number(f64),
    /// Where the text itself was written.
    Text(Range<usize>),
    Other,
}

impl Rank {
    fn order(&self, other: &Self, body: &[u8]) -> Ordering {
        match (self, other) {
            (Rank::Number(a), Rank::Number(b)) => a.total_cmp(b),
            (Rank::Text(a), Rank::Text(b)) => body[a.clone()].cmp(&body[b.clone()]),
            (a, b) => a.group().cmp(&b.group()),
        }
    }

    fn group(&self) -> u8 {
        match self {
            Rank::Number(_) => 0,
            Rank::Text(_) => 1,
            Rank::Other => 2,
        }
    }
}

impl Encoder {
    fn new(limit: usize, form: Form) -> Self {
        Self { writer: Writer::default(), form, limit, on_nothing: OnNothing::new(), open: Vec::new() }
    }

    fn value(&mut self, value: &Value) -> Result<(), ConvertError> {
        match value {
            Value::Nil => self.leaf(&Token::Null),
            Value::LightUserData(_) if value.is_null() => self.leaf(&Token::Null),
            Value::Boolean(value) => self.leaf(&Token::Boolean(*value)),
            Value::Integer(_) | Value::Number(_) => self.leaf(&number_token(number(value).unwrap_or_default())),
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Buffer(buffer) => self.bytes(&buffer.to_vec()),
            Value::Vector(vector) => self.leaf(&Token::Vector([vector.x(), vector.y(), vector.z()])),
            Value::UserData(data) => self.userdata(data),
            Value::Table(table) => self.nested(table),
            other => Err(ConvertError::unsupported(format!("a {} cannot leave Luau", other.type_name()))),
        }
    }

    fn userdata(&mut self, data: &mlua::AnyUserData) -> Result<(), ConvertError> {
        if let Ok(wide) = data.borrow::<Wide>() {
            return match *wide {
                Wide::Signed(number) => self.leaf(&Token::Integer(number)),
                Wide::Unsigned(number) => self.leaf(&Token::UnsignedInteger(number)),
            };
        }
        if let Ok(time) = data.borrow::<Time>() {
            return self.leaf(&Token::Timestamptz(time.0));
        }
        if let Ok(span) = data.borrow::<Span>() {
            return self.leaf(&Token::Interval(span.0));
        }
        match data.borrow::<Zone>() {
            Ok(zone) => self.leaf(&Token::TimeZone(&zone.0)),
            Err(_) => Err(ConvertError::unsupported("a userdata cannot leave Luau")),
        }
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        // Checked before copying: a string may be as large as the VM.
        self.check_size(bytes.len())?;
        match std::str::from_utf8(bytes) {
            Ok(text) => self.leaf(&Token::Text(text)),
            Err(_) => self.bytes(bytes),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        self.check_size(bytes.len())?;
        self.leaf(&Token::Buffer(Octets::from(bytes)))
    }

    fn leaf(&mut self, token: &Token<'_>) -> Result<(), ConvertError> {
        match self.form {
            Form::Typed => token.write(&mut self.writer),
            Form::Plain => plain_leaf(token, &mut self.writer)?,
        }
        self.check_size(0)
    }

    fn check_size(&self, more: usize) -> Result<(), ConvertError> {
        if self.writer.len() + more <= self.limit { Ok(()) } else { Err(ConvertErrorKind::TooLarge(self.limit).into()) }
    }

    fn nested(&mut self, table: &Table) -> Result<(), ConvertError> {
        let pointer = table.to_pointer();
        if self.open.contains(&pointer) {
            return Err(ConvertErrorKind::Cycle.into());
        }
        if self.open.len() >= VALUE_DEPTH_MAX {
            return Err(ConvertErrorKind::TooDeep.into());
        }
        self.open.push(pointer);
        let start = self.writer.len();
        let written = match table.raw_len() {
            0 => self.map(table),
            len if self.list(table, len)? => Ok(()),
            len => {
                self.writer.split_off(start);
                if is_list_in_disorder(table, len)? { self.list_by_index(table, len) } else { self.map(table) }
            }
        };
        self.open.pop();
        written?;
        self.on_nothing.check(self.writer.len())
    }

    /// Writes a table of so many items as a list, if its keys come as 1..n, as they do unless it grew in odd ways.
    fn list(&mut self, table: &Table, len: usize) -> Result<bool, ConvertError> {
        self.list_head(len);
        let mut index = 0;
        let is_list = for_each(table, |key, value| {
            if key.as_usize() != Some(index + 1) {
                return Ok(false);
            }
            index += 1;
            self.on_nothing.entries += 1;
            self.value(&value).map_err(|error| error.at(|| format!("[{index}]"))).map(|()| true)
        })?;
        Ok(is_list && index == len)
    }

    fn list_by_index(&mut self, table: &Table, len: usize) -> Result<(), ConvertError> {
        self.list_head(len);
        for index in 1..=len {
            self.on_nothing.entries += 1;
            let value: Value = table.raw_get(index)?;
            self.value(&value).map_err(|error| error.at(|| format!("[{index}]")))?;
        }
        Ok(())
    }

    fn list_head(&mut self, len: usize) {
        match self.form {
            Form::Typed => Token::List(len).write(&mut self.writer),
            Form::Plain => self.writer.array(len),
        }
    }

    fn map(&mut self, table: &Table) -> Result<(), ConvertError> {
        let start = self.writer.len();
        let mut entries: Vec<Entry> = Vec::new();
        for_each(table, |key, value| {
            let from = self.writer.len() - start;
            self.on_nothing.entries += 1;
            let rank = self.key(&key, start)?;
            self.value(&value).map_err(|error| error.at(|| key_path(&key)))?;
            entries.push(Entry { rank, bytes: from..self.writer.len() - start });
            Ok(true)
        })?;
        // The head tells the number of entries, which is known only now; moving them lets them be sorted too.
        let body = self.writer.split_off(start);
        match self.form {
            Form::Typed => Token::Map(entries.len()).write(&mut self.writer),
            Form::Plain => self.writer.map(entries.len()),
        }
        entries.sort_by(|a, b| a.rank.order(&b.rank, &body));
        entries.iter().for_each(|entry| self.writer.encoded(&body[entry.bytes.clone()]));
        self.check_size(0)
    }

    /// Writes a key of a map whose pairs begin at `start`.
    fn key(&mut self, key: &Value, start: usize) -> Result<Rank, ConvertError> {
        if self.form == Form::Typed {
            self.writer.array(2);
        }
        match key {
            Value::String(text) => {
                let bytes = text.as_bytes();
                self.check_size(bytes.len())?;
                match (std::str::from_utf8(&bytes), self.form) {
                    (Ok(text), Form::Plain) => self.writer.text(text),
                    (Ok(text), Form::Typed) => Token::Text(text).write(&mut self.writer),
                    (Err(_), Form::Typed) => return self.bytes(&bytes).map(|()| Rank::Other),
                    (Err(_), Form::Plain) => return Err(ConvertError::unsupported("a key that is not UTF-8")),
                }
                let end = self.writer.len() - start;
                Ok(Rank::Text(end - bytes.len()..end))
            }
            _ if self.form == Form::Plain => {
                Err(ConvertError::unsupported(format!("JSON has no keys of type {}", key.type_name())))
            }
            Value::Integer(_) | Value::Number(_) => {
                let number = number(key).unwrap_or_default();
                self.leaf(&number_token(number)).map(|()| Rank::Number(number))
            }
            _ => self.value(key).map(|()| Rank::Other),
        }
    }
}

/// A whole number within ±2⁵³ is an integer.
fn number_token(number: f64) -> Token<'static> {
    if number.trunc() == number && number.abs() <= EXACT_MAX as f64 {
        Token::Integer(number as i64)
    } else {
        Token::Float(number)
    }
}

fn plain_leaf(token: &Token<'_>, writer: &mut Writer) -> Result<(), ConvertError> {
    match token {
        Token::Null => writer.nil(),
        Token::Boolean(value) => writer.boolean(*value),
        Token::Integer(number) => writer.integer(*number),
        Token::UnsignedInteger(number) => writer.unsigned(*number),
        Token::Float(number) if number.is_finite() => writer.f64(*number),
        Token::Text(text) => writer.text(text),
        Token::Float(_) => return Err(ConvertError::unsupported("JSON has no NaN and no infinity")),
        Token::Buffer(_) => return Err(ConvertError::unsupported("JSON has no buffers, and text is UTF-8")),
        _ => return Err(ConvertError::unsupported("JSON has no vectors, timestamps, intervals and time zones")),
    }
    Ok(())
}

/// Whether the keys of a table are 1..n, in whatever order they come.
fn is_list_in_disorder(table: &Table, len: usize) -> Result<bool, ConvertError> {
    let mut count = 0;
    let fits = for_each(table, |key, _| {
        count += 1;
        Ok(key.as_usize().is_some_and(|index| (1..=len).contains(&index)))
    })?;
    Ok(fits && count == len)
}

/// Goes through a table raw, until `visit` says false; tells whether it came to the end.
fn for_each(
    table: &Table,
    mut visit: impl FnMut(Value, Value) -> Result<bool, ConvertError>,
) -> Result<bool, ConvertError> {
    let mut stopped = None;
    let finished = table.for_each(|key: Value, value: Value| match visit(key, value) {
        Ok(true) => Ok(()),
        stop => {
            stopped = Some(stop);
            Err(mlua::Error::StackError)
        }
    });
    match (stopped, finished) {
        (Some(stop), _) => stop,
        (None, Ok(())) => Ok(true),
        (None, Err(error)) => Err(error.into()),
    }
}

fn key_path(key: &Value) -> String {
    match key {
        Value::String(text) => {
            let text: String = text.to_string_lossy().chars().take(40).collect();
            format!(".{text}")
        }
        Value::Integer(_) | Value::Number(_) => format!("[{}]", number(key).unwrap_or_default()),
        Value::Boolean(value) => format!("[{value}]"),
        other => format!("[{}]", other.type_name()),
    }
}
