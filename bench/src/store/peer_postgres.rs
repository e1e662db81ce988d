//! The async peer over PostgreSQL: its master in a process of its own, its callers tasks of one
//! runtime here, with one client. The client works on a master of ours as well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::contents::{self, Op, RECORDS, SCOPE, TENANTS, TEXT_BYTES, tenant_id};
use crate::harness::{Figure, Sample};
use crate::link::asked::{Kind, Load, Size};
use crate::link::tasks::{self, Callee};
use crate::peer;
use crate::peer::db::DbClient;
use crate::peer::types::{Id, KeyValueOp, KhronosValue, Snowflake};
use crate::serve::{Server, TOKEN};

/// The peer's two sides.
pub struct PeerPostgres {
    _server: Server,
    client: PeerClient,
}

impl PeerPostgres {
    /// Over the database at `url`, which is filled already.
    pub fn new(url: &str) -> Result<Self, String> {
        let server = Server::of_peer(url)?;
        let client = PeerClient::new(server.address)?;
        Ok(Self { _server: server, client })
    }

    /// Its client of its own master.
    pub fn client(&self) -> &PeerClient {
        &self.client
    }
}

/// The peer's client of a master, with one connection of HTTP/2.
pub struct PeerClient {
    runtime: tokio::runtime::Runtime,
    client: DbClient,
}

impl PeerClient {
    pub fn new(master: SocketAddr) -> Result<Self, String> {
        let runtime = peer::runtime()?;
        let client = {
            let _guard = runtime.enter();
            DbClient::new(&master.to_string(), 0, TOKEN)?
        };
        Ok(Self { runtime, client })
    }

    /// Does a turn of so many callers.
    pub fn measure(&self, op: Op, callers: usize, lasting: Duration) -> Result<Sample, String> {
        let load =
            Load { kind: Kind::Timed, size: Size::Tiny, in_flight: callers, tenants: 1, lasting };
        let callee =
            Arc::new(Asking { client: self.client.clone(), op, text: "x".repeat(TEXT_BYTES) });
        let outcome = self.runtime.block_on(tasks::drive(callee, load))?;
        let [p50, p99, _, worst] = outcome.times;
        let rate = outcome.done as f64 / outcome.seconds;
        Ok(vec![
            (Figure::Rate, rate),
            (Figure::P50, p50),
            (Figure::P99, p99),
            (Figure::Worst, worst),
        ])
    }
}

struct Asking {
    client: DbClient,
    op: Op,
    text: String,
}

impl Callee for Asking {
    async fn call(&self, number: u64) -> Result<(), String> {
        // Any of the records that our callers ask for too (splitmix64).
        let mut random = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        random = (random ^ (random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let id = Id::Guild(Snowflake(tenant_id(random % TENANTS).snowflake()));
        let (scopes, key) = (vec![SCOPE.to_owned()], contents::key((random >> 32) % RECORDS));
        match self.op {
            Op::Get => match self.client.kv_get(id, scopes, key).await? {
                Some(_) => Ok(()),
                None => Err("a record is not there".to_owned()),
            },
            Op::Set => {
                let value = KhronosValue::Text(self.text.clone());
                self.client.kv(id, &KeyValueOp::Set { scopes, key, value }).await.map(drop)
            }
            Op::Find => Err("the peer finds nothing".to_owned()),
        }
    }
}
