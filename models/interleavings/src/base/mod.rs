//! The product's `base/`, with other primitives and other threads.

#[path = "../../../../src/base/answer.rs"]
pub mod answer;
#[path = "../../../../src/base/error.rs"]
pub mod error;
#[path = "../../../../src/base/escape.rs"]
pub mod escape;
#[path = "../../../../src/base/labels.rs"]
pub mod labels;
#[path = "../../../../src/base/metrics.rs"]
pub mod metrics;
pub mod models;
#[path = "../../../../src/base/on_demand_threads.rs"]
pub mod on_demand_threads;
pub mod primitives;
#[path = "../../../../src/base/process_figures.rs"]
pub mod process_figures;
#[path = "../../../../src/base/random.rs"]
pub mod random;
#[path = "../../../../src/base/rates.rs"]
pub mod rates;
#[path = "../../../../src/base/shared_bytes.rs"]
pub mod shared_bytes;
#[path = "../../../../src/base/spare.rs"]
pub mod spare;
pub mod spin;
#[path = "../../../../src/base/sync.rs"]
pub mod sync;
pub mod thread;
#[path = "../../../../src/base/throttle.rs"]
pub mod throttle;
#[path = "../../../../src/base/turns.rs"]
mod turns;

// Has modules of its own, which a path of its own would have it look for elsewhere.
#[path = "../../../../src/base"]
mod product {
    pub mod limits;
}
pub use product::limits;
