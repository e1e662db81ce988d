//! What is counted of one worker over all its links: what it does wrong, what its links have moved,
//! how they began and ended.
//!
//! One for each worker id, kept as long as the server, so that nothing is lost or told anew when a
//! link is replaced. Written by the links' threads, read by any thread.

use std::sync::Arc;
use std::time::Instant;

use crate::base::labels::{OutcomeCounters, labels};
use crate::base::limits::WORKER_SAYS;
use crate::base::metrics::Counter;
use crate::base::sync::Lock;
use crate::base::throttle::{Rate, Throttle};
use crate::net::http::Response;
use crate::net::link::{CloseCause, LinkStats, close_code};
use crate::net::stream::Peer;
use crate::store::Caller;
use crate::wire::data::TenantId;

/// The figures of one worker's links.
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// What moved, and how soon pings were answered.
    pub link: Arc<LinkStats>,
    /// Links that began.
    pub connections: Counter,
    /// Links that took the place of one that had not ended.
    pub replacements: Counter,
    ends: [Counter; LinkEnd::ALL.len()],
    pub(super) undecodable: Throttle,
    pub(super) unknown: Throttle,
    pub(super) late_answers: Throttle,
    /// Messages for tenants of other workers.
    pub(super) foreign: Throttle,
    /// Links whose worker is not confined as is required.
    pub(super) unconfined: Throttle,
    /// What it sends for its tenants, over all its links: a new one brings no new burst.
    says: Lock<Option<Rate>>,
    /// What it sent beyond that.
    excess: Throttle,
}

impl LinkCounters {
    /// How many links ended so.
    pub fn ends(&self, end: LinkEnd) -> u64 {
        self.ends[end as usize].get()
    }

    /// Messages that do not decode, messages of unknown kinds, answers that were not waited for, or
    /// not any more, messages for tenants of other workers, and more than a worker may send.
    pub fn wrongs(&self) -> [(&'static str, u64); 5] {
        [
            ("undecodable", self.undecodable.count()),
            ("unknown", self.unknown.count()),
            ("late_answer", self.late_answers.count()),
            ("foreign", self.foreign.count()),
            ("excess", self.excess.count()),
        ]
    }

    /// Checks what a worker says for a tenant: false if it says too much of late.
    ///
    /// # Errors
    /// The tenant is another worker's: this one is none of ours, or was taken over. The code to
    /// close its link with.
    pub(super) fn check_from(&self, worker: Caller, from: TenantId) -> Result<bool, u16> {
        if worker.owns(from) {
            return Ok(self.may_say_more(worker.worker_id));
        }
        let id = worker.worker_id;
        if self.foreign.record(Instant::now()).is_some() {
            log::error!(worker = id, tenant:% = from;
                "worker {id}: it speaks for {from}, which is not its tenant: its link is closed"
            );
        }
        Err(close_code::PROTOCOL)
    }

    fn may_say_more(&self, id: usize) -> bool {
        let (now, (per_second, burst)) = (Instant::now(), WORKER_SAYS);
        let may = self.says.lock().get_or_insert_with(|| Rate::new(per_second, burst)).admits(now);
        if !may && let Some(count) = self.excess.record(now) {
            log::warn!(worker = id;
                "worker {id}: it sends too many messages and events of feeds, {count} so far"
            );
        }
        may
    }

    pub(super) fn count_end(&self, cause: &CloseCause) {
        self.ends[LinkEnd::of(cause) as usize].inc();
    }
}

labels! {
    /// Why a worker was refused at its master's port, as a label.
    WorkerRefusal {
        /// It names no number.
        BadId = "bad_id",
        /// There is no such worker.
        UnknownId = "unknown_id",
        /// Its token is wrong.
        Token = "token",
        /// Its certificate does not name it.
        Certificate = "certificate",
        /// It knows another number of workers.
        Workers = "workers",
        /// It is in no whole sandbox, where one is required.
        Sandbox = "sandbox",
    }
}

/// Workers that were refused. Not by worker: which one it is, is not known of most.
#[derive(Debug, Default)]
pub(super) struct WorkerRefusals {
    counts: OutcomeCounters<WorkerRefusal>,
    log: Throttle,
}

impl WorkerRefusals {
    /// Counts one, and answers it with a status and a text, which has no token in it.
    pub(super) fn answer(
        &self,
        why: WorkerRefusal,
        peer: Peer,
        status: u16,
        text: &str,
    ) -> Response {
        self.counts.add(why, 1);
        if let Some(count) = self.log.record(Instant::now()) {
            log::warn!("a worker at {peer} was refused ({status}): {text}; {count} so far");
        }
        Response::text(status, text)
    }

    /// How many there were, but those without a sandbox, which each worker's counters have.
    pub(super) fn count(&self, why: WorkerRefusal) -> u64 {
        self.counts.get(why)
    }
}

labels! {
    /// How a link ended, as a label.
    LinkEnd {
        /// The worker closed it.
        ClosedByPeer = "closed_by_worker",
        /// The master closed it.
        ClosedByUs = "closed_by_master",
        /// A newer one took its place.
        Replaced = "replaced",
        /// The connection broke, such as when the worker died.
        Broken = "broken",
        /// The worker gave no sign of life.
        Silent = "silent",
        /// The worker did not take what was written.
        SlowPeer = "slow_peer",
    }
}

impl LinkEnd {
    fn of(cause: &CloseCause) -> Self {
        match cause {
            CloseCause::ClosedByPeer(_) => LinkEnd::ClosedByPeer,
            CloseCause::ClosedByUs(close_code::REPLACED) => LinkEnd::Replaced,
            CloseCause::ClosedByUs(_) => LinkEnd::ClosedByUs,
            CloseCause::Broken(_) => LinkEnd::Broken,
            CloseCause::Silent => LinkEnd::Silent,
            CloseCause::SlowPeer => LinkEnd::SlowPeer,
        }
    }
}

/// What there is to see of one worker's links.
#[derive(Debug, Clone)]
pub struct LinkReport {
    /// The worker's number.
    pub worker_id: usize,
    /// What was counted over all its links.
    pub counters: Arc<LinkCounters>,
    /// Messages and bytes that wait to leave now; none where it is not connected.
    pub queued: (usize, usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_speaks_for_its_own_tenants_and_not_too_often() {
        let (counters, worker) = (LinkCounters::default(), Caller { worker_id: 0, workers: 2 });
        let (own, others) = (TenantId::Guild(2 << 22), TenantId::Guild(3 << 22));
        assert_eq!(counters.check_from(worker, others), Err(close_code::PROTOCOL));
        let mut said = 0;
        while counters.check_from(worker, own) == Ok(true) {
            said += 1;
        }
        let (_, burst) = WORKER_SAYS;
        assert!((burst..100 * burst).contains(&said), "{said}");
        assert_eq!(counters.wrongs()[3..], [("foreign", 1), ("excess", 1)]);
    }
}
