//! The store part: set, get and find, in this process and over HTTP, on each store, beside what
//! they stand on.
//!
//! *Direct* is `DbState`, as thread-pool mode has it. Otherwise it is a worker's
//! `MesophyllDbClient` in this process and a master's `MesophyllServer` in another, over loopback
//! TCP. A worker has eight threads for the database, so eight callers share a client, and 64
//! callers are eight workers.

mod bare;
pub mod contents;
mod peer_postgres;
pub mod plain_postgres;
mod plain_redb;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesophyll::protocol::MesophyllDbClient;
use mesophyll::store::{self as product, DbOptions, DbState, StoreUrl};
use mesophyll::wire::data::DbOp;

use crate::harness::{self, Case, Contestant, Plan, Role, Row, Sample};
use crate::load::{self, Caller};
use crate::serve::{Server, TOKEN};
use bare::BareExchange;
use contents::{Op, Picker};
use peer_postgres::{PeerClient, PeerPostgres};
use plain_postgres::{Database, PlainPostgres};
use plain_redb::{Commit, PlainRedb};

/// Callers in the same process, and callers over HTTP: the quick run has what there are aims for.
const DIRECT_CALLERS: [usize; 3] = [1, 8, 64];
const DIRECT_CALLERS_QUICK: [usize; 1] = [64];
const HTTP_CALLERS: [usize; 4] = [1, 8, 16, 64];
const HTTP_CALLERS_QUICK: [usize; 2] = [1, 16];

/// Callers that share a connection of HTTP/2.
const HTTP2_CALLERS: [usize; 2] = [1, 16];

/// The most of them.
const CALLERS_MAX: usize = 64;

/// Callers that share a client: the threads that a worker has for it.
const CALLERS_A_WORKER: usize = 8;

/// Runs the store's cases.
pub fn run(
    folder: &Path,
    plan: Plan,
    wanted: &dyn Fn(&str) -> bool,
    rows: &mut Vec<Row>,
    left_out: &mut Vec<String>,
) -> Result<(), String> {
    let mut runner = Runner { plan, wanted, rows };
    if !plan.is_quick {
        runner.embedded("memory", "memory:", "memory:", None)?;
    }
    let file = |name: &str| folder.join(name).display().to_string();
    let (direct, served) =
        (format!("redb:{}", file("direct.redb")), format!("redb:{}", file("served.redb")));
    let plain = PlainRedb::new(&folder.join("plain.redb"))?;
    runner.embedded("redb", &direct, &served, Some(&plain))?;
    match Database::new()? {
        Some(database) => runner.postgres(&database),
        None => {
            let why = "PostgreSQL: set MESOPHYLL_BENCH_POSTGRES_URL to a server on which a database may be made";
            eprintln!("LEFT OUT: {why}");
            left_out.push(why.to_owned());
            Ok(())
        }
    }
}

struct Runner<'r> {
    plan: Plan,
    wanted: &'r dyn Fn(&str) -> bool,
    rows: &'r mut Vec<Row>,
}

