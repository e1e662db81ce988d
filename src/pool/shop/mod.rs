//! Tells tenants of changes of the shop's entries that they watch.
//!
//! One thread, `shop`, looks for what the store has noted: at once after this master's own changes,
//! and each second for those of others. It knows the watchers of the shards that are served here,
//! and tells each by a dispatch, so that bans, quarantine, queues and budgets hold for it. What a
//! tenant was told is not stored: when its shard comes, it is told of a gap. Owned by the master,
//! which stops it.

#[cfg(test)]
mod tests;
mod watchers;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use self::watchers::{Told, Watchers};
use crate::base::error::DbError;
use crate::base::labels::{OutcomeCounters, labels};
use crate::base::limits::{SHOP_DEADLINE, SHOP_LOOK_EVERY};
use crate::base::sync::{Lock, Signal};
use crate::base::thread::{self, OwnedThread};
use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Answer, Job, Request};
use crate::pool::arrival::Arrival;
use crate::store::shop::{ShopChange, ShopChangeKind};
use crate::store::{DbState, ShopNews};
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{CreateEvent, SHOP_UPDATE, TenantId};
use crate::wire::shop_update;

labels! {
    /// What became of an update of a tenant.
    ShopOutcome {
        /// Its handler ran, or had none.
        Arrived = "arrived",
        /// It is told again.
        Again = "again",
        /// Its handler may have run, so often that it is not told again.
        GivenUp = "given_up",
        /// It said that some were missed.
        Gap = "gap",
    }
}

/// Figures at this moment.
#[derive(Debug, Default)]
pub struct ShopFigures {
    /// Updates by what became of them.
    pub outcomes: Arc<OutcomeCounters<ShopOutcome>>,
    /// Tenants that watch something.
    pub watchers: u64,
    /// Updates that wait.
    pub pending: u64,
    /// For how long a change may have been made that no tenant here was told of.
    pub lag_seconds: f64,
}

/// Tells a master's tenants of the shop.
pub struct ShopUpdates {
    shared: Arc<ShopShared>,
    thread: Lock<Option<OwnedThread>>,
}

struct ShopShared {
    notes: Lock<Notes>,
    noted: Signal,
    outcomes: Arc<OutcomeCounters<ShopOutcome>>,
    watchers: AtomicU64,
    pending: AtomicU64,
    /// When the last look was, and for how long a change was held up then, in milliseconds.
    looked: Lock<(Instant, u64)>,
}

/// What the thread is to see to.
#[derive(Default)]
struct Notes {
    is_over: bool,
    /// An entry was changed here.
    is_changed: bool,
    /// Tenants that may watch something else now.
    watching: HashSet<TenantId>,
    /// Shards that were left, and after that those that came.
    went: ShardSet,
    came: ShardSet,
    ended: Vec<(TenantId, u64, Arrival)>,
}

impl Notes {
    fn is_empty(&self) -> bool {
        !self.is_over
            && !self.is_changed
            && self.watching.is_empty()
            && self.went.is_empty()
            && self.came.is_empty()
            && self.ended.is_empty()
    }

    fn take(&mut self, news: ShopNews) {
        match news {
            ShopNews::Changed => self.is_changed = true,
            ShopNews::Watching(tenant) => drop(self.watching.insert(tenant)),
            ShopNews::Came(shards) => self.came = self.came.with(&shards),
            ShopNews::Went(shards) => {
                self.came = self.came.without(&shards);
                self.went = self.went.with(&shards);
            }
        }
    }
}

impl ShopUpdates {
    /// Starts the thread, which hears of `db` what there is to do, and tells by dispatches to
    /// `pool`. `serves_all`: every shard is this master's.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(
        pool: Arc<dyn WorkerLike>,
        db: Arc<DbState>,
        serves_all: bool,
    ) -> io::Result<Arc<Self>> {
        let shared = Arc::new(ShopShared {
            notes: Lock::default(),
            noted: Signal::new(),
            outcomes: Arc::default(),
            watchers: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            looked: Lock::new((Instant::now(), 0)),
        });
        let hearing = Arc::downgrade(&shared);
        db.on_shop(Box::new(move |news| {
            if let Some(shared) = hearing.upgrade() {
                shared.note(|notes| notes.take(news));
            }
        }));
        if serves_all {
            shared.note(|notes| notes.take(ShopNews::Came(ShardSet::full())));
        }
        let teller = Teller {
            shared: shared.clone(),
            pool,
            db,
            watchers: Watchers::default(),
            unread: Default::default(),
            since: None,
        };
        let thread = thread::spawn("shop", move || teller.run())?;
        Ok(Arc::new(Self { shared, thread: Lock::new(Some(thread)) }))
    }

    /// Figures at this moment.
    pub fn figures(&self) -> ShopFigures {
        let (looked, held_up_ms) = *self.shared.looked.lock();
        let since_look = looked.elapsed().saturating_sub(SHOP_LOOK_EVERY);
        ShopFigures {
            outcomes: self.shared.outcomes.clone(),
            watchers: self.shared.watchers.load(Ordering::Relaxed),
            pending: self.shared.pending.load(Ordering::Relaxed),
            lag_seconds: since_look.as_secs_f64() + held_up_ms as f64 / 1000.0,
        }
    }

    /// Ends the thread. What waits is not told.
    ///
    /// # Blocks
    /// Until what it asks the store is answered: the store's timeouts.
    pub fn stop(&self) {
        self.shared.note(|notes| notes.is_over = true);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }
}

