//! Mesophyll: the coordination layer of a template worker.
//!
//! A **master** process supervises **workers**; every **tenant** (a Discord guild or user) has its
//! own sandboxed Luau VM on exactly one worker; the master dispatches events to tenants and gets
//! correlated answers back; workers reach the database only through the master. This is the
//! synchronous form: OS threads, blocking sockets, channels.
//!
//! ```text
//! callers ─▶ api ─▶ WorkerPool          ─▶ WorkerProcessHandle ─▶ MesophyllServerConn ──WebSocket──┐   master
//!                              Store ◀─ DbState ◀─ /db/* ◀──────────────HTTP──────────────┐       │
//! ─────────────────────────────────────────────────────────────────────────────────────────┼───────┼──────────
//!          tenants' VMs ─▶ WorkerDb ─▶ MesophyllDbClient ─────────────────────────────────┘       │   worker
//!               ▲                                                                                 │
//!          LuauRuntime ◀─ WorkerThread ◀─ MesophyllClient ◀───────────────────────────────────────┘
//! ```
//!
//! The modules, from what everything stands on to what a person types: [`base`]; [`wire`]; [`net`];
//! [`store`]; [`cluster`]; [`dispatch`]; [`feeds`]; [`runtime`]; [`sandbox`];
//! [`protocol`]; [`pool`]; [`api`]; [`master`]; [`cli`]. Each
//! imports only from those before it (a test reads the `use` lines). docs/architecture.md tells how
//! an event travels, docs/threads.md which thread runs what.

pub mod api;
pub mod base;
pub mod cli;
pub mod cluster;
pub mod dispatch;
pub mod feeds;
pub mod master;
pub mod net;
pub mod pool;
pub mod protocol;
pub mod runtime;
#[cfg(feature = "worker")]
pub mod sandbox;
pub mod store;
pub mod wire;
