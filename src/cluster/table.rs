//! Where every shard is, as this master knows it.
//!
//! Written by the coordination thread, asked by every dispatch: [`ShardTable::serves`] is a load of
//! a bit. Those that come for a shard which changes hands wait in [`ShardTable::wait`], each until
//! its deadline. Owned by the master; called from any thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::boot_time;
use crate::base::primitives::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Lock, Signal};
use crate::store::lease::{ClusterLook, HeldShards, MasterId, MasterRow, MasterState, ShardRow};
use crate::wire::data::TenantId;
use crate::wire::data::sharding::{Shard, ShardSet};

/// Another master that holds a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherMaster {
    /// What its operator calls it.
    pub name: String,
    /// Where its internal API is.
    pub api: String,
    /// The epoch at which it holds the tenant's shard.
    pub epoch: i64,
}

/// Where a tenant is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardPlace {
    /// Its shard is held and served here, at this epoch.
    Here(i64),
    /// Another master holds it.
    There(OtherMaster),
    /// No master serves it at the moment: it changes hands, or its holder is gone.
    Unsettled,
}

/// A master as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterReport {
    /// Its row.
    pub row: MasterRow,
    /// How many shards it holds.
    pub shards: usize,
    /// How many it should hold.
    pub wanted: usize,
    /// It is this one.
    pub is_this: bool,
}

/// A master that lives, with the shards that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardHolder {
    /// What its operator calls it.
    pub name: String,
    /// Where its internal API is.
    pub api: String,
    /// It is this one.
    pub is_this: bool,
    /// What it holds.
    pub shards: ShardSet,
}

/// See the module's description.
pub struct ShardTable {
    served: Vec<AtomicU64>,
    /// By the clock of the lease, in milliseconds: from then on nothing begins, though no thread
    /// may have noticed yet, as in a process that stood still.
    begin_until_ms: AtomicU64,
    /// No other master lives, as far as is known.
    is_alone: AtomicBool,
    seen: Lock<SeenShards>,
    changed: Signal,
    held: Arc<HeldShards>,
    /// Has the coordination thread look at once; must not block.
    nudge: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct SeenShards {
    me: Option<MasterId>,
    look: ClusterLook,
    wanted: Vec<Option<MasterId>>,
    /// The lease is about to end unrenewed: nothing is to begin.
    is_suspended: bool,
    /// The master stops: no caller is to wait any more.
    is_over: bool,
}

impl ShardTable {
    /// One in which nothing is held yet.
    pub fn new(held: Arc<HeldShards>, nudge: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            served: ShardSet::default().words().iter().map(|word| AtomicU64::new(*word)).collect(),
            begin_until_ms: AtomicU64::new(u64::MAX),
            is_alone: AtomicBool::new(false),
            seen: Lock::default(),
            changed: Signal::new(),
            held,
            nudge: Box::new(nudge),
        }
    }

    /// Whether a tenant's jobs may begin here. A job that asks must be counted already where a
    /// hand-over looks for what is under way: then none slips through between the two.
    pub fn serves(&self, tenant: TenantId) -> bool {
        let (word, bit) = Shard::of(tenant).bit();
        self.served[word].load(Ordering::Acquire) & bit != 0 && !self.is_late()
    }

    fn is_late(&self) -> bool {
        let until = self.begin_until_ms.load(Ordering::Relaxed);
        // A master that is alone does not look at the clock.
        until != u64::MAX && boot_time().as_millis() >= u128::from(until)
    }

    /// How many shards are served.
    pub fn served(&self) -> usize {
        self.served.iter().map(|word| word.load(Ordering::Acquire).count_ones() as usize).sum()
    }