impl Runner<'_> {
    fn embedded(
        &mut self,
        kept: &str,
        direct: &str,
        served: &str,
        plain: Option<&PlainRedb>,
    ) -> Result<(), String> {
        let names = names(kept);
        if !names.iter().any(|name| (self.wanted)(name)) {
            return Ok(());
        }
        let db = open(direct)?;
        for (op, callers) in self.every(self.direct_callers()) {
            let mut contestants = vec![ours(direct_callers(&db, op))];
            if let Some(plain) = plain {
                contestants
                    .push(floor(move |callers| plain.callers(op, Commit::LikeOurs, callers)));
                if op == Op::Set {
                    let measure =
                        measured(move |callers| plain.callers(op, Commit::OnePhase, callers));
                    contestants.push(Contestant { role: Role::Other("vs_one_phase"), measure });
                }
            }
            self.case(&format!("{op}_{kept}_direct"), callers, contestants)?;
        }
        db.close();
        self.over_http(kept, served, None)
    }

    fn postgres(&mut self, database: &Database) -> Result<(), String> {
        if !names("pg").iter().any(|name| (self.wanted)(name)) {
            return Ok(());
        }
        let db = open(database.url())?;
        for (op, callers) in self.every(self.direct_callers()) {
            let plain = PlainPostgres::new(database.url(), callers)?;
            let contestants =
                vec![ours(direct_callers(&db, op)), floor(|callers| plain.callers(op, callers))];
            self.case(&format!("{op}_pg_direct"), callers, contestants)?;
        }
        db.close();
        // A database of its own: two programs that replace each other's rows are another case.
        let Some(peers) = Database::new()? else { return Ok(()) };
        open(peers.url())?.close();
        self.over_http("pg", database.url(), Some(&PeerPostgres::new(peers.url())?))
    }

    fn direct_callers(&self) -> &'static [usize] {
        if self.plan.is_quick { &DIRECT_CALLERS_QUICK } else { &DIRECT_CALLERS }
    }

    fn over_http(
        &mut self,
        kept: &str,
        url: &str,
        peer: Option<&PeerPostgres>,
    ) -> Result<(), String> {
        let server = Server::of_store(url)?;
        let address = server.address.to_string();
        let numbers: &'static [usize] =
            if self.plan.is_quick { &HTTP_CALLERS_QUICK } else { &HTTP_CALLERS };
        for (op, callers) in self.every(numbers) {
            let bare = BareExchange::like(server.address, op)?;
            let mut contestants = vec![ours(http_callers(&address, op))];
            // A write's floor is the disk, which the direct cases show.
            if op != Op::Set {
                contestants.push(floor(|callers| bare.callers(callers)));
            }
            if let Some(peer) = peer.filter(|_| op != Op::Find) {
                contestants.push(asking(Role::Async, peer.client(), op));
            }
            self.case(&format!("{op}_{kept}"), callers, contestants)?;
        }
        peer.map_or(Ok(()), |peer| self.over_http2(server.address, peer))
    }

    /// The peer's client on our master and on its own; the floor is what the client and HTTP/2 take
    /// by themselves, over a store of ours in memory.
    fn over_http2(&mut self, ours: SocketAddr, peer: &PeerPostgres) -> Result<(), String> {
        let in_memory = Server::of_store("memory:")?;
        let (client, floor) = (PeerClient::new(ours)?, PeerClient::new(in_memory.address)?);
        for (op, callers) in self.every(&HTTP2_CALLERS).filter(|(op, _)| *op != Op::Find) {
            let contestants = vec![
                asking(Role::Ours, &client, op),
                asking(Role::Floor, &floor, op),
                asking(Role::Async, peer.client(), op),
            ];
            self.case(&format!("{op}_pg_http2"), callers, contestants)?;
        }
        Ok(())
    }

    /// In the quick run nothing is found: there are no aims for it over HTTP.
    fn every(&self, numbers: &'static [usize]) -> impl Iterator<Item = (Op, usize)> + use<> {
        let is_quick = self.plan.is_quick;
        let ops = Op::ALL.into_iter().filter(move |op| !is_quick || *op != Op::Find);
        ops.flat_map(move |op| numbers.iter().map(move |callers| (op, *callers)))
    }

    fn case(
        &mut self,
        name: &str,
        callers: usize,
        contestants: Vec<Contestant<'_>>,
    ) -> Result<(), String> {
        let mut case = Case { name: format!("kv_{name}"), callers, contestants };
        if (self.wanted)(&case.name) {
            eprintln!("{} with {callers}", case.name);
            self.rows.extend(harness::run(&mut case, self.plan)?);
        }
        Ok(())
    }
}

fn names(kept: &str) -> Vec<String> {
    let kinds = ["_direct", "", "_http2"];
    let names = |op| kinds.map(|kind| format!("kv_{op}_{kept}{kind}"));
    Op::ALL.iter().flat_map(names).collect()
}

fn asking(role: Role, client: &PeerClient, op: Op) -> Contestant<'_> {
    let measure = Box::new(move |callers, lasting| client.measure(op, callers, lasting));
    Contestant { role, measure }
}

fn measured<'c>(
    mut callers: impl FnMut(usize) -> Result<Vec<Caller<'c>>, String> + 'c,
) -> Box<dyn FnMut(usize, Duration) -> Result<Sample, String> + 'c> {
    Box::new(move |number, lasting| load::drive(callers(number)?, lasting))
}

fn ours<'c>(callers: impl FnMut(usize) -> Result<Vec<Caller<'c>>, String> + 'c) -> Contestant<'c> {
    Contestant { role: Role::Ours, measure: measured(callers) }
}

fn floor<'c>(callers: impl FnMut(usize) -> Result<Vec<Caller<'c>>, String> + 'c) -> Contestant<'c> {
    Contestant { role: Role::Floor, measure: measured(callers) }
}

fn open(url: &str) -> Result<Arc<DbState>, String> {
    let url: StoreUrl = url.parse().map_err(|_| format!("not a store: {url}"))?;
    let store = product::open(&url).map_err(|error| error.to_string())?;
    let db =
        Arc::new(DbState::new(store, DbOptions::default()).map_err(|error| error.to_string())?);
    contents::fill(&db)?;
    Ok(db)
}

fn direct_callers<'c>(
    db: &'c DbState,
    op: Op,
) -> impl FnMut(usize) -> Result<Vec<Caller<'c>>, String> + 'c {
    move |number| {
        Ok((0..number)
            .map(|caller| {
                let mut picker = Picker::new(caller);
                Box::new(move || {
                    let (tenant, op) = picker.operation(op);
                    db.kv(tenant, op).map(drop).map_err(|error| error.to_string())
                }) as Caller<'c>
            })
            .collect())
    }
}

fn http_callers<'c>(
    address: &'c str,
    op: Op,
) -> impl FnMut(usize) -> Result<Vec<Caller<'c>>, String> + 'c {
    let clients: Vec<_> = (0..CALLERS_MAX.div_ceil(CALLERS_A_WORKER))
        .map(|_| MesophyllDbClient::new(address, 0, TOKEN))
        .collect();
    move |number| {
        Ok((0..number)
            .map(|caller| {
                let mut picker = Picker::new(caller);
                let client = clients[caller / CALLERS_A_WORKER].clone();
                Box::new(move || {
                    let (tenant, op) = picker.operation(op);
                    let op = DbOp::Kv(tenant, op);
                    client.ask(&op).map(drop).map_err(|error| error.to_string())
                }) as Caller<'c>
            })
            .collect())
    }
}
