//! Global entries in PostgreSQL, and their purchases. Runs on the threads of `worker.rs`.

use postgres::Row;

use super::records::{KELVIN_SIGN, system_time, timestamp};
use super::session::{PgSession, SessionFault};
use super::shop;
use super::usage::{self, Area, Owner};
use crate::base::error::DbError;
use crate::store::global::{
    GlobalAddress, GlobalChange, GlobalEntry, GlobalFilter, change, check_owner, exists, is_seen,
    not_found,
};
use crate::store::lease::Fence;
use crate::store::shop::ShopChange;
use crate::store::{FindLimits, Quota, Usage};
use crate::wire::data::{EncodedJson, PartialGlobalKv, TenantId, Timestamp};
use crate::wire::json::{event_data_from_json, plain_to_jsonb};
use crate::wire::pack::plain::canonical;

/// Everything of an entry but its long text and its data; a price is int or bigint, by the maker of
/// the table.
macro_rules! partial {
    () => {
        "SELECT key, version, owner_id, owner_type, price::bigint, short, public_metadata::text, scope, created_at, \
         last_updated_at, public_data, review_state"
    };
}

/// One entry.
const GET: &str = concat!(
    partial!(),
    ", long, data::text FROM global_kv WHERE scope = $1 AND key = $2 AND version = $3"
);

