//! Luau values → bytes, as typed values or as plain JSON.
//!
//! Tables are read raw: of metatables only the mark of a list counts. A table with keys 1..n is a
//! list, any other a map, whose text keys are written in the order of their bytes: what a script
//! returns does not depend on the history of its tables.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ops::Range;

use mlua::{AppDataRef, Lua, Table, Value};

use super::values::{Span, Time, Wide, Zone};
use super::{ConvertError, ConvertErrorKind, EXACT_MAX, TextCheck, lists, number};
use crate::base::limits::{CONVERT_VALUES_MAX, CONVERT_WALKS_MAX, VALUE_DEPTH_MAX};
use crate::wire::data::{EncodedJson, EncodedValue};
use crate::wire::pack::walk::{Octets, Token};
use crate::wire::pack::writer::Writer;

/// Writes a value as typed bytes, at most `limit` of them.
///
/// # Errors
/// See [`ConvertErrorKind`].
pub(in crate::runtime::luau) fn value_from_luau(
    lua: &Lua,
    value: &Value,
    limit: usize,
) -> Result<EncodedValue, ConvertError> {
    let mut encoder = Encoder::new(lua, limit, Form::Typed)?;
    encoder.value(value)?;
    Ok(EncodedValue::from_checked(encoder.writer.into_bytes()))
}

/// Writes a value as plain JSON, at most `limit` bytes.
///
/// # Errors
/// See [`ConvertErrorKind`]; and JSON has no buffers, vectors, times, NaN, nor keys other than
/// text.
pub(in crate::runtime::luau) fn json_from_luau(
    lua: &Lua,
    value: &Value,
    limit: usize,
) -> Result<EncodedJson, ConvertError> {
    let mut encoder = Encoder::new(lua, limit, Form::Plain)?;
    encoder.value(value)?;
    Ok(EncodedJson::from_checked(encoder.writer.into_bytes()))
}

/// Limit: keys that are looked at to name one of them; a table may have millions.
const STRAY_KEYS_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Typed,
    Plain,
}

struct Encoder<'l> {
    lua: &'l Lua,
    writer: Writer,
    form: Form,
    limit: usize,
    /// How many it has come to.
    values: u32,
    /// What marks a table as a list.
    lists: *const c_void,
    /// The tables around the one that is being written, to tell a cycle from mere depth.
    open: Vec<*const c_void>,
    /// Where the items written so far of each list under way begin, and where the last one ends.
    ends: Vec<usize>,
    /// How often each table inside the value has been met.
    met: HashMap<*const c_void, u8>,
    /// Copies of tables that are met again and again, by table.
    copies: Option<Table>,
}

/// One pair of a map: what orders it, and where it was written, from the first pair on.
struct Entry {
    rank: Rank,
    bytes: Range<usize>,
}

/// Items of a table that were written as those of a list before another key came: a map takes them
/// over, as what they hold would be written anew for each table around them.
#[derive(Default)]
struct Items {
    bytes: Vec<u8>,
    /// Where each item begins in the bytes, and where the last one ends.
    ends: Vec<usize>,
}

impl Items {
    fn get(&self, index: usize) -> Option<&[u8]> {
        Some(&self.bytes[*self.ends.get(index)?..*self.ends.get(index + 1)?])
    }
}

/// The order of keys: numbers, then texts by their bytes, then the others as they come.
enum Rank {
    Number(f64),
    /// Its first eight bytes, which mostly decide, and where the text itself was written.
    Text(u64, Range<usize>),
    Other,
}

impl Rank {
    fn order(&self, other: &Self, body: &[u8]) -> Ordering {
        match (self, other) {
            (Rank::Number(a), Rank::Number(b)) => a.total_cmp(b),
            (Rank::Text(a, text), Rank::Text(b, other)) => {
                a.cmp(b).then_with(|| body[text.clone()].cmp(&body[other.clone()]))
            }
            (a, b) => a.group().cmp(&b.group()),
        }
    }

    fn group(&self) -> u8 {
        match self {
            Rank::Number(_) => 0,
            Rank::Text(..) => 1,
            Rank::Other => 2,
        }
    }
}

