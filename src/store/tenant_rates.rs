//! How much of each kind of thing tenants may ask of their master a second, and what is said of
//! those that ask for more. In the master, as workers are not trusted to hold back.
//!
//! Of staff nothing is counted: it asks [`DbState`] by other ways. Called from any thread.

use std::array;
use std::fmt;

use super::{Caller, DbState, rules};
use crate::base::error::DbError;
use crate::base::labels::{Label, OutcomeCounters, labels};
use crate::base::limits::{HOST_CALLS, TENANT_MESSAGES_SENT, TENANT_OWN_RECORDS, TIMER_CALLS};
use crate::base::rates::Rates;
use crate::wire::data::{DbOp, TenantId};

labels! {
    /// What a tenant has a rate of.
    RateKind {
        /// Operations on its records, and changes of its state.
        Kv = "kv",
        /// Operations on the shop's entries.
        Shop = "shop",
        /// Calls of `ctx.Timers`.
        Timers = "timers",
        /// Messages that it sends to other tenants.
        Messages = "messages",
        /// Calls to host processes.
        HostCalls = "host_calls",
    }
}

/// So many a second, after a burst of so many.
pub type RateLimit = (u32, u32);

/// The bounds that hold for each tenant; `None`: there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimits([Option<RateLimit>; RateKind::ALL.len()]);

impl Default for RateLimits {
    /// Records and the shop have none: tenants take turns at what those cost.
    fn default() -> Self {
        Self(RateKind::ALL.map(|kind| match kind {
            RateKind::Kv | RateKind::Shop => None,
            RateKind::Timers => Some(TIMER_CALLS),
            RateKind::Messages => Some(TENANT_MESSAGES_SENT),
            RateKind::HostCalls => Some(HOST_CALLS),
        }))
    }
}

impl RateLimits {
    /// That of a kind.
    pub fn of(&self, kind: RateKind) -> Option<RateLimit> {
        self.0[kind.place()]
    }

    /// Has another one hold for a kind.
    pub fn set(&mut self, kind: RateKind, limit: Option<RateLimit>) {
        self.0[kind.place()] = limit;
    }
}

/// Whose rate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum RateHolder {
    Tenant(TenantId),
    /// A worker that does not say for which tenant it asks.
    Worker(usize),
}

/// More than a rate lets a tenant have. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateRefusal {
    kind: RateKind,
    limit: RateLimit,
    /// The tenant, if it has not been told lately.
    untold: Option<TenantId>,
}

impl RateRefusal {
    /// Whether its tenant's author is to be told.
    pub fn is_news(&self) -> bool {
        self.untold.is_some()
    }
}

impl fmt::Display for RateRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            RateKind::Kv => "KV operations",
            RateKind::Shop => "operations on the shop",
            RateKind::Timers => "calls of ctx.Timers",
            RateKind::Messages => "messages",
            RateKind::HostCalls => "calls of ctx.Host",
        };
        let (per_second, burst) = self.limit;
        write!(
            f,
            "too many {what}: at most {per_second} a second, after a burst of {burst}; \
             try again later"
        )
    }
}

/// What each tenant has asked for lately.
pub(super) struct TenantRates {
    /// Without a bound there is no lock.
    rates: [Option<(RateLimit, Rates<RateHolder>)>; RateKind::ALL.len()],
    /// What workers ask for themselves.
    own_records: Rates<RateHolder>,
    refused: OutcomeCounters<RateKind>,
}

impl TenantRates {
    pub(super) fn new(limits: &RateLimits) -> Self {
        let rates = |place: usize| limits.0[place].map(|limit| (limit, Rates::new(limit)));
        Self {
            rates: array::from_fn(rates),
            own_records: Rates::new(TENANT_OWN_RECORDS),
            refused: OutcomeCounters::default(),
        }
    }
}

impl DbState {
    /// Counts one more of a kind for a tenant.
    ///
    /// # Errors
    /// It asks for more than it may; [`DbState::record_refusal`] is for its author then.
    pub fn admit(&self, kind: RateKind, tenant: TenantId) -> Result<(), RateRefusal> {
        self.admit_holder(kind, RateHolder::Tenant(tenant), false)
    }

    /// `is_own`: it is for what a worker needs to run the tenant's template.
    fn admit_holder(
        &self,
        kind: RateKind,
        of: RateHolder,
        is_own: bool,
    ) -> Result<(), RateRefusal> {
        let all = self.tenant_rates();
        let Some((limit, rates)) = &all.rates[kind.place()] else { return Ok(()) };
        let rates = if is_own { &all.own_records } else { rates };
        let limit = if is_own { TENANT_OWN_RECORDS } else { *limit };
        rates.admit(of, self.moment()).map_err(|over| {
            all.refused.add(kind, 1);
            let refusal = |untold| RateRefusal { kind, limit, untold };
            match of {
                RateHolder::Tenant(tenant) if over.is_news => {
                    log::info!(tenant:% = tenant; "{tenant}: {}", refusal(None));
                    refusal(Some(tenant))
                }
                RateHolder::Worker(id) if over.is_news => {
                    log::info!(worker = id; "worker {id}, which names no tenant: {}", refusal(None));
                    refusal(None)
                }
                _ => refusal(None),
            }
        })
    }

    /// Counts an operation of a worker's tenant.
    ///
    /// # Blocks
    /// As [`DbState::record_refusal`].
    ///
    /// # Errors
    /// `Busy`: it is one too many.
    pub(super) fn admit_op(&self, caller: Caller, op: &DbOp) -> Result<(), DbError> {
        let (kind, is_own) = match op {
            DbOp::Kv(_, op) => (RateKind::Kv, rules::is_of_workers(op)),
            DbOp::SetTenantState(..) => (RateKind::Kv, false),
            DbOp::Public(..) | DbOp::Global(..) => (RateKind::Shop, false),
            DbOp::Timer(..) => (RateKind::Timers, false),
        };
        let of = op.tenant().map_or(RateHolder::Worker(caller.worker_id), RateHolder::Tenant);
        self.admit_holder(kind, of, is_own).map_err(|refusal| {
            self.record_refusal(&refusal);
            DbError::Busy(refusal.to_string())
        })
    }

