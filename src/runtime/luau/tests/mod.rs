//! Tests of the runtime as its users see it: scripts go in, answers come out, over a database in
//! memory.

mod api;
mod attacks;
mod check;
mod clock;
mod coroutines;
mod costs;
mod docs;
mod dropped;
mod escapes;
mod fairness;
mod figures;
mod footprint;
mod hashing;
mod later;
mod life;
mod messages;
mod outside;
mod sandbox;
mod scheduling;
mod suite;
mod support;
mod templates;
mod timers;
mod values;
