//! What is seen of the jobs that pass: traffic, errors, and tenants in whose events workers die.

pub(super) mod nowait_failures;
pub(super) mod quarantine;
pub(super) mod recent_errors;
pub(super) mod traffic;
