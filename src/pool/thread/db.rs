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
use crate::store::global::{GlobalAddress, check_op};
use crate::store::{Caller, DbState, rules};
use crate::wire::data::{
    EncodedValue, GlobalKeyValueOp, GlobalKv, KeyValueOp, KvRecord, PartialGlobalKv, Scopes,
    TenantId, TenantState,
};

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
    fn kv_get(
        &self,
        tenant: TenantId,
        scopes: Scopes,
        key: String,
    ) -> Result<Option<KvRecord>, DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                caller.check_owns(tenant)?;
                db.kv_get(tenant, &scopes, &key)
            }
            WorkerDb::Mesophyll(client) => {
                rules::check_key(&key)?;
                rules::check_scopes(&scopes)?;
                client.kv_get(tenant, scopes.into_vec(), key)
            }
        }
    }

    fn kv_list_scopes(&self, tenant: TenantId) -> Result<Vec<String>, DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                caller.check_owns(tenant)?;
                db.kv_list_scopes(tenant)
            }
            WorkerDb::Mesophyll(client) => client.kv_list_scopes(tenant),
        }
    }

    fn kv_set(
        &self,
        tenant: TenantId,
        scopes: Scopes,
        key: String,
        value: EncodedValue,
    ) -> Result<(), DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                caller.check_owns(tenant)?;
                db.kv_set(tenant, scopes, key, &value)
            }
            WorkerDb::Mesophyll(client) => {
                rules::check_key(&key)?;
                rules::check_scopes(&scopes)?;
                let value = rules::check_value(&value)?;
                client.kv_change(tenant, &KeyValueOp::Set { scopes: scopes.into_vec(), key, value })
            }
        }
    }

    fn kv_delete(&self, tenant: TenantId, scopes: Scopes, key: String) -> Result<(), DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                caller.check_owns(tenant)?;
                db.kv_delete(tenant, scopes, key)
            }
            WorkerDb::Mesophyll(client) => {
                rules::check_key(&key)?;
                rules::check_scopes(&scopes)?;
                client.kv_change(tenant, &KeyValueOp::Delete { scopes: scopes.into_vec(), key })
            }
        }
    }

    fn kv_find(
        &self,
        tenant: TenantId,
        scopes: Scopes,
        pattern: String,
    ) -> Result<Vec<KvRecord>, DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                caller.check_owns(tenant)?;
                db.kv_find(tenant, &scopes, &pattern)
            }
            WorkerDb::Mesophyll(client) => {
                rules::check_asked_scopes(&scopes)?;
                rules::check_pattern(&pattern)?;
                client.kv_find(tenant, scopes.into_vec(), pattern)
            }
        }
    }

    fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                let states = db.tenant_states(*caller).into_iter();
                Ok(states.map(|(tenant, state)| (tenant, (*state).clone())).collect())
            }
            WorkerDb::Mesophyll(client) => client.tenant_states(),
        }
    }

    fn set_tenant_state(&self, tenant: TenantId, state: TenantState) -> Result<(), DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                caller.check_owns(tenant)?;
                db.set_tenant_state(tenant, &state)
            }
            WorkerDb::Mesophyll(client) => {
                client.set_tenant_state(tenant, &rules::check_tenant_state(&state)?)
            }
        }
    }

    fn global_kv_find(
        &self,
        query: String,
        scope: String,
    ) -> Result<Vec<PartialGlobalKv>, DbError> {
        match self {
            WorkerDb::Direct(db, _) => db.global_find(&query, &scope),
            WorkerDb::Mesophyll(client) => {
                rules::check_pattern(&query)?;
                client.global_kv_find(query, scope)
            }
        }
    }

    fn global_kv_get(
        &self,
        tenant: TenantId,
        key: String,
        version: i32,
        scope: String,
    ) -> Result<Option<GlobalKv>, DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                caller.check_owns(tenant)?;
                db.global_get(Some(tenant), &GlobalAddress { scope, key, version })
            }
            WorkerDb::Mesophyll(client) => client.global_kv_get(tenant, key, version, scope),
        }
    }

    fn global_kv(&self, tenant: TenantId, op: GlobalKeyValueOp) -> Result<(), DbError> {
        match self {
            WorkerDb::Direct(db, caller) => {
                caller.check_owns(tenant)?;
                db.global(tenant, op)
            }
            WorkerDb::Mesophyll(client) => {
                check_op(&op, tenant)?;
                client.global_kv(tenant, &op)
            }
        }
    }
}
