//! One broadcast: its thread, which sends and gives up, and what it and the answers have come to.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::report::{BroadcastOutcome, BroadcastReport, BroadcastState};
use super::{BroadcastOffice, BroadcastOrder};
use crate::base::limits::{
    BROADCAST_ATTEMPTS_MAX, BROADCAST_CATCH_UP, BROADCAST_LOOK_AHEAD, BROADCAST_LOOK_TIMEOUT,
    BROADCAST_UNDER_WAY_MAX, BROADCAST_UNDER_WAY_MAX_BYTES, DISPATCH_DEADLINE,
};
use crate::base::sync::{Lock, Signal};
use crate::dispatch::worker_like::next_request_id;
use crate::dispatch::{Answer, Cancelled, Delivery, DispatchResult, Job, Request, RequestId};
use crate::wire::data::TenantId;

/// After an event found no room, until it is tried again.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// What the thread, those with answers and those that ask share.
pub(super) struct Broadcast {
    order: BroadcastOrder,
    since: Instant,
    total: usize,
    progress: Lock<BroadcastProgress>,
    /// Given when the thread has something else to do than before.
    changed: Signal,
}

struct BroadcastProgress {
    state: BroadcastState,
    /// The thread is to end at once.
    is_abandoned: bool,
    outcomes: [u64; BroadcastOutcome::ALL.len()],
    /// Limit: `BROADCAST_UNDER_WAY_MAX`.
    under_way: HashMap<RequestId, SentEvent>,
    /// Those that found no room, with when they are tried again; in this order.
    again: VecDeque<(Instant, TenantId, u32)>,
}

struct SentEvent {
    tenant: TenantId,
    attempts: u32,
    until: Instant,
}

impl Broadcast {
    pub(super) fn new(order: BroadcastOrder, total: usize) -> Self {
        let progress = BroadcastProgress {
            state: BroadcastState::Running,
            is_abandoned: false,
            outcomes: Default::default(),
            under_way: HashMap::new(),
            again: VecDeque::new(),
        };
        let (since, changed) = (Instant::now(), Signal::new());
        Self { order, since, total, progress: Lock::new(progress), changed }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.progress.lock().state >= BroadcastState::Stopping
    }

    /// Sends nothing more.
    pub(super) fn cancel(&self) {
        let mut progress = self.progress.lock();
        if progress.state == BroadcastState::Running {
            progress.state = BroadcastState::Stopping;
        }
        self.changed.notify_all();
    }

    /// The same, and waits for no answer.
    pub(super) fn abandon(&self) {
        self.progress.lock().is_abandoned = true;
        self.cancel();
    }

    /// The thread has ended, or panicked.
    pub(super) fn end(&self) {
        let mut progress = self.progress.lock();
        let done: u64 = progress.outcomes.iter().sum();
        let is_whole = progress.state == BroadcastState::Running && done == self.total as u64;
        progress.state = if is_whole { BroadcastState::Finished } else { BroadcastState::Stopped };
        log::info!("{self} {}: {done} of {}", progress.state.as_str(), self.total);
    }

    pub(super) fn report(&self) -> BroadcastReport {
        let progress = self.progress.lock();
        let outcomes = BroadcastOutcome::ALL.iter().zip(&progress.outcomes);
        BroadcastReport {
            id: self.order.id.clone(),
            event: self.order.event.name.clone(),
            only_live: self.order.only_live,
            state: progress.state,
            since_ms: self.since.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            total: self.total as u64,
            done: progress.outcomes.iter().sum(),
            outcomes: outcomes.map(|(name, count)| (name.as_str().to_owned(), *count)).collect(),
        }
    }

    /// An event has its outcome, unless it had one before.
    fn answered(&self, office: &BroadcastOffice, id: RequestId, outcome: BroadcastOutcome) {
        let mut progress = self.progress.lock();
        let Some(sent) = progress.under_way.remove(&id) else { return };
        let SentEvent { tenant, attempts, .. } = sent;
        if outcome == BroadcastOutcome::Busy && attempts < BROADCAST_ATTEMPTS_MAX {
            progress.again.push_back((Instant::now() + BUSY_PAUSE, tenant, attempts));
        } else {
            office.count(&mut progress, outcome, 1);
        }
        self.changed.notify_all();
    }
}

/// As the log names it; a caller chose the event's name.
impl fmt::Display for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broadcast {} of {:?}", self.order.id, self.order.event.name)
    }
}

impl BroadcastOffice {
    fn count(&self, progress: &mut BroadcastProgress, outcome: BroadcastOutcome, tenants: u64) {
        progress.outcomes[outcome as usize] += tenants;
        self.ended.add(outcome, tenants);
    }
}

/// What the thread is to do next.
enum BroadcastStep {
    /// Send to this tenant, which was tried so often.
    Send(TenantId, u32),
    /// Find out which tenants have a VM.
    LookAhead,
    /// No answer came in time.
    GiveUp(RequestId, TenantId),
}

/// The thread's own part.
pub(super) struct BroadcastRun {
    office: Arc<BroadcastOffice>,
    broadcast: Arc<Broadcast>,
    /// Those that it was not asked of yet whether they are to get it.
    waiting: VecDeque<TenantId>,
    /// Those that are next.
    ready: VecDeque<TenantId>,
    /// How many may be under way.
    places: usize,
    interval: Duration,
    next_at: Instant,
}

