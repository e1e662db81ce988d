//! Callers of the internal API, who check each answer, and the ledger in which they write what they
//! got.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mesophyll::wire::data::TenantId;
use mesophyll::wire::data::sharding::worker_for;
use serde_json::Value;

use super::Plan;
use super::clock::Clock;
use super::random::Random;
use super::site::Site;

/// How much later than its deadline an answer may come.
const LATE_MAX: Duration = Duration::from_secs(1);

/// What is less late is not looked at again.
const NOTABLY: Duration = Duration::from_millis(50);

/// Limit: wrongs that are told; the rest is a number.
const WRONGS_TOLD: usize = 20;

pub(crate) struct Ledger {
    tenants: u64,
    workers: usize,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    calls: u64,
    kinds: BTreeMap<String, u64>,
    accounts: BTreeMap<u64, Account>,
    /// What is under way: call and worker.
    under_way: HashMap<u64, usize>,
    kills: Vec<Kill>,
    late: Vec<Late>,
    wrongs: u64,
    told: Vec<String>,
}

/// A call that took notably longer than its deadline, for whatever reason.
struct Late {
    begun: Instant,
    ended: Instant,
    deadline: Duration,
    what: String,
}

impl Late {
    /// How much of that is the master's.
    fn by(&self, clock: &Clock) -> Duration {
        (self.ended - self.begun)
            .saturating_sub(self.deadline)
            .saturating_sub(clock.lost_between(self.begun, self.ended))
    }
}

/// One tenant's counter.
#[derive(Default)]
struct Account {
    acknowledged: BTreeSet<u64>,
    /// Calls that may have counted unseen.
    unknown: u64,
}

/// What was under way at a worker when it was killed.
struct Kill {
    calls: HashSet<u64>,
    has_hit: bool,
}

/// What a caller asks, and what must come back.
struct Asked {
    name: &'static str,
    data: Value,
    deadline: Duration,
    /// `None`: a count, which the books know.
    expected: Option<Value>,
}

impl Ledger {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { tenants: plan.tenants, workers: plan.workers, books: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no panic under this lock")
    }

    /// A worker is about to be killed: what is under way there is written down.
    pub(crate) fn note_kill(&self, worker: usize) {
        let mut books = self.lock();
        let calls = books
            .under_way
            .iter()
            .filter(|(_, at)| **at == worker)
            .map(|(call, _)| *call)
            .collect();
        books.kills.push(Kill { calls, has_hit: false });
    }

    /// The worker with most under way.
    pub(crate) fn busiest(&self, among: &[usize]) -> Option<usize> {
        let books = self.lock();
        let load = |worker: &usize| books.under_way.values().filter(|at| *at == worker).count();
        among.iter().copied().max_by_key(load)
    }

    /// Kills, and how many of them lost an event.
    pub(crate) fn kills(&self) -> (usize, usize) {
        let books = self.lock();
        (books.kills.len(), books.kills.iter().filter(|kill| kill.has_hit).count())
    }

    pub(crate) fn summary(&self, clock: &Clock) -> String {
        let books = self.lock();
        let mut text = format!("calls: {}", books.calls);
        for (kind, count) in &books.kinds {
            // Writing into a String cannot fail.
            let _ = write!(text, ", {kind} {count}");
        }
        let acknowledged: usize =
            books.accounts.values().map(|account| account.acknowledged.len()).sum();
        let unknown: u64 = books.accounts.values().map(|account| account.unknown).sum();
        let _ = write!(
            text,
            "\ncounts: {acknowledged} acknowledged, {unknown} unknown, of {} tenants",
            books.accounts.len()
        );
        let _ = write!(
            text,
            "\nworst wait beyond a deadline: {:?}; what the machine slept by itself is not counted (longest: {:?})",
            books.late.iter().map(|late| late.by(clock)).max().unwrap_or_default(),
            clock.longest_gap()
        );
        text
    }

    /// Compares the books with the store; returns what is wrong.
    pub(crate) fn check(&self, site: &Site, clock: &Clock) -> Vec<String> {
        let mut books = self.lock();
        let mut wrong = std::mem::take(&mut books.told);
        if books.wrongs > wrong.len() as u64 {
            wrong.push(format!("and {} more", books.wrongs - wrong.len() as u64));
        }
        for late in books.late.iter().filter(|late| late.by(clock) > LATE_MAX).take(WRONGS_TOLD) {
            wrong.push(format!(
                "{} with a deadline of {:?} came {:?} late",
                late.what,
                late.deadline,
                late.by(clock)
            ));
        }
        for (tenant, account) in &books.accounts {
            let stored = site.stored_count(*tenant);
            let sum = account.acknowledged.len() as u64;
            let last = account.acknowledged.last().copied().unwrap_or(0);
            if last > stored || sum > stored || stored > sum + account.unknown {
                wrong.push(format!(
                    "guild {tenant}: {stored} stored, {sum} acknowledged (the last {last}), {} unknown",
                    account.unknown
                ));
            }
        }
        wrong
    }
}