    /// Whether no other master lives: a tenant that is not here is nowhere.
    pub fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Acquire)
    }

    /// Whether the master stops: no wait is worth its while.
    pub fn is_over(&self) -> bool {
        self.seen.lock().is_over
    }

    /// Where a tenant is.
    pub fn place(&self, tenant: TenantId) -> ShardPlace {
        self.seen.lock().place(tenant, self.serves(tenant))
    }

    /// Where a tenant is, once that is settled.
    ///
    /// # Blocks
    /// Until then, until `deadline`, or until the master stops.
    pub fn wait(&self, tenant: TenantId, deadline: Instant) -> ShardPlace {
        self.wait_while(tenant, deadline, |place| *place == ShardPlace::Unsettled)
    }

    /// The same for a caller that has learned that the tenant is not where it was said to be: has
    /// the table renewed, and waits until it says something else, or until `until`.
    ///
    /// # Blocks
    /// Until then, or until the master stops.
    pub fn wait_for_another(
        &self,
        tenant: TenantId,
        than: &ShardPlace,
        until: Instant,
    ) -> ShardPlace {
        self.look_again();
        self.wait_while(tenant, until, |place| *place == ShardPlace::Unsettled || place == than)
    }

    /// Has the table renewed: another master knows something else than it says.
    pub fn look_again(&self) {
        (self.nudge)();
    }

    fn wait_while(
        &self,
        tenant: TenantId,
        deadline: Instant,
        is_waiting: impl Fn(&ShardPlace) -> bool,
    ) -> ShardPlace {
        let place = |seen: &SeenShards| seen.place(tenant, self.serves(tenant));
        let seen = self.seen.lock();
        let seen = self
            .changed
            .wait_until(seen, deadline, |seen| seen.is_over || !is_waiting(&place(seen)));
        place(&seen)
    }

    /// What this master holds, for the fence.
    pub fn held(&self) -> &Arc<HeldShards> {
        &self.held
    }

    /// All masters, by name: of those of one name the one that lives, or was there last.
    pub fn masters(&self) -> Vec<MasterReport> {
        let seen = self.seen.lock();
        let count = |owners: &mut dyn Iterator<Item = Option<MasterId>>, id| {
            owners.filter(|owner| *owner == Some(id)).count()
        };
        let report = |row: &MasterRow| MasterReport {
            row: row.clone(),
            shards: count(&mut seen.look.shards.iter().map(|shard| shard.owner), row.id),
            wanted: count(&mut seen.wanted.iter().copied(), row.id),
            is_this: seen.me == Some(row.id),
        };
        let mut masters: Vec<_> = seen.look.masters.iter().map(report).collect();
        masters.sort_by(|left, right| {
            let by_life = right.row.lives().cmp(&left.row.lives());
            let by_age = left.row.up_for.cmp(&right.row.up_for);
            left.row.name.cmp(&right.row.name).then(by_life).then(by_age)
        });
        masters.dedup_by(|earlier, last| earlier.row.name == last.row.name);
        masters
    }

    /// The masters that live, with what each holds, all as it is known at one moment; by name.
    pub fn holders(&self) -> Vec<ShardHolder> {
        let seen = self.seen.lock();
        let held = |id| {
            let shards = Shard::all().zip(&seen.look.shards);
            shards.filter(|(_, row)| row.owner == Some(id)).map(|(shard, _)| shard).collect()
        };
        let living = seen.look.masters.iter().filter(|row| row.lives());
        let holder = |row: &MasterRow| ShardHolder {
            name: row.name.clone(),
            api: row.api.clone(),
            is_this: seen.me == Some(row.id),
            shards: held(row.id),
        };
        let mut holders: Vec<_> = living.map(holder).collect();
        holders.sort_by(|left, right| left.name.cmp(&right.name));
        holders
    }

    /// Whether jobs may begin: this master is a member, and its lease is not about to end.
    pub fn is_leased(&self) -> bool {
        let seen = self.seen.lock();
        seen.me.is_some() && !seen.is_suspended
    }

    /// Takes over what was seen; for the coordination thread, like all that follows.
    pub fn show(&self, me: Option<MasterId>, look: ClusterLook, wanted: Vec<Option<MasterId>>) {
        let is_alone = !look.masters.iter().any(|other| Some(other.id) != me && other.lives());
        self.is_alone.store(is_alone, Ordering::Release);
        self.change(|seen| {
            (seen.me, seen.look, seen.wanted) = (me, look, wanted);
        });
    }

    /// Lets jobs begin until this time of the lease's clock; `None`: without an end.
    pub fn begin_until(&self, until: Option<Duration>) {
        let ms = until.map_or(u64::MAX, |until| until.as_millis().try_into().unwrap_or(u64::MAX));
        self.begin_until_ms.store(ms, Ordering::Relaxed);
    }

    /// Lets jobs of exactly these shards begin.
    pub fn serve(&self, shards: &ShardSet) {
        self.change(|_| {
            for (word, bits) in self.served.iter().zip(shards.words()) {
                word.store(*bits, Ordering::Release);
            }
        });
    }

    /// Notes whether the lease is about to end unrenewed.
    pub fn suspend(&self, is_suspended: bool) {
        self.change(|seen| seen.is_suspended = is_suspended);
    }

    /// Ends all waits.
    pub fn end(&self) {
        self.change(|seen| seen.is_over = true);
    }

    fn change(&self, change: impl FnOnce(&mut SeenShards)) {
        change(&mut self.seen.lock());
        self.changed.notify_all();
    }
}

