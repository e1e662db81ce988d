//! `OnStartup`: an event for every tenant that is subscribed to it, when the worker has read its
//! tenant states for the first time, or the tenant's shard has come to its master.
//!
//! No caller waits for the answers. However many tenants there are, a few of these events are under
//! way at once, so that others find room beside them. One that takes its time keeps its place for a
//! moment only, so that templates that wait cannot hold the next tenants up. Runs on a thread of
//! its own that the [`crate::pool::WorkerThread`] joins.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use crate::base::error::DispatchError;
use crate::base::limits::{
    STARTUP_ATTEMPTS_MAX, STARTUP_PLACE_FOR, STARTUP_PLACES, STARTUP_UNDER_WAY_MAX,
};
use crate::base::metrics::Counter;
use crate::base::sync::Lock;
use crate::base::thread::{OwnedThread, spawn};
use crate::dispatch::worker_like::next_request_id;
use crate::dispatch::{Answer, DispatchResult, Job, RequestId};
use crate::pool::Subscriptions;
use crate::runtime::{TemplateRuntime, TenantDb};
use crate::wire::data::{CreateEvent, EventData, ON_STARTUP, TenantId};

/// After an event found no room there is a pause.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// When nothing is due.
const LONG: Duration = Duration::from_secs(3600);

/// The events of a worker's life. Dropping it ends the rest and joins the thread; what is under way
/// is the runtime's.
pub(super) struct Startup {
    worker: usize,
    runtime: Arc<dyn TemplateRuntime>,
    subscriptions: Arc<Subscriptions>,
    db: Arc<dyn TenantDb>,
    dropped: Arc<Counter>,
    wanted: Wanted,
    thread: Option<StartupThread>,
}

/// The thread that sends them, while there are any.
struct StartupThread {
    // In this order: the thread ends when the sender is gone.
    more_tx: Sender<()>,
    handle: OwnedThread,
}

impl Startup {
    /// Sends nothing yet.
    pub(super) fn new(
        worker: usize,
        runtime: Arc<dyn TemplateRuntime>,
        subscriptions: Arc<Subscriptions>,
        db: Arc<dyn TenantDb>,
    ) -> Self {
        let (dropped, wanted) = (Arc::default(), Wanted::default());
        Self { worker, runtime, subscriptions, db, dropped, wanted, thread: None }
    }

    /// How many events found their tenant busy each time.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Starts to send the events to those subscribed tenants that `is_new` names; one that got it
    /// from here, and was not forgotten since, gets no other.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub(super) fn start(&mut self, is_new: impl Fn(TenantId) -> bool) -> io::Result<()> {
        let tenants = self.subscriptions.subscribed_to(ON_STARTUP).into_iter();
        let mut wanted = self.wanted.lock();
        let waiting: Vec<_> =
            tenants.filter(|tenant| is_new(*tenant) && wanted.tenants.insert(*tenant)).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        wanted.waiting.extend(waiting.into_iter().map(|tenant| (tenant, 0)));
        // A full channel holds the same message already; after a panic there is none.
        let wakes = |thread: &StartupThread| {
            !matches!(thread.more_tx.try_send(()), Err(TrySendError::Disconnected(())))
        };
        if std::mem::replace(&mut wanted.is_sending, true)
            && self.thread.as_ref().is_some_and(wakes)
        {
            return Ok(());
        }
        drop(wanted);
        // One that was there has nothing left to send, and ends.
        self.stop();
        let (more_tx, more_rx) = bounded(1);
        let (done_tx, done_rx) = bounded(STARTUP_UNDER_WAY_MAX);
        let run = StartupRun {
            worker: self.worker,
            runtime: self.runtime.clone(),
            wanted: self.wanted.clone(),
            subscriptions: self.subscriptions.clone(),
            db: self.db.clone(),
            dropped: self.dropped.clone(),
            done_tx,
            under_way: HashMap::new(),
            places: VecDeque::new(),
            resume_at: None,
            failures: 0,
        };
        let name = format!("startup{}", self.worker);
        let thread = spawn(name, move || run.run(&done_rx, &more_rx));
        if thread.is_err() {
            self.wanted.lock().is_sending = false;
        }
        self.thread = Some(StartupThread { more_tx, handle: thread? });
        Ok(())
    }

    /// Sends no more, and joins the thread.
    pub(super) fn stop(&mut self) {
        if let Some(StartupThread { more_tx, handle }) = self.thread.take() {
            drop(more_tx);
            handle.join();
        }
    }

    /// A tenant is dropped: from now on nothing is submitted for it.
    pub(super) fn forget(&self, tenant: TenantId) {
        self.wanted.lock().tenants.remove(&tenant);
    }

    /// The same of all tenants that moved away.
    pub(super) fn forget_all(&self, is_gone: impl Fn(TenantId) -> bool) {
        let mut wanted = self.wanted.lock();
        wanted.tenants.retain(|tenant| !is_gone(*tenant));
        // They may come back before it would be their turn.
        wanted.waiting.retain(|(tenant, _)| !is_gone(*tenant));
    }
}

