//! The notes of changes of the shop's entries, in the database that masters share. Runs on the
//! threads of `worker.rs`.
//!
//! Transactions do not end in the order of their sequence numbers: a reader that goes by those
//! passes one that is still open, and never comes back. A look has what was written by transactions
//! older than the oldest that is open, all of which have ended, and the next one goes on from
//! there; so each note is in exactly one look, and a transaction that stays open holds them up.

use std::time::Duration;

use postgres::Row;

use super::session::{PgSession, SessionFault};
use crate::base::limits::SHOP_NOTES_MAX;
use crate::store::global::GlobalAddress;
use crate::store::shop::{ShopChange, ShopChangeKind, ShopLook};
use crate::wire::data::TenantId;

/// Notes a change in the transaction that makes it, after the row is locked: so the sequence
/// numbers of one entry are in the order of its changes. Notes of the day before are deleted.
pub(super) fn note(session: &mut PgSession, change: &ShopChange) -> Result<(), SessionFault> {
    let owner = change.owner.map(|owner| (owner.kind().as_str(), owner.snowflake().to_string()));
    let (owner_type, owner_id) = owner.unwrap_or_default();
    session.execute(
        "WITH old AS (SELECT xid, seq FROM mesophyll_shop_log WHERE at < now() - interval '1 day'
             ORDER BY at LIMIT 1000 FOR UPDATE SKIP LOCKED),
         gone AS (DELETE FROM mesophyll_shop_log l USING old WHERE (l.xid, l.seq) = (old.xid, old.seq))
         INSERT INTO mesophyll_shop_log (scope, key, version, owner_type, owner_id, change, review_state)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            &change.at.scope,
            &change.at.key,
            &change.at.version,
            &owner_type,
            &owner_id,
            &change.kind.as_str(),
            &change.review_state,
        ],
    )?;
    Ok(())
}

/// What was noted since a look.
pub(super) fn look(session: &mut PgSession, since: Option<i64>) -> Result<ShopLook, SessionFault> {
    let horizon = session.first(
        "SELECT x, (SELECT extract(epoch FROM clock_timestamp() - min(at))::float8
             FROM mesophyll_shop_log WHERE xid >= x) FROM txid_snapshot_xmin(txid_current_snapshot()) x",
        &[],
    )?;
    let row = horizon.ok_or(SessionFault::Conflict)?;
    let until: i64 = row.try_get(0)?;
    let held_up: Option<f64> = row.try_get(1)?;
    let held_up = Duration::try_from_secs_f64(held_up.unwrap_or(0.0)).unwrap_or_default();
    // A server that was made anew counts anew.
    let from = since.filter(|since| *since <= until).unwrap_or(until);
    let most = SHOP_NOTES_MAX as i64 + 1;
    // The oldest open transaction cannot become older: what follows sees all that ended before.
    let rows = session.query(
        "SELECT scope, key, version, owner_type, owner_id, change, review_state
         FROM mesophyll_shop_log WHERE xid >= $1 AND xid < $2
         ORDER BY seq LIMIT $3",
        &[&from, &until, &most],
    )?;
    let has_gap = since != Some(from) || rows.len() > SHOP_NOTES_MAX;
    let changes: Vec<ShopChange> =
        if has_gap { Vec::new() } else { rows.iter().map(change).collect::<Result<_, _>>()? };
    Ok(ShopLook { changes, until, has_gap, held_up })
}

fn change(row: &Row) -> Result<ShopChange, SessionFault> {
    let (owner_type, owner_id): (&str, &str) = (row.try_get(3)?, row.try_get(4)?);
    let kind: &str = row.try_get(5)?;
    let kind = ShopChangeKind::ALL.into_iter().find(|known| known.as_str() == kind);
    let review_state: Option<String> = row.try_get(6)?;
    Ok(ShopChange {
        at: GlobalAddress {
            scope: row.try_get(0)?,
            key: row.try_get(1)?,
            version: row.try_get(2)?,
        },
        owner: TenantId::from_parts(owner_type, owner_id).ok(),
        // Of a later version: none but the owner is told.
        kind: kind.unwrap_or(ShopChangeKind::Hidden),
        review_state,
    })
}
