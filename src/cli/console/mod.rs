//! What commands have around them: terminal, log, signals, service manager, and a running master.

pub(super) mod client;
#[cfg(feature = "luau")]
pub(super) mod interruptible;
#[cfg(feature = "luau")]
pub(super) mod lifeline;
pub(super) mod logging;
pub(super) mod output;
pub(super) mod signals;
pub(super) mod systemd;
pub(super) mod table;
pub(super) mod watch;
