//! The tables: making them, upgrading them, and checking that they are there.
//!
//! An existing database of a template-worker is used as it is: its tables are left alone, and what
//! only we need is in tables of our own. Everything happens in one transaction. Runs on the thread
//! that opens or migrates.

use super::connector::PgConnector;
use super::session::{PgSession, SessionFault};
use crate::store::{Migrated, OpenError};

/// The layout of our own tables.
const LAYOUT: i32 = 3;

/// Tables and their columns, as far as we use them.
const TABLES: &[(&str, &str)] = &[
    ("tenant_state", "owner_id, owner_type, events, banned, data"),
    ("tenant_kv", "id, owner_id, owner_type, key, value, scopes, created_at, last_updated_at"),
    (
        "global_kv",
        "key, version, owner_id, owner_type, price, short, long, public_metadata, data, public_data, scope, created_at, \
         last_updated_at, review_state",
    ),
    ("global_kv_purchases", "owner_type, owner_id, key, version, scope, purchased_at"),
    ("mesophyll_usage", "owner_type, owner_id, area, records, bytes, counted_at"),
    ("mesophyll_layout", "version"),
    ("mesophyll_cluster", "name"),
    (
        "mesophyll_master",
        "master, name, cluster, api, version, weight, state, started_at, expires_at",
    ),
    ("mesophyll_shard", "shard, epoch, owner, since"),
    (
        "mesophyll_shop_log",
        "seq, xid, scope, key, version, owner_type, owner_id, change, review_state, at",
    ),
    ("mesophyll_timer", "owner_type, owner_id, id, name, due, every, data, bytes"),
];

/// Nothing here touches a table that exists, but for indexes. (protocol.md, "Tables in PostgreSQL";
/// the last two are ours.)
const CREATE: &str = r"
CREATE TABLE IF NOT EXISTS tenant_state (
    owner_id text NOT NULL, owner_type text NOT NULL, events text[] NOT NULL DEFAULT '{}',
    banned boolean NOT NULL DEFAULT false, data jsonb NOT NULL DEFAULT '{}', PRIMARY KEY (owner_id, owner_type));
CREATE TABLE IF NOT EXISTS tenant_kv (
    id text PRIMARY KEY, owner_id text NOT NULL, owner_type text NOT NULL DEFAULT 'guild', key text NOT NULL,
    value jsonb NOT NULL, scopes text[] NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    last_updated_at timestamptz NOT NULL DEFAULT now(), UNIQUE (owner_id, owner_type, key, scopes));
CREATE TABLE IF NOT EXISTS global_kv (
    key text NOT NULL, version integer NOT NULL, owner_id text NOT NULL, owner_type text NOT NULL, price bigint,
    short text NOT NULL, long text, public_metadata jsonb NOT NULL, data jsonb NOT NULL,
    public_data boolean NOT NULL DEFAULT false, scope text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    last_updated_at timestamptz NOT NULL DEFAULT now(), review_state text NOT NULL DEFAULT 'pending',
    PRIMARY KEY (key, version, scope), CHECK (price IS NULL OR owner_type = 'staff'));
CREATE TABLE IF NOT EXISTS global_kv_purchases (
    owner_type text NOT NULL, owner_id text NOT NULL, key text NOT NULL, version integer NOT NULL, scope text NOT NULL,
    purchased_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (owner_type, owner_id, key, version, scope));
CREATE TABLE IF NOT EXISTS mesophyll_usage (
    owner_type text NOT NULL, owner_id text NOT NULL, area text NOT NULL, records bigint NOT NULL, bytes bigint NOT NULL,
    counted_at timestamptz NOT NULL, PRIMARY KEY (owner_type, owner_id, area));
CREATE TABLE IF NOT EXISTS mesophyll_layout (version integer NOT NULL);
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
                   WHERE i.indrelid = 'tenant_kv'::regclass AND a.amname = 'gin') THEN
        CREATE INDEX tenant_kv_scopes ON tenant_kv USING gin (scopes);
    END IF;
END $$;
";

/// What came with layout 2.
const CREATE_LEASES: &str = include_str!("lease.sql");

