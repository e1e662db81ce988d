//! The product's `protocol/`, as far as it is checked.

pub mod master;