/// The tenants that want the event, or got it, and those of them that are still to get it.
type Wanted = Arc<Lock<WantedEvents>>;

#[derive(Default)]
struct WantedEvents {
    /// But for those that were forgotten since.
    tenants: HashSet<TenantId>,
    /// Tenants whose event is still to be sent, and how often that was tried.
    waiting: VecDeque<(TenantId, u32)>,
    /// A thread will look at what waits.
    is_sending: bool,
}

struct StartupRun {
    wanted: Wanted,
    worker: usize,
    runtime: Arc<dyn TemplateRuntime>,
    subscriptions: Arc<Subscriptions>,
    db: Arc<dyn TenantDb>,
    dropped: Arc<Counter>,
    done_tx: Sender<(RequestId, DispatchResult)>,
    /// Limit: `STARTUP_UNDER_WAY_MAX`, which is also the room in `done_tx`.
    under_way: HashMap<RequestId, (TenantId, u32)>,
    /// Limit: `STARTUP_PLACES`; those that were sent of late and have no answer, the oldest first.
    places: VecDeque<(RequestId, Instant)>,
    resume_at: Option<Instant>,
    failures: u64,
}

impl StartupRun {
    /// Blocks: until an answer, more tenants, the end of a place's time or of a pause; dropping the
    /// other end of `more_rx` ends it.
    fn run(mut self, done_rx: &Receiver<(RequestId, DispatchResult)>, more_rx: &Receiver<()>) {
        loop {
            let now = Instant::now();
            while self.places.front().is_some_and(|(_, since)| now - *since >= STARTUP_PLACE_FOR) {
                self.places.pop_front();
            }
            self.resume_at = self.resume_at.filter(|at| *at > now);
            if self.is_over() {
                return;
            }
            if self.may_send() && self.send_next(now) {
                continue;
            }
            let place = self.places.front().map(|(_, since)| *since + STARTUP_PLACE_FOR);
            let due = [place, self.resume_at].into_iter().flatten().min().unwrap_or(now + LONG);
            select! {
                recv(done_rx) -> done => if let Ok((request_id, result)) = done {
                    self.done(request_id, result);
                },
                recv(more_rx) -> more => if more.is_err() {
                    return;
                },
                default(due - now) => {}
            }
        }
    }

    fn is_over(&self) -> bool {
        let mut wanted = self.wanted.lock();
        let is_over = wanted.waiting.is_empty() && self.under_way.is_empty();
        wanted.is_sending = !is_over;
        is_over
    }

    fn may_send(&self) -> bool {
        let has_room =
            self.places.len() < STARTUP_PLACES && self.under_way.len() < STARTUP_UNDER_WAY_MAX;
        has_room && self.resume_at.is_none()
    }

    /// Whether there was one to send.
    fn send_next(&mut self, now: Instant) -> bool {
        // Held until the runtime has the event, so that a drop comes before it or after it.
        let wanted = self.wanted.clone();
        let mut wanted = wanted.lock();
        let Some((tenant, attempts)) = wanted.waiting.pop_front() else { return false };
        // It may have unsubscribed since.
        if wanted.tenants.contains(&tenant) && self.subscriptions.wants(tenant, ON_STARTUP) {
            self.send(tenant, attempts + 1, now);
        }
        true
    }

