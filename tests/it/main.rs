//! The integration tests: one binary, so that they link once. Each module is about one thing; `support` is what they share.

mod db_client;
mod db_routes;
mod protocol;
mod store_conformance;
mod store_crash;
mod store_differential;
mod supervision;
mod support;
