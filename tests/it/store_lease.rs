//! What masters agree on through PostgreSQL: joins, leases, shards that change hands, and the fence
//! that refuses the writes of a master that no longer holds a shard.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mesophyll::base::error::DbError;
use mesophyll::store::lease::{
    ClusterLook, Coordination, HeldShards, JoinRefusal, LeaseAsk, LeaseTold, MasterId, MasterState,
    Membership,
};
use mesophyll::store::timers::TimerRun;
use mesophyll::store::{self, DbOptions, DbState, StoreOptions, StoreUrl};
use mesophyll::wire::data::sharding::{SHARDS, Shard, ShardSet};
use mesophyll::wire::data::{Scopes, TenantId, TimerOp, TimerWhen};
use postgres::{Client, NoTls};

use crate::support::db::{Typed, text};
use crate::support::postgres::{Schema, is_there, on};
use crate::support::process::eventually;

const LEASE: Duration = Duration::from_secs(60);

/// Masters over a database of their own, as one of them asks.
struct Masters {
    schema: Schema,
    asks: Box<dyn Coordination>,
}

impl Masters {
    fn new() -> Self {
        let schema = Schema::alone();
        let asks = connect(&schema);
        Self { schema, asks }
    }

    fn ask(&mut self, ask: LeaseAsk) -> LeaseTold {
        self.asks.ask(&ask).expect("the server is there")
    }

    fn try_join(&mut self, name: &str, cluster: Option<&str>) -> Result<MasterId, JoinRefusal> {
        try_join(&mut *self.asks, name, cluster)
    }

    fn join(&mut self, name: &str) -> MasterId {
        self.try_join(name, Some("c")).expect("joined")
    }

    fn look(&mut self, master: MasterId) -> Option<ClusterLook> {
        match self.ask(LeaseAsk::Renew(master, LEASE)) {
            LeaseTold::Renewed(look) => look,
            other => panic!("{other:?}"),
        }
    }

    fn take(&mut self, master: MasterId, shards: &ShardSet) -> Vec<(Shard, i64)> {
        taken(self.ask(LeaseAsk::Take(master, *shards)))
    }

    fn give(&mut self, from: MasterId, shard: (Shard, i64), to: Option<MasterId>) -> usize {
        match self.ask(LeaseAsk::Give(from, vec![(shard.0, shard.1, to)])) {
            LeaseTold::Given(given) => given.len(),
            other => panic!("{other:?}"),
        }
    }

    /// Has leases end now.
    fn expire(&self, names: &str) {
        let sql = "UPDATE mesophyll_master SET expires_at = clock_timestamp() WHERE name ~";
        on(self.schema.url(), &format!("{sql} '{names}'"));
    }

    fn states(&mut self, master: MasterId) -> Vec<(String, MasterState)> {
        let masters = self.look(master).expect("alive").masters;
        masters.into_iter().map(|row| (row.name, row.state)).collect()
    }
}

fn connect(schema: &Schema) -> Box<dyn Coordination> {
    let connect = store::coordination(&schema.store_url()).expect("a URL").expect("PostgreSQL");
    connect().expect("connected")
}

fn try_join(
    asks: &mut dyn Coordination,
    name: &str,
    cluster: Option<&str>,
) -> Result<MasterId, JoinRefusal> {
    let id = MasterId::random();
    let membership = Membership {
        cluster: cluster.map(str::to_owned),
        name: name.to_owned(),
        api: format!("{name}:7451"),
        version: "1".to_owned(),
        weight: 3,
        lease: LEASE,
    };
    match asks.ask(&LeaseAsk::Join(id, membership)).expect("the server is there") {
        LeaseTold::Joined(joined) => joined.map(|()| id),
        other => panic!("{other:?}"),
    }
}

fn taken(told: LeaseTold) -> Vec<(Shard, i64)> {
    match told {
        LeaseTold::Taken(mut taken) => {
            taken.sort();
            taken
        }
        other => panic!("{other:?}"),
    }
}

fn shards(numbers: impl IntoIterator<Item = u16>) -> ShardSet {
    numbers.into_iter().filter_map(Shard::new).collect()
}

