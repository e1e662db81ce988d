//! Everything in a PostgreSQL store, read in one transaction on a connection of its own, a few rows
//! at a time.
//!
//! Of its own, because a backup takes as long as its reader does, and the store's threads have
//! others to serve. Each step is a statement that goes on behind the last row by the table's
//! primary key, so none runs into the statement timeout. Rows of no tenant, which are none of ours,
//! are left out. Runs on the thread that asks for the next row.

use std::collections::VecDeque;

use postgres::Row;

use super::connector::PgConnector;
use super::global_kv::entry;
use super::records::{record, scopes_of, timestamp};
use super::session::{Params, PgSession, SessionFault, unavailable};
use super::states::{NO_STATE, stored};
use super::timers::timer;
use crate::base::error::DbError;
use crate::base::limits::POSTGRES_EXPORT_IDLE_MAX;
use crate::store::backup::Exported;
use crate::store::global::GlobalAddress;
use crate::wire::data::TenantId;

const STATES: &str = "SELECT events::text[], data::text, banned, data = $1::text::jsonb, owner_type, owner_id
     FROM tenant_state WHERE (owner_id, owner_type) > ($2::text, $3::text) ORDER BY owner_id, owner_type LIMIT 256";

/// Few at a time: a value may be large.
const RECORDS: &str =
    "SELECT id, key, value::text, scopes::text[], created_at, last_updated_at, owner_type, owner_id
     FROM tenant_kv WHERE id > $1::text ORDER BY id LIMIT 64";

/// The row to begin with: an id may be any text, so the empty one, which all others are behind, may
/// be one too.
const FIRST_RECORD: &str =
    "SELECT id, key, value::text, scopes::text[], created_at, last_updated_at, owner_type, owner_id
     FROM tenant_kv ORDER BY id LIMIT 1";

const ENTRIES: &str = "SELECT key, version, owner_id, owner_type, price::bigint, short, public_metadata::text, scope,
         created_at, last_updated_at, public_data, review_state, long, data::text
     FROM global_kv WHERE (key, version, scope) > ($1::text, $2::int, $3::text) ORDER BY key, version, scope LIMIT 8";

const PURCHASES: &str = "SELECT owner_type, owner_id, key, version, scope, purchased_at FROM global_kv_purchases
     WHERE (owner_type, owner_id, key, version, scope) > ($1::text, $2::text, $3::text, $4::int, $5::text)
     ORDER BY owner_type, owner_id, key, version, scope LIMIT 256";

const TIMERS: &str = "SELECT id, name, due, every, data::text, owner_type, owner_id FROM mesophyll_timer
     WHERE (owner_type, owner_id, id) > ($1::text, $2::text, $3::text) ORDER BY owner_type, owner_id, id LIMIT 256";

/// The primary key of the last row that was read of each table; at first one that is before all.
enum Behind {
    State { id: String, kind: String },
    Record { id: Option<String> },
    Entry { key: String, version: i32, scope: String },
    Purchase { kind: String, id: String, key: String, version: i32, scope: String },
    Timer { kind: String, owner: String, id: String },
    Everything,
}

impl Behind {
    fn next_table(&self) -> Self {
        let none = String::new;
        match self {
            Behind::State { .. } => Behind::Record { id: None },
            Behind::Record { .. } => {
                Behind::Entry { key: none(), version: i32::MIN, scope: none() }
            }
            Behind::Entry { .. } => Behind::Purchase {
                kind: none(),
                id: none(),
                key: none(),
                version: i32::MIN,
                scope: none(),
            },
            Behind::Purchase { .. } => Behind::Timer { kind: none(), owner: none(), id: none() },
            Behind::Timer { .. } | Behind::Everything => Behind::Everything,
        }
    }
}

/// A walk over everything.
pub(super) struct PostgresExport {
    session: PgSession,
    behind: Behind,
    ahead: VecDeque<Exported>,
    /// Rows of no tenant so far.
    left_out: u64,
}

impl PostgresExport {
    /// Connects and takes a snapshot.
    pub(super) fn begin(connector: &PgConnector) -> Result<Self, DbError> {
        let mut session = PgSession::connect(connector).map_err(|error| {
            log::warn!("postgres: no connection for a backup: {error}");
            unavailable()
        })?;
        let begun = session.run(&format!(
            "SET idle_in_transaction_session_timeout = {}; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            POSTGRES_EXPORT_IDLE_MAX.as_millis()
        ));
        begun.map_err(answer)?;
        let behind = Behind::State { id: String::new(), kind: String::new() };
        Ok(Self { session, behind, ahead: VecDeque::new(), left_out: 0 })
    }

