//! Bytes ↔ messages, both ways, and the JSON form of values. Pure: no I/O, no clock, no recursion that input can drive.
//!
//! [`reader`] and [`writer`] are the primitives. On them stand [`shape`], the forms of structs and enums, and two pairs of
//! walker and checker: [`walk`]/[`value`] for typed values (in [`token`]s) and [`plain`] for JSON data, with `skim` for the
//! bulk of either. What the protocol says (docs/protocol.md) is in [`message`] for links and in [`db`] and [`global_kv`] for the database; [`json`] turns either
//! kind of data into text and back; [`codec`] is for users' own types.

mod base64;
pub mod build;
pub mod codec;
pub mod data;
pub mod db;
mod event;
mod figures;
pub mod global_kv;
#[cfg(test)]
mod golden;
pub mod json;
mod json_reader;
mod json_writer;
mod jsonb;
pub mod log_line;
pub mod message;
pub mod plain;
#[cfg(test)]
mod property;
pub mod reader;
pub mod shape;
mod skim;
mod storable;
mod tagged;
pub mod timezone;
pub mod token;
pub mod value;
pub mod walk;
pub mod writer;

use std::fmt;

/// Why bytes are not the message that they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// The input ends in the middle of a value, or claims more items than it has bytes.
    Truncated,
    /// Bytes follow the value.
    Trailing,
    /// It nests deeper than any peer of ours sends.
    TooDeep,
    /// It is larger than it may be, in bytes.
    TooLarge {
        /// Size in bytes.
        bytes: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// It is MessagePack, but not of the expected shape; the text says what was wrong.
    Invalid(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Truncated => f.write_str("the message is cut short"),
            WireError::Trailing => f.write_str("bytes follow the message"),
            WireError::TooDeep => f.write_str("the message nests too deep"),
            WireError::TooLarge { bytes, limit } => write!(f, "{bytes} bytes are more than the {limit} allowed"),
            WireError::Invalid(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for WireError {}