/// The entries that a filter lets through, ordered by scope, key and version.
pub(super) fn find(
    session: &mut PgSession,
    filter: &GlobalFilter,
    mut limits: FindLimits,
) -> Result<Vec<PartialGlobalKv>, SessionFault> {
    let mut found = Vec::new();
    // As for records: the server only leaves out what cannot match.
    session.each(
        concat!(
            partial!(),
            " FROM global_kv WHERE ($1::text IS NULL OR review_state = $1) AND ($2::text IS NULL OR scope = $2)
              AND starts_with(replace(lower(key COLLATE \"C\"), $3, 'k'), $4)"
        ),
        &[&filter.review_state, &filter.scope, &KELVIN_SIGN, &filter.pattern.prefix()],
        |row| {
            // Only what matches is worth reading whole.
            if filter.pattern.matches(row.try_get(0)?) {
                let entry = partial(row)?;
                if filter.lets_through(&entry) {
                    limits.take_entry(&entry)?;
                    found.push(entry);
                }
            }
            Ok(())
        },
    )?;
    found.sort_by_cached_key(GlobalAddress::of);
    Ok(found)
}

/// One entry.
pub(super) fn get(
    session: &mut PgSession,
    at: &GlobalAddress,
) -> Result<Option<GlobalEntry>, SessionFault> {
    let row = session.first(GET, &[&at.scope, &at.key, &at.version])?;
    row.as_ref().map(entry).transpose()
}

/// Creates an entry; a refusal is a value, see [`usage::add`].
pub(super) fn create(
    session: &mut PgSession,
    fence: Option<Fence>,
    entry: &GlobalEntry,
    quota: Quota,
) -> Result<Result<(), DbError>, SessionFault> {
    let partial = &entry.partial;
    let owner = owner_of(partial);
    let metadata = plain_to_jsonb(&partial.public_metadata)?;
    let data = plain_to_jsonb(&entry.data)?;
    session.transaction(Some(owner.lock()), fence, |session| {
        if get(session, &GlobalAddress::of(partial))?.is_some() {
            return Ok(Err(exists()));
        }
        let change = (None, entry.charge(), quota);
        if let Err(refused) = usage::add(session, &owner, Area::Entries, count, change)? {
            return Ok(Err(refused));
        }
        // Another owner may take the same name now: then this fails, is tried again, and finds it.
        session.execute(
            "INSERT INTO global_kv (key, version, owner_id, owner_type, price, short, long, public_metadata, data,
                 public_data, scope, created_at, last_updated_at, review_state)
             VALUES ($1, $2, $3, $4, $5::bigint, $6, $7, $8::text::jsonb, $9::text::jsonb, $10, $11, $12, $13, $14)",
            &[
                &partial.key,
                &partial.version,
                &owner.id,
                &owner.kind,
                &partial.price,
                &partial.short,
                &partial.long,
                &metadata,
                &data,
                &partial.public_data,
                &partial.scope,
                &system_time(partial.created_at),
                &system_time(partial.last_updated_at),
                &partial.review_state,
            ],
        )?;
        shop::note(session, &ShopChange::new(false, partial, true))?;
        Ok(Ok(()))
    })
}

/// Deletes an entry of a tenant's own, or of any owner if there is no tenant.
pub(super) fn delete(
    session: &mut PgSession,
    fence: Option<Fence>,
    at: &GlobalAddress,
    tenant: Option<TenantId>,
) -> Result<(), SessionFault> {
    let owner = match tenant {
        Some(tenant) => Owner::from(tenant),
        None => owner_of(&get(session, at)?.ok_or_else(not_found)?.partial),
    };
    session.transaction(Some(owner.lock()), fence, |session| {
        let entry = get(session, at)?.ok_or_else(not_found)?;
        check_owner(&entry.partial, tenant)?;
        if owner_of(&entry.partial) != owner {
            // It was deleted and made by another just now.
            return Err(SessionFault::Conflict);
        }
        usage::subtract(session, &owner, Area::Entries, count, entry.charge())?;
        let deleted = session.execute(
            "DELETE FROM global_kv WHERE scope = $1 AND key = $2 AND version = $3 AND owner_type = $4 AND owner_id = $5",
            &[&at.scope, &at.key, &at.version, &owner.kind, &owner.id],
        )?;
        if deleted == 0 {
            return Err(SessionFault::Conflict);
        }
        let partial = &entry.partial;
        shop::note(session, &ShopChange::new(is_seen(partial), partial, false))
    })
}

/// Changes what staff may change about an entry.
pub(super) fn alter(
    session: &mut PgSession,
    at: &GlobalAddress,
    by: &GlobalChange,
    now: Timestamp,
) -> Result<(), SessionFault> {
    session.transaction(None, None, |session| {
        let locked = session.first(
            "SELECT 1 FROM global_kv WHERE scope = $1 AND key = $2 AND version = $3 FOR UPDATE",
            &[&at.scope, &at.key, &at.version],
        )?;
        locked.ok_or_else(not_found)?;
        let mut partial = get(session, at)?.ok_or(SessionFault::Conflict)?.partial;
        let was_seen = is_seen(&partial);
        change(&mut partial, by.clone(), now)?;
        session.execute(
            "UPDATE global_kv SET price = $4::bigint, review_state = $5, last_updated_at = $6
             WHERE scope = $1 AND key = $2 AND version = $3",
            &[
                &at.scope,
                &at.key,
                &at.version,
                &partial.price,
                &partial.review_state,
                &system_time(partial.last_updated_at),
            ],
        )?;
        shop::note(session, &ShopChange::new(was_seen, &partial, true))
    })
}

/// Notes that a tenant purchased an entry.
pub(super) fn purchase(
    session: &mut PgSession,
    tenant: TenantId,
    at: &GlobalAddress,
    now: Timestamp,
) -> Result<(), SessionFault> {
    let owner = Owner::from(tenant);
    session.transaction(None, None, |session| {
        let locked = session.first(
            "SELECT 1 FROM global_kv WHERE scope = $1 AND key = $2 AND version = $3 FOR KEY SHARE",
            &[&at.scope, &at.key, &at.version],
        )?;
        locked.ok_or_else(not_found)?;
        session.execute(
            "INSERT INTO global_kv_purchases (owner_type, owner_id, key, version, scope, purchased_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            &[&owner.kind, &owner.id, &at.key, &at.version, &at.scope, &system_time(now)],
        )?;
        Ok(())
    })
}

/// Whether a tenant purchased an entry.
pub(super) fn is_purchased(
    session: &mut PgSession,
    tenant: TenantId,
    at: &GlobalAddress,
) -> Result<bool, SessionFault> {
    let owner = Owner::from(tenant);
    let row = session.first(
        "SELECT 1 FROM global_kv_purchases
         WHERE owner_type = $1 AND owner_id = $2 AND key = $3 AND version = $4 AND scope = $5",
        &[&owner.kind, &owner.id, &at.key, &at.version, &at.scope],
    )?;
    Ok(row.is_some())
}

fn owner_of(partial: &PartialGlobalKv) -> Owner {
    Owner { kind: partial.owner_type.clone(), id: partial.owner_id.clone() }
}

/// Adds up all the owner's entries.
fn count(session: &mut PgSession, owner: &Owner) -> Result<Usage, SessionFault> {
    let mut usage = Usage::default();
    session.each(
        concat!(
            partial!(),
            ", long, data::text FROM global_kv WHERE owner_type = $1 AND owner_id = $2"
        ),
        &[&owner.kind, &owner.id],
        |row| {
            usage = Usage { records: usage.records + 1, bytes: usage.bytes + entry(row)?.charge() };
            Ok(())
        },
    )?;
    Ok(usage)
}

/// The entry of a row with the columns of [`GET`].
pub(super) fn entry(row: &Row) -> Result<GlobalEntry, SessionFault> {
    let partial = PartialGlobalKv { long: row.try_get(12)?, ..partial(row)? };
    Ok(GlobalEntry { partial, data: plain(row, 13)? })
}

fn partial(row: &Row) -> Result<PartialGlobalKv, SessionFault> {
    Ok(PartialGlobalKv {
        key: row.try_get(0)?,
        version: row.try_get(1)?,
        owner_id: row.try_get(2)?,
        owner_type: row.try_get(3)?,
        price: row.try_get(4)?,
        short: row.try_get(5)?,
        public_metadata: plain(row, 6)?,
        scope: row.try_get(7)?,
        created_at: timestamp(row.try_get(8)?)?,
        last_updated_at: timestamp(row.try_get(9)?)?,
        public_data: row.try_get(10)?,
        review_state: row.try_get(11)?,
        long: None,
    })
}

/// The JSON in a column; it may be NULL, which is null.
pub(super) fn plain(row: &Row, column: usize) -> Result<EncodedJson, SessionFault> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(canonical(&event_data_from_json(text.unwrap_or("null").as_bytes())?))
}
