//! Broadcasts over a pool that answers as the test says.

use std::collections::BTreeSet;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::base::error::DispatchError;
use crate::base::limits::{BROADCAST_ATTEMPTS_MAX, BROADCAST_RATE_MAX, BROADCAST_UNDER_WAY_MAX};
use crate::dispatch::{Answer, Cancelled, Job, Refused, Request, RequestId};
use crate::store::memory::MemoryStore;
use crate::store::{DbOptions, Standing};
use crate::wire::data::{EncodedJson, EncodedValue, EventData, TenantState};

const SOON: Duration = Duration::from_secs(60);

/// Hands each event to the test.
struct Held {
    workers: usize,
    sent_tx: Sender<(TenantId, Answer)>,
}

impl WorkerLike for Held {
    fn id(&self) -> usize {
        0
    }

    fn len(&self) -> usize {
        self.workers
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        let Job::Dispatch(event) = request.job else { panic!("events only") };
        assert_eq!((event.name.as_str(), event.author), ("Notice", None));
        self.sent_tx.send((request.tenant, request.answer)).expect("the test waits");
        Ok(())
    }

    fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
        Cancelled::Unknown
    }

    fn kill(&self) {}
}

struct Scene {
    broadcasts: Broadcasts,
    sent_rx: Receiver<(TenantId, Answer)>,
}

/// So many tenants that are subscribed, one that is not, and one that is banned.
fn scene(tenants: u64, workers: usize) -> Scene {
    let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default()).expect("a store");
    let put = |tenant, event: &str| {
        let state = TenantState { events: [event.to_owned()].into(), data: EncodedJson::null() };
        db.set_tenant_state(tenant, &state).expect("set");
    };
    (0..tenants).for_each(|number| put(TenantId::Guild(number), "Notice"));
    put(TenantId::User(1), "Other");
    put(TenantId::User(2), "Notice");
    db.set_standing(TenantId::User(2), Standing::Banned).expect("set");
    let (sent_tx, sent_rx) = unbounded();
    let even = |tenants: &[TenantId], _| {
        tenants.iter().map(|tenant| tenant.snowflake().is_multiple_of(2)).collect()
    };
    let pool = Arc::new(Held { workers, sent_tx });
    Scene { broadcasts: Broadcasts::new(pool, Arc::new(db), Box::new(even)), sent_rx }
}

fn order(only_live: bool) -> BroadcastOrder {
    let data = EventData::Json(EncodedJson::null());
    let event = CreateEvent { name: "Notice".to_owned(), author: None, data };
    let (id, shards) = ("1".to_owned(), ShardSet::full());
    BroadcastOrder { id, event, only_live, rate: BROADCAST_RATE_MAX, shards }
}

impl Scene {
    fn start(&self, only_live: bool) -> u64 {
        self.broadcasts.start(order(only_live)).expect("none runs").total
    }

    fn next(&self) -> (TenantId, Answer) {
        self.sent_rx.recv_timeout(SOON).expect("an event")
    }

    /// Waits for the end, and returns the counts that are not 0.
    fn end(&self) -> (BroadcastState, Vec<(String, u64)>) {
        let until = Instant::now() + SOON;
        loop {
            let report = self.broadcasts.report().expect("there was one");
            if report.state < BroadcastState::Stopping {
                assert_eq!(report.done, report.outcomes.values().sum::<u64>());
                let counted = report.outcomes.into_iter().filter(|(_, count)| *count > 0);
                return (report.state, counted.collect());
            }
            assert!(Instant::now() < until, "{report:?}");
            std::thread::yield_now();
        }
    }
}

fn counts(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn every_subscribed_tenant_gets_it_once_at_its_pace() {
    let (scene, begun) = (scene(60, 2), Instant::now());
    assert_eq!(scene.start(false), 60);
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let (tenant, answer) = scene.next();
        assert!(seen.insert(tenant), "{tenant} got it twice");
        answer.send(Ok(EncodedValue::null()));
    }
    // 400 a second, but for what is made up for after a pause.
    assert!(begun.elapsed() >= Duration::from_millis(90), "{:?}", begun.elapsed());
    assert_eq!(seen, (0..60).map(TenantId::Guild).collect());
    assert_eq!(scene.end(), (BroadcastState::Finished, counts(&[("reached", 60)])));
    assert_eq!(scene.broadcasts.outcomes().get(BroadcastOutcome::Reached), 60);
    assert!(scene.sent_rx.is_empty());
}