    /// Puts a refusal that is news among the errors of its tenant.
    ///
    /// # Blocks
    /// As operations on a [`Store`](super::Store), if it is news.
    pub fn record_refusal(&self, refusal: &RateRefusal) {
        let Some(tenant) = refusal.untold else { return };
        self.tell_author(tenant, "rate limit", &refusal.to_string());
    }

    /// How many were refused of each kind.
    pub fn rates_refused(&self) -> &OutcomeCounters<RateKind> {
        &self.tenant_rates().refused
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::DbOptions;
    use crate::store::memory::MemoryStore;
    use crate::wire::data::{
        DbAnswer, ERRORS_KEY, ERRORS_SCOPE, KeyValueOp, PublicGlobalKeyValueOp, Scopes,
        TEMPLATE_KEY, TEMPLATE_SCOPE, TimerOp,
    };

    const A: TenantId = TenantId::Guild(1);
    const B: TenantId = TenantId::User(1);

    /// Of a kind each tenant may have two, and no more while the test runs.
    fn bounded(kind: RateKind) -> DbState {
        let mut options = DbOptions::default();
        options.rates.set(kind, Some((1, 2)));
        let clock = crate::base::clock::ManualClock::new(std::time::SystemTime::now());
        let db = DbState::new(Arc::new(MemoryStore::new()), options).expect("an empty store");
        db.with_clock(crate::base::clock::ScriptClock::Manual(Arc::new(clock)))
    }

    fn get(tenant: TenantId, key: &str, scope: &str) -> DbOp {
        let (scopes, key) = (Scopes::new([scope]), key.to_owned());
        DbOp::Kv(tenant, KeyValueOp::Get { scopes, key })
    }

    fn find(tenant: Option<TenantId>) -> DbOp {
        let (query, scope) = ("%".to_owned(), "s".to_owned());
        DbOp::Public(tenant, PublicGlobalKeyValueOp::Find { query, scope })
    }

    /// How many of ten are answered.
    fn answered(db: &DbState, worker_id: usize, op: &DbOp) -> usize {
        let ask = |_: &usize| match db.ask(Caller { worker_id, workers: 1 }, op.clone()) {
            Ok(_) => true,
            Err(DbError::Busy(text)) => {
                assert!(text.contains("at most 1 a second, after a burst of 2;"), "{text}");
                false
            }
            Err(error) => panic!("{error}"),
        };
        (0..10).filter(ask).count()
    }

    fn errors(db: &DbState, tenant: TenantId) -> usize {
        let DbOp::Kv(_, get) = get(tenant, ERRORS_KEY, ERRORS_SCOPE) else { panic!("a Get") };
        let Ok(DbAnswer::Record(record)) = db.kv(tenant, get) else { panic!("a record") };
        record.map_or(0, |record| {
            let text = String::from_utf8_lossy(record.value.as_bytes()).into_owned();
            text.matches("rate limit").count()
        })
    }

    #[test]
    fn a_tenant_beyond_its_rate_is_told_once_and_alone() {
        let (kv, shop, timers) =
            (bounded(RateKind::Kv), bounded(RateKind::Shop), bounded(RateKind::Timers));
        for (db, kind, of_a, of_b) in [
            (&kv, RateKind::Kv, get(A, "k", "s"), get(B, "k", "s")),
            (&shop, RateKind::Shop, find(Some(A)), find(Some(B))),
            (
                &timers,
                RateKind::Timers,
                DbOp::Timer(A, TimerOp::List),
                DbOp::Timer(B, TimerOp::List),
            ),
        ] {
            assert_eq!((answered(db, 0, &of_a), answered(db, 0, &of_a)), (2, 0));
            assert_eq!((errors(db, A), errors(db, B)), (1, 0));
            assert_eq!(answered(db, 0, &of_b), 2, "it has its own");
            let counts = RateKind::ALL.map(|of| db.rates_refused().get(of));
            assert_eq!(counts, RateKind::ALL.map(|of| if of == kind { 26 } else { 0 }));
        }
    }

    #[test]
    fn what_a_worker_needs_does_not_count_among_its_tenants() {
        let db = bounded(RateKind::Kv);
        assert_eq!(answered(&db, 0, &get(A, "k", "s")), 2);
        for op in [get(A, TEMPLATE_KEY, TEMPLATE_SCOPE), get(A, ERRORS_KEY, ERRORS_SCOPE)] {
            assert_eq!(answered(&db, 0, &op), 10);
        }
        let caller = Caller { worker_id: 0, workers: 1 };
        let template = get(A, TEMPLATE_KEY, TEMPLATE_SCOPE);
        let more = (0..TENANT_OWN_RECORDS.1).map(|_| db.ask(caller, template.clone()));
        assert!(more.filter(Result::is_err).count() > 0, "but it is bounded");
        let DbOp::Kv(_, get) = get(A, "k", "s") else { panic!("a Get") };
        assert!(db.kv(A, get).is_ok(), "nor does what staff does");
    }

    #[test]
    fn a_worker_that_names_no_tenant_has_the_rate_of_one() {
        let db = bounded(RateKind::Shop);
        assert_eq!((answered(&db, 0, &find(None)), answered(&db, 1, &find(None))), (2, 2));
        assert_eq!(answered(&db, 0, &find(Some(A))), 2);
    }
}
