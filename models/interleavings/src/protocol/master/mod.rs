//! The product's `protocol/master/`, as far as it is checked.

#[path = "../../../../../src/protocol/master/unheard.rs"]
mod unheard;
pub mod unheard_models;