#[test]
fn masters_that_must_not_live_together_are_refused() {
    if !is_there("masters_that_must_not_live_together_are_refused") {
        return;
    }
    let mut it = Masters::new();
    let alone = it.try_join("a", None).expect("joined");
    let others = |names: &[&str]| {
        Err(JoinRefusal::OtherLives(names.iter().map(|name| (*name).to_owned()).collect()))
    };
    assert_eq!(it.try_join("b", Some("c")), others(&["a"]));
    assert_eq!(it.try_join("b", None), others(&["a"]));
    let refused = it.try_join("a", Some("c"));
    assert!(
        matches!(refused, Err(JoinRefusal::NameLives(left)) if left > LEASE / 2 && left <= LEASE),
        "{refused:?}"
    );
    // One that is alone has come back before its lease is renewed: it never is again.
    it.expire("a");
    let first = it.try_join("a", Some("c")).expect("joined");
    assert_eq!(it.look(alone), None);
    let second = it.try_join("b", Some("c")).expect("several may live");
    assert_eq!(it.try_join("d", Some("other")), Err(JoinRefusal::OtherCluster("c".to_owned())));
    assert_eq!(it.try_join("d", None), others(&["a", "b"]));
    for id in [first, second] {
        assert_eq!(it.ask(LeaseAsk::Leave(id)), LeaseTold::Left);
    }
    // Without a cluster its name is nothing to a master.
    it.try_join("d", None).expect("joined");
    assert_eq!(it.try_join("b", Some("other")), Err(JoinRefusal::OtherCluster("c".to_owned())));
}

#[test]
fn of_two_joins_at_once_one_wins() {
    if !is_there("of_two_joins_at_once_one_wins") {
        return;
    }
    let it = Masters::new();
    for round in 0..8 {
        let joined = thread::scope(|scope| {
            let join = |number: usize| {
                let mut asks = connect(&it.schema);
                scope
                    .spawn(move || try_join(&mut *asks, &format!("{round}-{number}"), None).is_ok())
            };
            let all: Vec<_> = (0..3).map(join).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).filter(|won| *won).count()
        });
        assert_eq!(joined, 1, "round {round}");
        it.expire(".");
    }
}

#[test]
fn a_late_renewal_counts_until_the_master_is_declared_dead() {
    if !is_there("a_late_renewal_counts_until_the_master_is_declared_dead") {
        return;
    }
    let mut it = Masters::new();
    let (a, b) = (it.join("a"), it.join("b"));
    let all = ShardSet::full();
    let held = it.take(a, &all);
    assert_eq!(held, Shard::all().map(|shard| (shard, 1)).collect::<Vec<_>>(), "in one commit");
    assert_eq!(it.take(b, &all), [], "their holder lives");
    it.expire("a");
    let look = it.look(b).expect("alive");
    assert_eq!((look.shards.len(), look.masters.len()), (usize::from(SHARDS), 2));
    assert!(look.shards.iter().all(|shard| (shard.owner, shard.epoch) == (Some(a), 1)));
    let row = &look.masters[0];
    assert_eq!((row.id, row.lives(), row.state), (a, false, MasterState::Up));
    assert_eq!((row.name.as_str(), row.api.as_str(), row.weight), ("a", "a:7451", 3));
    assert!(look.masters[1].lives() && look.masters[1].lease_left > LEASE / 2);
    // Nothing of it was taken: late, and in time.
    assert!(it.look(a).is_some());
    assert_eq!(it.take(b, &all), []);
    it.expire("a");
    assert_eq!(it.take(b, &shards([7])), [(Shard::new(7).expect("a shard"), 2)]);
    assert_eq!(it.look(a), None, "too late");
    assert_eq!(it.take(a, &all), [], "it holds nothing and never will");
    assert_eq!(it.take(b, &all).len(), 508);
    let states = [("a".to_owned(), MasterState::Dead), ("b".to_owned(), MasterState::Up)];
    assert_eq!(it.states(b), states);
    // A master that is dead for a day is forgotten by the holder of shard 0.
    on(
        it.schema.url(),
        "UPDATE mesophyll_master SET expires_at = now() - interval '25 h' WHERE name = 'a'",
    );
    assert_eq!(it.states(b).len(), 1);
}

