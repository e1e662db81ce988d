//! How much of a quota each owner uses: a counted row of ours, kept in the same transaction as what
//! it counts.
//!
//! Adding up a tenant's records for each write would read all of them. So they are added up once,
//! when there is no row yet, and again before a refusal if the row is older than a minute: other
//! programs may write to these tables and know nothing of it. Invariant: a row is read and written
//! only under the owner's lock.

use super::session::{PgSession, SessionFault};
use crate::base::error::DbError;
use crate::store::{Quota, Usage, UsageGrowth};
use crate::wire::data::TenantId;

/// Whose it is, as it stands in the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) id: String,
}

impl Owner {
    /// The lock that makes this owner's writers take turns, here and in other masters on the same
    /// database.
    ///
    /// Two owners with the same number wait for each other, which is all that happens. (FNV-1a: the
    /// number must be the same in every version of this program.)
    pub(super) fn lock(&self) -> i64 {
        let name = format!("mesophyll {} {}", self.kind, self.id);
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash.cast_signed()
    }
}

impl From<TenantId> for Owner {
    fn from(tenant: TenantId) -> Self {
        Self { kind: tenant.kind().as_str().to_owned(), id: tenant.snowflake().to_string() }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    Records,
    Entries,
}

impl Area {
    fn as_str(self) -> &'static str {
        match self {
            Area::Records => "kv",
            Area::Entries => "global",
        }
    }
}

/// A row, or what it will be.
pub(super) struct Counted {
    pub(super) usage: Usage,
    /// Counted just now, so it has to be written in any case.
    is_new: bool,
    is_old: bool,
}

/// Counts everything that an owner has.
pub(super) type Count = fn(&mut PgSession, &Owner) -> Result<Usage, SessionFault>;

/// The usage as it is kept, if it is.
pub(super) fn kept(
    session: &mut PgSession,
    owner: &Owner,
    area: Area,
) -> Result<Option<Counted>, SessionFault> {
    let row = session.first(
        "SELECT records, bytes, counted_at < now() - interval '1 minute' FROM mesophyll_usage
         WHERE owner_type = $1 AND owner_id = $2 AND area = $3",
        &[&owner.kind, &owner.id, &area.as_str()],
    )?;
    let Some(row) = row else { return Ok(None) };
    let usage = Usage { records: unsigned(row.try_get(0)?), bytes: unsigned(row.try_get(1)?) };
    Ok(Some(Counted { usage, is_new: false, is_old: row.try_get(2)? }))
}

/// The usage, counted if it is not kept.
pub(super) fn of(
    session: &mut PgSession,
    owner: &Owner,
    area: Area,
    count: Count,
) -> Result<Counted, SessionFault> {
    match kept(session, owner, area)? {
        Some(counted) => Ok(counted),
        None => anew(session, owner, count),
    }
}

fn anew(session: &mut PgSession, owner: &Owner, count: Count) -> Result<Counted, SessionFault> {
    Ok(Counted { usage: count(session, owner)?, is_new: true, is_old: false })
}

/// Keeps the usage after a record of `old` bytes was set to `new` and answers how it grew, or says
/// why that would be too much.
///
/// The refusal is a value, so that what was counted for it is committed, and not counted again for
/// the next one.
pub(super) fn add(
    session: &mut PgSession,
    owner: &Owner,
    area: Area,
    count: Count,
    (old, new, quota): (Option<u64>, u64, Quota),
) -> Result<Result<Option<UsageGrowth>, DbError>, SessionFault> {
    let mut counted = of(session, owner, area, count)?;
    let mut after = counted.usage.after_set(old, new, quota);
    if after.is_err() && counted.is_old {
        counted = anew(session, owner, count)?;
        after = counted.usage.after_set(old, new, quota);
    }
    let keep = after.as_ref().map_or(counted.usage, |after| *after);
    if counted.is_new || keep != counted.usage {
        keep_as(session, owner, area, keep, counted.is_new)?;
    }
    Ok(after.map(|after| UsageGrowth::of(counted.usage, after)))
}

/// Keeps the usage after a record of `old` bytes was deleted.
pub(super) fn subtract(
    session: &mut PgSession,
    owner: &Owner,
    area: Area,
    count: Count,
    old: u64,
) -> Result<(), SessionFault> {
    let counted = of(session, owner, area, count)?;
    keep_as(session, owner, area, counted.usage.after_delete(old), counted.is_new)
}

fn keep_as(
    session: &mut PgSession,
    owner: &Owner,
    area: Area,
    usage: Usage,
    is_new: bool,
) -> Result<(), SessionFault> {
    session.execute(
        "INSERT INTO mesophyll_usage AS kept (owner_type, owner_id, area, records, bytes, counted_at)
         VALUES ($1, $2, $3, $4, $5, now())
         ON CONFLICT (owner_type, owner_id, area) DO UPDATE SET records = EXCLUDED.records, bytes = EXCLUDED.bytes,
             counted_at = CASE WHEN $6 THEN EXCLUDED.counted_at ELSE kept.counted_at END",
        &[
            &owner.kind,
            &owner.id,
            &area.as_str(),
            &signed(usage.records),
            &signed(usage.bytes),
            &is_new,
        ],
    )?;
    Ok(())
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_s_number_never_changes() {
        assert_eq!(
            Owner::from(TenantId::Guild(1)).lock(),
            Owner { kind: "guild".to_owned(), id: "1".to_owned() }.lock()
        );
        assert_ne!(Owner::from(TenantId::Guild(1)).lock(), Owner::from(TenantId::User(1)).lock());
        assert_ne!(Owner::from(TenantId::Guild(1)).lock(), Owner::from(TenantId::Guild(2)).lock());
    }
}