    fn send(&mut self, tenant: TenantId, attempts: u32, now: Instant) {
        let data = EventData::RawValue(r#"{"reason":"worker_startup"}"#.to_owned());
        let event = CreateEvent { name: ON_STARTUP.to_owned(), author: None, data };
        let (request_id, done_tx) = (next_request_id(), self.done_tx.clone());
        self.under_way.insert(request_id, (tenant, attempts));
        self.places.push_back((request_id, now));
        // There is room for everything that is under way.
        let answer = Answer::callback(move |result| drop(done_tx.try_send((request_id, result))));
        self.runtime.submit(tenant, request_id, Job::Dispatch(event), answer);
    }

    fn done(&mut self, request_id: RequestId, result: DispatchResult) {
        let Some((tenant, attempts)) = self.under_way.remove(&request_id) else { return };
        self.places.retain(|(other, _)| *other != request_id);
        let Err(error) = result else { return };
        if matches!(error, DispatchError::Busy(_)) {
            self.resume_at = Some(Instant::now() + BUSY_PAUSE);
            if attempts < STARTUP_ATTEMPTS_MAX {
                return self.wanted.lock().waiting.push_back((tenant, attempts));
            }
            self.dropped.inc();
            let line = format!("{ON_STARTUP} was dropped: {error}");
            self.db.log(tenant, Some((log::Level::Warn, line)));
        }
        self.failures += 1;
        // Rate-limited by powers of two, and without the text, which a script may have written.
        if self.failures.is_power_of_two() {
            let (worker, failures, kind) = (self.worker, self.failures, error.kind());
            log::warn!(worker = worker; "worker {worker}: {failures} {ON_STARTUP} events failed, the last one for {tenant}: {kind}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{Cancelled, MessageDoor};
    use crate::pool::WorkerDb;
    use crate::runtime::{RuntimeStats, TenantStates};
    use crate::store::{DbOptions, DbState};
    use crate::wire::data::{EncodedJson, EncodedValue, TenantState};

    /// Holds what it is given until it is told how to answer.
    struct HoldingRuntime {
        events_tx: Sender<(TenantId, CreateEvent, Answer)>,
    }

    impl TemplateRuntime for HoldingRuntime {
        fn submit(&self, tenant: TenantId, _: RequestId, job: Job, answer: Answer) {
            let Job::Dispatch(event) = job else { panic!("events only") };
            self.events_tx.send((tenant, event, answer)).expect("the test waits");
        }

        fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
            Cancelled::Unknown
        }

        fn stats(&self) -> RuntimeStats {
            RuntimeStats::default()
        }

        fn shutdown(&self) {}
    }

    fn wait_for_end(startup: &Startup) {
        let thread = startup.thread.as_ref().expect("one was started");
        assert!(thread.handle.wait_until(Instant::now() + SOON));
    }

    const SOON: Duration = Duration::from_secs(60);

    fn start(tenants: u64) -> (Startup, Receiver<(TenantId, CreateEvent, Answer)>) {
        let subscriptions = Arc::new(Subscriptions::new(["*".to_owned()].into()));
        for number in 0..tenants {
            let events = [ON_STARTUP.to_owned()].into();
            subscriptions
                .put(TenantId::Guild(number), TenantState { events, data: EncodedJson::null() });
        }
        let state = TenantState { events: ["OTHER".to_owned()].into(), data: EncodedJson::null() };
        subscriptions.put(TenantId::User(1), state);
        let (events_tx, events_rx) = crossbeam_channel::unbounded();
        let store = Arc::new(crate::store::memory::MemoryStore::new());
        let db = DbState::new(store, DbOptions::default()).expect("an empty store");
        let db = Arc::new(WorkerDb::direct(Arc::new(db), 0, 1, MessageDoor::default()));
        let mut startup =
            Startup::new(0, Arc::new(HoldingRuntime { events_tx }), subscriptions, db);
        startup.start(|_| true).expect("a thread");
        (startup, events_rx)
    }

    #[test]
    fn every_tenant_that_wants_one_gets_one_a_few_at_once() {
        let (_startup, events_rx) = start(500);
        let mut seen = Vec::new();
        for _ in 0..500 {
            let (tenant, event, answer) = events_rx.recv_timeout(SOON).expect("an event");
            assert_eq!((event.name.as_str(), event.author), (ON_STARTUP, None));
            assert!(events_rx.len() <= STARTUP_PLACES);
            seen.push(tenant);
            answer.send(Ok(EncodedValue::null()));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..500).map(TenantId::Guild).collect::<Vec<_>>());
    }

    #[test]
    fn templates_that_take_their_time_do_not_hold_the_others_up() {
        let (startup, events_rx) = start(STARTUP_PLACES as u64 * 3);
        let held: Vec<_> = (0..STARTUP_PLACES * 3)
            .map(|_| events_rx.recv_timeout(SOON).expect("an event"))
            .collect();
        // And none of them holds up the end.
        drop(startup);
        drop(held);
    }

    #[test]
    fn who_finds_no_room_comes_again() {
        let (startup, events_rx) = start(1);
        for _ in 1..STARTUP_ATTEMPTS_MAX {
            let (_, _, answer) = events_rx.recv_timeout(SOON).expect("an event");
            answer.send(Err(DispatchError::Busy("full".to_owned())));
        }
        let (tenant, _, answer) = events_rx.recv_timeout(SOON).expect("the last attempt");
        assert_eq!(tenant, TenantId::Guild(0));
        assert_eq!(startup.dropped(), 0);
        answer.send(Err(DispatchError::Busy("full".to_owned())));
        wait_for_end(&startup);
        assert_eq!((events_rx.is_empty(), startup.dropped()), (true, 1));
    }

    #[test]
    fn tenants_that_come_later_are_told_once_unless_they_went_away() {
        let (mut startup, events_rx) = start(3);
        let answer_all = |count: u64| {
            let mut told: Vec<_> = (0..count)
                .map(|_| {
                    let (tenant, _, answer) = events_rx.recv_timeout(SOON).expect("an event");
                    answer.send(Ok(EncodedValue::null()));
                    tenant.snowflake()
                })
                .collect();
            told.sort_unstable();
            told
        };
        assert_eq!(answer_all(3), [0, 1, 2]);
        wait_for_end(&startup);
        let come = |number: u64| {
            let events = [ON_STARTUP.to_owned()].into();
            let state = TenantState { events, data: EncodedJson::null() };
            startup.subscriptions.put(TenantId::Guild(number), state);
        };
        (3..6).for_each(come);
        startup.forget_all(|tenant| tenant == TenantId::Guild(0));
        startup.start(|tenant| tenant != TenantId::Guild(5)).expect("a thread");
        assert_eq!(answer_all(3), [0, 3, 4]);
        // Whether or not the last ones are done.
        startup.start(|_| true).expect("a thread");
        assert_eq!(answer_all(1), [5]);
        startup.start(|_| true).expect("a thread");
        wait_for_end(&startup);
        assert!(events_rx.is_empty());
    }

    #[test]
    fn a_tenant_that_is_dropped_gets_none_any_more() {
        let (startup, events_rx) = start(STARTUP_PLACES as u64 + 8);
        let mut held: Vec<_> =
            (0..STARTUP_PLACES).map(|_| events_rx.recv_timeout(SOON).expect("an event")).collect();
        let told = |held: &[(TenantId, CreateEvent, Answer)], tenant| {
            held.iter().any(|(other, ..)| *other == tenant)
        };
        let later = (0..)
            .map(TenantId::Guild)
            .filter(|tenant| !told(&held, *tenant))
            .take(7)
            .collect::<Vec<_>>();
        startup.forget_all(|tenant| later[..6].contains(&tenant));
        let busy = held.pop().expect("one of them");
        startup.forget(busy.0);
        busy.2.send(Err(DispatchError::Busy("full".to_owned())));
        held.drain(..).for_each(|(.., answer)| answer.send(Ok(EncodedValue::null())));
        let last: Vec<_> = (0..2)
            .map(|_| {
                let (tenant, _, answer) = events_rx.recv_timeout(SOON).expect("an event");
                answer.send(Ok(EncodedValue::null()));
                tenant
            })
            .collect();
        wait_for_end(&startup);
        assert_eq!((events_rx.len(), last.contains(&later[6])), (0, true), "{last:?}");
    }
}
