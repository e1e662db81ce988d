//! Tenants' records in PostgreSQL.
//!
//! Other programs write to these tables too, with scopes in any order: a record's scopes are
//! compared as a set, and of several rows with one set the newest is the record. Which keys match
//! is decided by our own matcher, so that no answer depends on the server's locale; the server only
//! leaves out rows that cannot match. Runs on the threads of `worker.rs`.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres::Row;

use super::session::{PgSession, SessionFault, unreadable};
use super::usage::{self, Area, Owner, signed, unsigned};
use crate::base::error::DbError;
use crate::store::lease::Fence;
use crate::store::pattern::Pattern;
use crate::store::{FindLimits, KvSet, Usage, charge, touched};
use crate::wire::data::{KvRecord, Scopes, TenantId, Timestamp};
use crate::wire::json::{from_jsonb, to_jsonb};

/// A record with exactly these scopes; `<@` and `@>` compare arrays as sets.
const GET: &str = "SELECT id, key, value::text, scopes::text[], created_at, last_updated_at, xmin::text FROM tenant_kv
     WHERE owner_type = $1 AND owner_id = $2 AND key = $3 AND scopes @> $4::text[] AND scopes <@ $4::text[]
     ORDER BY last_updated_at DESC NULLS LAST, id COLLATE \"C\" DESC LIMIT 1";

