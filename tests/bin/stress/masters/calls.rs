//! Callers that have tenants count, each through a master of its choice, and the books in which
//! they write what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesophyll::api::token::{Secret, mint};
use serde_json::Value;

use super::super::random::Random;
use super::members::{Member, SECRET, agent};

/// Longer than a takeover, so that a call which is not sent can wait for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(25);

#[derive(Default)]
pub(crate) struct Books {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    kinds: BTreeMap<String, u64>,
    accounts: BTreeMap<u64, Account>,
    wrongs: Vec<String>,
    /// The longest wait for a success, since it was last asked for.
    longest: Duration,
    /// Calls that ended neither well nor as unknown, since it was last asked for.
    refused: u64,
    unknown: u64,
}

#[derive(Default)]
struct Account {
    acknowledged: BTreeSet<u64>,
    unknown: u64,
}

/// What came of calls in some time.
pub(crate) struct Part {
    longest: Duration,
    refused: u64,
    unknown: u64,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { longest, refused, unknown } = self;
        write!(f, "calls: the longest success {longest:.1?}, {refused} refused, {unknown} unknown")
    }
}

impl Books {
    /// What came of calls since this was asked last.
    pub(crate) fn part(&self) -> Part {
        let mut entries = self.entries.lock().expect("no panic");
        Part {
            longest: std::mem::take(&mut entries.longest),
            refused: std::mem::take(&mut entries.refused),
            unknown: std::mem::take(&mut entries.unknown),
        }
    }

    pub(crate) fn summary(&self) -> String {
        let entries = self.entries.lock().expect("no panic");
        let acknowledged: usize =
            entries.accounts.values().map(|account| account.acknowledged.len()).sum();
        format!("calls by outcome: {:?}; {acknowledged} counts acknowledged", entries.kinds)
    }

    /// Compares the books with what the tenants count; `count` asks one of them once more.
    pub(crate) fn check(&self, count: impl Fn(u64) -> u64) -> Vec<String> {
        let entries = self.entries.lock().expect("no panic");
        let mut wrong = entries.wrongs.clone();
        for (tenant, account) in &entries.accounts {
            let stored = count(*tenant) - 1;
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

    fn note(&self, tenant: u64, answer: Result<(u16, Value), String>, took: Duration) {
        let mut entries = self.entries.lock().expect("no panic");
        let (kind, is_unknown) = match &answer {
            Ok((200, value)) => {
                entries.longest = entries.longest.max(took);
                let count = value.as_u64().unwrap_or(0);
                let account = entries.accounts.entry(tenant).or_default();
                if count == 0 || !account.acknowledged.insert(count) {
                    entries.wrongs.push(format!("guild {tenant}: {value} was acknowledged twice"));
                }
                ("ok".to_owned(), false)
            }
            Ok((_, body)) => {
                let code = body["code"].as_str().unwrap_or("none").to_owned();
                let is_expected = [
                    "OutcomeUnknown",
                    "NoWorker",
                    "Deadline",
                    "Busy",
                    "Unavailable",
                    "ScriptError",
                ];
                if !is_expected.contains(&code.as_str()) {
                    entries.wrongs.push(format!("guild {tenant}: {body}"));
                }
                (code, body["sent"] != false)
            }
            // Its master was killed: the caller cannot know.
            Err(_) => ("connection lost".to_owned(), true),
        };
        *entries.kinds.entry(kind.clone()).or_default() += 1;
        if is_unknown {
            entries.accounts.entry(tenant).or_default().unknown += 1;
            entries.unknown += 1;
        } else if kind != "ok" {
            entries.refused += 1;
        }
    }
}

/// Calls until told to stop.
pub(crate) fn call(
    members: &[Member],
    books: &Books,
    tenants: u64,
    mut random: Random,
    done: &AtomicBool,
) {
    let (agent, token) = (agent(), token());
    while !done.load(Ordering::SeqCst) {
        let tenant = (1 + random.below(tenants)) << 22;
        let member = &members[random.below(members.len() as u64) as usize];
        let begun = Instant::now();
        match count(&agent, &token, member, tenant) {
            // It is away: nothing was asked of it.
            Err(error) if error.contains("refused") => {}
            answer => books.note(tenant, answer, begun.elapsed()),
        }
    }
}

pub(crate) fn token() -> String {
    let secret = Secret::new(SECRET.as_bytes().to_vec()).expect("long enough");
    format!("Internal {}", mint(&secret, 7, u64::MAX / 2))
}

/// Has a tenant count: status and body.
pub(crate) fn count(
    agent: &ureq::Agent,
    token: &str,
    member: &Member,
    tenant: u64,
) -> Result<(u16, Value), String> {
    let path = format!("/i/dispatch-event/guild/{tenant}?deadline_ms={}", DEADLINE.as_millis());
    let url = format!("http://{}{path}", member.api());
    let request = agent.post(url).header("Authorization", token);
    let mut response =
        request.send(r#"{"name":"COUNT","data":null}"#).map_err(|error| error.to_string())?;
    let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
    let value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    Ok((response.status().as_u16(), value))
}
