//! The coordination thread over a database in memory: joining, taking, handing over, and a database
//! that says nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fake::FakeDatabase;
use super::{Cluster, ClusterFigures, ClusterMember as _, JoinError, SeenCluster, ShardTenants};
use crate::base::error::DbError;
use crate::base::sync::{Lock, Signal};
use crate::cluster::ShardPlace;
use crate::store::lease::{
    ConnectCoordination, Coordination, LeaseAsk, LeaseTold, MasterState, Membership,
};
use crate::wire::data::TenantId;
use crate::wire::data::sharding::ShardSet;

const LEASE: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

/// A server with the database, that can be had to say nothing.
struct Server {
    database: Lock<FakeDatabase>,
    started: Instant,
    is_silent: Lock<bool>,
    changed: Signal,
}

impl Server {
    fn start() -> Arc<Self> {
        Arc::new(Self {
            database: Lock::new(FakeDatabase::new()),
            started: Instant::now(),
            is_silent: Lock::new(false),
            changed: Signal::new(),
        })
    }

    fn be_silent(&self, is_silent: bool) {
        *self.is_silent.lock() = is_silent;
        self.changed.notify_all();
    }

    fn connect(self: &Arc<Self>) -> ConnectCoordination {
        let server = self.clone();
        Box::new(move || Ok(Box::new(Connection(server.clone()))))
    }

    fn owned(&self) -> usize {
        self.database.lock().shards.iter().filter(|shard| shard.owner.is_some()).count()
    }
}

struct Connection(Arc<Server>);

impl Coordination for Connection {
    fn ask(&mut self, ask: &LeaseAsk) -> Result<LeaseTold, DbError> {
        let Server { database, started, is_silent, changed } = &*self.0;
        drop(changed.wait_until(is_silent.lock(), None, |is_silent| !*is_silent));
        Ok(database.lock().ask(ask, started.elapsed()))
    }
}

/// Tenants whose first load fails, as a store's may.
#[derive(Default)]
struct Tenants {
    loads: Lock<Vec<usize>>,
    left: Lock<usize>,
}

impl ShardTenants for Tenants {
    fn load(&self, shards: &ShardSet) -> Result<(), DbError> {
        let mut loads = self.loads.lock();
        loads.push(shards.len());
        match loads.len() {
            1 => Err(DbError::Unavailable("not yet".to_owned())),
            _ => Ok(()),
        }
    }

    fn leave(&self, shards: &ShardSet, _: Instant) {
        *self.left.lock() += shards.len();
    }
}

fn join(server: &Arc<Server>, name: &str, cluster: Option<&str>) -> Result<Cluster, JoinError> {
    let membership = Membership {
        cluster: cluster.map(str::to_owned),
        name: name.to_owned(),
        api: format!("{name}:7451"),
        version: "1".to_owned(),
        weight: 1,
        lease: LEASE,
    };
    Cluster::join(server.connect(), membership, Arc::default(), LONG, Box::new(|| ()))
}

fn wait_until(cluster: &Cluster, is_so: impl Fn(&SeenCluster) -> bool) -> ClusterFigures {
    let shared = &cluster.shared;
    let deadline = Instant::now() + LONG;
    let seen = shared.changed.wait_until(shared.seen.lock(), deadline, |seen| is_so(seen));
    assert!(is_so(&seen), "it did not come to that");
    drop(seen);
    cluster.figures()
}

#[test]
fn a_master_that_is_alone_takes_and_gives_everything() {
    let server = Server::start();
    let cluster = join(&server, "a", None).expect("it joins");
    assert_eq!(server.owned(), 0, "nothing is taken before the start");
    assert!(!cluster.wait_until_settled(Instant::now()));
    let tenants = Arc::new(Tenants::default());
    cluster.start(tenants.clone());
    assert!(cluster.wait_until_settled(Instant::now() + LONG));
    assert_eq!(*tenants.loads.lock(), [509, 509], "a load that failed is tried again");
    let tenant = TenantId::Guild(77 << 22);
    assert!(cluster.table().serves(tenant) && cluster.table().is_leased());
    assert!(cluster.table().held().fence(tenant).is_ok_and(|fence| fence.is_some()));
    let figures = cluster.figures();
    assert_eq!((figures.held, figures.wanted, figures.moves.taken), (509, 509, 509));
    assert!(figures.lease_left > Some(Duration::ZERO) && figures.renewals.count() > 0);

    assert!(
        matches!(join(&server, "b", Some("x")), Err(JoinError::OtherLives(names)) if names == ["a"])
    );
    let refused = join(&server, "a", None);
    assert!(matches!(refused, Err(JoinError::OtherLives(names)) if names == ["a"]));

    cluster.stop(Instant::now() + LONG);
    assert_eq!((server.owned(), *tenants.left.lock()), (0, 509));
    assert!(!cluster.table().serves(tenant) && cluster.table().held().fence(tenant).is_err());
    assert!(cluster.set_state("a", MasterState::Up).is_err());
    join(&server, "b", Some("x")).expect("nothing is in its way").kill();
}