impl BroadcastRun {
    pub(super) fn new(
        office: &Arc<BroadcastOffice>,
        broadcast: &Arc<Broadcast>,
        tenants: VecDeque<TenantId>,
    ) -> Self {
        let BroadcastOrder { event, only_live, rate, .. } = &broadcast.order;
        let places = BROADCAST_UNDER_WAY_MAX_BYTES / event.bytes().max(1);
        let workers = office.pool.len().max(1) as f64;
        let (waiting, ready) =
            if *only_live { (tenants, VecDeque::new()) } else { (VecDeque::new(), tenants) };
        Self {
            office: office.clone(),
            broadcast: broadcast.clone(),
            waiting,
            ready,
            places: places.clamp(1, BROADCAST_UNDER_WAY_MAX),
            interval: Duration::from_secs_f64(1.0 / (f64::from((*rate).max(1)) * workers)),
            next_at: broadcast.since,
        }
    }

    /// Blocks: until answers, the next one's turn or a deadline; `cancel` and `abandon` wake it.
    pub(super) fn run(mut self) {
        while let Some(step) = self.next() {
            match step {
                BroadcastStep::Send(tenant, attempts) => self.send(tenant, attempts + 1),
                BroadcastStep::LookAhead => self.look_ahead(),
                BroadcastStep::GiveUp(id, tenant) => {
                    let outcome = match self.office.pool.cancel(tenant, id) {
                        Cancelled::Waiting => BroadcastOutcome::NoWorker,
                        Cancelled::Sent | Cancelled::Unknown => BroadcastOutcome::OutcomeUnknown,
                    };
                    self.broadcast.answered(&self.office, id, outcome);
                }
            }
        }
    }

    /// What is to be done, once there is something; `None`: the end.
    fn next(&mut self) -> Option<BroadcastStep> {
        let broadcast = self.broadcast.clone();
        let mut progress = broadcast.progress.lock();
        loop {
            let now = Instant::now();
            let first = progress.under_way.iter().min_by_key(|(_, sent)| sent.until);
            let first = first.map(|(id, sent)| (sent.until, *id, sent.tenant));
            let due = self.due(&progress);
            if progress.is_abandoned || (first.is_none() && due.is_none()) {
                return None;
            }
            if let Some((_, id, tenant)) = first.filter(|(until, ..)| *until <= now) {
                return Some(BroadcastStep::GiveUp(id, tenant));
            }
            let due = due.filter(|_| progress.under_way.len() < self.places);
            if due.is_some_and(|due| due <= now) {
                return Some(self.take(&mut progress, now));
            }
            let wake_at = [first.map(|(until, ..)| until), due].into_iter().flatten().min();
            progress = broadcast.changed.wait(progress, wake_at);
        }
    }

    /// When something is to be sent next; `None`: nothing is.
    fn due(&self, progress: &BroadcastProgress) -> Option<Instant> {
        if progress.state != BroadcastState::Running {
            return None;
        }
        if !(self.ready.is_empty() && self.waiting.is_empty()) {
            return Some(self.next_at);
        }
        progress.again.front().map(|(at, ..)| self.next_at.max(*at))
    }

    /// Takes what is due.
    fn take(&mut self, progress: &mut BroadcastProgress, now: Instant) -> BroadcastStep {
        let is_due = progress.again.front().is_some_and(|(at, ..)| *at <= now);
        let again = if is_due { progress.again.pop_front() } else { None };
        let (tenant, attempts) = match again {
            Some((_, tenant, attempts)) => (tenant, attempts),
            None => match self.ready.pop_front() {
                Some(tenant) => (tenant, 0),
                None => return BroadcastStep::LookAhead,
            },
        };
        let oldest = now.checked_sub(BROADCAST_CATCH_UP).unwrap_or(now);
        self.next_at = self.next_at.max(oldest) + self.interval;
        BroadcastStep::Send(tenant, attempts)
    }

    /// Asks which of the next tenants have a VM; the others are done with.
    fn look_ahead(&mut self) {
        let count = self.waiting.len().min(BROADCAST_LOOK_AHEAD);
        let tenants: Vec<TenantId> = self.waiting.drain(..count).collect();
        let have = (self.office.have_vms)(&tenants, Instant::now() + BROADCAST_LOOK_TIMEOUT);
        let live = tenants.iter().zip(have).filter_map(|(tenant, has)| has.then_some(*tenant));
        self.ready.extend(live);
        let without = (count - self.ready.len()) as u64;
        let mut progress = self.broadcast.progress.lock();
        self.office.count(&mut progress, BroadcastOutcome::NoVm, without);
    }

    fn send(&self, tenant: TenantId, attempts: u32) {
        let (id, until) = (next_request_id(), Instant::now() + DISPATCH_DEADLINE);
        let sent = SentEvent { tenant, attempts, until };
        // The answer may come before the hand-over returns.
        self.broadcast.progress.lock().under_way.insert(id, sent);
        let (office, broadcast) = (self.office.clone(), self.broadcast.clone());
        let answer = move |result: DispatchResult, is_subscribed| {
            let outcome = BroadcastOutcome::of(&result, is_subscribed);
            broadcast.answered(&office, id, outcome);
        };
        let answer = Answer::callback_with_subscription(answer);
        let job = Job::Dispatch(self.broadcast.order.event.clone());
        let delivery = Delivery::default();
        self.office.pool.submit(Request { tenant, id, job, deadline: until, answer, delivery });
    }
}