    /// Reads on until there is something, or nothing is left.
    fn fill(&mut self) -> Result<(), SessionFault> {
        while self.ahead.is_empty() {
            let rows = match &self.behind {
                Behind::State { id, kind } => self.session.query(STATES, &[&NO_STATE, id, kind])?,
                Behind::Record { id: None } => self.session.query(FIRST_RECORD, &[])?,
                Behind::Record { id: Some(id) } => self.session.query(RECORDS, &[id])?,
                Behind::Entry { key, version, scope } => {
                    self.session.query(ENTRIES, &[key, version, scope])?
                }
                Behind::Purchase { kind, id, key, version, scope } => {
                    let params: Params<'_> = &[kind, id, key, version, scope];
                    self.session.query(PURCHASES, params)?
                }
                Behind::Timer { kind, owner, id } => {
                    self.session.query(TIMERS, &[kind, owner, id])?
                }
                Behind::Everything => return Ok(()),
            };
            let Some(last) = rows.last() else {
                self.behind = self.behind.next_table();
                if matches!(self.behind, Behind::Everything) && self.left_out > 0 {
                    let count = self.left_out;
                    log::warn!(
                        "postgres: rows that are of no tenant and not in the backup: {count}"
                    );
                }
                continue;
            };
            for row in &rows {
                match one(&self.behind, row)? {
                    Some(exported) => self.ahead.push_back(exported),
                    None => self.left_out += 1,
                }
            }
            self.behind = place(&self.behind, last)?;
        }
        Ok(())
    }
}

impl Iterator for PostgresExport {
    type Item = Result<Exported, DbError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(fault) = self.fill() {
            self.behind = Behind::Everything;
            return Some(Err(answer(fault)));
        }
        self.ahead.pop_front().map(Ok)
    }
}

fn answer(fault: SessionFault) -> DbError {
    match fault {
        SessionFault::Answer(error) => error,
        SessionFault::Conflict | SessionFault::Lost | SessionFault::Unknown => unavailable(),
    }
}

/// What a row of the table holds; nothing if it is of no tenant.
fn one(of: &Behind, row: &Row) -> Result<Option<Exported>, SessionFault> {
    let (kind, id) = match of {
        Behind::State { .. } => (4, 5),
        Behind::Timer { .. } => (5, 6),
        Behind::Record { .. } => (6, 7),
        Behind::Purchase { .. } => (0, 1),
        Behind::Entry { .. } => return Ok(Some(Exported::Entry(entry(row)?))),
        Behind::Everything => return Ok(None),
    };
    let Ok(tenant) = TenantId::from_parts(row.try_get(kind)?, row.try_get(id)?) else {
        return Ok(None);
    };
    Ok(Some(match of {
        Behind::State { .. } => Exported::State { tenant, stored: stored(row)? },
        Behind::Timer { .. } => Exported::Timer { tenant, timer: timer(row)? },
        Behind::Record { .. } => {
            let record =
                scopes_of(row).and_then(|scopes| record(row, scopes)).inspect_err(|_| {
                    // The person who mends or deletes it has to find it; an id says nothing of what
                    // is in it.
                    let id: &str = row.try_get(0).unwrap_or_default();
                    log::error!(
                        "postgres: there is no backup: the row {id:?} of tenant_kv cannot be read"
                    );
                })?;
            Exported::Record { tenant, record }
        }
        Behind::Purchase { .. } | Behind::Entry { .. } | Behind::Everything => {
            let (scope, key, version) = (row.try_get(4)?, row.try_get(2)?, row.try_get(3)?);
            let at = GlobalAddress { scope, key, version };
            Exported::Purchase { tenant, at, when: timestamp(row.try_get(5)?)? }
        }
    }))
}

/// The row's place in its table.
fn place(of: &Behind, row: &Row) -> Result<Behind, SessionFault> {
    Ok(match of {
        Behind::State { .. } => Behind::State { id: row.try_get(5)?, kind: row.try_get(4)? },
        Behind::Record { .. } => Behind::Record { id: Some(row.try_get(0)?) },
        Behind::Entry { .. } => {
            Behind::Entry { key: row.try_get(0)?, version: row.try_get(1)?, scope: row.try_get(7)? }
        }
        Behind::Purchase { .. } => Behind::Purchase {
            kind: row.try_get(0)?,
            id: row.try_get(1)?,
            key: row.try_get(2)?,
            version: row.try_get(3)?,
            scope: row.try_get(4)?,
        },
        Behind::Timer { .. } => {
            Behind::Timer { kind: row.try_get(5)?, owner: row.try_get(6)?, id: row.try_get(0)? }
        }
        Behind::Everything => Behind::Everything,
    })
}