impl Books {
    fn wrong(&mut self, text: String) {
        self.wrongs += 1;
        if self.told.len() < WRONGS_TOLD {
            self.told.push(text);
        }
    }
}

/// Calls until told to stop.
pub(crate) fn call(site: &Site, ledger: &Ledger, mut random: Random, done: &AtomicBool) {
    let agent = site.agent();
    while !done.load(Ordering::SeqCst) {
        let tenant = (1 + random.below(ledger.tenants)) << 22;
        let asked = ask(&mut random);
        let worker = worker_for(TenantId::Guild(tenant), ledger.workers);
        let call = {
            let mut books = ledger.lock();
            books.calls += 1;
            let call = books.calls;
            books.under_way.insert(call, worker);
            call
        };
        let begun = Instant::now();
        let answer = site.dispatch(&agent, tenant, asked.name, &asked.data, asked.deadline);
        let ended = Instant::now();
        let mut books = ledger.lock();
        books.under_way.remove(&call);
        if ended > begun + asked.deadline + NOTABLY {
            let what = match &answer {
                Ok((status, _)) => format!("{} that got {status}", asked.name),
                Err(_) => asked.name.to_owned(),
            };
            books.late.push(Late { begun, ended, deadline: asked.deadline, what });
        }
        match answer {
            Ok((200, value)) => books.succeeded(tenant, &asked, &value),
            Ok((status, body)) => books.failed(tenant, call, &asked, status, &body),
            Err(error) => books.wrong(format!("{}: no answer at all: {error}", asked.name)),
        }
    }
}

fn ask(random: &mut Random) -> Asked {
    let deadline = Duration::from_millis(random.one_of(&[300, 1000, 3000, 10_000, 10_000]));
    match random.below(20) {
        0..=7 => Asked { name: "COUNT", data: Value::Null, deadline, expected: None },
        // Most of these give up in the middle.
        8 => {
            let deadline = Duration::from_millis(1 + random.below(20));
            Asked { name: "COUNT", data: Value::Null, deadline, expected: None }
        }
        9..=15 => {
            let data = match random.below(3) {
                0 => Value::from("x".repeat(random.below(30_000) as usize)),
                1 => {
                    serde_json::json!({ "number": random.next() >> 12, "list": [1, null, "three", 4.5] })
                }
                _ => Value::from(random.next() >> 12),
            };
            Asked { name: "ECHO", expected: Some(data.clone()), data, deadline }
        }
        16..=18 => {
            let mark = random.below(1_000_000);
            let seconds = random.below(800) as f64 / 1000.0;
            let data = serde_json::json!({ "mark": mark, "seconds": seconds });
            Asked {
                name: "WAIT",
                data,
                deadline,
                expected: Some(Value::from(format!("waited {mark}"))),
            }
        }
        _ => Asked { name: "FAIL", data: Value::Null, deadline, expected: Some(Value::Null) },
    }
}

impl Books {
    fn succeeded(&mut self, tenant: u64, asked: &Asked, value: &Value) {
        *self.kinds.entry("ok".to_owned()).or_default() += 1;
        match (&asked.expected, asked.name) {
            (_, "FAIL") => self.wrong(format!("FAIL succeeded with {value}")),
            (Some(expected), name) if expected != value => {
                self.wrong(format!("{name} of guild {tenant} returned {value}, not {expected}"));
            }
            (Some(_), _) => {}
            (None, _) => {
                let count = value.as_u64().unwrap_or(0);
                let account = self.accounts.entry(tenant).or_default();
                if count == 0 || !account.acknowledged.insert(count) {
                    self.wrong(format!("guild {tenant}: the count {value} was acknowledged twice"));
                }
            }
        }
    }

    fn failed(&mut self, tenant: u64, call: u64, asked: &Asked, status: u16, body: &Value) {
        let code = body["code"].as_str().unwrap_or("none").to_owned();
        *self.kinds.entry(code.clone()).or_default() += 1;
        if asked.name == "COUNT" && body["sent"] != false {
            self.accounts.entry(tenant).or_default().unknown += 1;
        }
        let is_expected = match code.as_str() {
            "OutcomeUnknown" | "NoWorker" | "Deadline" | "Busy" => true,
            // A count may find the way to the store broken.
            "ScriptError" => match asked.name {
                "FAIL" => body["message"].as_str().is_some_and(|text| text.contains("on purpose")),
                "COUNT" => body["message"].as_str().is_some_and(|text| !text.contains("budget")),
                _ => false,
            },
            _ => false,
        };
        if !is_expected {
            self.wrong(format!("{} of guild {tenant} got {status}: {body}", asked.name));
        }
        if code == "OutcomeUnknown" {
            for kill in self.kills.iter_mut().filter(|kill| kill.calls.contains(&call)) {
                kill.has_hit = true;
            }
        }
    }
}