impl SeenShards {
    fn place(&self, tenant: TenantId, is_served: bool) -> ShardPlace {
        let shard = Shard::of(tenant);
        let ShardRow { owner: Some(owner), epoch } =
            self.look.shards.get(shard.index()).copied().unwrap_or_default()
        else {
            return ShardPlace::Unsettled;
        };
        if self.me == Some(owner) {
            return if is_served { ShardPlace::Here(epoch) } else { ShardPlace::Unsettled };
        }
        match self.look.masters.iter().find(|master| master.id == owner) {
            Some(master) if master.state != MasterState::Dead => ShardPlace::There(OtherMaster {
                name: master.name.clone(),
                api: master.api.clone(),
                epoch,
            }),
            _ => ShardPlace::Unsettled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::sharding::SHARDS;

    fn row(id: MasterId, name: &str) -> MasterRow {
        MasterRow {
            id,
            name: name.to_owned(),
            api: format!("{name}:7451"),
            version: "1".to_owned(),
            weight: 1,
            state: MasterState::Up,
            lease_left: Duration::from_secs(6),
            up_for: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_tenant_is_where_its_shard_is() {
        let (me, other) = (MasterId(1), MasterId(2));
        let table = ShardTable::new(Arc::default(), || ());
        let tenant = |shard: u64| TenantId::Guild(shard << 22);
        assert_eq!(table.place(tenant(0)), ShardPlace::Unsettled);
        let mut shards = vec![ShardRow::default(); usize::from(SHARDS)];
        shards[0] = ShardRow { owner: Some(me), epoch: 3 };
        shards[1] = ShardRow { owner: Some(other), epoch: 4 };
        shards[2] = ShardRow { owner: Some(MasterId(9)), epoch: 5 };
        let look = ClusterLook { masters: vec![row(other, "b"), row(me, "a")], shards };
        table.show(Some(me), look, vec![Some(me)]);
        assert_eq!(table.place(tenant(0)), ShardPlace::Unsettled, "held, and not yet served");
        table.serve(&Shard::new(0).into_iter().collect());
        assert!(table.serves(tenant(0)) && !table.serves(tenant(1)));
        assert_eq!(table.place(tenant(0)), ShardPlace::Here(3));
        table.begin_until(Some(boot_time()));
        assert!(!table.serves(tenant(0)), "its time is over");
        assert_eq!(table.place(tenant(0)), ShardPlace::Unsettled);
        table.begin_until(Some(boot_time() + Duration::from_secs(60)));
        let peer = OtherMaster { name: "b".to_owned(), api: "b:7451".to_owned(), epoch: 4 };
        assert_eq!(table.place(tenant(1)), ShardPlace::There(peer));
        for shard in [2, 3] {
            assert_eq!(table.place(tenant(shard)), ShardPlace::Unsettled);
        }
        let masters = table.masters();
        let told: Vec<_> = masters
            .iter()
            .map(|one| (one.row.name.as_str(), one.shards, one.wanted, one.is_this))
            .collect();
        assert_eq!(told, [("a", 1, 1, true), ("b", 1, 0, false)]);
    }

    #[test]
    fn of_earlier_runs_of_a_master_none_is_listed() {
        let table = ShardTable::new(Arc::default(), || ());
        let run = |id, state, up_for| MasterRow {
            state,
            up_for: Duration::from_secs(up_for),
            ..row(MasterId(id), if id < 4 { "a" } else { "b" })
        };
        let masters = vec![
            run(1, MasterState::Dead, 30),
            run(2, MasterState::Up, 10),
            run(3, MasterState::Dead, 20),
            run(4, MasterState::Dead, 40),
            run(5, MasterState::Dead, 9),
        ];
        table.show(None, ClusterLook { masters, shards: vec![] }, vec![]);
        let listed: Vec<_> = table.masters().into_iter().map(|one| one.row.id.0).collect();
        assert_eq!(listed, [2, 5], "the one that lives, else the last one");
    }

    #[test]
    fn who_waits_is_woken_by_a_change_and_by_the_end() {
        let table = Arc::new(ShardTable::new(Arc::default(), || ()));
        let far = Instant::now() + Duration::from_secs(60);
        let tenant = TenantId::User(0);
        let wait = || {
            let table = Arc::clone(&table);
            std::thread::spawn(move || table.wait(tenant, far))
        };
        let waiting = wait();
        let mut shards = vec![ShardRow::default(); usize::from(SHARDS)];
        shards[0] = ShardRow { owner: Some(MasterId(1)), epoch: 1 };
        table.serve(&Shard::new(0).into_iter().collect());
        table.show(Some(MasterId(1)), ClusterLook { masters: vec![], shards }, vec![]);
        assert_eq!(waiting.join().expect("no panic"), ShardPlace::Here(1));
        table.serve(&ShardSet::default());
        let waiting = wait();
        table.end();
        assert_eq!(waiting.join().expect("no panic"), ShardPlace::Unsettled);
        assert!(Instant::now() < far);
    }
}
