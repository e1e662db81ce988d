//! MessagePack: values and JSON data as bytes, checked, walked and built.
//!
//! [`reader`] and [`writer`] are the primitives. On them stand [`shape`], the forms of structs and
//! enums, and two pairs of walker and checker: [`walk`]/[`value`] for typed values (in [`token`]s)
//! and [`plain`] for JSON data, with `skim` for the bulk of either. [`codec`] is for users' own
//! types.

pub mod build;
pub mod codec;
pub mod plain;
pub mod reader;
pub mod shape;
pub(super) mod skim;
pub(super) mod storable;
pub mod token;
pub mod value;
pub mod walk;
pub mod writer;
