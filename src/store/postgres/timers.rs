//! Timers in PostgreSQL, in a table of our own. Runs on the threads of `worker.rs`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use postgres::Row;

use super::records::{system_time, timestamp};
use super::session::{PgSession, SessionFault};
use super::usage::{Owner, signed, unsigned};
use crate::base::error::DbError;
use crate::store::Usage;
use crate::store::lease::Fence;
use crate::store::timers::{DueTimers, TimerPlace, TimerRun, check_room, timer_bytes};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{TenantId, Timer, Timestamp};
use crate::wire::json::{from_jsonb, to_jsonb};

/// The columns that [`timer`] reads, and the owner.
macro_rules! timers {
    () => {
        "SELECT id, name, due, every, data::text, owner_type, owner_id FROM mesophyll_timer"
    };
}

/// A tenant's timers, in the order in which they are due.
pub(super) fn of(session: &mut PgSession, tenant: TenantId) -> Result<Vec<Timer>, SessionFault> {
    let owner = Owner::from(tenant);
    let rows = session.query(
        concat!(
            timers!(),
            " WHERE owner_type = $1 AND owner_id = $2 ORDER BY due, id COLLATE \"C\""
        ),
        &[&owner.kind, &owner.id],
    )?;
    rows.iter().map(timer).collect()
}

/// Makes a timer; a refusal is a value, as those of records are.
pub(super) fn set(
    session: &mut PgSession,
    tenant: TenantId,
    fence: Option<Fence>,
    timer: &Timer,
) -> Result<Result<(), DbError>, SessionFault> {
    let owner = Owner::from(tenant);
    let data = to_jsonb(&timer.data)?;
    session.transaction(Some(owner.lock()), fence, |session| {
        let row = session.first(
            "SELECT count(*), coalesce(sum(bytes), 0)::bigint, coalesce(bool_or(id = $3), false)
             FROM mesophyll_timer WHERE owner_type = $1 AND owner_id = $2",
            &[&owner.kind, &owner.id, &timer.id],
        )?;
        let row = row.ok_or(SessionFault::Conflict)?;
        if row.try_get(2)? {
            return Ok(Ok(()));
        }
        let has = Usage { records: unsigned(row.try_get(0)?), bytes: unsigned(row.try_get(1)?) };
        if let Err(refused) = check_room(has, timer) {
            return Ok(Err(refused));
        }
        session.execute(
            "INSERT INTO mesophyll_timer (owner_type, owner_id, id, name, due, every, data, bytes)
             VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8)",
            &[
                &owner.kind,
                &owner.id,
                &timer.id,
                &timer.name,
                &system_time(timer.due),
                &timer.every,
                &data,
                &signed(timer_bytes(timer)),
            ],
        )?;
        Ok(Ok(()))
    })
}

/// Ends a timer; whether there was one.
pub(super) fn cancel(
    session: &mut PgSession,
    tenant: TenantId,
    fence: Option<Fence>,
    id: &str,
) -> Result<bool, SessionFault> {
    let owner = Owner::from(tenant);
    session.transaction(None, fence, |session| {
        let gone = session.execute(
            "DELETE FROM mesophyll_timer WHERE owner_type = $1 AND owner_id = $2 AND id = $3",
            &[&owner.kind, &owner.id, &id],
        )?;
        Ok(gone > 0)
    })
}

