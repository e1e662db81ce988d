//! `GET /i/status`: everything that the status page shows, at one moment and in one answer.
//!
//! Counts are since the master started and never reset: a caller that asks twice has rates and
//! quantiles of the time between from their differences, over `at_ms`, which the master measures.
//! So no two pages disturb each other. `?history` adds the last minutes of what the charts show.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::cluster::{ListedMaster, masters_of};
use super::error::{ApiError, Code};
use super::history::Sample;
use super::workers::{self, QuarantinedTenant, WorkerAnswer};
use super::{Api, Call, flag, text};
use crate::base::limits::{BUSIEST_TOLD, STATUS_ANSWERS_MAX};
use crate::base::metrics::LATENCY_BOUNDS_US;
use crate::base::sync::CountedPermit;
use crate::dispatch::JobKind;
use crate::net::http::{Body, Response};
use crate::pool::{Outcome, RollReport, Traffic, WorkerReport, WorkerTraffic};
use crate::wire::data::sharding::worker_for;

/// What a master is, for those that look at it; no path and no address.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// How it runs its workers, as `--mode` says it.
    pub mode: &'static str,
    /// The kind of its store.
    pub store: &'static str,
    /// The workers are started from outside.
    pub has_external_workers: bool,
    /// When it started.
    pub started: Instant,
}

#[derive(Serialize)]
struct StatusAnswer {
    /// For differences: milliseconds since the master started.
    at_ms: u64,
    master: MasterAnswer,
    latency_bounds_us: [u64; LATENCY_BOUNDS_US.len()],
    workers: Vec<CountedWorker>,
    /// Those over one database, where there may be several.
    masters: Vec<ListedMaster>,
    rolling: RollReport,
    quarantine: Vec<QuarantinedTenant>,
    busiest: BusiestTenants,
    errors: Vec<ErrorAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Sample>>,
}

#[derive(Serialize)]
struct MasterAnswer {
    /// Where it is one of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    version: &'static str,
    pid: u32,
    mode: &'static str,
    store: &'static str,
    external_workers: bool,
}

/// A worker, and what its tenants asked for.
#[derive(Serialize)]
pub(super) struct CountedWorker {
    #[serde(flatten)]
    pub(super) worker: WorkerAnswer,
    outcomes: Outcomes,
    pub(super) latency: Latency,
}

