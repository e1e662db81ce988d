//! The last errors of each tenant, kept in its records under the scope `#err`, which scripts can
//! read and not write.
//!
//! An executor notes an error and goes on: nothing here delays an answer. What a tenant's errors of
//! a second come to is written together, by one thread, so that a storm of errors is one write a
//! second for its tenant and one operation at a time for the database; there is no such thread
//! while there are no errors. What finds no room is counted and dropped; records are for people,
//! and people look at the newest.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::script_error::cut;
use crate::base::error::DbError;
use crate::base::limits::{
    ERROR_RECORD_DELAY, ERROR_RECORD_MAX_BYTES, ERROR_RECORD_RETRY, ERROR_RECORDS_BYTES,
    ERROR_RECORDS_FLUSH, ERROR_RECORDS_KEPT, IO_THREAD_IDLE_MAX,
};
use crate::base::on_demand_threads::OnDemandThreads;
use crate::base::sync::{Lock, Signal};
use crate::base::thread::panic_message;
use crate::runtime::TenantDb;
use crate::wire::data::{
    DbOp, ERRORS_KEY, ERRORS_SCOPE, KeyValueOp, KhronosValue, Scopes, TenantId, Timestamp,
};
use crate::wire::error_record;

/// Limit: the name of a template or an event in a record; the rest is cut off.
const NAME_MAX_BYTES: usize = 128;

/// An error as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Noted {
    template: String,
    event: String,
    at: Timestamp,
    message: String,
    traceback: Vec<String>,
}

impl Noted {
    /// `text`: the message, and a line for each script frame below it.
    fn new(template: &str, event: &str, text: &str) -> Self {
        let lines: Vec<&str> = text.split('\n').collect();
        let is_frame = |line: &&&str| line.starts_with("  in ") || line.starts_with("  … and ");
        let frames = lines.iter().skip(1).rev().take_while(is_frame).count();
        let (message, traceback) = lines.split_at(lines.len() - frames);
        // No store keeps NUL characters.
        let kept = |text: &str, max| cut(text, max).replace('\0', "\u{fffd}");
        Self {
            template: kept(template, NAME_MAX_BYTES),
            event: kept(event, NAME_MAX_BYTES),
            at: Timestamp::now(),
            message: kept(&message.join("\n"), ERROR_RECORD_MAX_BYTES),
            traceback: traceback
                .iter()
                .map(|line| kept(line.trim_start(), 2 * NAME_MAX_BYTES))
                .collect(),
        }
    }

    fn bytes(&self) -> usize {
        let traceback: usize =
            self.traceback.iter().map(|line| line.len() + size_of::<String>()).sum();
        size_of::<Self>() + self.template.len() + self.event.len() + self.message.len() + traceback
    }

    fn into_value(self) -> KhronosValue {
        let Self { template, event, at, message, traceback } = self;
        error_record::entry(at, event, message, template, traceback)
    }
}

/// Where executors note errors, and the thread that writes them. Called from any thread.
pub(super) struct ErrorLog {
    shared: Arc<SharedErrors>,
    /// One thread, whose job is to write what is noted until nothing is left.
    writer: OnDemandThreads<TenantId, ()>,
}

#[derive(Default)]
struct SharedErrors {
    state: Lock<ErrorsState>,
    changed: Signal,
}

#[derive(Default)]
struct ErrorsState {
    /// Limit: `ERROR_RECORDS_BYTES` of all, `ERROR_RECORDS_KEPT` of each tenant, the newest last.
    noted: HashMap<TenantId, VecDeque<Noted>>,
    bytes: usize,
    /// When each of them is to be written; in the order of the times, but for those that are tried
    /// again.
    due: VecDeque<(Instant, TenantId)>,
    /// How many were not recorded.
    dropped: u64,
    /// The writer is at it, or about to be.
    is_writing: bool,
    /// Until then what is noted is still written.
    closed: Option<Instant>,
}

