//! What a worker may do to whoever started it: end at once, end in the middle, not end, print
//! without end. The worker is a supervised child beside a good one, behind a server and a pool as
//! in a master.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesophyll::base::error::DispatchError;
use mesophyll::dispatch::worker_like::WorkerLike;
use mesophyll::pool::process::supervisor::{Policy, State};
use mesophyll::pool::{
    ChildSpec, Managed, ProcessConfig, Program, Spawner, WorkerPool, WorkerProcessHandle,
    WorkerReport,
};
use mesophyll::protocol::{MesophyllServer, ServerConfig};
use mesophyll::store::{DbOptions, DbState, StoreUrl};
use mesophyll::wire::data::sharding::worker_for;
use mesophyll::wire::data::{CreateEvent, EncodedJson, EventData, KhronosValue, TenantId};
use mesophyll::wire::pack::value::decode;

use crate::support::DEADLINE;
use crate::support::binary::example;
use crate::support::process::{eventually, is_gone};

/// Two supervised workers: 0 is as it should be, 1 has a fault.
struct Supervised {
    server: MesophyllServer,
    pool: WorkerPool<WorkerProcessHandle>,
}

impl Supervised {
    fn start(fault: &str, policy: Policy) -> Self {
        // Fifteen seconds of silence: nobody here is silent, but for a while where the machine has
        // too much to do.
        Self::with_heartbeats(fault, policy, Duration::from_secs(5))
    }

    fn with_heartbeats(fault: &str, policy: Policy, heartbeat_interval: Duration) -> Self {
        let store = mesophyll::store::open(&StoreUrl::Memory).expect("a store");
        let db = Arc::new(DbState::new(store, DbOptions::default()).expect("a database"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let config = ServerConfig { heartbeat_interval, ..ServerConfig::new(2) };
        let server = MesophyllServer::new(listener, db, config).expect("a server");
        let spawner = Spawner::start().expect("its threads");
        let master = server.local_addr().to_string();
        let workers = [("none", Policy::default()), (fault, policy)].into_iter().enumerate();
        let workers = workers.map(|(worker_id, (fault, policy))| {
            let id = worker_id.to_string();
            let args = [fault, "--id", &id, "--master", &master, "--lifeline", "stdin"];
            let token = server.get_token_for_worker(worker_id).expect("a token").to_owned();
            let args = args.iter().map(Into::into).collect();
            let child = ChildSpec {
                program: Program::at(&example("faulty_worker")),
                args,
                token,
                variables: Vec::new(),
                broker: None,
                is_hosted: false,
                memory: None,
                spawner: spawner.clone(),
            };
            let config = ProcessConfig::new(worker_id, Some(child), policy);
            let worker = WorkerProcessHandle::start(config, || {}).expect("a loop");
            server.observe(worker_id, &worker.observer());
            worker
        });
        let pool = WorkerPool::new(workers.collect()).expect("two workers");
        let supervised = Self { server, pool };
        assert_eq!(supervised.dispatch(0, "FIRST", DEADLINE), Ok(answer(0, "FIRST")));
        supervised
    }

    fn faulty(&self) -> &WorkerProcessHandle {
        &self.pool.workers()[1]
    }

    fn report(&self) -> WorkerReport {
        self.faulty().report()
    }

    fn dispatch(
        &self,
        worker: usize,
        name: &str,
        patience: Duration,
    ) -> Result<KhronosValue, DispatchError> {
        let event = CreateEvent {
            name: name.to_owned(),
            author: None,
            data: EventData::Json(EncodedJson::null()),
        };
        let result = self.pool.dispatch_event(tenant_on(worker), event, Instant::now() + patience);
        result.map(|value| decode(&value).expect("a value"))
    }

    /// Runs `act` while the good worker is asked again and again, and has to answer each time.
    fn meanwhile<T>(&self, act: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(
                        self.dispatch(0, "ASKED", DEADLINE),
                        Ok(answer(0, "ASKED")),
                        "the good worker"
                    );
                }
            });
            let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            done.store(true, Ordering::SeqCst);
            asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            assert_eq!(self.pool.workers()[0].report().restarts.total(), 0);
            acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn wait_state(&self, state: State) {
        eventually(state.as_str(), || (self.faulty().report().state == state).then_some(()));
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.pool.kill();
        self.server.shutdown(Instant::now() + Duration::from_secs(5));
    }
}

fn tenant_on(worker: usize) -> TenantId {
    let mut tenants = (1u64..).map(|n| TenantId::Guild(n << 22));
    tenants.find(|tenant| worker_for(*tenant, 2) == worker).expect("some tenant lives there")
}

fn answer(worker: usize, name: &str) -> KhronosValue {
    KhronosValue::Text(format!("{name} of {}", tenant_on(worker)))
}