const CREATE_SHOP: &str = include_str!("shop.sql");

const CREATE_TIMERS: &str = include_str!("timer.sql");

const CREATE_SET: &str = include_str!("set.sql");

/// The name of a migration's connections: by the usual one it finds masters.
const MIGRATION_NAME: &str = "mesophyll migrate";

/// Makes two migrations at once take turns.
const MIGRATION_LOCK: i64 = 0x006D_6573_6F70_6879;

/// Creates the tables that are missing, in one transaction. Masters of an earlier layout must not
/// run meanwhile, which is looked after by the names of their connections.
///
/// # Blocks
/// Until the server is done: for as long as it takes to make an index over the records that are
/// there.
///
/// # Errors
/// Why it could not; see [`OpenError`].
pub(in crate::store) fn migrate(url: &str) -> Result<Migrated, OpenError> {
    let mut connector = PgConnector::new(url)?;
    let name = connector.config.get_application_name().unwrap_or_default().to_owned();
    connector.config.application_name(MIGRATION_NAME);
    let mut session = connect(&connector)?;
    let mut outcome = Ok(Migrated::Nothing);
    let result = session.transaction(Some(MIGRATION_LOCK), None, |session| {
        outcome = migrate_within(session, &name)?;
        // An error has to undo what was made.
        if outcome.is_err() { Err(SessionFault::Lost) } else { Ok(()) }
    });
    outcome.and_then(|migrated| result.map(|()| migrated).map_err(failed))
}

fn migrate_within(
    session: &mut PgSession,
    masters: &str,
) -> Result<Result<Migrated, OpenError>, SessionFault> {
    let had_all = missing(session)?.is_none();
    if had_all && let Some(newer) = newer(session)? {
        return Ok(Err(newer));
    }
    if !had_all && let Some(older) = older_masters(session, masters)? {
        return Ok(Err(older));
    }
    // The index of a large table takes its time.
    session.run("SET LOCAL statement_timeout = 0")?;
    session.run(CREATE)?;
    session.run(CREATE_LEASES)?;
    session.run(CREATE_SHOP)?;
    session.run(CREATE_TIMERS)?;
    session.run(CREATE_SET)?;
    session.run(&format!(
        "INSERT INTO mesophyll_layout SELECT {LAYOUT} WHERE NOT EXISTS (SELECT FROM mesophyll_layout);
         UPDATE mesophyll_layout SET version = {LAYOUT} WHERE version < {LAYOUT}"
    ))?;
    Ok(check_within(session)?.map(|()| if had_all { Migrated::Nothing } else { Migrated::Made }))
}

/// Whether a master of an earlier layout is connected, of which no write would be fenced. Known by
/// the name of its connections, which is ours or the one in the URL; under another name it is not
/// seen.
fn older_masters(session: &mut PgSession, name: &str) -> Result<Option<OpenError>, SessionFault> {
    let row = session.first("SELECT to_regclass('mesophyll_layout') IS NULL", &[])?;
    if row.map_or(Ok(true), |row| row.try_get(0))? {
        return Ok(None);
    }
    // One that starts now waits here to read the layout, and finds the new one.
    session.run("LOCK TABLE mesophyll_layout IN ACCESS EXCLUSIVE MODE")?;
    let row = session.first(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name IN ('mesophyll', $1)",
        &[&name],
    )?;
    let found: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
    let why = format!(
        "PostgreSQL: {found} connections of a running master ({name}); stop all masters on this database first"
    );
    Ok((found > 0).then_some(OpenError::Unavailable(why)))
}

/// Connects for the first time.
pub(super) fn connect(connector: &PgConnector) -> Result<PgSession, OpenError> {
    let session = PgSession::connect(connector);
    let mut session =
        session.map_err(|error| OpenError::Unavailable(format!("PostgreSQL: {error}")))?;
    if is_shared(&mut session, connector).map_err(failed)? {
        let why = "a pooler stands before the server and gives each transaction another session (PgBouncer with \
                   pool_mode=transaction or statement); what is set and prepared for a session would be lost: use \
                   pool_mode=session, or the server's own port";
        return Err(OpenError::Unavailable(why.to_owned()));
    }
    Ok(session)
}

