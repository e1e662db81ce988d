//! What links have moved, and how soon their peer answers a ping. Written by the links' two
//! threads, read by any thread; it may outlive a link, so that those that one peer has one after
//! the other count in the same place.

use crate::base::metrics::{Counter, Histogram};

/// Figures of the links of one peer.
#[derive(Debug, Default)]
pub struct LinkStats {
    /// Whole messages that came in.
    pub received_messages: Counter,
    /// Bytes that came in, with framing.
    pub received_bytes: Counter,
    /// Messages that left.
    pub sent_messages: Counter,
    /// Bytes that left, with framing.
    pub sent_bytes: Counter,
    /// From a ping's being queued to its pong.
    pub round_trips: Histogram,
}