fn hasty() -> Policy {
    let millis = Duration::from_millis;
    Policy {
        backoff_min: millis(1),
        backoff_max: millis(2),
        term_grace: millis(300),
        ..Policy::default()
    }
}

/// A worker that never gets as far as a link ends as failed, and what waited for it with it.
fn expect_failed(fault: &str, last_exit: &str) {
    let supervised = Supervised::start(fault, hasty());
    supervised.meanwhile(|| {
        let waited = supervised.dispatch(1, "EVENT", DEADLINE);
        assert!(matches!(waited, Err(DispatchError::NoWorker(_))), "{waited:?}");
        supervised.wait_state(State::Failed);
    });
    let report = supervised.report();
    assert_eq!((report.restarts.total(), report.pid), (4, None), "{report:?}");
    assert_eq!(report.last_exit.as_deref(), Some(last_exit), "{report:?}");
}

#[test]
fn a_worker_that_crashes_at_boot_fails_alone() {
    expect_failed("crashes-at-boot", "killed by signal 6");
}

#[test]
fn a_worker_that_leaves_at_once_in_good_order_has_failed_too() {
    expect_failed("exits-at-once", "exit code 0");
}

#[test]
fn a_worker_never_ready_is_ended_until_it_has_failed() {
    let supervised = Supervised::with_heartbeats("never-ready", hasty(), Duration::from_secs(1));
    supervised.meanwhile(|| {
        let waited = supervised.dispatch(1, "EVENT", DEADLINE);
        assert!(matches!(waited, Err(DispatchError::NoWorker(_))), "{waited:?}");
        supervised.wait_state(State::Failed);
    });
    let last_exit = supervised.report().last_exit.expect("a reason");
    assert!(last_exit.contains("it missed its heartbeats"), "{last_exit}");
}

#[test]
fn a_worker_that_beats_but_hangs_is_ended_with_its_cause() {
    let supervised =
        Supervised::start("hangs", Policy { hang_timeout: Duration::from_secs(1), ..hasty() });
    supervised.meanwhile(|| {
        let outcome = supervised.dispatch(1, "STUCK", DEADLINE);
        assert!(matches!(outcome, Err(DispatchError::OutcomeUnknown(_))), "{outcome:?}");
        eventually("it is started again", || {
            (supervised.report().restarts.total() == 1).then_some(())
        });
    });
    let last_exit = supervised.report().last_exit.expect("a reason");
    assert!(last_exit.contains("STUCK"), "{last_exit}");
}

#[test]
fn an_event_that_crashes_a_worker_is_not_sent_again() {
    let policy = Policy { failures_in_window: 100, failures_in_a_row: 100, ..hasty() };
    let supervised = Supervised::start("crashes-on-an-event", policy);
    supervised.meanwhile(|| {
        for restarts in 1..=2 {
            let outcome = supervised.dispatch(1, "DEADLY", DEADLINE);
            assert!(matches!(outcome, Err(DispatchError::OutcomeUnknown(_))), "{outcome:?}");
            eventually("it is started again", || {
                (supervised.report().restarts.total() == restarts).then_some(())
            });
            supervised.wait_state(State::Ready);
            let report = supervised.report();
            // An event that was sent again would have killed the new process, too.
            assert_eq!(
                (report.restarts.total(), report.in_flight, report.waiting),
                (restarts, 0, 0),
                "{report:?}"
            );
        }
    });
    assert!(
        supervised.report().last_exit.is_some_and(|exit| exit.starts_with("killed by signal 6"))
    );
}

#[test]
fn a_worker_that_ignores_term_serves_until_it_is_killed() {
    let supervised = Supervised::start("ignores-term", hasty());
    let pid = supervised.meanwhile(|| {
        assert_eq!(supervised.dispatch(1, "EVENT", DEADLINE), Ok(answer(1, "EVENT")));
        let pid = supervised.report().pid.expect("it runs");
        assert!(supervised.faulty().stop(Instant::now(), Instant::now() + DEADLINE));
        pid
    });
    assert!(is_gone(pid));
    assert_eq!(supervised.report().last_exit.as_deref(), Some("killed by signal 9"));
}

#[test]
fn a_worker_that_prints_without_end_works_on() {
    let supervised = Supervised::start("floods-output", hasty());
    let lines = || match supervised.dispatch(1, "LINES", DEADLINE) {
        Ok(KhronosValue::Text(text)) => text.parse::<u64>().expect("a number"),
        other => panic!("{other:?}"),
    };
    // More than the log takes in all the time that a test may take: a thousand in a second.
    supervised.meanwhile(|| eventually("many lines", || (lines() > 200_000).then_some(())));
    assert_eq!(supervised.report().restarts.total(), 0);
}
