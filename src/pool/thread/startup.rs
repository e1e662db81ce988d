//! `OnStartup`: an event for every tenant that is subscribed to it, when the worker has read its
//! tenant states for the first time.
//!
//! No caller waits for the answers. However many tenants there are, a few of these events are under
//! way at once, so that others find room beside them. One that takes its time keeps its place for a
//! moment only, so that templates that wait cannot hold the next tenants up. Runs on a thread of
//! its own that the [`crate::pool::WorkerThread`] joins.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::base::error::DispatchError;
use crate::base::limits::{
    STARTUP_ATTEMPTS_MAX, STARTUP_PLACE_FOR, STARTUP_PLACES, STARTUP_UNDER_WAY_MAX,
};
use crate::base::sync::Lock;
use crate::base::thread::{OwnedThread, spawn};
use crate::dispatch::worker_like::next_request_id;
use crate::dispatch::{Answer, DispatchResult, Job, RequestId};
use crate::pool::Subscriptions;
use crate::runtime::TemplateRuntime;
use crate::wire::data::{CreateEvent, EventData, ON_STARTUP, TenantId};

/// After an event found no room there is a pause.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// When nothing is due.
const LONG: Duration = Duration::from_secs(3600);

/// The events of one start. Dropping it ends the rest and joins the thread; what is under way is
/// the runtime's.
#[derive(Debug)]
pub(super) struct Startup {
    wanted: Wanted,
    // In this order: the thread ends when the sender is gone.
    _stop_tx: Sender<()>,
    _thread: OwnedThread,
}

impl Startup {
    /// Starts to send the events; nothing if no tenant wants one.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub(super) fn start(
        worker: usize,
        runtime: Arc<dyn TemplateRuntime>,
        subscriptions: Arc<Subscriptions>,
    ) -> io::Result<Option<Self>> {
        let waiting: VecDeque<_> =
            subscriptions.subscribed_to(ON_STARTUP).into_iter().map(|tenant| (tenant, 0)).collect();
        if waiting.is_empty() {
            return Ok(None);
        }
        let wanted: Wanted =
            Arc::new(Lock::new(waiting.iter().map(|(tenant, _)| *tenant).collect()));
        let (stop_tx, stop_rx) = bounded(0);
        let (done_tx, done_rx) = bounded(STARTUP_UNDER_WAY_MAX);
        let run = StartupRun {
            worker,
            runtime,
            waiting,
            wanted: wanted.clone(),
            subscriptions,
            done_tx,
            under_way: HashMap::new(),
            places: VecDeque::new(),
            resume_at: None,
            failures: 0,
        };
        let thread = spawn(format!("startup{worker}"), move || run.run(&done_rx, &stop_rx))?;
        Ok(Some(Self { wanted, _stop_tx: stop_tx, _thread: thread }))
    }

    /// A tenant is dropped: from now on nothing is submitted for it.
    pub(super) fn forget(&self, tenant: TenantId) {
        self.wanted.lock().remove(&tenant);
    }
}

/// The tenants that want the event, but for those that were dropped since.
type Wanted = Arc<Lock<HashSet<TenantId>>>;

struct StartupRun {
    wanted: Wanted,
    worker: usize,
    runtime: Arc<dyn TemplateRuntime>,
    subscriptions: Arc<Subscriptions>,
    done_tx: Sender<(RequestId, DispatchResult)>,
    /// Tenants whose event is still to be sent, and how often that was tried.
    waiting: VecDeque<(TenantId, u32)>,
    /// Limit: `STARTUP_UNDER_WAY_MAX`, which is also the room in `done_tx`.
    under_way: HashMap<RequestId, (TenantId, u32)>,
    /// Limit: `STARTUP_PLACES`; those that were sent of late and have no answer, the oldest first.
    places: VecDeque<(RequestId, Instant)>,
    resume_at: Option<Instant>,
    failures: u64,
}

impl StartupRun {
    /// Blocks: until an answer, the end of a place's time or of a pause; dropping the other end of
    /// `stop_rx` ends it.
    fn run(mut self, done_rx: &Receiver<(RequestId, DispatchResult)>, stop_rx: &Receiver<()>) {
        loop {
            let now = Instant::now();
            while self.places.front().is_some_and(|(_, since)| now - *since >= STARTUP_PLACE_FOR) {
                self.places.pop_front();
            }
            self.resume_at = self.resume_at.filter(|at| *at > now);
            if self.waiting.is_empty() && self.under_way.is_empty() {
                return;
            }
            if self.may_send()
                && let Some((tenant, attempts)) = self.waiting.pop_front()
            {
                self.send(tenant, attempts + 1, now);
                continue;
            }
            let place = self.places.front().map(|(_, since)| *since + STARTUP_PLACE_FOR);
            let due = [place, self.resume_at].into_iter().flatten().min().unwrap_or(now + LONG);
            select! {
                recv(done_rx) -> done => if let Ok((request_id, result)) = done {
                    self.done(request_id, result);
                },
                recv(stop_rx) -> _ => return,
                default(due - now) => {}
            }
        }
    }

    fn may_send(&self) -> bool {
        let has_room =
            self.places.len() < STARTUP_PLACES && self.under_way.len() < STARTUP_UNDER_WAY_MAX;
        has_room && self.resume_at.is_none()
    }

    fn send(&mut self, tenant: TenantId, attempts: u32, now: Instant) {
        // Held until the runtime has the event, so that a drop comes before it or after it.
        let wanted = self.wanted.clone();
        let wanted = wanted.lock();
        // It may have unsubscribed since.
        if !wanted.contains(&tenant) || !self.subscriptions.wants(tenant, ON_STARTUP) {
            return;
        }
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
                return self.waiting.push_back((tenant, attempts));
            }
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
    use crate::dispatch::Cancelled;
    use crate::runtime::{RuntimeStats, TenantStates};
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
        let startup = Startup::start(0, Arc::new(HoldingRuntime { events_tx }), subscriptions)
            .expect("a thread")
            .expect("tenants");
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
        let (_startup, events_rx) = start(1);
        for _ in 1..STARTUP_ATTEMPTS_MAX {
            let (_, _, answer) = events_rx.recv_timeout(SOON).expect("an event");
            answer.send(Err(DispatchError::Busy("full".to_owned())));
        }
        let (tenant, _, answer) = events_rx.recv_timeout(SOON).expect("the last attempt");
        assert_eq!(tenant, TenantId::Guild(0));
        answer.send(Err(DispatchError::Busy("full".to_owned())));
        // The thread ends, and with it the runtime's channel.
        assert!(events_rx.recv_timeout(SOON).is_err_and(|error| error.is_disconnected()));
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
        later[..6].iter().for_each(|tenant| startup.forget(*tenant));
        let busy = held.pop().expect("one of them");
        startup.forget(busy.0);
        busy.2.send(Err(DispatchError::Busy("full".to_owned())));
        held.drain(..).for_each(|(.., answer)| answer.send(Ok(EncodedValue::null())));
        let mut last = Vec::new();
        while let Ok((tenant, _, answer)) = events_rx.recv_timeout(SOON) {
            last.push(tenant);
            answer.send(Ok(EncodedValue::null()));
        }
        // The thread has ended, so those are all.
        assert_eq!((last.len(), last.contains(&later[6])), (2, true), "{last:?}");
    }
}
