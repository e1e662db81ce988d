//! A request (a job for a tenant and its one answer), and the trait of all that takes requests.
//!
//! What a runtime and a worker need of each other without knowing each other. No I/O; nothing here
//! starts a thread.

pub mod busiest;
mod job;
mod messages;
mod observed;
mod request;
mod slot;
pub mod worker_like;

pub use job::{Answer, AnswerTaker, Cancelled, DispatchResult, EventWatcher, Job, RequestId};
pub use messages::{HostAnswer, MessageAnswer, MessageCarrier, MessageDoor};
pub use observed::{JobKind, Observed, Observer};
pub use request::{Delivery, Refused, Request};
pub use slot::Slot;