#[test]
fn shards_are_given_to_living_heirs_only() {
    if !is_there("shards_are_given_to_living_heirs_only") {
        return;
    }
    let mut it = Masters::new();
    let (a, b, c) = (it.join("a"), it.join("b"), it.join("c"));
    let shard = it.take(a, &shards([7]))[0];
    assert_eq!(it.give(b, shard, Some(b)), 0, "it is not its to give");
    assert_eq!(it.give(a, (shard.0, 0), Some(b)), 0, "of an earlier epoch");
    assert_eq!(
        it.ask(LeaseAsk::SetState("b".to_owned(), MasterState::Draining)),
        LeaseTold::StateSet(true)
    );
    assert_eq!(
        it.ask(LeaseAsk::SetState("x".to_owned(), MasterState::Draining)),
        LeaseTold::StateSet(false)
    );
    assert_eq!(it.give(a, shard, Some(b)), 0, "it gives everything away");
    assert_eq!(it.take(b, &shards([8])), [], "and takes nothing");
    assert_eq!(it.states(b)[1].1, MasterState::Draining, "a renewal leaves it so");
    assert_eq!(it.give(a, shard, Some(c)), 1);
    assert_eq!(it.give(c, (shard.0, 2), None), 1);
    assert_eq!(it.take(a, &shards([7])), [(shard.0, 4)]);
    it.ask(LeaseAsk::Leave(a));
    assert_eq!(it.take(c, &shards([7])), [(shard.0, 5)], "who has left holds nothing");
    assert_eq!(it.look(a), None);
}

#[test]
fn shards_go_to_a_master_that_drains_if_all_do() {
    if !is_there("shards_go_to_a_master_that_drains_if_all_do") {
        return;
    }
    let mut it = Masters::new();
    let (a, b) = (it.join("a"), it.join("b"));
    let shard = it.take(a, &shards([7]))[0];
    it.ask(LeaseAsk::SetState("b".to_owned(), MasterState::Draining));
    assert_eq!(it.give(a, shard, Some(b)), 0, "one is up");
    assert_eq!(it.ask(LeaseAsk::Retire(a)), LeaseTold::Retired);
    let state = it.look(b).map(|look| (look.masters[0].state, look.masters[0].weight));
    assert_eq!(state, Some((MasterState::Draining, 0)));
    assert_eq!(it.take(a, &shards([8])), [], "it is about to leave");
    assert_eq!(it.give(a, shard, Some(b)), 1);
    assert_eq!(it.give(b, (shard.0, 2), Some(a)), 0, "that one would not keep it");
    assert_eq!(it.take(b, &shards([8])).len(), 1);
    let c = it.join("c");
    assert_eq!(it.take(b, &shards([9])), [], "another is up");
    it.expire("c");
    assert_eq!(it.take(b, &shards([9])).len(), 1, "its lease is over");
    assert!(it.look(c).is_some() && it.take(b, &shards([10])).is_empty());
}

