//! Bytes → Luau values.
//!
//! While it works, the VM's allocator has no limit: with one, mlua guards every string and table by
//! a protected call that costs more than the string. Instead the memory is looked at before each
//! container and every few items.

use mlua::{IntoLua, Lua, Table, Value};

use super::values::{Span, Time, Wide, Zone};
use super::{ConvertError, ConvertErrorKind, lists};
use crate::base::limits::{CONVERT_ITEMS_MAX, VALUE_DEPTH_MAX};
use crate::runtime::luau::memory::{Pace, peak_bytes};
use crate::wire::WireError;
use crate::wire::data::{EncodedJson, EncodedValue};
use crate::wire::json::event_data_from_json;
use crate::wire::pack::plain::{PlainToken, PlainWalk};
use crate::wire::pack::walk::{Token, Walk};

/// What an item of a table takes at least, in bytes: a slot of an array, a node of a map.
const ITEM_BYTES: usize = 16;
const NODE_BYTES: usize = 32;

/// How often memory is looked at.
const ITEMS_BETWEEN_CHECKS: usize = 256;

/// One conversion into a VM.
pub(in crate::runtime::luau) struct ToLuau<'l> {
    lua: &'l Lua,
    limit: usize,
    frozen: bool,
    items: usize,
}

impl Drop for ToLuau<'_> {
    fn drop(&mut self) {
        // Cannot fail: the VM is ours, not a host's.
        let _ = self.lua.set_memory_limit(self.limit);
    }
}

impl<'l> ToLuau<'l> {
    /// A conversion into tables that scripts may change.
    pub(in crate::runtime::luau) fn new(lua: &'l Lua, pace: &'l Pace) -> Self {
        let _ = lua.set_memory_limit(0);
        let limit = peak_bytes(pace.limit());
        Self { lua, limit, frozen: false, items: 0 }
    }

    /// A conversion into read-only tables.
    pub(in crate::runtime::luau) fn frozen(lua: &'l Lua, pace: &'l Pace) -> Self {
        let mut conversion = Self::new(lua, pace);
        conversion.frozen = true;
        conversion
    }

