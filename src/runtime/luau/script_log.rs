//! What scripts log: `print` and `ctx.log`, to the log of the process, under a target of the
//! tenant's own.
//!
//! Bounded in size and rate, because a tenant decides what it logs and how often. One a tenant, on
//! its executor.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::gauges::Gauges;
use super::script_error::cut;
use crate::base::escape;
use crate::base::limits::{SCRIPT_LOG_LINE_MAX_BYTES, SCRIPT_LOG_LINES_PER_SECOND};
use crate::base::throttle::Rate;
use crate::dispatch::RequestId;
use crate::wire::data::TenantId;

/// A tenant's way into the log.
#[derive(Debug)]
pub(super) struct ScriptLog {
    tenant: TenantId,
    target: String,
    rate: RefCell<Rate>,
    dropped: Cell<u64>,
    gauges: Arc<Gauges>,
}

impl ScriptLog {
    /// `burst`: so many lines may come at once.
    pub(super) fn new(tenant: TenantId, burst: u32, gauges: &Arc<Gauges>) -> Self {
        Self {
            tenant,
            target: format!("tenant/{tenant}"),
            rate: RefCell::new(Rate::new(SCRIPT_LOG_LINES_PER_SECOND, burst)),
            dropped: Cell::new(0),
            gauges: gauges.clone(),
        }
    }

    /// Logs a line, if the tenant has not logged too much of late. `request_id` is that of the
    /// event that the line is about.
    pub(super) fn write(&self, level: Level, request_id: Option<RequestId>, text: &str) {
        if !log::log_enabled!(target: &self.target, level) {
            return;
        }
        if !self.rate.borrow_mut().admits(Instant::now()) {
            self.dropped.set(self.dropped.get() + 1);
            self.gauges.dropped_log_lines.inc();
            return;
        }
        let dropped = self.dropped.take();
        if dropped > 0 {
            log::warn!(target: &self.target, tenant:% = self.tenant; "{dropped} lines were dropped: at most {SCRIPT_LOG_LINES_PER_SECOND} a second");
        }
        let (tenant, line) = (self.tenant, one_line(text));
        match request_id {
            Some(id) => {
                log::log!(target: &self.target, level, tenant:% = tenant, request_id:% = id; "{line}");
            }
            None => log::log!(target: &self.target, level, tenant:% = tenant; "{line}"),
        }
    }
}

/// The text cut to size, with its control characters escaped: a script must not be able to write a
/// line of its own.
fn one_line(text: &str) -> String {
    let shown = cut(text, SCRIPT_LOG_LINE_MAX_BYTES);
    let mut line = escape::one_line(shown).into_owned();
    if shown.len() < text.len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_cannot_forge_a_line() {
        assert_eq!(one_line("a\nERROR b\x1b[2J\tö"), "a\\nERROR b\\u{1b}[2J\\tö");
        assert!(one_line(&"x".repeat(10_000)).len() < SCRIPT_LOG_LINE_MAX_BYTES + 8);
    }
}
