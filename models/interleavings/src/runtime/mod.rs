//! The product's `runtime/`, as far as it is checked.

pub mod luau;
