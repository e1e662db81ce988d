//! Tenants' records in PostgreSQL.
//!
//! Other programs write to these tables too, with scopes in any order: a record's scopes are
//! compared as a set, and of several rows with one set the newest is the record. Which keys match
//! is decided by our own matcher, so that no answer depends on the server's locale; the server only
//! leaves out rows that cannot match. Runs on the threads of `worker.rs`.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres::Row;

use super::calls::{Joint, Work};
use super::known_rows::{KnownRow, KnownRows};
use super::session::{PgSession, SessionFault, unreadable};
use super::usage::{self, Area, Owner, signed, unsigned};
use crate::base::error::DbError;
use crate::store::lease::{Fence, HeldShards};
use crate::store::pattern::Pattern;
use crate::store::{FindLimits, KvSet, Quota, Usage, UsageGrowth, charge, touched};
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{EncodedValue, KvRecord, Scopes, TenantId, Timestamp};
use crate::wire::json::{from_jsonb, to_jsonb};

/// Records with exactly these scopes; `<@` and `@>` compare arrays as sets. That the arrays are
/// read by sub-selects keeps the plan: of arrays whose length it sees, the server makes one anew
/// each time.
const GET: &str = "SELECT t.*, x.n FROM unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[]), (SELECT $4::text[]))
         WITH ORDINALITY AS x (kind, owner, k, s, n)
     CROSS JOIN LATERAL (
         SELECT id, key, value::text, scopes::text[], created_at, last_updated_at, xmin::text FROM tenant_kv
         WHERE owner_type = x.kind AND owner_id = x.owner AND key = x.k AND scopes @> x.s::text[] AND scopes <@ x.s::text[]
         ORDER BY last_updated_at DESC NULLS LAST, id COLLATE \"C\" DESC LIMIT 1) AS t";

/// As [`GET`] does for one record: the plan for an array costs a lone get a quarter more.
const GET_ONE: &str = "SELECT id, key, value::text, scopes::text[], created_at, last_updated_at,
             xmin::text
         FROM tenant_kv
         WHERE owner_type = $1 AND owner_id = $2 AND key = $3
             AND scopes @> $4::text::text[] AND scopes <@ $4::text::text[]
         ORDER BY last_updated_at DESC NULLS LAST, id COLLATE \"C\" DESC LIMIT 1";

/// The records that a Find may answer, newest first. The keys are folded as `pattern::index_fold`
/// does: ASCII only, which is what the locale C means in every encoding, and the Kelvin sign.
const FIND: &str = "SELECT id, key, value::text, scopes::text[], created_at, last_updated_at FROM (
         SELECT * FROM tenant_kv WHERE owner_type = $1 AND owner_id = $2 AND scopes @> $3::text[]
             AND starts_with(replace(lower(key COLLATE \"C\"), $4, 'k'), $5)
         ORDER BY last_updated_at DESC NULLS LAST, id COLLATE \"C\" DESC OFFSET 0) AS found";

/// Sets records by the function of `set.sql`, one after the other.
const SET: &str = "SELECT set.*, x.n FROM unnest((SELECT $1::integer[]), (SELECT $2::bigint[]), (SELECT $3::text[]), (SELECT $4::bigint[]),
         (SELECT $5::text[]), (SELECT $6::text[]), (SELECT $7::text[]), (SELECT $8::text[]), (SELECT $9::text[]), (SELECT $10::text[]),
         (SELECT $11::timestamptz[]), (SELECT $12::text[]), (SELECT $13::text[]), (SELECT $14::bigint[]), (SELECT $15::bigint[]),
         (SELECT $16::bigint[]), (SELECT $17::text[]))
         WITH ORDINALITY AS x (shard, epoch, master, lock, kind, owner, k, s, v, fresh_id, at, old_id, old_xmin, added, records, bytes, patience, n)
     CROSS JOIN LATERAL mesophyll_set(x.shard, x.epoch, x.master::uuid, x.lock, x.kind, x.owner, x.k, x.s::text[], x.v::jsonb,
         x.fresh_id, x.at, x.old_id, x.old_xmin, x.added, x.records, x.bytes, x.patience) AS set";

/// Replaces a record's value if its row is still the one that is known, and the only one. As one
/// statement it needs no lock: what another writer did in between changed the row's version.
const REPLACE: &str = "UPDATE tenant_kv SET value = $3::text::jsonb, last_updated_at = $4
     WHERE id = $1 AND xmin::text = $2 AND NOT EXISTS (SELECT FROM tenant_kv
         WHERE owner_type = $5 AND owner_id = $6 AND key = $7
             AND scopes @> $8::text[] AND scopes <@ $8::text[] AND id <> $1)
     RETURNING mod(txid_current(), 4294967296)::text";

/// See [`FIND`].
pub(super) const KELVIN_SIGN: &str = "\u{212A}";

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RecordAddress {
    pub(super) tenant: TenantId,
    pub(super) key: String,
    pub(super) scopes: Scopes,
}

/// A get: the record with this key and exactly these scopes.
pub(super) struct GetWork {
    address: RecordAddress,
    known: Arc<KnownRows>,
    found: Option<Option<KvRecord>>,
}

impl GetWork {
    pub(super) fn new(address: RecordAddress, known: Arc<KnownRows>) -> Self {
        Self { address, known, found: None }
    }
}

impl Work for GetWork {
    type Found = Option<KvRecord>;

    fn attempt(&mut self, session: &mut PgSession) -> Result<(), SessionFault> {
        get_all(session, &mut [self])
    }

    fn found(&mut self) -> &mut Option<Option<KvRecord>> {
        &mut self.found
    }

    fn joint(&mut self) -> Option<Joint<'_>> {
        Some(Joint::Get(self))
    }
}

/// Carries out gets in one exchange.
pub(super) fn get_all(
    session: &mut PgSession,
    gets: &mut [&mut GetWork],
) -> Result<(), SessionFault> {
    let rows = rows(session, gets.iter().map(|get| &get.address))?;
    for (get, row) in gets.iter_mut().zip(rows) {
        let Some(row) = row else {
            get.found = Some(None);
            continue;
        };
        let record = record(&row, scopes_of(&row)?)?;
        let charge = charge(&get.address.key, &get.address.scopes, record.value.as_bytes().len());
        let (id, xmin) = (record.id.clone(), row.try_get(6)?);
        let last_updated_at = record.last_updated_at;
        get.known.put(&get.address, KnownRow { id, xmin, charge, last_updated_at });
        get.found = Some(Some(record));
    }
    Ok(())
}

/// The rows of these records, in their order, each with the columns of [`GET`].
fn rows<'a>(
    session: &mut PgSession,
    of: impl Iterator<Item = &'a RecordAddress>,
) -> Result<Vec<Option<Row>>, SessionFault> {
    let of: Vec<_> = of.map(|at| (Owner::from(at.tenant), &at.key, literal(&at.scopes))).collect();
    if let [(owner, key, scopes)] = of.as_slice() {
        return Ok(vec![session.first(GET_ONE, &[&owner.kind, &owner.id, key, scopes])?]);
    }
    let kinds: Vec<_> = of.iter().map(|(owner, ..)| &owner.kind).collect();
    let owners: Vec<_> = of.iter().map(|(owner, ..)| &owner.id).collect();
    let keys: Vec<_> = of.iter().map(|(_, key, _)| key).collect();
    let scopes: Vec<_> = of.iter().map(|(.., scopes)| scopes).collect();
    let answer = session.query(GET, &[&kinds, &owners, &keys, &scopes])?;
    let mut rows: Vec<_> = of.iter().map(|_| None).collect();
    for row in answer {
        put_by_number(&mut rows, row.try_get(7)?, row);
    }
    Ok(rows)
}

/// Keeps what the server answered for the operation of that number; they begin with 1.
fn put_by_number<T>(all: &mut [Option<T>], number: i64, one: T) {
    if let Some(place) = usize::try_from(number - 1).ok().and_then(|place| all.get_mut(place)) {
        *place = Some(one);
    }
}

/// Scopes as PostgreSQL writes an array of texts.
fn literal(scopes: &Scopes) -> String {
    let mut literal = String::from("{");
    for (number, scope) in scopes.as_slice().iter().enumerate() {
        literal.push_str(if number == 0 { "\"" } else { ",\"" });
        for character in scope.chars() {
            if matches!(character, '"' | '\\') {
                literal.push('\\');
            }
            literal.push(character);
        }
        literal.push('"');
    }
    literal + "}"
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

/// The record with this key and this only scope of each tenant of some shards that has one.
pub(super) fn of_all(
    session: &mut PgSession,
    of: &ShardSet,
    key: &str,
    scope: &str,
) -> Result<Vec<(TenantId, EncodedValue)>, SessionFault> {
    let mut found = Vec::new();
    session.each(
        "SELECT owner_type, owner_id, value::text FROM tenant_kv
         WHERE key = $1 AND scopes @> ARRAY[$2::text] AND scopes <@ ARRAY[$2::text]",
        &[&key, &scope],
        |row| {
            let tenant = TenantId::from_parts(row.try_get(0)?, row.try_get(1)?);
            if let Ok(tenant) = tenant
                && of.contains(Shard::of(tenant))
            {
                found.push((tenant, from_jsonb(value_text(row, 2)?.as_bytes())?));
            }
            Ok(())
        },
    )?;
    Ok(found)
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

/// A set: creates or replaces a record. A refusal is a value, see [`usage::add`].
pub(super) struct SetWork {
    address: RecordAddress,
    value: EncodedValue,
    jsonb: String,
    fresh_id: String,
    now: Timestamp,
    quota: Quota,
    fence: Option<Fence>,
    held: Arc<HeldShards>,
    known: Arc<KnownRows>,
    found: Option<Result<Option<UsageGrowth>, DbError>>,
}

impl SetWork {
    pub(super) fn new(
        tenant: TenantId,
        set: KvSet,
        (fence, held): (Option<Fence>, Arc<HeldShards>),
        known: Arc<KnownRows>,
    ) -> Result<Self, DbError> {
        let KvSet { key, scopes, value, fresh_id, now, quota } = set;
        let jsonb = to_jsonb(&value).map_err(|error| unreadable(&error))?;
        let address = RecordAddress { tenant, key, scopes };
        let found = None;
        Ok(Self { address, value, jsonb, fresh_id, now, quota, fence, held, known, found })
    }

    /// How large its value is.
    pub(super) fn bytes(&self) -> usize {
        self.value.as_bytes().len()
    }

    /// Whether both set the same record.
    pub(super) fn is_of_record(&self, other: &Self) -> bool {
        self.address == other.address
    }

    fn charge(&self) -> u64 {
        charge(&self.address.key, &self.address.scopes, self.bytes())
    }
}

impl Work for SetWork {
    type Found = Result<Option<UsageGrowth>, DbError>;

    /// In one exchange if its row is known or there is none, in two or three if it is another one,
    /// and in more if another writer came in between or the usage has to be counted.
    fn attempt(&mut self, session: &mut PgSession) -> Result<(), SessionFault> {
        let mut outcome = replace(session, self);
        // The second time its row is known. The function counts each new row.
        for _ in 0..2 {
            if outcome.is_ok() && self.found.is_none() && self.charge() > 0 {
                outcome = set_all(session, &mut [&mut *self], None);
            }
        }
        let is_open = self.found.is_none();
        if is_open && matches!(outcome, Ok(()) | Err(SessionFault::Conflict)) {
            outcome = set_in_steps(session, self).map(|done| self.found = Some(done));
        }
        if matches!(outcome, Err(SessionFault::Answer(DbError::NotOwner(_)))) {
            self.held.refused();
        }
        outcome
    }

    fn found(&mut self) -> &mut Option<Result<Option<UsageGrowth>, DbError>> {
        &mut self.found
    }

    fn joint(&mut self) -> Option<Joint<'_>> {
        (self.charge() > 0).then_some(Joint::Set(self))
    }
}

/// Replaces the value of a known row by one of its size, which takes no lock, nor any look at the
/// usage. Without an answer afterwards nothing was changed.
fn replace(session: &mut PgSession, set: &mut SetWork) -> Result<(), SessionFault> {
    if set.fence.is_some() || !session.is_fresh() {
        return Ok(());
    }
    let (known, charge) = (set.known.get(&set.address), set.charge());
    let Some(old) = known.filter(|old| old.charge == charge) else { return Ok(()) };
    let (owner, address) = (Owner::from(set.address.tenant), &set.address);
    let last_updated_at = touched(old.last_updated_at, set.now);
    let rows = session.commit_query(
        REPLACE,
        &[
            &old.id,
            &old.xmin,
            &set.jsonb,
            &system_time(last_updated_at),
            &owner.kind,
            &owner.id,
            &address.key,
            &address.scopes.as_slice(),
        ],
    )?;
    if let Some(row) = rows.first() {
        let (xmin, last_updated_at) = (row.try_get(0)?, Some(last_updated_at));
        set.known.put(address, KnownRow { xmin, last_updated_at, ..old });
        set.found = Some(Ok(None));
    }
    Ok(())
}

/// Carries out sets of different records in one transaction. Those that have no answer afterwards
/// were not carried out: the usage has to be counted, or the row is another one, which is known
/// now. With `patience` another's lock is waited for so long; after it there is a conflict.
pub(super) fn set_all(
    session: &mut PgSession,
    sets: &mut [&mut SetWork],
    patience: Option<Duration>,
) -> Result<(), SessionFault> {
    // Every transaction takes the locks in this order, that of a hand-over of shards too, so that
    // no two wait for each other.
    sets.sort_by_cached_key(|set| {
        let tenant = set.address.tenant;
        (Shard::of(tenant), Owner::from(tenant).lock())
    });
    let olds = supposed_rows(session, sets)?;
    let rows = send_sets(session, sets, &olds, patience)?;
    for ((set, old), row) in sets.iter_mut().zip(olds).zip(rows) {
        let Some(row) = row else { continue };
        match row.try_get(0)? {
            Some(true) => {
                let last_updated_at = Some(touched(last_update(&old), set.now));
                set.found = Some(Ok(growth(&row, old.as_ref(), set.charge())?));
                let id = old.map_or_else(|| set.fresh_id.clone(), |old| old.id);
                let (xmin, charge) = (row.try_get(6)?, set.charge());
                set.known.put(&set.address, KnownRow { id, xmin, charge, last_updated_at });
            }
            Some(false) => {
                let (records, bytes) = (unsigned(row.try_get(1)?), unsigned(row.try_get(2)?));
                let old = old.map(|old| old.charge);
                let after = Usage { records, bytes }.after_set(old, set.charge(), set.quota);
                set.found = after.err().map(Err);
            }
            None if row.try_get::<_, Option<&str>>(3)?.is_none() => set.known.forget(&set.address),
            None => set.known.put(&set.address, known_row(&row, COLUMNS_OF_SET, &set.address)?),
        }
    }
    Ok(())
}

/// How the usage grew by a set that the function of `set.sql` carried out, as it answers with the
/// usage before.
fn growth(
    row: &Row,
    old: Option<&KnownRow>,
    charge: u64,
) -> Result<Option<UsageGrowth>, SessionFault> {
    let (Some(records), Some(bytes)) =
        (row.try_get::<_, Option<i64>>(1)?, row.try_get::<_, Option<i64>>(2)?)
    else {
        return Ok(None);
    };
    let before = Usage { records: unsigned(records), bytes: unsigned(bytes) };
    let after = before.after_set(old.map(|old| old.charge), charge, Quota::UNLIMITED);
    Ok(after.ok().and_then(|after| UsageGrowth::of(before, after)))
}

/// The rows that are probably to be replaced: as they are known, or none. Over a connection that
/// may be dead they are read, as a read that is lost can be asked again.
fn supposed_rows(
    session: &mut PgSession,
    sets: &[&mut SetWork],
) -> Result<Vec<Option<KnownRow>>, SessionFault> {
    if session.is_fresh() {
        return Ok(sets.iter().map(|set| set.known.get(&set.address)).collect());
    }
    let read = rows(session, sets.iter().map(|set| &set.address))?;
    let known = |(row, set): (Option<Row>, &&mut SetWork)| {
        row.map(|row| known_row(&row, COLUMNS_OF_GET, &set.address)).transpose()
    };
    read.into_iter().zip(sets).map(known).collect()
}

fn last_update(old: &Option<KnownRow>) -> Option<Timestamp> {
    old.as_ref().and_then(|old| old.last_updated_at)
}

/// The rows that the function of `set.sql` answers, in the order of the sets.
fn send_sets(
    session: &mut PgSession,
    sets: &[&mut SetWork],
    olds: &[Option<KnownRow>],
    patience: Option<Duration>,
) -> Result<Vec<Option<Row>>, SessionFault> {
    let both = || sets.iter().zip(olds);
    let patience = patience.map(|time| format!("{}ms", time.as_millis()));
    let owners: Vec<_> = sets.iter().map(|set| Owner::from(set.address.tenant)).collect();
    let scopes: Vec<_> = sets.iter().map(|set| literal(&set.address.scopes)).collect();
    let fences = || sets.iter().map(|set| set.fence);
    let shards: Vec<_> =
        fences().map(|fence| fence.map(|fence| i32::from(fence.shard.number()))).collect();
    let answer = session.commit_query(
        SET,
        &[
            &shards,
            &fences().map(|fence| fence.map(|fence| fence.epoch)).collect::<Vec<_>>(),
            &fences().map(|fence| fence.map(|fence| fence.master.to_string())).collect::<Vec<_>>(),
            &owners.iter().map(Owner::lock).collect::<Vec<_>>(),
            &owners.iter().map(|owner| &owner.kind).collect::<Vec<_>>(),
            &owners.iter().map(|owner| &owner.id).collect::<Vec<_>>(),
            &sets.iter().map(|set| &set.address.key).collect::<Vec<_>>(),
            &scopes,
            &sets.iter().map(|set| &set.jsonb).collect::<Vec<_>>(),
            &sets.iter().map(|set| &set.fresh_id).collect::<Vec<_>>(),
            &both()
                .map(|(set, old)| system_time(touched(last_update(old), set.now)))
                .collect::<Vec<_>>(),
            &olds.iter().map(|old| old.as_ref().map(|old| &old.id)).collect::<Vec<_>>(),
            &olds.iter().map(|old| old.as_ref().map(|old| &old.xmin)).collect::<Vec<_>>(),
            &both()
                .map(|(set, old)| {
                    signed(set.charge()) - old.as_ref().map_or(0, |old| signed(old.charge))
                })
                .collect::<Vec<_>>(),
            &sets.iter().map(|set| signed(set.quota.records)).collect::<Vec<_>>(),
            &sets.iter().map(|set| signed(set.quota.bytes)).collect::<Vec<_>>(),
            &vec![patience; sets.len()],
        ],
    )?;
    let mut rows: Vec<_> = sets.iter().map(|_| None).collect();
    for row in answer {
        put_by_number(&mut rows, row.try_get(7)?, row);
    }
    Ok(rows)
}

fn set_in_steps(
    session: &mut PgSession,
    set: &SetWork,
) -> Result<Result<Option<UsageGrowth>, DbError>, SessionFault> {
    let (owner, address) = (Owner::from(set.address.tenant), &set.address);
    session.transaction(Some(owner.lock()), set.fence, |session| {
        let old = old(session, address)?;
        let change = (old.as_ref().map(|old| old.charge), set.charge(), set.quota);
        let growth = match usage::add(session, &owner, Area::Records, count, change)? {
            Ok(growth) => growth,
            Err(refused) => return Ok(Err(refused)),
        };
        let now = system_time(touched(last_update(&old), set.now));
        let Some(old) = old else {
            session.execute(
                "INSERT INTO tenant_kv (id, owner_type, owner_id, key, value, scopes, created_at, last_updated_at)
                 VALUES ($1, $2, $3, $4, $5::text::jsonb, $6::text[], $7, $7)",
                &[
                    &set.fresh_id,
                    &owner.kind,
                    &owner.id,
                    &address.key,
                    &set.jsonb,
                    &address.scopes.as_slice(),
                    &now,
                ],
            )?;
            return Ok(Ok(growth));
        };
        let updated = session.execute(
            "UPDATE tenant_kv SET value = $2::text::jsonb, last_updated_at = $3 WHERE id = $1",
            &[&old.id, &set.jsonb, &now],
        )?;
        // Another program, which does not know our lock, deleted it meanwhile.
        if updated == 0 { Err(SessionFault::Conflict) } else { Ok(Ok(growth)) }
    })
}

/// Deletes a record, and with it what it had outlived: older rows with the same set of scopes.
pub(super) fn delete(
    session: &mut PgSession,
    fence: Option<Fence>,
    address: &RecordAddress,
) -> Result<(), SessionFault> {
    let owner = Owner::from(address.tenant);
    session.transaction(Some(owner.lock()), fence, |session| {
        let Some(old) = old(session, address)? else { return Ok(()) };
        usage::subtract(session, &owner, Area::Records, count, old.charge)?;
        session.execute(
            "DELETE FROM tenant_kv WHERE owner_type = $1 AND owner_id = $2 AND key = $3
                 AND scopes @> $4::text[] AND scopes <@ $4::text[]",
            &[&owner.kind, &owner.id, &address.key, &address.scopes.as_slice()],
        )?;
        Ok(())
    })
}

/// What is to be replaced or deleted.
fn old(session: &mut PgSession, address: &RecordAddress) -> Result<Option<KnownRow>, SessionFault> {
    let row = rows(session, [address].into_iter())?.pop().flatten();
    row.map(|row| known_row(&row, COLUMNS_OF_GET, address)).transpose()
}

/// Where a row's id, value, time of the last set and xmin are.
type Columns = [usize; 4];

const COLUMNS_OF_GET: Columns = [0, 2, 5, 6];

const COLUMNS_OF_SET: Columns = [3, 4, 5, 6];

/// What is to be known of a row, also of one that cannot be read: it can be replaced, and it can be
/// deleted.
fn known_row(
    row: &Row,
    [id, value, updated, xmin]: Columns,
    address: &RecordAddress,
) -> Result<KnownRow, SessionFault> {
    let updated = row.try_get::<_, Option<SystemTime>>(updated)?;
    Ok(KnownRow {
        id: row.try_get(id)?,
        xmin: row.try_get(xmin)?,
        charge: charge(&address.key, &address.scopes, value_bytes(row, value)?),
        last_updated_at: updated.and_then(|time| timestamp(time).ok()),
    })
}

/// How long the value in a column is; one that is none of ours takes its place all the same.
fn value_bytes(row: &Row, column: usize) -> Result<usize, SessionFault> {
    let text = value_text(row, column)?;
    Ok(from_jsonb(text.as_bytes()).map_or(text.len(), |value| value.as_bytes().len()))
}

/// The value in a column, which may be NULL, which is Null.
fn value_text(row: &Row, column: usize) -> Result<&str, SessionFault> {
    Ok(row.try_get::<_, Option<&str>>(column)?.unwrap_or(r#""Null""#))
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
            let bytes = charge(&key, &scopes, value_bytes(row, 2)?);
            if seen.insert((key, scopes)) {
                usage = usage.with(bytes);
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
        value: from_jsonb(value_text(row, 2)?.as_bytes())?,
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
    fn scopes_are_written_as_an_array() {
        let scopes = |all: &[&str]| literal(&Scopes::new(all.iter().copied()));
        assert_eq!(scopes(&[]), "{}");
        assert_eq!(scopes(&["", "NULL", "a b"]), r#"{"","NULL","a b"}"#);
        assert_eq!(scopes(&["{,}", r#"q"\"#]), r#"{"q\"\\","{,}"}"#);
    }

    #[test]
    fn times_keep_their_microseconds() {
        for micros in [0, 1, -1, 1_763_764_805_123_456, -62_135_596_800_000_000] {
            let time = Timestamp::from_unix_micros(micros).expect("in range");
            assert_eq!(timestamp(system_time(time)).expect("in range"), time);
        }
    }
}
