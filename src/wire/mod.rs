//! Bytes ↔ messages, both ways, and the JSON form of values. Pure: no I/O, no clock, no recursion
//! that input can drive.
//!
//! [`data`] is what travels. [`pack`] reads and writes MessagePack. What the protocol says
//! (docs/protocol.md) is in [`message`] for links and in [`db`] and [`global_kv`] for the database.
//! [`json`] turns data into text and back.

pub mod data;
pub mod db;
pub mod error_record;
mod event;
mod figures;
pub mod global_kv;
pub mod json;
pub mod log_line;
pub mod message;
pub mod pack;
pub mod shop_update;
pub mod tenant_message;
#[cfg(test)]
mod tests;
pub mod timer;

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
            WireError::TooLarge { bytes, limit } => {
                write!(f, "{bytes} bytes are more than the {limit} allowed")
            }
            WireError::Invalid(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for WireError {}
