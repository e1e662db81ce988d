//! What scripts log: `print` and `ctx.log`, to the log of the process, under a target of the
//! tenant's own.
//!
//! Bounded in size and rate, because a tenant decides what it logs and how often. One a tenant, on
//! its executor.

use std::borrow::Cow;
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
use crate::runtime::TenantDb;
use crate::wire::data::TenantId;

/// A tenant's way into the log, and to those that follow it.
pub(super) struct ScriptLog {
    tenant: TenantId,
    target: String,
    db: Arc<dyn TenantDb>,
    rate: RefCell<Rate>,
    dropped: Cell<u64>,
    gauges: Arc<Gauges>,
}

impl ScriptLog {
    /// `burst`: so many lines may come at once.
    pub(super) fn new(
        tenant: TenantId,
        burst: u32,
        db: &Arc<dyn TenantDb>,
        gauges: &Arc<Gauges>,
    ) -> Self {
        Self {
            tenant,
            target: format!("tenant/{tenant}"),
            db: db.clone(),
            rate: RefCell::new(Rate::new(SCRIPT_LOG_LINES_PER_SECOND, burst)),
            dropped: Cell::new(0),
            gauges: gauges.clone(),
        }
    }

    /// Logs a line, if the tenant has not logged too much of late. `request_id` is that of the
    /// event that the line is about. Those that follow the tenant's log get what matters to an
    /// author also where the log of the process has only what matters more.
    pub(super) fn write(&self, level: Level, request_id: Option<RequestId>, text: &str) {
        let is_logged = log::log_enabled!(target: &self.target, level);
        if !is_logged && level > Level::Info {
            return;
        }
        if !self.rate.borrow_mut().admits(Instant::now()) {
            self.dropped.set(self.dropped.get() + 1);
            self.gauges.dropped_log_lines.inc();
            return self.db.log(self.tenant, None);
        }
        let dropped = self.dropped.take();
        if dropped > 0 {
            log::warn!(target: &self.target, tenant:% = self.tenant; "{dropped} lines were dropped: at most {SCRIPT_LOG_LINES_PER_SECOND} a second");
        }
        let text = cut_line(text);
        let (tenant, line) = (self.tenant, escape::one_line(&text));
        match request_id {
            Some(id) => {
                log::log!(target: &self.target, level, tenant:% = tenant, request_id:% = id; "{line}");
            }
            None => log::log!(target: &self.target, level, tenant:% = tenant; "{line}"),
        }
        self.db.log(tenant, Some((level, text.into_owned())));
    }
}

/// The text cut to size. Where it becomes a line its control characters are escaped: a script must
/// not be able to write a line of its own.
fn cut_line(text: &str) -> Cow<'_, str> {
    let shown = cut(text, SCRIPT_LOG_LINE_MAX_BYTES);
    if shown.len() < text.len() { format!("{shown}…").into() } else { shown.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::SCRIPT_LINE_MAX_BYTES;

    #[test]
    fn a_script_cannot_forge_a_line() {
        let line = cut_line("a\nERROR b\x1b[2J\tö");
        assert_eq!(escape::one_line(&line), "a\\nERROR b\\u{1b}[2J\\tö");
        assert_eq!(cut_line(&"x".repeat(10_000)).len(), SCRIPT_LINE_MAX_BYTES);
    }
}
