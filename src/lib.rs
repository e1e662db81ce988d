//! Mesophyll: the coordination layer of a template worker.
//!
//! A **master** process supervises **workers**; every **tenant** (a Discord guild or user) has its own sandboxed Luau VM
//! on exactly one worker; the master dispatches events to tenants and gets correlated answers back; workers reach the
//! database only through the master. This is the synchronous form: OS threads, blocking sockets, channels.

pub mod cli;
pub mod config;
pub mod error;
pub mod http;
pub mod internal_api;
pub mod limits;
pub mod link;
pub mod master;
pub mod mesophyll;
pub mod model;
pub mod random;
pub mod runtime;
pub mod sharding;
pub mod store;
pub mod thread;
pub mod wire;
pub mod worker;
pub mod worker_like;
