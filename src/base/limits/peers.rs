//! The bounds of what the masters of a cluster ask each other; part of `limits.rs`, with its rules.

use std::time::Duration;

/// How long a request that names no deadline waits for its tenant to be somewhere, and for another
/// master's answer: as long as a command waits for data.
pub const FORWARD_DEADLINE: Duration = Duration::from_secs(25);

/// What a master keeps of a forwarded request's deadline for the way back, so that the answer that
/// the deadline has passed comes from the master that knows whether the event was sent.
pub const FORWARD_MARGIN: Duration = Duration::from_millis(50);

/// Limit: time to connect to another master. A longer one is *not sent*, and tried again.
pub const FORWARD_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a master waits before it tries a tenant's place again that did not take a request: at
/// least this, and at most two and a half times as long.
pub const FORWARD_PAUSE: Duration = Duration::from_millis(100);

/// Connections to one master that are kept between requests; above what the answer takes another
/// is opened and closed again.
pub const FORWARD_IDLE_CONNECTIONS: usize = 16;

/// How long such a connection is kept: shorter than the other master does
/// ([`super::HTTP_IDLE_TIMEOUT`]), so that it is seldom closed under a request.
pub const FORWARD_IDLE_AGE: Duration = Duration::from_secs(45);

/// How long the addresses behind another master's name are used before it is looked up again.
pub const FORWARD_ADDRESS_AGE: Duration = Duration::from_secs(30);

/// Limit: how far the clocks of two masters may be apart; a request that was forwarded earlier or
/// later is refused.
pub const PEER_CLOCKS_APART: Duration = Duration::from_secs(30);

/// Limit: forwarded requests that are remembered, so that none is taken twice: half a minute of
/// 4,000 a second, in some 8 MiB. Of more the oldest are forgotten, and what is as old is refused.
pub const PEER_NONCES_MAX: usize = 128 * 1024;
