//! [`WorkerDb`]: the database as a worker's tenants see it, in this process or over HTTP, with
//! nothing to tell which.
//!
//! Over HTTP the rules are checked here before anything is sent, so that a refusal costs no round
//! trip and reads the same; the master checks them again. Called from a worker's I/O threads.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::error::DbError;
use crate::protocol::MesophyllDbClient;
use crate::runtime::TenantDb;
use crate::store::{Caller, DbState, rules};
use crate::wire::data::{DbAnswer, DbOp, TenantId, TenantState};

/// A worker's way to the database.
#[derive(Debug, Clone)]
pub enum WorkerDb {
    /// In this process: thread-pool mode.
    Direct(Arc<DbState>, Caller),
    /// Through the master.
    Mesophyll(MesophyllDbClient),
}

impl WorkerDb {
    /// The database of this process, for one worker of so many.
    pub fn direct(db: Arc<DbState>, worker_id: usize, workers: usize) -> Self {
        WorkerDb::Direct(db, Caller { worker_id, workers })
    }

    /// The database of a master.
    pub fn mesophyll(client: MesophyllDbClient) -> Self {
        WorkerDb::Mesophyll(client)
    }

    /// Ends what is under way to the master with an error, and everything later. A store in this
    /// process goes on: it is not only this worker's.
    pub fn close(&self) {
        match self {
            WorkerDb::Direct(..) => {}
            WorkerDb::Mesophyll(client) => client.close(),
        }
    }
}

impl TenantDb for WorkerDb {
    fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                let states = db.tenant_states(*caller).into_iter();
                Ok(states.map(|(tenant, state)| (tenant, (*state).clone())).collect())
            }
            WorkerDb::Mesophyll(client) => client.tenant_states(),
        }
    }

    fn ask(&self, op: DbOp) -> Result<DbAnswer, DbError> {
        match self {
            WorkerDb::Direct(db, caller) => db.ask(*caller, op),
            WorkerDb::Mesophyll(client) => client.ask(&rules::checked(op)?),
        }
    }
}
