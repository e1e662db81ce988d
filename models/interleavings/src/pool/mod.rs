//! The product's `pool/`, as far as it is checked.

#[path = "../../../../src/pool/admission.rs"]
mod admission;
pub mod admission_models;
#[path = "../../../../src/pool/board.rs"]
mod board;
pub mod board_models;
#[path = "../../../../src/pool/event_rules.rs"]
mod event_rules;

mod observe;
mod process;
