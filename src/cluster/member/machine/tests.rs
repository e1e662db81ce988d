//! What a machine does at edges to which no fault of the simulation leads for certain.

use std::time::Duration;

use super::{ClusterAction, ClusterEvent, ClusterMachine};
use crate::base::limits::CLUSTER_WISHES_MAX;
use crate::cluster::member::fake::FakeDatabase;
use crate::store::lease::{LeaseAsk, LeaseTold, MasterId, MasterState, Membership};

const LEASE: Duration = Duration::from_secs(6);

struct Tried {
    machine: ClusterMachine,
    database: FakeDatabase,
    now: Duration,
}

impl Tried {
    /// A machine of a cluster that serves everything.
    fn started() -> Self {
        let membership = Membership {
            cluster: Some("x".to_owned()),
            name: "a".to_owned(),
            api: String::new(),
            version: String::new(),
            weight: 1,
            lease: LEASE,
        };
        let machine = ClusterMachine::new(membership, LEASE, MasterId::random);
        let mut tried = Self { machine, database: FakeDatabase::new(), now: LEASE };
        tried.step(ClusterEvent::Tick);
        let loads = tried.step(ClusterEvent::Started);
        let load = loads.into_iter().find_map(|action| match action {
            ClusterAction::Load(shards) => Some(shards),
            _ => None,
        });
        tried.step(ClusterEvent::Loaded(load.expect("all is taken")));
        assert!(tried.machine.is_settled());
        tried
    }

    /// What comes of an event, with all answers of the database.
    fn step(&mut self, event: ClusterEvent) -> Vec<ClusterAction> {
        let mut all = self.machine.step(event, self.now);
        let mut at = 0;
        while let Some(action) = all.get(at) {
            at += 1;
            if let ClusterAction::Ask(ask) = action {
                let told = self.database.ask(ask, self.now);
                let told = ClusterEvent::Told { asked_at: self.now, told };
                all.extend(self.machine.step(told, self.now));
            }
        }
        all
    }

    /// What comes of it, without an answer.
    fn step_unanswered(&mut self, event: ClusterEvent) -> Vec<ClusterAction> {
        self.machine.step(event, self.now)
    }
}

#[test]
fn a_stop_after_a_lost_lease_waits_idly() {
    let mut tried = Tried::started();
    tried.now = tried.machine.due();
    let asked = tried.step_unanswered(ClusterEvent::Tick);
    assert!(matches!(asked[..], [ClusterAction::Ask(LeaseAsk::Renew(..))]), "{asked:?}");
    let lost = ClusterEvent::Told { asked_at: tried.now, told: LeaseTold::Renewed(None) };
    let until = tried.now + 10 * LEASE;
    let left = [lost, ClusterEvent::Stop { until }].map(|event| tried.step_unanswered(event));
    let leave = left.concat().into_iter().find_map(|action| match action {
        ClusterAction::Leave(shards, _) => Some(shards),
        _ => None,
    });
    assert_eq!(tried.machine.due(), until);
    let ended = tried.step_unanswered(ClusterEvent::Left(leave.expect("what was lost")));
    assert!(ended.contains(&ClusterAction::Ended), "{ended:?}");
}

#[test]
fn a_wish_too_many_is_refused_and_no_other() {
    let mut tried = Tried::started();
    let wish = || ClusterEvent::SetState("b".to_owned(), MasterState::Up);
    let asked = tried.step_unanswered(wish());
    assert!(matches!(asked[..], [ClusterAction::Ask(LeaseAsk::SetState(..))]), "{asked:?}");
    for _ in 0..CLUSTER_WISHES_MAX {
        assert_eq!(tried.step_unanswered(wish()), []);
    }
    assert_eq!(tried.step_unanswered(wish()), [ClusterAction::StateNotAsked]);
}
