//! What every room stands on and what knows none of them: limits, errors, threads, randomness,
//! figures, characters.

pub mod answer;
pub mod clock;
pub mod error;
pub mod escape;
#[cfg(test)]
pub(crate) mod generated_page;
pub mod labels;
pub mod limits;
pub mod metrics;
pub mod nearest;
pub mod on_demand_threads;
pub(crate) mod primitives;
pub mod process_figures;
pub mod random;
pub mod rates;
pub mod shared_bytes;
pub mod spare;
pub mod spin;
pub mod sync;
pub mod thread;
pub mod throttle;
mod turns;
