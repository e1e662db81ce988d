//! The baseline of the PostgreSQL store: plain prepared statements on connections of one's own, one
//! statement each time.
//!
//! In the same database, in a table of the same shape. One caller has one connection; more callers
//! share seven, as many as the store has. No quotas, no locks, no looking at what is replaced.

use crossbeam_channel::{Receiver, Sender, bounded};
use mesophyll::base::limits::POSTGRES_CONNECTIONS;
use mesophyll::base::random;
use mesophyll::store::{StoreUrl, migrate};
use postgres::{Client, NoTls, Statement};

use super::contents::{self, FINDER, FOUND, Op, Picker, RECORDS, SCOPE, TENANTS, tenant_id};
use crate::load::Caller;

/// A database for this run, gone with it.
pub struct Database {
    server: String,
    name: String,
    url: String,
}

impl Database {
    /// None if no server was named.
    pub fn new() -> Result<Option<Self>, String> {
        let named = ["MESOPHYLL_BENCH_POSTGRES_URL", "MESOPHYLL_TEST_POSTGRES_URL"];
        let Some(server) = named.into_iter().find_map(|name| std::env::var(name).ok()) else {
            return Ok(None);
        };
        let name = format!("mesophyll_bench_{:016x}", random::u64());
        let (scheme, rest) = server.split_once("://").ok_or("the server's URL is none")?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let url = format!("{scheme}://{authority}/{name}");
        run(&server, &format!("CREATE DATABASE {name}"))?;
        let database = Self { server, name, url };
        let store: StoreUrl =
            database.url.parse().map_err(|_| "the server's URL is none".to_owned())?;
        migrate(&store).map_err(|error| error.to_string())?;
        run(
            &database.url,
            &format!(
                "CREATE TABLE plain (owner_type text, owner_id text, key text, scopes text[], value jsonb,
                     last_updated_at timestamptz, PRIMARY KEY (owner_type, owner_id, key, scopes));
                 INSERT INTO plain SELECT 'guild', (tenant << 22)::text, 'settings:' || to_char(record, 'FM0000'),
                     ARRAY['{SCOPE}'], jsonb_build_object('Text', repeat('x', {})), now()
                     FROM generate_series(0, {TENANTS}::bigint - 1) tenant, generate_series(0, {RECORDS} - 1) record;
                 INSERT INTO plain SELECT 'user', '{}', 'settings:' || to_char(record, 'FM0000'), ARRAY['{SCOPE}'],
                     jsonb_build_object('Text', repeat('x', 64)), now() FROM generate_series(0, {FOUND} - 1) record",
                contents::TEXT_BYTES,
                FINDER.snowflake(),
            ),
        )?;
        Ok(Some(database))
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes it have so many tenant states and no others.
    pub fn fill_states(&self, number: u64) -> Result<(), String> {
        run(
            &self.url,
            &format!(
                "TRUNCATE tenant_state; INSERT INTO tenant_state (owner_id, owner_type, events, data)
                     SELECT (tenant << 22)::text, 'guild', ARRAY['MESSAGE_CREATE'], '{{\"prefix\": \"!\"}}'
                     FROM generate_series(1, {number}::bigint) tenant; ANALYZE tenant_state"
            ),
        )
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(why) = run(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name)) {
            eprintln!("the database {} is left: {why}", self.name);
        }
    }
}

fn run(url: &str, sql: &str) -> Result<(), String> {
    Client::connect(url, NoTls)
        .and_then(|mut client| client.batch_execute(sql))
        .map_err(|error| error.to_string())
}

/// Connections that callers take turns with.
pub struct PlainPostgres {
    free_tx: Sender<Connection>,
    free_rx: Receiver<Connection>,
}

struct Connection {
    client: Client,
    set: Statement,
    get: Statement,
    find: Statement,
}

impl Connection {
    fn new(url: &str) -> Result<Self, postgres::Error> {
        let mut client = Client::connect(url, NoTls)?;
        let set = client.prepare(
            "INSERT INTO plain VALUES ('guild', $1, $2, $3, $4::text::jsonb, now())
             ON CONFLICT (owner_type, owner_id, key, scopes)
             DO UPDATE SET value = EXCLUDED.value, last_updated_at = EXCLUDED.last_updated_at",
        )?;
        let get = client.prepare(
            "SELECT value::text, last_updated_at FROM plain
             WHERE owner_type = 'guild' AND owner_id = $1 AND key = $2 AND scopes = $3",
        )?;
        let find = client.prepare(
            "SELECT key, value::text, scopes, last_updated_at FROM plain
             WHERE owner_type = 'user' AND owner_id = $1 AND scopes @> $2 ORDER BY key",
        )?;
        Ok(Self { client, set, get, find })
    }

    fn operate(&mut self, op: Op, picker: &mut Picker) -> Result<u64, postgres::Error> {
        let (tenant, record) = picker.pick();
        let (owner, key) = (tenant_id(tenant).snowflake().to_string(), contents::key(record));
        let scopes = [SCOPE];
        match op {
            Op::Set => {
                let value = format!("{{\"Text\":\"{}\"}}", "x".repeat(contents::TEXT_BYTES));
                self.client.execute(&self.set, &[&owner, &key, &&scopes[..], &value])
            }
            Op::Get => {
                Ok(self.client.query(&self.get, &[&owner, &key, &&scopes[..]])?.len() as u64)
            }
            Op::Find => {
                let owner = FINDER.snowflake().to_string();
                let rows = self.client.query(&self.find, &[&owner, &&scopes[..]])?;
                let texts: Vec<(String, String)> =
                    rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                Ok(texts.len() as u64 / FOUND)
            }
        }
    }
}

impl PlainPostgres {
    pub fn new(url: &str, callers: usize) -> Result<Self, String> {
        let (free_tx, free_rx) = bounded(POSTGRES_CONNECTIONS);
        for _ in 0..callers.min(POSTGRES_CONNECTIONS) {
            // There is room for each.
            drop(free_tx.send(Connection::new(url).map_err(|error| error.to_string())?));
        }
        Ok(Self { free_tx, free_rx })
    }

    pub fn callers(&self, op: Op, number: usize) -> Result<Vec<Caller<'_>>, String> {
        Ok((0..number)
            .map(|caller| {
                let mut picker = Picker::new(caller);
                Box::new(move || {
                    let mut connection = self.free_rx.recv().map_err(|error| error.to_string())?;
                    let done = connection.operate(op, &mut picker);
                    drop(self.free_tx.send(connection));
                    match done {
                        Ok(1) => Ok(()),
                        Ok(rows) => Err(format!("{rows} rows instead of one")),
                        Err(error) => Err(error.to_string()),
                    }
                }) as Caller<'_>
            })
            .collect())
    }
}
