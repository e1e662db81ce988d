//! Tenant states and bans in PostgreSQL.
//!
//! A tenant may be banned without ever having had a state, but its row has one: such a row holds
//! [`NO_STATE`] as its data until a state is set, by us or by another program. Runs on the threads
//! of `worker.rs`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use postgres::Row;

use super::global_kv::plain;
use super::session::{PgSession, SessionFault};
use super::usage::Owner;
use crate::store::lease::Fence;
use crate::store::{Revision, Standing, StoredState};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{TenantId, TenantState};
use crate::wire::json::plain_to_jsonb;

/// The data of a row whose tenant was banned and has no state.
pub(super) const NO_STATE: &str = r#"{"mesophyll": "banned without a state"}"#;

macro_rules! states {
    () => {
        "SELECT events::text[], data::text, banned, data = $1::text::jsonb, owner_type, owner_id
         FROM tenant_state"
    };
}

/// The states of all tenants of some shards that have one or are banned.
pub(super) fn all(
    session: &mut PgSession,
    of: &ShardSet,
) -> Result<Vec<(TenantId, StoredState)>, SessionFault> {
    let mut states = Vec::new();
    let read = |row: &Row| {
        let (kind, id): (&str, &str) = (row.try_get(4)?, row.try_get(5)?);
        match TenantId::from_parts(kind, id) {
            Ok(tenant) => states.push((tenant, stored(row)?)),
            Err(_) => log::warn!("postgres: a row of tenant_state belongs to no tenant"),
        }
        Ok(())
    };
    if *of == ShardSet::full() {
        session.each(states!(), &[&NO_STATE], read)?;
    } else {
        let of: Vec<i32> = of.iter().map(|shard| shard.number().into()).collect();
        let some = concat!(states!(), " WHERE mesophyll_shard_of(owner_id) = ANY ($2)");
        session.each(some, &[&NO_STATE, &of], read)?;
    }
    Ok(states)
}

/// For each of some tenants whether it has a state or any record.
pub(super) fn are_known(
    session: &mut PgSession,
    tenants: &[TenantId],
) -> Result<Vec<bool>, SessionFault> {
    let ids: Vec<String> = tenants.iter().map(|tenant| tenant.snowflake().to_string()).collect();
    let rows = session.query(
        "SELECT asked.id, kind FROM unnest($1::text[]) AS asked (id), unnest(ARRAY['guild', 'user']) AS kind
         WHERE EXISTS (SELECT FROM tenant_kv WHERE owner_id = asked.id AND owner_type = kind)
             OR EXISTS (SELECT FROM tenant_state WHERE owner_id = asked.id AND owner_type = kind
                 AND data IS DISTINCT FROM $2::text::jsonb)",
        &[&ids, &NO_STATE],
    )?;
    let mut known = HashSet::new();
    for row in rows {
        known.extend(TenantId::from_parts(row.try_get(1)?, row.try_get(0)?));
    }
    Ok(tenants.iter().map(|tenant| known.contains(tenant)).collect())
}

/// The state of one tenant.
pub(super) fn get(
    session: &mut PgSession,
    tenant: TenantId,
) -> Result<Option<StoredState>, SessionFault> {
    let owner = Owner::from(tenant);
    let row = session.first(
        "SELECT events::text[], data::text, banned, data = $1::text::jsonb FROM tenant_state
         WHERE owner_type = $2 AND owner_id = $3",
        &[&NO_STATE, &owner.kind, &owner.id],
    )?;
    row.as_ref().map(stored).transpose()
}

/// Replaces a tenant's state.
pub(super) fn set(
    session: &mut PgSession,
    tenant: TenantId,
    fence: Option<Fence>,
    state: &TenantState,
    revisions: &AtomicU64,
) -> Result<Revision, SessionFault> {
    let owner = Owner::from(tenant);
    let data = plain_to_jsonb(&state.data)?;
    let events: Vec<&str> = state.events.iter().map(String::as_str).collect();
    session.transaction(Some(owner.lock()), fence, |session| {
        session.execute(
            "INSERT INTO tenant_state (owner_type, owner_id, events, data) VALUES ($1, $2, $3::text[], $4::text::jsonb)
             ON CONFLICT (owner_id, owner_type) DO UPDATE SET events = EXCLUDED.events, data = EXCLUDED.data",
            &[&owner.kind, &owner.id, &events, &data],
        )?;
        Ok(next(revisions))
    })
}

/// Sets whether a tenant's dispatches are refused.
pub(super) fn set_standing(
    session: &mut PgSession,
    tenant: TenantId,
    fence: Option<Fence>,
    standing: Standing,
    revisions: &AtomicU64,
) -> Result<Revision, SessionFault> {
    let owner = Owner::from(tenant);
    session.transaction(Some(owner.lock()), fence, |session| {
        session.execute(
            "INSERT INTO tenant_state (owner_type, owner_id, banned, data) VALUES ($1, $2, $3, $4::text::jsonb)
             ON CONFLICT (owner_id, owner_type) DO UPDATE SET banned = EXCLUDED.banned",
            &[&owner.kind, &owner.id, &(standing == Standing::Banned), &NO_STATE],
        )?;
        Ok(next(revisions))
    })
}

/// Drawn under the tenant's lock, which is kept until the commit: so revisions are in the order of
/// the commits.
fn next(revisions: &AtomicU64) -> Revision {
    Revision(revisions.fetch_add(1, Ordering::SeqCst) + 1)
}

/// The state of a row with the columns of [`get`].
pub(super) fn stored(row: &Row) -> Result<StoredState, SessionFault> {
    let is_banned = row.try_get::<_, Option<bool>>(2)?.unwrap_or(false);
    let standing = if is_banned { Standing::Banned } else { Standing::Good };
    if row.try_get::<_, Option<bool>>(3)? == Some(true) {
        return Ok(StoredState { state: None, standing });
    }
    let events: Option<Vec<Option<String>>> = row.try_get(0)?;
    let events = events.into_iter().flatten().flatten().collect();
    Ok(StoredState { state: Some(TenantState { events, data: plain(row, 1)? }), standing })
}