#[test]
fn a_master_that_drains_hands_over_to_the_other() {
    let server = Server::start();
    let one = join(&server, "a", Some("x")).expect("it joins");
    one.start(Arc::new(Tenants::default()));
    assert!(one.wait_until_settled(Instant::now() + LONG));
    let other = join(&server, "b", Some("x")).expect("it joins");
    other.start(Arc::new(Tenants::default()));
    assert_eq!(other.set_state("c", MasterState::Draining), Ok(false));
    assert_eq!(other.set_state("a", MasterState::Draining), Ok(true));
    let figures = wait_until(&one, |seen| seen.held == 0);
    assert_eq!((figures.moves.given, figures.wanted), (509, 0));
    assert_eq!(wait_until(&other, |seen| seen.held == 509).moves.received, 509);
    assert!(other.wait_until_settled(Instant::now() + LONG));
    assert_eq!(other.table().masters().iter().map(|one| one.shards).collect::<Vec<_>>(), [0, 509]);
    one.kill();
    other.kill();
}

#[test]
fn a_database_that_says_nothing_holds_no_master_up() {
    let server = Server::start();
    let cluster = join(&server, "a", Some("x")).expect("it joins");
    cluster.start(Arc::new(Tenants::default()));
    assert!(cluster.wait_until_settled(Instant::now() + LONG));
    server.be_silent(true);
    wait_until(&cluster, |seen| seen.left_helpers == 1);
    assert!(!cluster.table().is_leased(), "the lease is about to end");
    assert!(!cluster.table().serves(TenantId::User(0)));
    server.be_silent(false);
    assert!(cluster.wait_until_settled(Instant::now() + LONG));
    wait_until(&cluster, |seen| seen.lease_until.is_some() && seen.held == 509);
    let place = cluster.table().wait(TenantId::User(0), Instant::now() + LONG);
    assert!(matches!(place, ShardPlace::Here(_)), "it is served again");
    assert!(!cluster.gave_up());
    server.be_silent(true);
    wait_until(&cluster, |seen| seen.is_over);
    assert!(cluster.gave_up(), "too many connections are held");
    server.be_silent(false);
}

#[test]
fn a_lone_master_waits_no_longer_than_its_lease() {
    let server = Server::start();
    let cluster = join(&server, "a", None).expect("it joins");
    cluster.start(Arc::new(Tenants::default()));
    assert!(cluster.wait_until_settled(Instant::now() + LONG));
    server.be_silent(true);
    cluster.stop(Instant::now() + LONG);
    assert!(!cluster.gave_up(), "it did not stop before");
    assert_eq!(server.owned(), 509);
    server.be_silent(false);
}

#[test]
fn a_name_that_lives_is_not_to_be_used_again() {
    let server = Server::start();
    let cluster = join(&server, "a", Some("x")).expect("it joins");
    let refused = join(&server, "a", Some("x"));
    assert!(matches!(refused, Err(JoinError::NameLives(name)) if name == "a"));
    cluster.kill();
}

#[test]
fn a_database_that_cannot_be_reached_lets_no_master_join() {
    let refuse: ConnectCoordination = Box::new(|| Err(DbError::Unavailable("away".to_owned())));
    let membership = Membership {
        cluster: None,
        name: "a".to_owned(),
        api: String::new(),
        version: String::new(),
        weight: 1,
        lease: LEASE,
    };
    let joined = Cluster::join(refuse, membership, Arc::default(), LONG, Box::new(|| ()));
    assert!(matches!(joined, Err(JoinError::Unreachable(why)) if why == "away"));
}