/// The records that a Find may answer, newest first. The keys are folded as `pattern::index_fold`
/// does: ASCII only, which is what the locale C means in every encoding, and the Kelvin sign.
const FIND: &str = "SELECT id, key, value::text, scopes::text[], created_at, last_updated_at FROM (
         SELECT * FROM tenant_kv WHERE owner_type = $1 AND owner_id = $2 AND scopes @> $3::text[]
             AND starts_with(replace(lower(key COLLATE \"C\"), $4, 'k'), $5)
         ORDER BY last_updated_at DESC NULLS LAST, id COLLATE \"C\" DESC OFFSET 0) AS found";

/// Sets a record by the function of `set.sql`.
const SET: &str = "SELECT * FROM mesophyll_set($1, $2, $3::text::uuid, $4, $5, $6, $7, $8::text[], $9::text::jsonb,
     $10, $11, $12, $13, $14, $15, $16, $17)";

/// See [`FIND`].
pub(super) const KELVIN_SIGN: &str = "\u{212A}";

/// The record with this key and exactly these scopes.
pub(super) fn get(
    session: &mut PgSession,
    tenant: TenantId,
    key: &str,
    scopes: &Scopes,
) -> Result<Option<KvRecord>, SessionFault> {
    let owner = Owner::from(tenant);
    let row = session.first(GET, &[&owner.kind, &owner.id, &key, &scopes.as_slice()])?;
    row.map(|row| record(&row, scopes_of(&row)?)).transpose()
}

/// The scopes of all the tenant's records.
pub(super) fn list_scopes(
    session: &mut PgSession,
    tenant: TenantId,
) -> Result<Vec<String>, SessionFault> {
    let owner = Owner::from(tenant);
    let rows = session.query(
        "SELECT DISTINCT unnest(scopes)::text FROM tenant_kv WHERE owner_type = $1 AND owner_id = $2",
        &[&owner.kind, &owner.id],
    )?;
    let mut scopes = BTreeSet::new();
    for row in rows {
        scopes.extend(row.try_get::<_, Option<String>>(0)?);
    }
    Ok(scopes.into_iter().collect())
}

/// The records whose scopes contain all of `scopes` and whose key matches, ordered by key, then
/// scopes.
pub(super) fn find(
    session: &mut PgSession,
    tenant: TenantId,
    scopes: &Scopes,
    pattern: &Pattern,
    mut limits: FindLimits,
) -> Result<Vec<KvRecord>, SessionFault> {
    let owner = Owner::from(tenant);
    let mut seen: HashSet<(String, Scopes)> = HashSet::new();
    let mut found = Vec::new();
    let (scopes, prefix) = (scopes.as_slice(), pattern.prefix());
    session.each(FIND, &[&owner.kind, &owner.id, &scopes, &KELVIN_SIGN, &prefix], |row| {
        let key: &str = row.try_get(1)?;
        if !pattern.matches(key) {
            return Ok(());
        }
        let has = scopes_of(row)?;
        // The newest came first.
        if seen.insert((key.to_owned(), has.clone())) {
            let record = record(row, has)?;
            limits.take(&record.key, &record.scopes, record.value.as_bytes().len())?;
            found.push(record);
        }
        Ok(())
    })?;
    // By bytes, in every locale of the server.
    found.sort_by(|left, right| (&left.key, &left.scopes).cmp(&(&right.key, &right.scopes)));
    Ok(found)
}

/// Creates or replaces a record, in two exchanges if no other writer comes in between and the usage
/// is kept; a refusal is a value, see [`usage::add`].
pub(super) fn set(
    session: &mut PgSession,
    tenant: TenantId,
    fence: Option<Fence>,
    set: &KvSet,
) -> Result<Result<(), DbError>, SessionFault> {
    let owner = Owner::from(tenant);
    let jsonb = to_jsonb(&set.value)?;
    match set_at_once(session, &owner, fence, set, &jsonb) {
        Ok(Some(done)) => Ok(done),
        Ok(None) | Err(SessionFault::Conflict) => set_in_steps(session, &owner, fence, set, &jsonb),
        Err(fault) => Err(fault),
    }
}

/// `None`: nothing was changed, as the usage has to be counted.
fn set_at_once(
    session: &mut PgSession,
    owner: &Owner,
    fence: Option<Fence>,
    set: &KvSet,
    jsonb: &str,
) -> Result<Option<Result<(), DbError>>, SessionFault> {
    let old = old(session, owner, &set.key, &set.scopes)?;
    let new_charge = charge(&set.key, &set.scopes, set.value.as_bytes().len());
    let old_charge = old.as_ref().map(|old| old.charge);
    let row = session.commit_first(
        SET,
        &[
            &fence.map(|fence| i32::from(fence.shard.number())),
            &fence.map(|fence| fence.epoch),
            &fence.map(|fence| fence.master.to_string()),
            &owner.lock(),
            &owner.kind,
            &owner.id,
            &set.key,
            &set.scopes.as_slice(),
            &jsonb,
            &set.fresh_id,
            &system_time(touched(old.as_ref().and_then(|old| old.last_updated_at), set.now)),
            &old.as_ref().map(|old| &old.id),
            &old.as_ref().map(|old| &old.xmin),
            &old_charge.map(signed),
            &signed(new_charge),
            &signed(set.quota.records),
            &signed(set.quota.bytes),
        ],
    )?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get(0)? {
        return Ok(Some(Ok(())));
    }
    let had = Usage { records: unsigned(row.try_get(1)?), bytes: unsigned(row.try_get(2)?) };
    Ok(had.after_set(old_charge, new_charge, set.quota).err().map(Err))
}

fn set_in_steps(
    session: &mut PgSession,
    owner: &Owner,
    fence: Option<Fence>,
    set: &KvSet,
    jsonb: &str,
) -> Result<Result<(), DbError>, SessionFault> {
    session.transaction(Some(owner.lock()), fence, |session| {
        let old = old(session, owner, &set.key, &set.scopes)?;
        let new = charge(&set.key, &set.scopes, set.value.as_bytes().len());
        let change = (old.as_ref().map(|old| old.charge), new, set.quota);
        if let Err(refused) = usage::add(session, owner, Area::Records, count, change)? {
            return Ok(Err(refused));
        }
        let now = system_time(touched(old.as_ref().and_then(|old| old.last_updated_at), set.now));
        let Some(old) = old else {
            session.execute(
                "INSERT INTO tenant_kv (id, owner_type, owner_id, key, value, scopes, created_at, last_updated_at)
                 VALUES ($1, $2, $3, $4, $5::text::jsonb, $6::text[], $7, $7)",
                &[
                    &set.fresh_id,
                    &owner.kind,
                    &owner.id,
                    &set.key,
                    &jsonb,
                    &set.scopes.as_slice(),
                    &now,
                ],
            )?;
            return Ok(Ok(()));
        };
        let updated = session.execute(
            "UPDATE tenant_kv SET value = $2::text::jsonb, last_updated_at = $3 WHERE id = $1",
            &[&old.id, &jsonb, &now],
        )?;
        // Another program, which does not know our lock, deleted it meanwhile.
        if updated == 0 { Err(SessionFault::Conflict) } else { Ok(Ok(())) }
    })
}

/// Deletes a record, and with it what it had outlived: older rows with the same set of scopes.
pub(super) fn delete(
    session: &mut PgSession,
    tenant: TenantId,
    fence: Option<Fence>,
    key: &str,
    scopes: &Scopes,
) -> Result<(), SessionFault> {
    let owner = Owner::from(tenant);
    session.transaction(Some(owner.lock()), fence, |session| {
        let Some(old) = old(session, &owner, key, scopes)? else { return Ok(()) };
        usage::subtract(session, &owner, Area::Records, count, old.charge)?;
        session.execute(
            "DELETE FROM tenant_kv WHERE owner_type = $1 AND owner_id = $2 AND key = $3
                 AND scopes @> $4::text[] AND scopes <@ $4::text[]",
            &[&owner.kind, &owner.id, &key, &scopes.as_slice()],
        )?;
        Ok(())
    })
}

/// What is to be replaced or deleted.
struct OldRow {
    id: String,
    charge: u64,
    last_updated_at: Option<Timestamp>,
    /// With `id`, one version of the row.
    xmin: String,
}

/// The row that [`get`] reads, also one that cannot be read: it can be replaced, and it can be
/// deleted.
fn old(
    session: &mut PgSession,
    owner: &Owner,
    key: &str,
    scopes: &Scopes,
) -> Result<Option<OldRow>, SessionFault> {
    let row = session.first(GET, &[&owner.kind, &owner.id, &key, &scopes.as_slice()])?;
    let old = |row: Row| {
        let charge = charge(key, scopes, value_bytes(&row)?);
        let last_updated_at =
            row.try_get::<_, Option<SystemTime>>(5)?.and_then(|time| timestamp(time).ok());
        Ok(OldRow { id: row.try_get(0)?, charge, last_updated_at, xmin: row.try_get(6)? })
    };
    row.map(old).transpose()
}

/// How long the value of a row with the columns of [`GET`] is; one that is none of ours takes its
/// place all the same.
fn value_bytes(row: &Row) -> Result<usize, SessionFault> {
    let text = value_text(row)?;
    Ok(from_jsonb(text.as_bytes()).map_or(text.len(), |value| value.as_bytes().len()))
}

/// The value of a row with the columns of [`GET`]; the column may be NULL, which is Null.
fn value_text(row: &Row) -> Result<&str, SessionFault> {
    Ok(row.try_get::<_, Option<&str>>(2)?.unwrap_or(r#""Null""#))
}

/// What the tenant's records take of its quota.
pub(super) fn usage(session: &mut PgSession, tenant: TenantId) -> Result<Usage, SessionFault> {
    Ok(usage::of(session, &tenant.into(), Area::Records, count)?.usage)
}

/// Adds up all the tenant's records.
fn count(session: &mut PgSession, owner: &Owner) -> Result<Usage, SessionFault> {
    let mut seen: HashSet<(String, Scopes)> = HashSet::new();
    let mut usage = Usage::default();
    session.each(
        FIND,
        &[&owner.kind, &owner.id, &(&[] as &[String]), &KELVIN_SIGN, &""],
        |row| {
            let (key, scopes) = (row.try_get::<_, String>(1)?, scopes_of(row)?);
            let bytes = charge(&key, &scopes, value_bytes(row)?);
            if seen.insert((key, scopes)) {
                usage = Usage { records: usage.records + 1, bytes: usage.bytes + bytes };
            }
            Ok(())
        },
    )?;
    Ok(usage)
}

pub(super) fn scopes_of(row: &Row) -> Result<Scopes, SessionFault> {
    let scopes: Option<Vec<Option<String>>> = row.try_get(3)?;
    Ok(Scopes::new(scopes.into_iter().flatten().flatten()))
}

/// The record of a row with the columns of [`GET`].
pub(super) fn record(row: &Row, scopes: Scopes) -> Result<KvRecord, SessionFault> {
    Ok(KvRecord {
        id: row.try_get(0)?,
        key: row.try_get(1)?,
        value: from_jsonb(value_text(row)?.as_bytes())?,
        scopes: scopes.into_vec(),
        created_at: row.try_get::<_, Option<SystemTime>>(4)?.map(timestamp).transpose()?,
        last_updated_at: row.try_get::<_, Option<SystemTime>>(5)?.map(timestamp).transpose()?,
    })
}

/// A time as the `postgres` crate takes it, to the microsecond.
pub(super) fn system_time(time: Timestamp) -> SystemTime {
    let micros = Duration::from_micros(time.unix_micros().unsigned_abs());
    let time = if time.unix_micros() < 0 {
        UNIX_EPOCH.checked_sub(micros)
    } else {
        UNIX_EPOCH.checked_add(micros)
    };
    time.unwrap_or(UNIX_EPOCH)
}

/// A time as the `postgres` crate gives it; infinity is none of ours.
pub(super) fn timestamp(time: SystemTime) -> Result<Timestamp, SessionFault> {
    let micros = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()),
        Err(before) => i64::try_from(before.duration().as_micros()).map(|micros| -micros),
    };
    let time = micros.ok().and_then(|micros| Timestamp::from_unix_micros(micros).ok());
    Ok(time.ok_or_else(|| unreadable(&"a time beyond all years"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_microseconds() {
        for micros in [0, 1, -1, 1_763_764_805_123_456, -62_135_596_800_000_000] {
            let time = Timestamp::from_unix_micros(micros).expect("in range");
            assert_eq!(timestamp(system_time(time)).expect("in range"), time);
        }
    }
}