impl Drop for ShopUpdates {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for ShopUpdates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShopUpdates")
    }
}

impl ShopShared {
    fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.notes.lock());
        self.noted.notify_one();
    }
}

/// The thread's side.
struct Teller {
    shared: Arc<ShopShared>,
    pool: Arc<dyn WorkerLike>,
    db: Arc<DbState>,
    watchers: Watchers,
    /// Shards and tenants of which it is still to be read what is watched.
    unread: (ShardSet, HashSet<TenantId>),
    since: Option<i64>,
}

impl Teller {
    /// # Blocks
    /// On its notes, until the next look or the next update is due; on the store.
    fn run(mut self) {
        let mut look_at = Instant::now();
        loop {
            let until = self.watchers.next_at().map_or(look_at, |at| at.min(look_at));
            let notes = self.take_notes(until);
            if notes.is_over {
                return;
            }
            let now = Instant::now();
            let is_due = notes.is_changed || now >= look_at;
            self.take_in(notes, now);
            let is_read = self.read_watchers(now);
            if is_due {
                look_at = now + SHOP_LOOK_EVERY;
                // A watcher that is not known would not hear of what is seen now.
                if is_read {
                    self.look(now);
                }
                self.watchers.expire(now);
            }
            self.tell(now);
            self.shared.watchers.store(self.watchers.len() as u64, Ordering::Relaxed);
            self.shared.pending.store(self.watchers.pending() as u64, Ordering::Relaxed);
        }
    }

    fn take_notes(&self, until: Instant) -> Notes {
        let notes = self.shared.notes.lock();
        let mut notes = self.shared.noted.wait_until(notes, until, |notes| !notes.is_empty());
        std::mem::take(&mut *notes)
    }

    fn take_in(&mut self, notes: Notes, now: Instant) {
        for (tenant, number, arrival) in notes.ended {
            let given_up = self.watchers.ended(tenant, number, arrival, now);
            if let Some(told) = &given_up {
                let text = format!("{told} was given up: its handler never came to its end");
                self.db.tell_dropped(tenant, SHOP_UPDATE, &text);
            }
            let outcome = match arrival {
                _ if given_up.is_some() => ShopOutcome::GivenUp,
                Arrival::Arrived => ShopOutcome::Arrived,
                Arrival::MayHave | Arrival::NotYet | Arrival::Held => ShopOutcome::Again,
            };
            self.shared.outcomes.add(outcome, 1);
        }
        let (shards, tenants) = &mut self.unread;
        *shards = shards.without(&notes.went).with(&notes.came);
        tenants.extend(notes.watching);
        if !notes.went.is_empty() {
            self.watchers.retain(|tenant| !notes.went.contains(Shard::of(tenant)));
        }
    }

    /// Reads what is watched where that is not known; false if the store did not answer.
    fn read_watchers(&mut self, now: Instant) -> bool {
        let is_read = self.try_read_watchers(now);
        if let Err(error) = &is_read {
            log::debug!("what tenants watch of the shop cannot be read yet: {error}");
        }
        is_read.is_ok()
    }

    fn try_read_watchers(&mut self, now: Instant) -> Result<(), DbError> {
        let (shards, tenants) = &mut self.unread;
        if !shards.is_empty() {
            for (tenant, patterns) in self.db.shop_watchers(shards)? {
                self.watchers.come(tenant, patterns, now);
            }
            *shards = ShardSet::default();
        }
        while let Some(tenant) = tenants.iter().next().copied() {
            self.watchers.watch(tenant, self.db.shop_patterns(tenant)?);
            tenants.remove(&tenant);
        }
        Ok(())
    }

    fn look(&mut self, now: Instant) {
        // The lag tells.
        let Ok(look) = self.db.shop_changes(self.since) else { return };
        if look.has_gap {
            self.watchers.miss_all(now);
        }
        self.since = Some(look.until);
        for change in look.changes {
            self.watchers.add(change, now);
        }
        let held_up_ms = u64::try_from(look.held_up.as_millis()).unwrap_or(u64::MAX);
        *self.shared.looked.lock() = (now, held_up_ms);
    }

    fn tell(&mut self, now: Instant) {
        while let Some((tenant, number, told)) = self.watchers.next(now) {
            if told == Told::Gap {
                self.shared.outcomes.add(ShopOutcome::Gap, 1);
            }
            let shared = self.shared.clone();
            let answer = Answer::callback(move |result| {
                shared.note(|notes| notes.ended.push((tenant, number, Arrival::of(&result))));
            });
            let job = Job::Dispatch(event(tenant, &told));
            let request = Request::new(tenant, job, now + SHOP_DEADLINE, answer);
            self.pool.submit(request.to_tenant());
        }
    }
}

/// What a tenant is told; of another's entry only what readers see.
fn event(tenant: TenantId, told: &Told) -> CreateEvent {
    let Told::Change(change) = told else { return shop_update::gap_event() };
    let ShopChange { at, owner, kind, review_state } = &**change;
    let may_know = *owner == Some(tenant) || *kind != ShopChangeKind::Withdrawn;
    let review_state = review_state.as_deref().filter(|_| may_know);
    shop_update::event((&at.scope, &at.key, at.version), kind.as_str(), review_state)
}
