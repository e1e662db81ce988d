//! The product's `pool/observe/`, as far as it is checked.

#[path = "../../../../../src/pool/observe/quarantine.rs"]
pub mod quarantine;
#[path = "../../../../../src/pool/observe/recent_errors.rs"]
pub mod recent_errors;
#[path = "../../../../../src/pool/observe/traffic.rs"]
pub mod traffic;