impl ErrorsState {
    fn add(&mut self, tenant: TenantId, errors: impl IntoIterator<Item = Noted>, due: Instant) {
        for error in errors {
            if self.bytes + error.bytes() > ERROR_RECORDS_BYTES {
                self.lose(1, "there are too many");
                continue;
            }
            self.bytes += error.bytes();
            let of_tenant = self.noted.entry(tenant).or_insert_with(|| {
                self.due.push_back((due, tenant));
                VecDeque::new()
            });
            of_tenant.push_back(error);
            if of_tenant.len() > ERROR_RECORDS_KEPT
                && let Some(oldest) = of_tenant.pop_front()
            {
                self.bytes -= oldest.bytes();
            }
        }
    }

    fn lose(&mut self, count: usize, why: &str) {
        let before = self.dropped;
        self.dropped += count as u64;
        // Logged each time that there are twice as many.
        if before == 0 || before.ilog2() < self.dropped.ilog2() {
            log::warn!("{} errors of templates were not recorded, the last: {why}", self.dropped);
        }
    }

    fn take(&mut self, tenant: TenantId) -> VecDeque<Noted> {
        let errors = self.noted.remove(&tenant).unwrap_or_default();
        self.bytes -= errors.iter().map(Noted::bytes).sum::<usize>();
        errors
    }
}

impl ErrorLog {
    /// A log whose writer is called like this, once there is something to write.
    pub(super) fn new(thread_name: String, db: Arc<dyn TenantDb>) -> Self {
        let shared = Arc::<SharedErrors>::default();
        let noted = shared.clone();
        let writer = OnDemandThreads::new(vec![thread_name], 1, IO_THREAD_IDLE_MAX, move |()| {
            while let Some((tenant, errors)) = noted.next() {
                let count = errors.len();
                let writing = AssertUnwindSafe(|| write(&noted, &*db, tenant, errors));
                if let Err(payload) = catch_unwind(writing) {
                    let why = format!("of {tenant}: a panic: {}", panic_message(payload.as_ref()));
                    noted.state.lock().lose(count, &why);
                }
            }
        });
        Self { shared, writer }
    }

    /// Records an error of a tenant's template: its text with the frames below it.
    pub(super) fn record(&self, tenant: TenantId, template: &str, event: &str, text: &str) {
        let error = Noted::new(template, event, text);
        let mut state = self.shared.state.lock();
        if state.closed.is_some() {
            return state.lose(1, "the worker ended");
        }
        state.add(tenant, [error], Instant::now() + ERROR_RECORD_DELAY);
        if !state.is_writing {
            // Without a thread now, the next error asks again.
            state.is_writing = self.writer.submit(tenant, ()).is_ok();
        }
    }

    /// Takes no more errors, and has those written that are left, if the database takes them soon.
    ///
    /// # Blocks
    /// `ERROR_RECORDS_FLUSH` at most.
    pub(super) fn close(&self) {
        let until = Instant::now() + ERROR_RECORDS_FLUSH;
        let mut state = self.shared.state.lock();
        state.closed = Some(until);
        self.shared.changed.notify_all();
        drop(self.shared.changed.wait_until(state, until, |state| !state.is_writing));
    }

    /// Joins the thread.
    ///
    /// # Blocks
    /// As long as the operation that is under way.
    pub(super) fn stop(&self) {
        self.writer.finish();
        let mut state = self.shared.state.lock();
        let left: usize = state.noted.values().map(VecDeque::len).sum();
        if left > 0 {
            state.lose(left, "the worker ended");
        }
    }

    /// How many errors were not recorded.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.state.lock().dropped
    }

    /// How many threads there are.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.writer.threads()
    }
}

