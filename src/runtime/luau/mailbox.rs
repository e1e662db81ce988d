//! An executor's inbox: jobs, cancellations and results of I/O, from any thread; taken out a batch
//! at a time.
//!
//! Not a channel, for three reasons: only jobs may be refused when it is full, an executor wants
//! everything at once for one lock, and `cancel` must know which request ids are under way. The
//! executor owns what it takes out.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use crossbeam_channel::Sender;

use super::io::IoDone;
use super::ticker::Tick;
use crate::base::error::DispatchError;
use crate::base::limits::{EXECUTOR_INBOX_MAX, EXECUTOR_JOBS_MAX_BYTES};
use crate::base::primitives::MutexGuard;
use crate::base::primitives::atomic::{AtomicBool, Ordering};
use crate::base::spin::Spin;
use crate::base::sync::{Lock, Signal};
use crate::dispatch::{Answer, Cancelled, Job, RequestId};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{IdMap, TenantId};

/// What an executor is told.
pub(super) enum MailboxMessage {
    /// A job for a tenant.
    Submit { tenant: TenantId, request_id: RequestId, job: Job, answer: Answer },
    /// A job is given up.
    Cancel { tenant: TenantId, request_id: RequestId },
    /// A tenant's own template may have changed.
    Template { tenant: TenantId },
    /// The tenants of these shards are another master's.
    Shards(ShardSet),
    /// Something that an I/O thread did for a tenant.
    Io(IoDone),
    /// Something waits until nothing runs, and is told when the next timer fires.
    Rest(Sender<Option<Instant>>),
}

/// Executors that wait for something to do.
static EXECUTORS: Spin = Spin::new();

/// The inbox.
pub(super) struct Mailbox {
    /// Tells what runs that work has come.
    tick: Tick,
    state: Lock<MailboxState>,
    /// Limit: `EXECUTOR_JOBS_MAX_BYTES`; less in tests.
    jobs_max_bytes: usize,
    arrived: Signal,
    /// Mirrors "the queue is not empty", so that a busy executor need not lock to find nothing.
    filled: AtomicBool,
}

#[derive(Default)]
struct MailboxState {
    // Limit: `EXECUTOR_INBOX_MAX` jobs; one cancellation for each job under way; one I/O result for
    // each operation under way; one change for each tenant; one set of shards behind each of these;
    // one for each thread that waits for a rest.
    queue: VecDeque<MailboxMessage>,
    jobs: usize,
    /// Tenants whose changed template is told of in the queue.
    changed: HashSet<TenantId>,
    /// Request ids that have no answer yet, as far as the executor has said, with the size of
    /// their jobs.
    under_way: IdMap<RequestId, usize>,
    /// Limit: `jobs_max_bytes`, or one job of any size; the sum of the sizes in `under_way`.
    bytes: usize,
    waiting: bool,
    closed: bool,
}

impl Mailbox {
    pub(super) fn new(tick: Tick) -> Self {
        Self {
            tick,
            state: Lock::default(),
            jobs_max_bytes: EXECUTOR_JOBS_MAX_BYTES,
            arrived: Signal::new(),
            filled: AtomicBool::new(false),
        }
    }

    /// Puts a job in. A full or closed inbox answers it at once.
    pub(super) fn submit(&self, tenant: TenantId, request_id: RequestId, job: Job, answer: Answer) {
        let bytes = job.bytes();
        let mut state = self.state.lock();
        let is_full = state.jobs >= EXECUTOR_INBOX_MAX
            || (state.bytes > 0 && state.bytes.saturating_add(bytes) > self.jobs_max_bytes);
        let refusal = if state.closed {
            "the worker is stopping"
        } else if is_full {
            "the worker has too much to do"
        } else {
            state.jobs += 1;
            state.bytes += bytes;
            let before = state.under_way.insert(request_id, bytes);
            state.bytes -= before.unwrap_or(0);
            self.push(state, MailboxMessage::Submit { tenant, request_id, job, answer });
            return;
        };
        // Not under the lock: an answer may call back.
        drop(state);
        answer.send(Err(DispatchError::Busy(refusal.to_owned())));
    }

