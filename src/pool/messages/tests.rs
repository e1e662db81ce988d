//! What becomes of messages, over a stand-in for the pool and a store in memory.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;
use crate::base::sync::Lock;
use crate::dispatch::{Cancelled, Job, Refused, Request, RequestId};
use crate::store::DbOptions;
use crate::store::memory::MemoryStore;
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{CreateEvent, EventData, KeyValueOp, Scopes};
use crate::wire::json::{event_data_from_json, json_from_encoded, value_from_json};

const A: TenantId = TenantId::Guild(1 << 22);
const B: TenantId = TenantId::User(2 << 22);
const PATIENCE: Duration = Duration::from_secs(60);

/// Notes each event, and refuses it as the test says.
struct StandIn {
    seen_tx: Sender<(TenantId, CreateEvent)>,
    refusal: Lock<Option<DispatchError>>,
}

impl WorkerLike for StandIn {
    fn id(&self) -> usize {
        0
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        if let Some(error) = self.refusal.lock().clone() {
            return Err(request.refused(error));
        }
        let Job::Dispatch(event) = request.job else { panic!("an event") };
        self.seen_tx.send((request.tenant, event)).expect("the test looks");
        request.answer.refuse(&DispatchError::Banned);
        Ok(())
    }

    fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
        Cancelled::Unknown
    }

    fn kill(&self) {}
}

struct Scene {
    messages: Arc<Messages>,
    pool: Arc<StandIn>,
    db: Arc<DbState>,
    seen_rx: Receiver<(TenantId, CreateEvent)>,
}

fn scene(shards: Option<Arc<ShardTable>>) -> Scene {
    let (seen_tx, seen_rx) = unbounded();
    let pool = Arc::new(StandIn { seen_tx, refusal: Lock::default() });
    let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default());
    let db = Arc::new(db.expect("an empty store"));
    let hosts = Hosts::new(db.clone(), Vec::new());
    let messages = Messages::new(pool.clone(), db.clone(), hosts, shards);
    Scene { messages, pool, db, seen_rx }
}

