//! Golden vectors of the reference, and properties over random and damaged input.

mod golden;
mod property;
