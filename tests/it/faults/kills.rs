//! kill -9 of a master under load, again and again on one store: no worker is left, no acknowledged
//! write is lost, and the next start serves soon.
//!
//! Five rounds; STRESS_MASTER_KILLS says otherwise, which `make stress` does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::binary::{Master, token, try_post};
use crate::support::process::{eventually, is_gone, within, workers_of};
use crate::support::{Random, TempDir};

/// How soon the workers of a master that was killed must be gone.
const ORPHANS_GONE: Duration = Duration::from_secs(5);

const TENANTS: u64 = 8;
const CALLERS: u64 = 8;

/// Tells a figure past the test harness, if somebody wants to see them.
fn told(text: &str) {
    if std::env::var_os("STRESS_MASTER_KILLS").is_some() {
        let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
    }
}

/// One tenant's counter, over all masters.
#[derive(Default)]
struct Account {
    acknowledged: BTreeSet<u64>,
    /// Calls that may have counted unseen.
    unknown: u64,
}

type Accounts = Mutex<BTreeMap<u64, Account>>;

fn guild(tenant: u64) -> String {
    format!("guild/{}", (1 + tenant) << 22)
}

/// Counts until nobody answers.
fn count_until_the_end(
    master: &Master,
    mut random: Random,
    accounts: &Accounts,
    answered: &AtomicU64,
) {
    let token = token(7);
    loop {
        let tenant = random.below(TENANTS);
        let path = format!("/i/dispatch-event/{}", guild(tenant));
        let result = try_post(master.api(), &path, &token, r#"{"name":"COUNT","data":null}"#);
        let mut accounts = accounts.lock().expect("no panic under this lock");
        let account = accounts.entry(tenant).or_default();
        let body = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        match result {
            Ok((200, text)) => {
                let count = body(&text).as_u64().expect("a count");
                assert!(account.acknowledged.insert(count), "{count} was acknowledged twice");
                answered.fetch_add(1, Ordering::SeqCst);
            }
            Ok((_, text)) => account.unknown += u64::from(body(&text)["sent"] != false),
            Err(_) => {
                account.unknown += 1;
                return;
            }
        }
    }
}

/// Counts, and kills the master in the middle; returns how long its workers lived on.
fn kill_under_load(
    master: Master,
    random: &mut Random,
    accounts: &Accounts,
) -> (TempDir, Duration) {
    let answered = AtomicU64::new(0);
    let workers = workers_of(master.pid());
    assert_eq!(workers.len(), 2);
    let at_least = 20 + random.below(200);
    let killed = std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            let random = Random::new(random.next());
            let (master, answered) = (&master, &answered);
            scope.spawn(move || count_until_the_end(master, random, accounts, answered));
        }
        eventually("some counts are acknowledged", || {
            (answered.load(Ordering::SeqCst) >= at_least).then_some(())
        });
        master.running.signal(Signal::KILL);
        Instant::now()
    });
    within(ORPHANS_GONE, "no worker is left", || {
        workers.values().all(|pid| is_gone(*pid)).then_some(())
    });
    (master.folder, killed.elapsed())
}

#[test]
fn a_killed_master_leaves_no_worker_and_loses_nothing() {
    let rounds =
        std::env::var("STRESS_MASTER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let mut random = Random::new(20);
    let accounts = Accounts::default();
    let (mut starts, mut ends) = (Duration::ZERO, Duration::ZERO);
    let mut master = Master::start_in(TempDir::new(), &[]);
    master.wait_ready();
    for round in 1..=rounds {
        let (folder, ended) = kill_under_load(master, &mut random, &accounts);
        let started = Instant::now();
        master = Master::start_in(folder, &[]);
        // It waits for its worker, and that is served.
        assert_eq!(master.dispatch(&guild(0), "ECHO", "1"), (200, Value::from(1)));
        assert_eq!(master.dispatch(&guild(1), "ECHO", "1"), (200, Value::from(1)));
        let took = started.elapsed();
        (starts, ends) = (starts.max(took), ends.max(ended));
        told(&format!(
            "round {round}: its workers were gone after {ended:?}, the next one served after {took:?}"
        ));
        for (tenant, account) in &mut *accounts.lock().expect("no panic under this lock") {
            let (status, count) = master.dispatch(&guild(*tenant), "COUNT", "null");
            assert_eq!(status, 200, "{count}");
            let count = count.as_u64().expect("a count");
            let (sum, last) = (
                account.acknowledged.len() as u64,
                account.acknowledged.last().copied().unwrap_or(0),
            );
            let (stored, unknown) = (count - 1, account.unknown);
            assert!(
                last <= stored && sum <= stored && stored <= sum + unknown,
                "{stored}: {last}, {sum} + {unknown}"
            );
            assert!(account.acknowledged.insert(count), "{count} was acknowledged before");
        }
    }
    let acknowledged: usize =
        accounts.lock().expect("a lock").values().map(|account| account.acknowledged.len()).sum();
    told(&format!(
        "{rounds} masters killed, {acknowledged} counts acknowledged and there; worst: {ends:?}, {starts:?}"
    ));
    // Two seconds on a machine of its own; here others may be at work, too.
    assert!(starts < Duration::from_secs(30), "{starts:?}");
}