#[test]
fn each_answer_has_its_outcome_and_busy_comes_again() {
    let scene = scene(8, 64);
    scene.start(false);
    let text = || "why".to_owned();
    let mut first: Vec<_> = (0..8).map(|_| scene.next()).collect();
    let mut answer = |result| first.pop().expect("eight").1.send(result);
    answer(Err(DispatchError::Script(text())));
    answer(Err(DispatchError::Banned));
    answer(Err(DispatchError::NotOwner));
    answer(Err(DispatchError::NoWorker(text())));
    answer(Err(DispatchError::OutcomeUnknown(text())));
    answer(Err(DispatchError::Busy(text())));
    let (_, mut unsubscribed) = first.pop().expect("two");
    unsubscribed.mark_not_subscribed();
    unsubscribed.send(Ok(EncodedValue::null()));
    // Dropped: its outcome is unknown, too.
    drop(first);
    for _ in 1..BROADCAST_ATTEMPTS_MAX {
        scene.next().1.send(Err(DispatchError::Busy(text())));
    }
    let expected = counts(&[
        ("busy", 1),
        ("moved", 1),
        ("no_worker", 1),
        ("outcome_unknown", 2),
        ("refused", 1),
        ("script", 1),
        ("unsubscribed", 1),
    ]);
    assert_eq!(scene.end(), (BroadcastState::Finished, expected));
    assert!(scene.sent_rx.is_empty());
}

#[test]
fn only_tenants_with_a_vm_get_it_where_that_is_asked_for() {
    let scene = scene(1500, 64);
    assert_eq!(scene.start(true), 1500);
    for _ in 0..750 {
        let (tenant, answer) = scene.next();
        assert!(tenant.snowflake().is_multiple_of(2), "{tenant}");
        answer.send(Ok(EncodedValue::null()));
    }
    let expected = counts(&[("no_vm", 750), ("reached", 750)]);
    assert_eq!(scene.end(), (BroadcastState::Finished, expected));
}

#[test]
fn one_that_is_stopped_waits_for_what_is_under_way() {
    let scene = scene(BROADCAST_UNDER_WAY_MAX as u64 * 2, 64);
    scene.start(false);
    assert!(matches!(scene.broadcasts.start(order(false)), Err(BroadcastError::UnderWay)));
    let held: Vec<_> = (0..BROADCAST_UNDER_WAY_MAX).map(|_| scene.next()).collect();
    // There is no room for one more.
    assert!(scene.sent_rx.recv_timeout(Duration::from_millis(50)).is_err());
    scene.broadcasts.cancel();
    let report = scene.broadcasts.report().expect("one");
    assert_eq!((report.state, report.done), (BroadcastState::Stopping, 0));
    held.into_iter().for_each(|(_, answer)| answer.send(Ok(EncodedValue::null())));
    let reached = BROADCAST_UNDER_WAY_MAX as u64;
    assert_eq!(scene.end(), (BroadcastState::Stopped, counts(&[("reached", reached)])));
    assert!(scene.sent_rx.is_empty());
    // Then another may begin.
    assert_eq!(scene.start(false), BROADCAST_UNDER_WAY_MAX as u64 * 2);
}

#[test]
fn a_master_that_stops_ends_it_whatever_is_under_way() {
    let scene = scene(10, 64);
    scene.start(false);
    let (_, answer) = scene.next();
    scene.broadcasts.stop();
    assert_eq!(scene.end().0, BroadcastState::Stopped);
    assert!(matches!(scene.broadcasts.start(order(false)), Err(BroadcastError::Stopping)));
    answer.send(Ok(EncodedValue::null()));
    assert_eq!(scene.broadcasts.outcomes().get(BroadcastOutcome::Reached), 1);
}
