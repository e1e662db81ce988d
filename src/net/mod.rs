//! Bytes between processes: connections, HTTP on them, and links that carry messages.

pub mod broker;
pub mod http;
pub mod https;
pub mod lifeline;
pub mod link;
pub mod lookup;
pub mod stream;