impl Scene {
    /// Lets a tenant receive what another sends about `duel.…`.
    fn allow(&self, receiver: TenantId, from: TenantId) {
        let value = value_from_json(format!(r#"{{"{from}":["duel."]}}"#).as_bytes());
        let (scopes, key) = (Scopes::new(["#messages"]), "allowed".to_owned());
        let set = KeyValueOp::Set { scopes, key, value: value.expect("a value") };
        self.db.kv(receiver, set).expect("set");
    }

    fn send(&self, message: TenantMessage) -> MessageOutcome {
        let (outcome_tx, outcome_rx) = bounded(1);
        let answer = move |outcome| outcome_tx.send(outcome).expect("room");
        self.messages.carry(message, Box::new(answer));
        outcome_rx.recv_timeout(PATIENCE).expect("an answer")
    }

    fn seen(&self) -> Option<(TenantId, String)> {
        let (tenant, event) = self.seen_rx.try_recv().ok()?;
        assert_eq!((event.name.as_str(), event.author), ("TenantMessage", None));
        let EventData::Json(data) = event.data else { panic!("JSON") };
        Some((tenant, json_from_encoded(&data).expect("JSON")))
    }
}

fn message(topic: &str) -> TenantMessage {
    let data = event_data_from_json(b"[1]").expect("JSON");
    TenantMessage { from: A, to: B, topic: topic.to_owned(), data, depth: 1 }
}

#[test]
fn a_message_arrives_if_its_receiver_allows_it() {
    let scene = scene(None);
    assert_eq!(scene.send(message("duel.a")), MessageOutcome::NotAllowed);
    scene.allow(B, A);
    assert_eq!(scene.send(message("duel.a")), MessageOutcome::Accepted);
    let data = r#"{"depth":1,"from":"guild:4194304","topic":"duel.a","data":[1]}"#;
    assert_eq!(scene.seen(), Some((B, data.to_owned())));
    assert_eq!(scene.send(message("other")), MessageOutcome::NotAllowed);
    let back = TenantMessage { from: B, to: A, ..message("duel.a") };
    assert_eq!(scene.send(back), MessageOutcome::NotAllowed, "that is not mutual");
    assert_eq!(scene.seen(), None);
    assert_eq!(MessageOutcome::ALL.map(|of| scene.messages.outcomes().get(of)), [1, 3, 0, 0, 0, 0]);
}

#[test]
fn what_is_too_large_or_too_deep_is_refused_before_it_counts() {
    let scene = scene(None);
    scene.allow(B, A);
    let sized = |bytes: usize| {
        // A text of so many bytes has a head of three.
        let data = event_data_from_json(format!("{:?}", "x".repeat(bytes - 3)).as_bytes());
        TenantMessage { data: data.expect("JSON"), ..message("duel.") }
    };
    for _ in 0..200 {
        let large = sized(TENANT_MESSAGE_MAX_BYTES + 1);
        assert_eq!(scene.send(large), MessageOutcome::TooLarge);
        assert_eq!(scene.send(message(&"duel.".repeat(13))), MessageOutcome::TooLarge);
        let deep = TenantMessage { depth: TENANT_MESSAGE_DEPTH_MAX + 1, ..message("duel.") };
        assert_eq!(scene.send(deep), MessageOutcome::TooDeep);
    }
    assert_eq!(scene.send(sized(TENANT_MESSAGE_MAX_BYTES)), MessageOutcome::Accepted);
    let deep = TenantMessage { depth: TENANT_MESSAGE_DEPTH_MAX, ..message("duel.") };
    assert_eq!(scene.send(deep), MessageOutcome::Accepted);
}

#[test]
fn a_sender_beyond_its_rate_is_busy_and_others_are_not() {
    let scene = scene(None);
    let outcomes: Vec<_> = (0..300).map(|_| scene.send(message("duel."))).collect();
    let admitted = outcomes.iter().filter(|of| **of == MessageOutcome::NotAllowed).count();
    let busy = outcomes.iter().filter(|of| **of == MessageOutcome::Busy).count();
    assert!(admitted >= 100 && busy >= 100 && admitted + busy == 300, "{admitted} {busy}");
    let other = TenantMessage { from: TenantId::User(9), ..message("duel.") };
    assert_eq!(scene.send(other), MessageOutcome::NotAllowed);
}

#[test]
fn a_receiver_gets_so_many_whoever_sends_them() {
    let scene = scene(None);
    let mut outcomes = Vec::new();
    for sender in 0..10 {
        let from = TenantId::User(100 + sender);
        scene.allow(B, from);
        outcomes.extend((0..50).map(|_| scene.send(TenantMessage { from, ..message("duel.") })));
    }
    let accepted = outcomes.iter().filter(|of| **of == MessageOutcome::Accepted).count();
    assert_eq!(accepted, scene.seen_rx.len());
    assert!((100..400).contains(&accepted), "{accepted}");
    assert!(
        outcomes.iter().all(|of| matches!(of, MessageOutcome::Accepted | MessageOutcome::Busy))
    );
}

#[test]
fn what_the_pool_refuses_is_told_without_a_reason() {
    let scene = scene(None);
    scene.allow(B, A);
    let text = || "why".to_owned();
    for (error, outcome) in [
        (DispatchError::Banned, MessageOutcome::NotAllowed),
        (DispatchError::Quarantined, MessageOutcome::NotAllowed),
        (DispatchError::Busy(text()), MessageOutcome::Busy),
        (DispatchError::NoWorker(text()), MessageOutcome::Busy),
        (DispatchError::OutcomeUnknown(text()), MessageOutcome::Unknown),
    ] {
        *scene.pool.refusal.lock() = Some(error.clone());
        assert_eq!(scene.send(message("duel.")), outcome);
        let by = Instant::now() + PATIENCE;
        let data = EncodedJson::null();
        assert_eq!(scene.messages.bring_from_staff(B, "any", &data, by), Err(error));
    }
    *scene.pool.refusal.lock() = None;
    scene.db.set_standing(A, Standing::Banned).expect("set");
    assert_eq!(scene.send(message("duel.")), MessageOutcome::NotAllowed);
    let by = Instant::now() + PATIENCE;
    assert_eq!(scene.messages.bring_from_staff(B, "any", &EncodedJson::null(), by), Ok(()));
    let data = r#"{"depth":1,"from":"staff","topic":"any","data":null}"#;
    assert_eq!(scene.seen(), Some((B, data.to_owned())));
}

#[test]
fn messages_for_another_masters_tenants_are_forwarded() {
    let shards = Arc::new(ShardTable::new(Arc::default(), || ()));
    let serve = |numbers: &[u16]| {
        shards.serve(&numbers.iter().copied().filter_map(Shard::new).collect::<ShardSet>());
    };
    let scene = scene(Some(shards.clone()));
    serve(&[1]);
    assert_eq!(scene.send(message("duel.")), MessageOutcome::Busy, "there is no way yet");
    let (forwarded_tx, forwarded_rx) = unbounded();
    scene.messages.forward_by(Box::new(move |message, by| {
        forwarded_tx.send((message.clone(), by)).expect("the test looks");
        MessageOutcome::Unknown
    }));
    let before = Instant::now();
    assert_eq!(scene.send(message("duel.")), MessageOutcome::Unknown);
    let (forwarded, by) = forwarded_rx.try_recv().expect("forwarded");
    assert_eq!(forwarded, message("duel."));
    assert!(by >= before + MESSAGE_DEADLINE && by <= Instant::now() + MESSAGE_DEADLINE);
    assert_eq!(scene.messages.bring(&message("duel.")), None);
    // The pool knows it later than the table.
    serve(&[1, 2]);
    scene.allow(B, A);
    *scene.pool.refusal.lock() = Some(DispatchError::NotOwner);
    assert_eq!(scene.send(message("duel.")), MessageOutcome::Unknown);
    *scene.pool.refusal.lock() = None;
    assert_eq!(scene.send(message("duel.")), MessageOutcome::Accepted);
    // A sender that moved away is not spoken for here.
    serve(&[2]);
    assert_eq!(scene.send(message("duel.")), MessageOutcome::Busy);
    assert_eq!((forwarded_rx.len(), scene.seen_rx.len()), (1, 1));
}

#[test]
fn one_sender_that_waits_leaves_room_to_others() {
    let shards = Arc::new(ShardTable::new(Arc::default(), || ()));
    shards.serve(&Shard::new(1).into_iter().collect());
    let scene = scene(Some(shards));
    let (go_tx, go_rx) = bounded::<()>(0);
    scene.messages.forward_by(Box::new(move |message, _| {
        if message.from == A {
            // The end of the test lets it go.
            let _ = go_rx.recv();
        }
        MessageOutcome::Unknown
    }));
    let (outcomes_tx, outcomes_rx) = unbounded();
    for _ in 0..100 {
        let outcomes_tx = outcomes_tx.clone();
        let answer = move |outcome| outcomes_tx.send(outcome).expect("the test looks");
        scene.messages.carry(message("duel."), Box::new(answer));
    }
    let other = TenantMessage { from: TenantId::User(1 << 22), ..message("duel.") };
    assert_eq!(scene.send(other), MessageOutcome::Unknown);
    assert!(outcomes_rx.is_empty(), "those of the first wait");
    drop(go_tx);
    for _ in 0..100 {
        assert_eq!(outcomes_rx.recv_timeout(PATIENCE), Ok(MessageOutcome::Unknown));
    }
}