    /// Gives a job up, if it is under way.
    pub(super) fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        let mut state = self.state.lock();
        if state.closed || !state.remove(request_id) {
            return Cancelled::Unknown;
        }
        self.push(state, MailboxMessage::Cancel { tenant, request_id });
        Cancelled::Sent
    }

    /// Tells that a tenant's own template may have changed.
    pub(super) fn template_changed(&self, tenant: TenantId) {
        let mut state = self.state.lock();
        // Once is enough: what is told of is read after it was taken out.
        if !state.closed && state.changed.insert(tenant) {
            self.push(state, MailboxMessage::Template { tenant });
        }
    }

    /// Tells that the tenants of these shards are another master's.
    pub(super) fn drop_shards(&self, shards: &ShardSet) {
        let mut state = self.state.lock();
        if let Some(MailboxMessage::Shards(dropped)) = state.queue.back_mut() {
            *dropped = dropped.with(shards);
        } else if !state.closed {
            self.push(state, MailboxMessage::Shards(*shards));
        }
    }

    /// Delivers the result of an operation; never refused, because operations under way are
    /// bounded.
    pub(super) fn done(&self, done: IoDone) {
        let state = self.state.lock();
        if !state.closed {
            self.push(state, MailboxMessage::Io(done));
        }
    }

    /// Has the executor say when nothing of what came before this runs any more, nor is under way
    /// on an I/O thread.
    pub(super) fn rest(&self, rest_tx: Sender<Option<Instant>>) {
        let state = self.state.lock();
        if !state.closed {
            self.push(state, MailboxMessage::Rest(rest_tx));
        }
    }

    /// Takes everything out, and forgets the request ids that have been answered.
    pub(super) fn take(&self, into: &mut VecDeque<MailboxMessage>, answered: &mut Vec<RequestId>) {
        if answered.is_empty() && !self.filled.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.lock();
        state.forget(answered);
        self.take_from(&mut state, into);
    }

    /// As [`Mailbox::take`], but waits until there is something, the inbox is closed, or `deadline`
    /// has passed.
    ///
    /// # Blocks
    /// Until then.
    pub(super) fn wait(
        &self,
        deadline: Option<Instant>,
        into: &mut VecDeque<MailboxMessage>,
        answered: &mut Vec<RequestId>,
    ) {
        self.state.lock().forget(answered);
        // A closed inbox and a deadline are noticed below: both can wait that long.
        EXECUTORS.wait(|| self.filled.load(Ordering::Acquire));
        let mut state = self.state.lock();
        state.waiting = true;
        state = self
            .arrived
            .wait_until(state, deadline, |state| !state.queue.is_empty() || state.closed);
        state.waiting = false;
        self.take_from(&mut state, into);
    }

    /// Refuses everything from now on and wakes the executor.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.under_way.clear();
        state.bytes = 0;
        self.arrived.notify_one();
    }

    /// Jobs that have no answer yet.
    pub(super) fn under_way(&self) -> usize {
        self.state.lock().under_way.len()
    }

    fn push(&self, mut state: MutexGuard<'_, MailboxState>, message: MailboxMessage) {
        state.queue.push_back(message);
        self.filled.store(true, Ordering::Release);
        let waiting = state.waiting;
        drop(state);
        if waiting {
            self.arrived.notify_one();
        } else {
            self.tick.work_came();
        }
    }

    fn take_from(&self, state: &mut MailboxState, into: &mut VecDeque<MailboxMessage>) {
        into.append(&mut state.queue);
        state.jobs = 0;
        state.changed.clear();
        self.filled.store(false, Ordering::Release);
    }
}

impl MailboxState {
    fn forget(&mut self, answered: &mut Vec<RequestId>) {
        for request_id in answered.drain(..) {
            self.remove(request_id);
        }
    }