    /// The VM.
    pub(in crate::runtime::luau) fn lua(&self) -> &'l Lua {
        self.lua
    }

    /// Converts a typed value. Null as a whole is nil, inside it is the sentinel.
    ///
    /// # Errors
    /// See [`ConvertErrorKind`].
    pub(in crate::runtime::luau) fn value(
        &mut self,
        value: &EncodedValue,
    ) -> Result<Value, ConvertError> {
        self.whole(Walk::new(value))
    }

    /// Converts plain JSON. Null as a whole is nil, inside it is the sentinel.
    ///
    /// # Errors
    /// See [`ConvertErrorKind`].
    pub(in crate::runtime::luau) fn json(
        &mut self,
        json: &EncodedJson,
    ) -> Result<Value, ConvertError> {
        self.whole(PlainWalk::new(json))
    }

    /// Converts JSON text.
    ///
    /// # Errors
    /// See [`ConvertErrorKind`].
    pub(in crate::runtime::luau) fn json_text(
        &mut self,
        text: &str,
    ) -> Result<Value, ConvertError> {
        let not_json = |_| ConvertErrorKind::Wire(WireError::Invalid("its text is not JSON"));
        self.json(&event_data_from_json(text.as_bytes()).map_err(not_json)?)
    }

    /// Makes a table for so many items and fields, if there is room for them.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::runtime::luau) fn table(
        &mut self,
        items: usize,
        fields: usize,
    ) -> Result<Table, ConvertError> {
        // A length may claim as many items as the input has bytes, in each of its levels: checked
        // before allocating.
        let bytes =
            items.saturating_mul(ITEM_BYTES).saturating_add(fields.saturating_mul(NODE_BYTES));
        self.room(bytes)?;
        Ok(self.lua.create_table_with_capacity(items, fields)?)
    }

    /// Makes a list for so many items, which stays one when it is empty.
    ///
    /// # Errors
    /// There is no room for it.
    pub(in crate::runtime::luau) fn list(&mut self, len: usize) -> Result<Table, ConvertError> {
        let table = self.table(len, 0)?;
        table.set_metatable(Some(lists(self.lua)?.0.clone()))?;
        Ok(table)
    }

    /// Makes a list of what these items become.
    ///
    /// # Errors
    /// There is no room for it, or an item cannot be converted.
    pub(in crate::runtime::luau) fn list_of<T, V: IntoLua>(
        &mut self,
        items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        convert: impl Fn(&mut Self, T) -> Result<V, ConvertError>,
    ) -> Result<Table, ConvertError> {
        let items = items.into_iter();
        let table = self.list(items.len())?;
        for (index, item) in items.enumerate() {
            table.raw_seti(index + 1, convert(self, item)?)?;
        }
        Ok(table)
    }

    /// Makes a string.
    ///
    /// # Errors
    /// There is no room for it.
    pub(in crate::runtime::luau) fn text(
        &mut self,
        text: impl AsRef<str>,
    ) -> Result<Value, ConvertError> {
        let text = text.as_ref();
        self.room(text.len())?;
        Ok(Value::String(self.lua.create_string(text)?))
    }

    fn room(&mut self, bytes: usize) -> Result<(), ConvertError> {
        if self.lua.used_memory().saturating_add(bytes) <= self.limit {
            return Ok(());
        }
        // Garbage of earlier events may be what is in the way.
        Pace::collect(self.lua);
        if self.lua.used_memory().saturating_add(bytes) <= self.limit {
            Ok(())
        } else {
            Err(ConvertErrorKind::Memory.into())
        }
    }

    fn count(&mut self) -> Result<(), ConvertError> {
        self.items += 1;
        if self.items > CONVERT_ITEMS_MAX as usize {
            return Err(ConvertErrorKind::TooMany(CONVERT_ITEMS_MAX).into());
        }
        if self.items.is_multiple_of(ITEMS_BETWEEN_CHECKS) {
            self.room(0)?;
        }
        Ok(())
    }

    fn finish(&self, table: Table) -> Table {
        if self.frozen {
            table.set_readonly(true);
        }
        table
    }

    fn whole<'a>(&mut self, mut walk: impl Tokens<'a>) -> Result<Value, ConvertError> {
        match walk.token()? {
            None | Some(Token::Null | Token::End) => Ok(Value::Nil),
            Some(token) => self.item(&mut walk, &token, 0),
        }
    }

    fn item<'a>(
        &mut self,
        walk: &mut impl Tokens<'a>,
        token: &Token<'_>,
        depth: usize,
    ) -> Result<Value, ConvertError> {
        let lua = self.lua;
        Ok(match token {
            Token::Null | Token::End => Value::NULL,
            Token::Text(text) => self.text(text)?,
            Token::Integer(number) => Wide::luau(*number, lua)?,
            Token::UnsignedInteger(number) => Wide::Unsigned(*number).into_lua(lua)?,
            Token::Float(number) => Value::Number(*number),
            Token::Boolean(value) => Value::Boolean(*value),
            Token::Buffer(octets) => {
                self.room(octets.len())?;
                Value::Buffer(lua.create_buffer(octets.to_vec())?)
            }
            Token::Vector([x, y, z]) => Value::Vector(mlua::Vector::new(*x, *y, *z)),
            Token::Timestamptz(time) => Time(*time).into_lua(lua)?,
            Token::Interval(span) => Span(*span).into_lua(lua)?,
            Token::TimeZone(name) => Zone((*name).to_owned()).into_lua(lua)?,
            Token::LazyStringMap(pairs) => {
                check_depth(depth)?;
                let table = self.table(0, pairs.len())?;
                for (key, text) in pairs.clone() {
                    self.count()?;
                    self.room(text.len())?;
                    table.raw_set(key, text)?;
                }
                Value::Table(self.finish(table))
            }
            Token::Map(len) => Value::Table(self.map(walk, *len, depth)?),
            Token::List(len) => Value::Table(self.items(walk, *len, depth)?),
        })
    }

    fn items<'a>(
        &mut self,
        walk: &mut impl Tokens<'a>,
        len: usize,
        depth: usize,
    ) -> Result<Table, ConvertError> {
        check_depth(depth)?;
        let table = self.list(len)?;
        for index in 1..=len {
            self.count()?;
            let Some(token) = walk.token()? else { break };
            match token {
                // The text goes onto Luau's stack without a handle of its own: most items are
                // texts.
                Token::Text(text) => {
                    self.room(text.len())?;
                    table.raw_seti(index, text)?;
                }
                token => table.raw_seti(index, self.item(walk, &token, depth + 1)?)?,
            }
        }
        walk.token()?;
        Ok(self.finish(table))
    }

    fn map<'a, W: Tokens<'a>>(
        &mut self,
        walk: &mut W,
        len: usize,
        depth: usize,
    ) -> Result<Table, ConvertError> {
        check_depth(depth)?;
        let table = self.table(0, len)?;
        for _ in 0..len {
            self.count()?;
            let Some(key) = walk.token()? else { break };
            if let Token::Text(key) = key {
                self.room(key.len())?;
                let Some(token) = walk.token()? else { break };
                if let Token::Text(text) = token {
                    self.room(text.len())?;
                    table.raw_set(key, text)?;
                } else {
                    let value = self.item(walk, &token, depth + 1);
                    table.raw_set(key, value.map_err(|error| W::at(error, key))?)?;
                }
                continue;
            }
            if matches!(key, Token::Float(number) if number.is_nan()) {
                return Err(ConvertError::unsupported(
                    "a map with the key NaN, which no Luau table can have",
                ));
            }
            let key = self.item(walk, &key, depth + 1)?;
            let Some(token) = walk.token()? else { break };
            let value = self.item(walk, &token, depth + 1)?;
            table.raw_set(key, value)?;
        }
        walk.token()?;
        Ok(self.finish(table))
    }
}