impl SharedErrors {
    /// The next tenant whose errors are to be written, and they. Nothing: none are left, or it is
    /// over.
    ///
    /// Blocks: until they are due; closing the log wakes it.
    fn next(&self) -> Option<(TenantId, VecDeque<Noted>)> {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            let is_over = state.closed.is_some_and(|until| now >= until);
            match state.due.front().copied().filter(|_| !is_over) {
                Some((due, tenant)) if due <= now || state.closed.is_some() => {
                    state.due.pop_front();
                    let errors = state.take(tenant);
                    return Some((tenant, errors));
                }
                Some((due, _)) => state = self.changed.wait(state, due),
                None => {
                    state.is_writing = false;
                    self.changed.notify_all();
                    return None;
                }
            }
        }
    }

    /// Puts back what could not be written, behind nothing that came since.
    fn put_back(&self, tenant: TenantId, errors: VecDeque<Noted>) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            state.lose(errors.len(), "the worker ended");
        } else {
            let since = state.take(tenant);
            state.due.retain(|(_, other)| *other != tenant);
            state.add(tenant, errors.into_iter().chain(since), Instant::now() + ERROR_RECORD_RETRY);
        }
    }
}

fn write(shared: &SharedErrors, db: &dyn TenantDb, tenant: TenantId, errors: VecDeque<Noted>) {
    let kept = errors.clone();
    match record(db, tenant, errors) {
        Ok(()) => {}
        // It was not written, and may be later.
        Err(DbError::Busy(_) | DbError::Unavailable(_)) => shared.put_back(tenant, kept),
        // `NotOwner`: it moved away before they were due.
        Err(error) => shared.state.lock().lose(kept.len(), &format!("of {tenant}: {error}")),
    }
}

/// Puts new errors in front of those that are recorded.
fn record(db: &dyn TenantDb, tenant: TenantId, errors: VecDeque<Noted>) -> Result<(), DbError> {
    let (scopes, key) = (Scopes::new([ERRORS_SCOPE]), ERRORS_KEY.to_owned());
    let get = KeyValueOp::Get { scopes: scopes.clone(), key: key.clone() };
    let before = db.ask(DbOp::Kv(tenant, get))?.into_record()?;
    let newest_first = errors.into_iter().rev().map(Noted::into_value);
    let value = error_record::with_newest(before.as_ref(), newest_first);
    db.ask(DbOp::Kv(tenant, KeyValueOp::Set { scopes, key, value })).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId::Guild(1);

    #[test]
    fn a_message_is_told_from_the_frames_below_it() {
        let noted = Noted::new(
            "main",
            "E",
            "main.luau:3: two\n  in lines\nof text\n  in main.luau:3 function 'f'\n  … and 4 more",
        );
        assert_eq!(noted.message, "main.luau:3: two\n  in lines\nof text");
        assert_eq!(noted.traceback, ["in main.luau:3 function 'f'", "… and 4 more"]);
        assert_eq!(Noted::new("main", "E", "  in a message").message, "  in a message");
        assert_eq!(Noted::new("main", "E", "a\0b").message, "a\u{fffd}b");
        let long = Noted::new(&"t".repeat(1000), &"ä".repeat(1000), &"m".repeat(100_000));
        assert!(long.bytes() < ERROR_RECORD_MAX_BYTES + 1024);
    }

    #[test]
    fn a_storm_keeps_the_newest_of_each_tenant_and_a_bound_in_all() {
        let mut state = ErrorsState::default();
        let (now, error) =
            (Instant::now(), |number: usize| Noted::new("main", "E", &format!("{number}")));
        state.add(TENANT, (0..1000).map(error), now);
        assert_eq!((state.due.len(), state.noted[&TENANT].len()), (1, ERROR_RECORDS_KEPT));
        assert_eq!(state.noted[&TENANT].back().expect("some").message, "999");
        for number in 0..100_000 {
            state.add(TenantId::User(number), [error(0)], now);
        }
        assert!(state.bytes <= ERROR_RECORDS_BYTES && state.dropped > 0);
        assert_eq!(state.due.len(), state.noted.len());
        let tenants: Vec<_> = state.noted.keys().copied().collect();
        tenants.into_iter().for_each(|tenant| drop(state.take(tenant)));
        assert_eq!(state.bytes, 0);
    }
}
