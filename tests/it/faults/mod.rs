//! Faults on purpose, with the real binary: workers that misbehave, clients that flood, links that
//! break, a master that is killed. Each test proves that its fault took place, and that nobody else
//! noticed.

mod chaos;
mod clients;
mod kills;
mod links;
mod scene;
mod supervised;
