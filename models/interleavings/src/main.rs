//! Runs the product's concurrent parts under a scheduler that decides after each step which thread
//! goes on, and looks whether what must always hold holds in every order that it tries.
//!
//! The parts are the product's own files. They take their locks, condition variables and atomics
//! from `base/primitives.rs`, in whose place [`base::primitives`] stands here. What a part only
//! names and a model has no use for (processes, sockets, Luau) has a stand-in in this package.
//!
//! A model is worth what it finds: [`planted`] lists mistakes, each of which is put into a copy of
//! the sources, and each has to be found.

// What the product has and no model uses.
#![allow(dead_code, unused_imports)]

// The product's files name this crate, whose channels would block the one thread that there is:
// ours have its names.
extern crate self as crossbeam_channel;
pub use channel::{Receiver, RecvTimeoutError, Sender, bounded};

mod api;
mod base;
mod channel;
mod check;
mod cluster;
#[path = "../../../src/dispatch/mod.rs"]
mod dispatch;
mod dispatch_models;
mod net;
mod planted;
mod pool;
mod protocol;
mod runtime;
mod store;
#[path = "../../../src/wire/mod.rs"]
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let models: Vec<check::Model> = [
        base::models::models(),
        dispatch_models::models(),
        net::link::pending_models::models(),
        net::link::queue_models::models(),
        net::broker_models::models(),
        protocol::master::unheard_models::models(),
        runtime::luau::mailbox_models::models(),
        runtime::luau::ticker_models::models(),
        pool::admission_models::models(),
        pool::board_models::models(),
        api::admission_models::models(),
    ]
    .into_iter()
    .flatten()
    .collect();
    check::run(&models)
}