#[test]
fn takers_of_the_same_dead_masters_do_not_wait_for_each_other() {
    if !is_there("takers_of_the_same_dead_masters_do_not_wait_for_each_other") {
        return;
    }
    let mut it = Masters::new();
    let takers = [it.join("taker-1"), it.join("taker-2")];
    let mut slow = 0;
    for round in 0..10_u16 {
        // The dead hold every other shard, so that their rows come in opposite orders by number.
        let dead = [it.join("dead-1"), it.join("dead-2")];
        for (master, odd) in dead.into_iter().zip(0..) {
            it.take(master, &shards((0..SHARDS).filter(|number| (number + round) % 2 == odd)));
        }
        it.expire("dead");
        let mut connections = [connect(&it.schema), connect(&it.schema)];
        let began = Instant::now();
        let got: Vec<usize> = thread::scope(|scope| {
            let take = |(asks, master): (&mut Box<dyn Coordination>, MasterId)| {
                asks.ask(&LeaseAsk::Take(master, ShardSet::full())).map(taken).expect("taken").len()
            };
            let both = connections.iter_mut().zip(takers).map(|one| scope.spawn(move || take(one)));
            let both: Vec<_> = both.collect();
            both.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        assert_eq!(got.iter().sum::<usize>(), 509, "each is one's, and none is left: {got:?}");
        // The server looks for a deadlock after a second; the machine may be slow once.
        slow += usize::from(began.elapsed() >= Duration::from_secs(1));
        for (master, held) in takers.into_iter().zip(got) {
            let look = it.look(master).expect("alive");
            let own: Vec<_> = Shard::all()
                .zip(&look.shards)
                .filter(|(_, row)| row.owner == Some(master))
                .map(|(shard, row)| (shard, row.epoch, None))
                .collect();
            assert_eq!(own.len(), held);
            it.ask(LeaseAsk::Give(master, own));
        }
    }
    assert!(slow < 4, "{slow} of 10 rounds");
}

#[test]
fn of_several_servers_the_one_that_writes_is_asked() {
    if !is_there("of_several_servers_the_one_that_writes_is_asked") {
        return;
    }
    let schema = Schema::alone();
    let url = schema.url().replacen('@', "@127.0.0.1:1,", 1);
    let coordination = |url: &str| {
        let url = StoreUrl::Postgres(url.to_owned());
        store::coordination(&url).expect("a URL").expect("several masters")()
    };
    let mut asks = coordination(&url).expect("the second");
    try_join(&mut *asks, "a", None).expect("joined");
    assert!(store::coordination(&StoreUrl::Memory).expect("no server").is_none());
    // What only reads is as good as away.
    let reads = format!("{url}%20-cdefault_transaction_read_only%3Don");
    assert!(matches!(coordination(&reads).map(drop), Err(DbError::Unavailable(_))));
}

/// A store that is a master's, with what it believes to hold.
fn open(schema: &Schema) -> (DbState, Arc<HeldShards>) {
    let held = Arc::new(HeldShards::default());
    let store = store::open_with(&schema.store_url(), StoreOptions::default(), Arc::clone(&held));
    (DbState::new(store.expect("opened"), DbOptions::default()).expect("readable"), held)
}

#[test]
fn a_master_that_lost_a_shard_cannot_write_its_tenants_data() {
    use mesophyll::store::Standing;
    use mesophyll::wire::data::{EncodedJson, TenantState};
    if !is_there("a_master_that_lost_a_shard_cannot_write_its_tenants_data") {
        return;
    }
    let mut it = Masters::new();
    let (a, b) = (it.join("a"), it.join("b"));
    let (tenant, other) = (TenantId::Guild(7 << 22), TenantId::User(8 << 22));
    let (old, old_held) = open(&it.schema);
    let (new, new_held) = open(&it.schema);
    let shard = Shard::of(tenant);
    old_held.set(a, it.take(a, &shards([7])));
    let set =
        |db: &DbState, of, value| db.kv_set(of, Scopes::new(["s"]), "k".to_owned(), text(value));
    let value = |db: &DbState| {
        db.kv_get(tenant, Scopes::new(["s"]), "k").expect("read").map(|record| record.value)
    };
    assert_eq!(set(&old, tenant, "old"), Ok(()));
    let timer = |db: &DbState, id: &str| {
        let (id, name, when) = (id.to_owned(), "E".to_owned(), TimerWhen::After(0));
        db.timers(tenant, TimerOp::Set { id, name, when, data: text("x") }).map(drop)
    };
    assert_eq!(timer(&old, "a"), Ok(()));
    let due = old.timers_of(tenant).expect("read")[0].due;
    let run = TimerRun { tenant, id: "a".to_owned(), due, next: None };
    assert!(matches!(set(&old, other, "never"), Err(DbError::NotOwner(_))));
    assert_eq!(old_held.refusals(), 0, "it knows by itself what it does not hold");
    // The old one is stopped for longer than its lease, and goes on without having looked.
    it.expire("a");
    new_held.set(b, it.take(b, &shards([7])));
    assert_eq!(set(&new, tenant, "new"), Ok(()));
    let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
    let refused = [
        set(&old, tenant, "late"),
        old.kv_delete(tenant, Scopes::new(["s"]), "k".to_owned()),
        old.set_tenant_state(tenant, &state),
        old.set_standing(tenant, Standing::Banned),
        timer(&old, "b"),
        old.timers(tenant, TimerOp::Cancel { id: "a".to_owned() }).map(drop),
        old.timers_ran(std::slice::from_ref(&run)),
    ];
    for one in &refused {
        assert!(matches!(one, Err(DbError::NotOwner(_))), "{one:?}");
    }
    assert_eq!((old_held.refusals(), new_held.refusals()), (7, 0));
    assert_eq!(new.timers_of(tenant).expect("read").len(), 1);
    assert_eq!(new.timers_ran(&[run]), Ok(()));
    assert_eq!(new.timers_of(tenant), Ok(Vec::new()));
    assert_eq!(value(&old), Some(text("new")), "everybody reads");
    // A grant that a failover lost is given again, to another run of a master: the same epoch.
    old_held.set(a, [(shard, 2)]);
    assert!(matches!(set(&old, tenant, "late"), Err(DbError::NotOwner(_))));
    assert_eq!(value(&new), Some(text("new")));
    old.close();
    new.close();
}

#[test]
fn a_write_that_has_passed_the_fence_is_waited_for_or_ended() {
    if !is_there("a_write_that_has_passed_the_fence_is_waited_for_or_ended") {
        return;
    }
    let mut it = Masters::new();
    let (a, b) = (it.join("a"), it.join("b"));
    let shard = it.take(a, &shards([7]))[0].0;
    let fence = |epoch: i64, master: MasterId| {
        format!("BEGIN; SELECT mesophyll_fence({shard}, {epoch}, '{master}')")
    };
    // A master that is stopped in the middle of a transaction.
    let mut stopped = Client::connect(it.schema.url(), NoTls).expect("connected");
    stopped.batch_execute(&fence(1, a)).expect("held");
    let evict = LeaseAsk::Evict(shards([7, 8]));
    assert_eq!(it.ask(evict.clone()), LeaseTold::Evicted(0), "its master lives");
    it.expire("a");
    assert_eq!(it.take(b, &shards([7])), [], "it is waited for");
    assert_eq!(it.ask(evict.clone()), LeaseTold::Evicted(1));
    let got = eventually("the session has ended", || it.take(b, &shards([7])).pop());
    assert_eq!(got, (shard, 2));
    assert!(stopped.batch_execute("INSERT INTO mesophyll_layout VALUES (1); COMMIT").is_err());
    // One that comes while the shard is being given away waits, and is refused.
    let mut writes = Client::connect(it.schema.url(), NoTls).expect("connected");
    writes.batch_execute(&fence(2, b)).expect("held");
    let c = it.join("c");
    let mut gives = connect(&it.schema);
    thread::scope(|scope| {
        let giving = scope.spawn(|| gives.ask(&LeaseAsk::Give(b, vec![(shard, 2, Some(c))])));
        let mut client = Client::connect(it.schema.url(), NoTls).expect("connected");
        eventually("the giver waits for the write", || {
            let sql = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            client.query(sql, &[]).expect("rows").pop()
        });
        let late = scope.spawn(|| {
            let mut late = Client::connect(it.schema.url(), NoTls).expect("connected");
            late.batch_execute(&fence(2, b))
                .expect_err("refused")
                .code()
                .map(|code| code.code().to_owned())
        });
        eventually("another write waits behind it", || {
            let sql = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            (client.query(sql, &[]).expect("rows").len() == 2).then_some(())
        });
        writes.batch_execute("COMMIT").expect("it had passed");
        assert_eq!(giving.join().expect("no panic"), Ok(LeaseTold::Given(shards([7]))));
        assert_eq!(late.join().expect("no panic").as_deref(), Some("MSF01"));
    });
    assert_eq!(it.ask(evict), LeaseTold::Evicted(0));
}