    /// False if it is not there.
    fn remove(&mut self, request_id: RequestId) -> bool {
        let bytes = self.under_way.remove(&request_id);
        self.bytes -= bytes.unwrap_or(0);
        bytes.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::runtime::luau::ticker::Ticker;
    use crate::wire::data::{CreateEvent, EventData};

    const TENANT: TenantId = TenantId::Guild(1);

    fn mailbox() -> Mailbox {
        let (ticker, ticks) = Ticker::start("tick", 1, Duration::from_secs(60)).expect("start");
        ticker.stop();
        Mailbox::new(ticks[0].clone())
    }

    fn submit(
        mailbox: &Mailbox,
        number: u64,
    ) -> crossbeam_channel::Receiver<crate::dispatch::DispatchResult> {
        let (answer_tx, answer_rx) = bounded(1);
        mailbox.submit(TENANT, RequestId(number), Job::DropTenant, Answer::channel(answer_tx));
        answer_rx
    }

    #[test]
    fn a_full_inbox_is_busy_at_once_and_still_takes_cancellations() {
        let mailbox = mailbox();
        let first = submit(&mailbox, 0);
        for number in 1..EXECUTOR_INBOX_MAX as u64 {
            let _ = submit(&mailbox, number);
        }
        assert!(first.is_empty());
        let refused = submit(&mailbox, u64::MAX);
        assert!(matches!(refused.try_recv(), Ok(Err(DispatchError::Busy(_)))));
        assert_eq!(mailbox.cancel(TENANT, RequestId(0)), Cancelled::Sent);
        assert_eq!(mailbox.cancel(TENANT, RequestId(u64::MAX)), Cancelled::Unknown);
        let mut taken = VecDeque::new();
        mailbox.take(&mut taken, &mut Vec::new());
        assert_eq!(taken.len(), EXECUTOR_INBOX_MAX + 1);
        assert!(submit(&mailbox, 1).is_empty());
    }

    #[test]
    fn jobs_too_large_together_are_busy_until_some_end() {
        let mailbox = Mailbox { jobs_max_bytes: 100, ..mailbox() };
        let submit = |number: u64, bytes: usize| {
            let data = EventData::RawValue("x".repeat(bytes));
            let event = CreateEvent { name: String::new(), author: None, data };
            let (answer_tx, answer_rx) = bounded(1);
            mailbox.submit(
                TENANT,
                RequestId(number),
                Job::Dispatch(event),
                Answer::channel(answer_tx),
            );
            answer_rx
        };
        let is_busy = |answer_rx: &crossbeam_channel::Receiver<crate::dispatch::DispatchResult>| {
            matches!(answer_rx.try_recv(), Ok(Err(DispatchError::Busy(_))))
        };
        let alone = submit(0, 101);
        let beside = submit(1, 1);
        assert!(
            alone.is_empty() && is_busy(&beside),
            "one may be of any size, but has no company then"
        );
        let mut taken = VecDeque::new();
        mailbox.take(&mut taken, &mut Vec::new());
        assert!(is_busy(&submit(2, 1)), "being taken out is not being answered");
        mailbox.take(&mut taken, &mut vec![RequestId(0)]);
        let answers = [submit(3, 50), submit(4, 50)];
        assert!(answers.iter().all(|answer_rx| answer_rx.is_empty()));
        assert!(is_busy(&submit(5, 1)));
        assert_eq!(mailbox.cancel(TENANT, RequestId(4)), Cancelled::Sent);
        assert!(submit(6, 50).is_empty());
    }

    #[test]
    fn what_was_answered_cannot_be_cancelled() {
        let mailbox = mailbox();
        let _answer = submit(&mailbox, 7);
        let mut taken = VecDeque::new();
        mailbox.take(&mut taken, &mut vec![RequestId(7)]);
        assert_eq!(mailbox.cancel(TENANT, RequestId(7)), Cancelled::Unknown);
    }

    #[test]
    fn waiting_ends_with_a_message_a_deadline_or_the_end() {
        let mailbox = mailbox();
        let mut taken = VecDeque::new();
        mailbox.wait(Some(Instant::now() + Duration::from_millis(2)), &mut taken, &mut Vec::new());
        assert!(taken.is_empty());
        std::thread::scope(|scope| {
            scope.spawn(|| submit(&mailbox, 1));
            mailbox.wait(None, &mut taken, &mut Vec::new());
        });
        assert_eq!(taken.len(), 1);
        mailbox.close();
        mailbox.wait(None, &mut taken, &mut Vec::new());
        assert!(matches!(submit(&mailbox, 2).try_recv(), Ok(Err(DispatchError::Busy(_)))));
    }
}