/// How often a session asks which process serves it; a pooler may take turns between a few.
const POOLER_ASKS: u32 = 3;

/// Whether others may get the process that serves a session. While another connection is in a
/// transaction, whichever process it was given, this session's must be its own, and the same as
/// before.
fn is_shared(session: &mut PgSession, connector: &PgConnector) -> Result<bool, SessionFault> {
    let before = session.process()?;
    // Where there is room for one connection only, there is nothing to compare with.
    let Ok(mut other) = PgSession::connect(connector) else { return Ok(false) };
    other.transaction(None, None, |other| {
        let mut is_shared = other.process()? == before;
        for _ in 0..POOLER_ASKS {
            is_shared = is_shared || session.process()? != before;
        }
        Ok(is_shared)
    })
}

/// Checks that the database is one that we can use.
pub(super) fn check(session: &mut PgSession) -> Result<(), OpenError> {
    check_within(session).map_err(failed)?
}

fn check_within(session: &mut PgSession) -> Result<Result<(), OpenError>, SessionFault> {
    let encoding = session.first("SELECT current_setting('server_encoding')", &[])?;
    let encoding: String = encoding.map_or(Ok(String::new()), |row| row.try_get(0))?;
    if !matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
        return Ok(Err(OpenError::Foreign("the database's encoding is not UTF8")));
    }
    match wrong_table(session)? {
        Some((table, true)) => Ok(Err(OpenError::NotMigrated(table))),
        Some((table, false)) => Ok(Err(OpenError::Foreign(table))),
        None => Ok(newer(session)?.map_or(Ok(()), Err)),
    }
}

/// The first table that is not there.
fn missing(session: &mut PgSession) -> Result<Option<&'static str>, SessionFault> {
    Ok(wrong_table(session)?.filter(|(_, is_missing)| *is_missing).map(|(table, _)| table))
}

/// The first table that is not there, or else that lacks a column, and which of both.
fn wrong_table(session: &mut PgSession) -> Result<Option<(&'static str, bool)>, SessionFault> {
    let (names, columns): (Vec<_>, Vec<_>) = TABLES.iter().copied().unzip();
    let row = session.first(
        "SELECT at, to_regclass(name) IS NULL AS is_missing
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t (name, columns, at)
         WHERE cardinality(string_to_array(columns, ', ')) <> (
             SELECT count(*) FROM pg_attribute
             WHERE attrelid = to_regclass(name) AND attnum > 0 AND NOT attisdropped
                 AND attname = ANY (string_to_array(columns, ', ')))
         ORDER BY is_missing DESC, at LIMIT 1",
        &[&names, &columns],
    )?;
    let Some(row) = row else { return Ok(None) };
    let at: i64 = row.try_get(0)?;
    let table = usize::try_from(at - 1).ok().and_then(|at| TABLES.get(at));
    Ok(table.map(|(name, _)| *name).zip(row.try_get(1)?))
}

fn newer(session: &mut PgSession) -> Result<Option<OpenError>, SessionFault> {
    let row = session.first("SELECT max(version) FROM mesophyll_layout", &[])?;
    let found: Option<i32> = row.map_or(Ok(None), |row| row.try_get(0))?;
    let unsigned = |version: i32| u64::try_from(version).unwrap_or(0);
    Ok(found
        .filter(|found| *found > LAYOUT)
        .map(|found| OpenError::Newer { found: unsigned(found), known: unsigned(LAYOUT) }))
}

/// The server's own words were logged where they arrived.
fn failed(fault: SessionFault) -> OpenError {
    OpenError::Unavailable(match fault {
        SessionFault::Answer(error) => format!("PostgreSQL: {error}"),
        SessionFault::Conflict => "PostgreSQL: another transaction is in the way".to_owned(),
        SessionFault::Lost => "PostgreSQL: the connection was lost".to_owned(),
        SessionFault::Unknown => {
            "PostgreSQL: the connection was lost during the commit; run it again".to_owned()
        }
    })
}