/// How many jobs ended how, by the names that metrics have for it; what never happened is left out.
struct Outcomes(Vec<(&'static str, u64)>);

impl Serialize for Outcomes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

#[derive(Serialize)]
pub(super) struct Latency {
    /// By bucket; empty ones at the end are left out.
    pub(super) counts: Vec<u64>,
    pub(super) sum_us: u64,
}

impl CountedWorker {
    fn of(worker: WorkerAnswer, traffic: Option<&WorkerTraffic>) -> Self {
        let count = |outcome: Outcome| {
            traffic.map_or(0, |traffic| {
                JobKind::ALL.iter().map(|kind| traffic.ended().count(*kind, outcome)).sum()
            })
        };
        let outcomes = Outcome::ALL.iter().map(|outcome| (outcome.as_str(), count(*outcome)));
        let mut took = crate::base::metrics::Buckets::default();
        for kind in
            traffic.iter().flat_map(|traffic| JobKind::ALL.map(|kind| traffic.ended().took(kind)))
        {
            took.add(&kind);
        }
        let len = took.counts().iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        Self {
            worker,
            outcomes: Outcomes(outcomes.filter(|(_, count)| *count > 0).collect()),
            latency: Latency { counts: took.counts()[..len].to_vec(), sum_us: took.sum_us() },
        }
    }

    /// How many jobs ended, and how many of them well.
    pub(super) fn ended(&self) -> (u64, u64) {
        let counts = &self.outcomes.0;
        let ok = counts.iter().find(|(outcome, _)| *outcome == Outcome::Ok.as_str());
        (counts.iter().map(|(_, count)| count).sum(), ok.map_or(0, |(_, count)| *count))
    }
}

/// Each worker with what its tenants asked for.
pub(super) fn counted(
    workers: Vec<WorkerReport>,
    traffic: &Traffic,
    now: Instant,
) -> Vec<CountedWorker> {
    let counted = |report| {
        let worker = WorkerAnswer::of(report, now);
        let traffic = traffic.workers().get(worker.id);
        CountedWorker::of(worker, traffic)
    };
    workers.into_iter().map(counted).collect()
}

#[derive(Serialize)]
struct BusiestTenants {
    seconds: u64,
    us: u64,
    tenants: Vec<TenantShare>,
}

#[derive(Serialize)]
struct TenantShare {
    tenant: String,
    events: u64,
    us: u64,
}

#[derive(Serialize)]
struct ErrorAnswer {
    id: u64,
    tenant: String,
    event: String,
    kind: &'static str,
    message: String,
    count: u64,
    first_s: u64,
    last_s: u64,
}

pub(super) fn status(
    api: &Api,
    call: &Call<'_>,
    _body: &mut Body<'_>,
) -> Result<Response, ApiError> {
    let has_history = flag(call.head, "history")?;
    let operator = api.ready.operator();
    // Not one of those places that callers of tenants wait in: under a flood an operator wants to
    // look.
    let place = CountedPermit::take(&api.statuses, STATUS_ANSWERS_MAX)
        .ok_or_else(|| ApiError::new(Code::Busy, "too many answers of this route are under way"))?;
    let (figures, now) = (api.ready.figures(), Instant::now());
    let (about, traffic, cluster) = (figures.about, &*figures.traffic, api.ready.cluster());
    let status = StatusAnswer {
        at_ms: millis(now.saturating_duration_since(about.started)),
        master: MasterAnswer {
            name: cluster.filter(|one| one.cluster.is_some()).map(|one| one.name.clone()),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            mode: about.mode,
            store: about.store,
            external_workers: about.has_external_workers,
        },
        latency_bounds_us: LATENCY_BOUNDS_US,
        busiest: busiest(traffic, &figures.workers, now),
        workers: counted(figures.workers, traffic, now),
        masters: masters_of(cluster),
        rolling: operator.rolling(),
        quarantine: workers::quarantined(operator),
        errors: errors(traffic, now),
        history: has_history.then(|| api.history.list()),
    };
    Ok(text::answer(200, &status)?.holding(place))
}

/// Events as the master has counted them, and those that it has not among the busiest, as their
/// worker has; running time is the workers' word, which comes with their heartbeats.
fn busiest(traffic: &Traffic, workers: &[WorkerReport], now: Instant) -> BusiestTenants {
    let report = traffic.busiest().report(BUSIEST_TOLD, now);
    let figures = workers
        .iter()
        .filter_map(|worker| Some((worker.id, worker.health.as_ref()?.figures.as_deref()?)));
    let mut shares = BTreeMap::new();
    let mut us = 0_u64;
    for (id, figures) in figures {
        us = us.saturating_add(figures.busiest_us);
        // A worker has no say about tenants of another one.
        let own =
            figures.busiest.iter().filter(|(tenant, ..)| worker_for(*tenant, workers.len()) == id);
        shares.extend(own.map(|(tenant, events, us)| (*tenant, (*us, *events))));
    }
    for share in report.tenants {
        shares.entry(share.tenant).or_default().1 = share.events;
    }
    let mut tenants: Vec<_> = shares
        .into_iter()
        .map(|(tenant, (us, events))| TenantShare { tenant: tenant.to_string(), events, us })
        .collect();
    tenants.sort_by_key(|share| Reverse((share.us, share.events)));
    tenants.truncate(2 * BUSIEST_TOLD);
    BusiestTenants { seconds: report.span.as_secs(), us, tenants }
}

fn errors(traffic: &Traffic, now: Instant) -> Vec<ErrorAnswer> {
    let age = |at: Instant| now.saturating_duration_since(at).as_secs();
    let told = |error: crate::pool::RecentError| ErrorAnswer {
        id: error.id,
        tenant: error.tenant.to_string(),
        first_s: age(error.first),
        last_s: age(error.last),
        event: error.event,
        kind: error.kind,
        message: error.message,
        count: error.count,
    };
    traffic.errors().list().into_iter().map(told).collect()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::process::supervisor::{Restarts, State};
    use crate::wire::data::{RuntimeFigures, TenantId};
    use crate::wire::message::Health;

    #[test]
    fn a_worker_counts_for_its_tenants_without_overflow() {
        let (first, second) = (TenantId::Guild(0), TenantId::Guild(1 << 22));
        let mut figures = RuntimeFigures::default();
        figures.busiest = vec![(first, 1, 2), (second, 3, 4)];
        figures.busiest_us = u64::MAX;
        let report = |id| WorkerReport {
            id,
            state: State::Ready,
            pid: None,
            started: None,
            heartbeat_age: None,
            in_flight: 0,
            waiting: 0,
            health: Some(Health { figures: Some(Box::new(figures.clone())), ..Health::default() }),
            restarts: Restarts::default(),
            version: None,
            host: None,
            sandbox: None,
            retires: false,
            needs_restart: false,
            is_handed_out: false,
            sandbox_kills: 0,
            last_exit: None,
        };
        let named = |reports: &[WorkerReport]| {
            let BusiestTenants { us, tenants, .. } =
                busiest(&Traffic::new(2), reports, Instant::now());
            (us, tenants.into_iter().map(|share| share.tenant).collect::<Vec<_>>())
        };
        assert_eq!(
            named(&[report(0), report(1)]),
            (u64::MAX, vec![second.to_string(), first.to_string()])
        );
        let other = WorkerReport { health: None, ..report(1) };
        assert_eq!(named(&[report(0), other]), (u64::MAX, vec![first.to_string()]));
    }
}