/// Those of some shards that are due by `until`, behind a place.
pub(super) fn due(
    session: &mut PgSession,
    of: &ShardSet,
    behind: Option<&TimerPlace>,
    until: Timestamp,
    max: usize,
) -> Result<DueTimers, SessionFault> {
    let of = numbers(of);
    let (from, owner, id) = match behind {
        Some((due, tenant, id)) => (system_time(*due), Some(Owner::from(*tenant)), id.as_str()),
        None => (UNIX_EPOCH, None, ""),
    };
    let owner = owner.unwrap_or(Owner { kind: String::new(), id: String::new() });
    let (until, max) = (system_time(until), i64::try_from(max).unwrap_or(i64::MAX));
    let rows = session.query(
        concat!(
            timers!(),
            " WHERE due <= $1 AND (due, owner_id, owner_type, id) > ($2, $3, $4, $5)
                 AND ($6::integer[] IS NULL OR mesophyll_shard_of(owner_id) = ANY ($6))
             ORDER BY due, owner_id, owner_type, id LIMIT $7"
        ),
        &[&until, &from, &owner.id, &owner.kind, &id, &of, &max],
    )?;
    let mut timers = Vec::with_capacity(rows.len());
    for row in &rows {
        match TenantId::from_parts(row.try_get(5)?, row.try_get(6)?) {
            Ok(tenant) => timers.push((tenant, timer(row)?)),
            Err(_) => log::warn!("postgres: a row of mesophyll_timer belongs to no tenant"),
        }
    }
    let next = session.first(
        "SELECT due FROM mesophyll_timer
         WHERE due > $1 AND ($2::integer[] IS NULL OR mesophyll_shard_of(owner_id) = ANY ($2))
         ORDER BY due LIMIT 1",
        &[&until, &of],
    )?;
    let next = next.map(|row| timestamp(row.try_get(0)?)).transpose()?;
    Ok(DueTimers { timers, next })
}

/// Notes that runs are over, each under the fence of its tenant.
pub(super) fn ran(
    session: &mut PgSession,
    fences: &[Fence],
    runs: &[TimerRun],
) -> Result<(), SessionFault> {
    // In the order of the shards, as every transaction takes their locks.
    let by_shard: BTreeMap<_, _> = fences.iter().map(|fence| (fence.shard, fence)).collect();
    let mut check = String::new();
    for Fence { shard, epoch, master } in by_shard.into_values() {
        // Writing into a String cannot fail.
        let _ = write!(check, "SELECT mesophyll_fence({shard}, {epoch}, '{master}');");
    }
    let owners: Vec<Owner> = runs.iter().map(|run| Owner::from(run.tenant)).collect();
    let kinds: Vec<&str> = owners.iter().map(|owner| owner.kind.as_str()).collect();
    let owners: Vec<&str> = owners.iter().map(|owner| owner.id.as_str()).collect();
    let ids: Vec<&str> = runs.iter().map(|run| run.id.as_str()).collect();
    let due: Vec<SystemTime> = runs.iter().map(|run| system_time(run.due)).collect();
    let next: Vec<Option<SystemTime>> = runs.iter().map(|run| run.next.map(system_time)).collect();
    session.transaction(None, None, |session| {
        session.run(&check)?;
        session.execute(
            "WITH run AS (
                 SELECT * FROM unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[]),
                     (SELECT $4::timestamptz[]), (SELECT $5::timestamptz[]))
                     AS run (kind, owner, id, due, next)),
             gone AS (
                 DELETE FROM mesophyll_timer t USING run
                 WHERE (t.owner_type, t.owner_id, t.id, t.due) = (run.kind, run.owner, run.id, run.due)
                     AND run.next IS NULL)
             UPDATE mesophyll_timer t SET due = run.next FROM run
             WHERE (t.owner_type, t.owner_id, t.id, t.due) = (run.kind, run.owner, run.id, run.due)
                 AND run.next IS NOT NULL",
            &[&kinds, &owners, &ids, &due, &next],
        )?;
        Ok(())
    })
}

/// How many there are of some shards.
pub(super) fn count(session: &mut PgSession, of: &ShardSet) -> Result<u64, SessionFault> {
    let row = session.first(
        "SELECT count(*) FROM mesophyll_timer
         WHERE $1::integer[] IS NULL OR mesophyll_shard_of(owner_id) = ANY ($1)",
        &[&numbers(of)],
    )?;
    row.map_or(Ok(0), |row| Ok(unsigned(row.try_get(0)?)))
}

/// The numbers of shards; `None`: all of them.
fn numbers(of: &ShardSet) -> Option<Vec<i32>> {
    (*of != ShardSet::full()).then(|| of.iter().map(|shard| shard.number().into()).collect())
}

/// The timer of a row that begins with its columns.
pub(super) fn timer(row: &Row) -> Result<Timer, SessionFault> {
    let data: &str = row.try_get(4)?;
    Ok(Timer {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        due: timestamp(row.try_get(2)?)?,
        every: row.try_get(3)?,
        data: from_jsonb(data.as_bytes())?,
    })
}