/// Goes through the bytes of a value.
trait Tokens<'a> {
    fn token(&mut self) -> Result<Option<Token<'a>>, WireError>;

    /// An error of what is under a key.
    fn at(error: ConvertError, _key: &str) -> ConvertError {
        error
    }
}

impl<'a> Tokens<'a> for Walk<'a> {
    fn token(&mut self) -> Result<Option<Token<'a>>, WireError> {
        self.next()
    }
}

impl<'a> Tokens<'a> for PlainWalk<'a> {
    fn token(&mut self) -> Result<Option<Token<'a>>, WireError> {
        Ok(self.next()?.map(|token| match token {
            PlainToken::Null => Token::Null,
            PlainToken::Boolean(value) => Token::Boolean(value),
            PlainToken::Negative(number) => Token::Integer(number),
            PlainToken::Unsigned(number) => {
                i64::try_from(number).map_or(Token::UnsignedInteger(number), Token::Integer)
            }
            PlainToken::Float(number) => Token::Float(number),
            PlainToken::Text(text) | PlainToken::Key(text) => Token::Text(text),
            PlainToken::Array(len) => Token::List(len),
            PlainToken::Object(len) => Token::Map(len),
            PlainToken::End => Token::End,
        }))
    }

    fn at(error: ConvertError, key: &str) -> ConvertError {
        error.at(|| format!(".{key}"))
    }
}

/// A whole number as Luau gets it where it is known to be small: counters, versions.
pub(in crate::runtime::luau) fn whole(number: impl Into<i64>) -> Value {
    Value::Number(number.into() as f64)
}

/// Limit: a container at this depth is refused, the outermost being at 0.
fn check_depth(depth: usize) -> Result<(), ConvertError> {
    if depth < VALUE_DEPTH_MAX { Ok(()) } else { Err(ConvertErrorKind::TooDeep.into()) }
}
