//! For tests: a worker's end of a link that says nothing by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::base::shared_bytes::Received;
use crate::net::link::{self, CloseCause, Link, LinkHandler, LinkLimits, LinkSender, Pulse};

pub(super) const WAIT: Duration = Duration::from_secs(60);

struct Quiet;

impl LinkHandler for Quiet {
    fn on_message(&mut self, _: &LinkSender, _: Received<'_>) -> Result<(), u16> {
        Ok(())
    }

    fn on_text(&mut self, _: &LinkSender, _: &str) -> Result<(), u16> {
        Ok(())
    }

    fn on_closed(&mut self, _: &CloseCause) {}
}

impl Pulse for Quiet {
    fn beat(&mut self, _: &LinkSender, now: Instant) -> Instant {
        now + WAIT
    }
}

/// Connects to the peer that listens at this address.
pub(super) fn quiet_link(address: SocketAddr, limits: &LinkLimits) -> Link {
    let service: link::Service = (Box::new(Quiet), Box::new(Quiet));
    link::connect("test", &[address], "localhost", "/ws", WAIT, limits, |_| service)
        .expect("a link")
}
