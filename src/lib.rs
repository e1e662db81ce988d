//! Mesophyll: the coordination layer of a template worker.
//!
//! A **master** process supervises **workers**; every **tenant** (a Discord guild or user) has its own sandboxed Luau VM
//! on exactly one worker; the master dispatches events to tenants and gets correlated answers back; workers reach the
//! database only through the master. This is the synchronous form: OS threads, blocking sockets, channels.
//!
//! ```text
//! callers ─▶ internal_api ─▶ WorkerPool ─▶ WorkerProcessHandle ─▶ MesophyllServerConn ──WebSocket──┐   master
//!                              Store ◀─ DbState ◀─ /db/* ◀──────────────HTTP──────────────┐       │
//! ─────────────────────────────────────────────────────────────────────────────────────────┼───────┼──────────
//!          tenants' VMs ─▶ WorkerDb ─▶ MesophyllDbClient ─────────────────────────────────┘       │   worker
//!               ▲                                                                                 │
//!          LuauRuntime ◀─ WorkerThread ◀─ MesophyllClient ◀───────────────────────────────────────┘
//! ```
//!
//! The modules, from what everything stands on to what a person types: [`base`]; [`model`], [`sharding`],
//! [`busiest`], [`log_line`]; [`wire`], [`stream`], [`http`], [`link`]; [`store`], [`runtime`];
//! [`worker_like`]; [`mesophyll`]; [`worker`]; [`internal_api`]; [`config`], [`master`], [`cli`]. Each imports
//! only from those before it (a test reads the `use` lines). docs/architecture.md tells how an event travels,
//! docs/threads.md which thread runs what.

pub mod base;
pub mod busiest;
pub mod cli;
pub mod config;
pub mod http;
pub mod internal_api;
pub mod link;
pub mod log_line;
pub mod master;
pub mod mesophyll;
pub mod model;
pub mod runtime;
pub mod sharding;
pub mod store;
pub mod stream;
pub mod wire;
pub mod worker;
pub mod worker_like;