impl<'l> Encoder<'l> {
    fn new(lua: &'l Lua, limit: usize, form: Form) -> Result<Self, ConvertError> {
        let lists = lists(lua)?.0.to_pointer();
        let (writer, open, ends, met) = (Writer::default(), Vec::new(), Vec::new(), HashMap::new());
        Ok(Self { lua, writer, form, limit, values: 0, lists, open, ends, met, copies: None })
    }

    fn count(&mut self) -> Result<(), ConvertError> {
        self.values += 1;
        if self.values > CONVERT_VALUES_MAX {
            return Err(ConvertErrorKind::TooMany(CONVERT_VALUES_MAX).into());
        }
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<(), ConvertError> {
        self.count()?;
        match value {
            Value::Nil => self.leaf(&Token::Null),
            Value::LightUserData(_) if value.is_null() => self.leaf(&Token::Null),
            Value::Boolean(value) => self.leaf(&Token::Boolean(*value)),
            Value::Integer(_) | Value::Number(_) => {
                self.leaf(&number_token(number(value).unwrap_or_default()))
            }
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Buffer(buffer) => {
                // Before it is copied, as for a string.
                self.check_size(buffer.len())?;
                self.bytes(&buffer.to_vec())
            }
            Value::Vector(vector) => {
                self.leaf(&Token::Vector([vector.x(), vector.y(), vector.z()]))
            }
            Value::UserData(data) => self.userdata(data),
            Value::Table(table) => self.nested(table),
            other => {
                Err(ConvertError::unsupported(format!("a {} cannot leave Luau", other.type_name())))
            }
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
        // Each is written as a number, and those above 127 take two bytes.
        self.check_size(bytes.len())?;
        self.check_size(bytes.len() + bytes.iter().filter(|byte| !byte.is_ascii()).count())?;
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
        if self.writer.len() + more <= self.limit {
            Ok(())
        } else {
            Err(ConvertErrorKind::TooLarge(self.limit).into())
        }
    }

    fn nested(&mut self, table: &Table) -> Result<(), ConvertError> {
        let pointer = table.to_pointer();
        if self.open.contains(&pointer) {
            return Err(ConvertErrorKind::Cycle.into());
        }
        if self.open.len() >= VALUE_DEPTH_MAX {
            return Err(ConvertErrorKind::TooDeep.into());
        }
        let is_marked =
            table.metatable().is_some_and(|metatable| metatable.to_pointer() == self.lists);
        let copy = if self.open.is_empty() { None } else { self.copy_of_shared(table)? };
        self.open.push(pointer);
        self.table(copy.as_ref().unwrap_or(table), is_marked)?;
        self.open.pop();
        Ok(())
    }

    /// A copy without empty slots of a table that is met for more than the third time.
    ///
    /// Going through the empty slots of all tables of a VM takes milliseconds, which is bounded by
    /// its memory; but a value can have one table in it millions of times.
    fn copy_of_shared(&mut self, table: &Table) -> Result<Option<Table>, ConvertError> {
        let times = self.met.entry(table.to_pointer()).or_default();
        *times += u8::from(*times <= CONVERT_WALKS_MAX);
        if *times <= CONVERT_WALKS_MAX {
            return Ok(None);
        }
        let copies = match &self.copies {
            Some(copies) => copies,
            None => self.copies.insert(self.lua.create_table()?),
        };
        if let Some(copy) = copies.raw_get(table)? {
            return Ok(Some(copy));
        }
        let copy = self.lua.create_table()?;
        for_each(table, |key, value| Ok(copy.raw_set(key, value).map(|()| true)?))?;
        copies.raw_set(table, &copy)?;
        Ok(Some(copy))
    }

    /// Writes a table; one that is marked as a list has no other form.
    fn table(&mut self, table: &Table, is_marked: bool) -> Result<(), ConvertError> {
        let (start, first, len) = (self.writer.len(), self.ends.len(), table.raw_len());
        if len == 0 && !is_marked {
            return self.map(table, &Items::default());
        } else if self.list(table, len)? {
            self.ends.truncate(first);
            return Ok(());
        }
        let mut ends = self.ends.split_off(first);
        if is_list(table, len)? {
            // The items that are not written yet.
            for index in ends.len()..=len {
                let value: Value = table.raw_get(index)?;
                self.value(&value).map_err(|error| error.at(|| format!("[{index}]")))?;
            }
            Ok(())
        } else if is_marked {
            Err(ConvertError::unsupported(format!(
                "a list cannot have {}",
                why_no_list(table, len)?
            )))
        } else {
            ends.iter_mut().for_each(|end| *end -= start);
            let written = Items { bytes: self.writer.split_off(start), ends };
            self.map(table, &written)
        }
    }

    /// Writes a table of so many items as a list, if its keys come as 1..n, as they do unless it
    /// grew in odd ways.
    fn list(&mut self, table: &Table, len: usize) -> Result<bool, ConvertError> {
        match self.form {
            Form::Typed => Token::List(len).write(&mut self.writer),
            Form::Plain => self.writer.array(len),
        }
        self.ends.push(self.writer.len());
        let mut index = 0;
        let is_list = for_each(table, |key, value| {
            if key.as_usize() != Some(index + 1) {
                return Ok(false);
            }
            index += 1;
            self.value(&value).map_err(|error| error.at(|| format!("[{index}]")))?;
            self.ends.push(self.writer.len());
            Ok(true)
        })?;
        Ok(is_list && index == len)
    }

    /// Writes a table as a map, of which the values of the first pairs may be written already.
    fn map(&mut self, table: &Table, written: &Items) -> Result<(), ConvertError> {
        let start = self.writer.len();
        let mut entries = match self.texts(table, start, written)? {
            Some(entries) => entries,
            None => self.pairs(table, start, written)?,
        };
        // The head tells the number of entries, which is known only now; moving them lets them be
        // sorted too.
        let body = self.writer.split_off(start);
        match self.form {
            Form::Typed => Token::Map(entries.len()).write(&mut self.writer),
            Form::Plain => self.writer.map(entries.len()),
        }
        entries.sort_by(|a, b| a.rank.order(&b.rank, &body));
        entries.iter().for_each(|entry| self.writer.encoded(&body[entry.bytes.clone()]));
        self.check_size(0)
    }

    /// Writes the pairs of a map of which every key and every value is a text, without a handle of
    /// Luau's for each, which takes as long as all the rest; nothing, if there is another value.
    fn texts(
        &mut self,
        table: &Table,
        start: usize,
        written: &Items,
    ) -> Result<Option<Vec<Entry>>, ConvertError> {
        let check = self.lua.app_data_ref::<TextCheck>();
        let are_texts = |check: AppDataRef<'_, TextCheck>| (check.0)(table);
        if !written.ends.is_empty() || !check.is_some_and(are_texts) {
            return Ok(None);
        }
        let (values, mut entries, mut failed) = (self.values, Vec::new(), None);
        let finished = table.for_each(|key: String, text: String| {
            let from = self.writer.len() - start;
            let rank = self.text_key(&key, start);
            let value = self.count().and_then(|()| self.leaf(&Token::Text(&text)));
            failed = value.err().map(|error| error.at(|| text_path(&key)));
            entries.push(Entry { rank, bytes: from..self.writer.len() - start });
            if failed.is_none() { Ok(()) } else { Err(mlua::Error::StackError) }
        });
        match (failed, finished) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(Some(entries)),
            // One of them is not UTF-8.
            (None, Err(_)) => {
                self.writer.split_off(start);
                self.values = values;
                Ok(None)
            }
        }
    }

    /// Writes the pairs of a map of any kind.
    fn pairs(
        &mut self,
        table: &Table,
        start: usize,
        written: &Items,
    ) -> Result<Vec<Entry>, ConvertError> {
        let mut entries: Vec<Entry> = Vec::new();
        for_each(table, |key, value| {
            let from = self.writer.len() - start;
            let rank = self.key(&key, start)?;
            match written.get(entries.len()) {
                Some(bytes) => self.writer.encoded(bytes),
                None => self.value(&value).map_err(|error| error.at(|| key_path(&key)))?,
            }
            entries.push(Entry { rank, bytes: from..self.writer.len() - start });
            Ok(true)
        })?;
        Ok(entries)
    }

    /// Writes a key of a map whose pairs begin at `start`.
    fn key(&mut self, key: &Value, start: usize) -> Result<Rank, ConvertError> {
        if let Value::String(text) = key {
            let bytes = text.as_bytes();
            self.check_size(bytes.len())?;
            if let Ok(text) = std::str::from_utf8(&bytes) {
                return Ok(self.text_key(text, start));
            }
        }
        if self.form == Form::Typed {
            self.writer.array(2);
        }
        match key {
            Value::String(_) if self.form == Form::Plain => {
                Err(ConvertError::unsupported("a key that is not UTF-8"))
            }
            Value::String(text) => self.bytes(&text.as_bytes()).map(|()| Rank::Other),
            _ if self.form == Form::Plain => Err(ConvertError::unsupported(format!(
                "JSON has no keys of type {}",
                key.type_name()
            ))),
            Value::Integer(_) | Value::Number(_) => {
                let number = number(key).unwrap_or_default();
                self.leaf(&number_token(number)).map(|()| Rank::Number(number))
            }
            _ => self.value(key).map(|()| Rank::Other),
        }
    }

    fn text_key(&mut self, text: &str, start: usize) -> Rank {
        match self.form {
            Form::Plain => self.writer.text(text),
            Form::Typed => {
                self.writer.array(2);
                Token::Text(text).write(&mut self.writer);
            }
        }
        let (end, mut first) = (self.writer.len() - start, [0; 8]);
        let len = text.len().min(first.len());
        first[..len].copy_from_slice(&text.as_bytes()[..len]);
        Rank::Text(u64::from_be_bytes(first), end - text.len()..end)
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
        other => return Err(ConvertError::unsupported(not_in_json(other))),
    }
    Ok(())
}

fn not_in_json(token: &Token<'_>) -> &'static str {
    match token {
        Token::Float(_) => "JSON has no NaN and no infinity",
        Token::Buffer(_) => "JSON has no buffers, and text is UTF-8",
        _ => "JSON has no vectors, timestamps, intervals and time zones",
    }
}

/// Whether the keys of a table of so many items are 1..n, in any order.
pub(in crate::runtime::luau) fn is_list(table: &Table, len: usize) -> Result<bool, ConvertError> {
    let mut count = 0;
    let fits = for_each(table, |key, _| {
        count += 1;
        Ok(key.as_usize().is_some_and(|index| (1..=len).contains(&index)))
    })?;
    Ok(fits && count == len)
}

/// What keeps a table of so many items from being a list.
pub(in crate::runtime::luau) fn why_no_list(
    table: &Table,
    len: usize,
) -> Result<String, ConvertError> {
    let is_index = |key: &Value| key.as_usize().is_some_and(|index| (1..=len).contains(&index));
    Ok(match stray_key(table, is_index)? {
        Some(key) => format!("the key {key} beside {len} items"),
        None => "gaps between its items".to_owned(),
    })
}

/// A key of a table that does not belong there, as a path shows it: the least, as the order in
/// which keys come differs from VM to VM, of the first few.
pub(in crate::runtime::luau) fn stray_key(
    table: &Table,
    belongs: impl Fn(&Value) -> bool,
) -> Result<Option<String>, ConvertError> {
    let mut strays = Vec::new();
    for_each(table, |key, _| {
        if !belongs(&key) {
            strays.push(key_path(&key));
        }
        Ok(strays.len() < STRAY_KEYS_MAX)
    })?;
    Ok(strays.into_iter().min())
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

fn text_path(key: &str) -> String {
    let text: String = key.chars().take(40).collect();
    format!(".{text}")
}

fn key_path(key: &Value) -> String {
    match key {
        Value::String(text) => {
            let bytes = text.as_bytes();
            // Forty characters have at most so many bytes.
            text_path(&String::from_utf8_lossy(&bytes[..bytes.len().min(4 * 40)]))
        }
        Value::Integer(_) | Value::Number(_) => format!("[{}]", number(key).unwrap_or_default()),
        Value::Boolean(value) => format!("[{value}]"),
        other => format!("[{}]", other.type_name()),
    }
}
