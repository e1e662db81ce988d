//! Values between bytes and Luau, directly: no tree in between (docs/templates.md).
//!
//! `to_luau` builds Luau values from a walk over bytes, `from_luau` writes bytes from Luau values.
//! Both bound their depth, and what they allocate before they allocate it. Nothing can interrupt
//! them: the first is bounded by the size of its input, the second by that of its output and of the
//! VM, through which it goes a few times. `values` has the kinds that Luau lacks. Runs on
//! executors; has no owner.

mod from_luau;
mod to_luau;
pub(super) mod values;

use std::fmt;

use mlua::{AppDataRef, Lua, Table, Value};

pub(super) use self::from_luau::{
    is_list, json_from_luau, stray_key, value_from_luau, why_no_list,
};
pub(super) use self::to_luau::{ToLuau, whole};
use crate::base::limits::VALUE_DEPTH_MAX;
use crate::wire::WireError;

/// The whole numbers that Luau's numbers hold exactly, and their neighbours too.
pub(super) const EXACT_MAX: i64 = 1 << 53;

/// A number. Luau has one kind of them; that mlua hands whole ones over as integers says nothing.
pub(in crate::runtime::luau) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

/// The metatable that marks a VM's lists, as the VM keeps it for us.
struct Lists(Table);

/// Makes the metatable that marks a VM's lists: read-only and empty, so that it changes nothing of
/// what a list does. `table.clone` copies it, as it has no `__metatable`.
pub(super) fn install_lists(lua: &Lua) -> mlua::Result<Table> {
    let lists = lua.create_table()?;
    lists.set_readonly(true);
    lua.set_app_data(Lists(lists.clone()));
    Ok(lists)
}

fn lists(lua: &Lua) -> mlua::Result<AppDataRef<'_, Lists>> {
    lua.app_data_ref().ok_or_else(|| mlua::Error::runtime("the VM has no mark for lists"))
}

/// Whether a table has short texts as keys and values and nothing else.
struct TextCheck(Box<dyn Fn(&Table) -> bool>);

/// Has the maps of a VM that are all texts found so.
pub(super) fn install_text_check(lua: &Lua, are_texts: impl Fn(&Table) -> bool + 'static) {
    lua.set_app_data(TextCheck(Box::new(are_texts)));
}

/// Why a value was not converted.
#[derive(Debug)]
pub(super) struct ConvertError {
    kind: ConvertErrorKind,
    /// Where in the value, from the inside out.
    path: Vec<String>,
}

/// The kinds of [`ConvertError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConvertErrorKind {
    /// It nests deeper than [`VALUE_DEPTH_MAX`].
    TooDeep,
    /// It contains itself.
    Cycle,
    /// Its encoded form is larger than this.
    TooLarge(usize),
    /// It is more values than this, in all its tables.
    TooMany(u32),
    /// A value of this kind cannot leave Luau, or not in this place.
    Unsupported(String),
    /// The VM's memory does not suffice: a budget.
    Memory,
    /// The bytes are not what they should be.
    Wire(WireError),
}

impl ConvertError {
    pub(super) fn kind(&self) -> &ConvertErrorKind {
        &self.kind
    }

    fn unsupported(what: impl Into<String>) -> Self {
        ConvertErrorKind::Unsupported(what.into()).into()
    }

    /// Adds where it happened, on the way out.
    fn at(mut self, part: impl FnOnce() -> String) -> Self {
        self.path.push(part());
        self
    }
}

impl From<ConvertErrorKind> for ConvertError {
    fn from(kind: ConvertErrorKind) -> Self {
        Self { kind, path: Vec::new() }
    }
}

impl From<WireError> for ConvertError {
    fn from(error: WireError) -> Self {
        ConvertErrorKind::Wire(error).into()
    }
}

impl From<mlua::Error> for ConvertError {
    // Building tables and strings fails for want of memory only.
    fn from(_: mlua::Error) -> Self {
        ConvertErrorKind::Memory.into()
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ConvertErrorKind::TooDeep => {
                write!(f, "the value nests deeper than {VALUE_DEPTH_MAX} levels")
            }
            ConvertErrorKind::Cycle => f.write_str("the value contains itself"),
            ConvertErrorKind::TooLarge(limit) => {
                write!(f, "the value is larger than {} KiB once encoded", limit / 1024)
            }
            ConvertErrorKind::TooMany(limit) => {
                write!(f, "the value has more than {limit} values in its tables")
            }
            ConvertErrorKind::Unsupported(what) => f.write_str(what),
            ConvertErrorKind::Memory => f.write_str("not enough memory for the value"),
            ConvertErrorKind::Wire(error) => write!(f, "the value cannot be read: {error}"),
        }?;
        if !self.path.is_empty() {
            f.write_str(" (at ")?;
            // A path as deep as a cycle says nothing more than its beginning.
            self.path.iter().rev().take(8).try_for_each(|part| f.write_str(part))?;
            f.write_str(if self.path.len() > 8 { "…)" } else { ")" })?;
        }
        Ok(())
    }
}
