//! The edge of a pool: what races with a hand-over, a ban and a quarantine.

use std::sync::Arc;
use std::time::Instant;

use super::admission::AdmittingPool;
use super::observe::quarantine::Quarantine;
use super::observe::traffic::Traffic;
use crate::base::primitives::atomic::{AtomicBool, Ordering};
use crate::base::primitives::once_in;
use crate::base::sync::Lock;
use crate::check::{Model, far, spawn};
use crate::cluster::ShardTable;
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer, Cancelled, Job, JobKind, Refused, Request, RequestId};
use crate::store::{DbState, Standing};
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{CreateEvent, EncodedJson, EncodedValue, EventData, TenantId};

const TENANT: TenantId = TenantId::Guild(1 << 22);

pub fn models() -> Vec<Model> {
    vec![
        Model { name: "admission: hand-over", run: hand_over, is_tiny: false },
        Model { name: "admission: ban", run: ban, is_tiny: false },
        Model { name: "admission: quarantine", run: quarantine, is_tiny: false },
    ]
}

/// Takes every job, and answers it at once.
#[derive(Default)]
struct Workers {
    jobs: Lock<Vec<JobKind>>,
    /// The shard is another master's: nothing of it may run here.
    is_handed_over: AtomicBool,
}

impl WorkerLike for Workers {
    fn id(&self) -> usize {
        0
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        self.jobs.lock().push(JobKind::of(&request));
        assert!(!self.is_handed_over.load(Ordering::SeqCst), "another master has the tenant");
        request.answer.send(Ok(EncodedValue::null()));
        Ok(())
    }

    fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
        Cancelled::Unknown
    }

    fn kill(&self) {}
}

/// A pool, and what stands around it.
struct Scene {
    workers: Arc<Workers>,
    db: Arc<DbState>,
    quarantine: Arc<Quarantine>,
    traffic: Arc<Traffic>,
    shards: Arc<ShardTable>,
    pool: Arc<AdmittingPool>,
}

fn scene() -> Scene {
    let (workers, db) = (Arc::<Workers>::default(), Arc::new(DbState::new()));
    let (quarantine, traffic) = (Arc::new(Quarantine::new(1)), Arc::new(Traffic::new(1)));
    let shards = Arc::new(ShardTable::new(Arc::default(), || ()));
    shards.serve(&shard());
    let pool = AdmittingPool::new(workers.clone(), db.clone(), quarantine.clone(), traffic.clone())
        .with_shards(Some(shards.clone()));
    Scene { workers, db, quarantine, traffic, shards, pool: Arc::new(pool) }
}

fn shard() -> ShardSet {
    [Shard::of(TENANT)].into_iter().collect()
}

fn event() -> Request {
    let data = EventData::Json(EncodedJson::null());
    let event = CreateEvent { name: String::new(), author: None, data };
    Request::new(TENANT, Job::Dispatch(event), far(), Answer::callback(|_| ()))
}

/// Once a shard is served no more and nothing of it is under way, nothing of it begins.
fn hand_over() {
    let Scene { workers, traffic, shards, pool, .. } = scene();
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let pool = pool.clone();
            spawn(move || pool.submit(event()))
        })
        .collect();
    shards.serve(&ShardSet::default());
    while traffic.has_unanswered(&shard()) {
        shuttle::thread::yield_now();
    }
    workers.is_handed_over.store(true, Ordering::SeqCst);
    callers.into_iter().for_each(|caller| caller.join().expect("an end"));
    assert!(!traffic.has_unanswered(&shard()));
}

/// Whatever was handed over beside a ban is ended behind it: a drop is the last that a worker gets.
fn ban() {
    let Scene { workers, db, traffic, pool, .. } = scene();
    let asks = pool.clone();
    let caller = spawn(move || pool.submit(event()));
    db.set_standing(Standing::Banned);
    asks.submit(Request::new(TENANT, Job::DropTenant, far(), Answer::callback(|_| ())));
    caller.join().expect("an end");
    assert_eq!(workers.jobs.lock().last(), Some(&JobKind::Drop));
    assert!(!traffic.has_unanswered(&shard()));
}

/// A tenant that is quarantined, and not lifted, gets nothing: also if others are put there and
/// lifted meanwhile.
fn quarantine() {
    let Scene { workers, quarantine, pool, .. } = scene();
    let other = TenantId::User(1);
    quarantine.died(0, "", 1, &[other].into(), Instant::now());
    let lifts = quarantine.clone();
    let lifting = spawn(move || lifts.lift(other));
    quarantine.died(0, "", 1, &[TENANT].into(), Instant::now());
    assert!(quarantine.holds(TENANT));
    if once_in(2) {
        assert!(lifting.join().expect("an end"));
    }
    pool.submit(event());
    assert!(workers.jobs.lock().is_empty(), "it is quarantined");
}
