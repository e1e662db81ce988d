//! What the database itself says: that no epoch goes back, none has two owners, and nothing is
//! written for a tenant by another master than its shard's.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::Client;

use super::super::clock::pause_until;
use super::server::Server;

/// Notes each write whose connection is not that of the shard's owner, in the transaction that
/// makes it: the owner cannot change before it ends.
const TRIGGER: &str = "
CREATE TABLE stress_wrong (at timestamptz DEFAULT clock_timestamp(), writer text, owner text, shard integer);
CREATE FUNCTION stress_check() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE holder text; at_shard integer := mesophyll_shard_of(NEW.owner_id);
BEGIN
    SELECT m.name INTO holder FROM mesophyll_shard s JOIN mesophyll_master m ON m.master = s.owner
     WHERE s.shard = at_shard;
    IF holder IS DISTINCT FROM current_setting('application_name') THEN
        INSERT INTO stress_wrong (writer, owner, shard)
        VALUES (current_setting('application_name'), holder, at_shard);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stress_check BEFORE INSERT OR UPDATE ON tenant_kv FOR EACH ROW EXECUTE FUNCTION stress_check()";

const EVERY: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(crate) struct Watch {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    looks: u64,
    last: HashMap<i32, i64>,
    owners: HashMap<(i32, i64), Option<String>>,
    moves: u64,
    wrongs: Vec<String>,
}

pub(crate) fn prepare(server: &Server) {
    server.connect("stress").batch_execute(TRIGGER).expect("a trigger");
}

impl Watch {
    /// Looks until told to stop, at whichever of the servers answers.
    pub(crate) fn look(&self, servers: &[&Server], done: &AtomicBool) {
        while !done.load(Ordering::SeqCst) {
            for server in servers {
                if let Some(mut client) = server.try_connect("stress") {
                    let mut look = || matches!(self.look_once(&mut client), Ok(true));
                    while !done.load(Ordering::SeqCst) && look() {
                        pause_until(Instant::now() + EVERY);
                    }
                }
            }
            pause_until(Instant::now() + EVERY);
        }
    }

    /// False: it is a standby, which may be behind what was seen.
    fn look_once(&self, client: &mut Client) -> Result<bool, postgres::Error> {
        let is_primary = client.query_one("SELECT NOT pg_is_in_recovery()", &[])?;
        let rows = client.query("SELECT shard, epoch, owner::text FROM mesophyll_shard", &[])?;
        if !is_primary.get::<_, bool>(0) {
            return Ok(false);
        }
        let mut seen = self.seen.lock().expect("no panic");
        seen.looks += 1;
        for row in rows {
            let (shard, epoch, owner): (i32, i64, Option<String>) =
                (row.get(0), row.get(1), row.get(2));
            let last = seen.last.insert(shard, epoch).unwrap_or(epoch);
            seen.moves += u64::from(epoch != last);
            if epoch < last {
                seen.wrongs.push(format!("shard {shard}: epoch {last} went back to {epoch}"));
            }
            let before = seen.owners.entry((shard, epoch)).or_insert_with(|| owner.clone());
            if *before != owner {
                let text = format!("shard {shard}, epoch {epoch}: {before:?} and {owner:?}");
                seen.wrongs.push(text);
            }
        }
        Ok(true)
    }

    /// How often shards changed hands so far.
    pub(crate) fn moves(&self) -> u64 {
        self.seen.lock().expect("no panic").moves
    }

    pub(crate) fn check(&self, server: &Server) -> Vec<String> {
        let seen = self.seen.lock().expect("no panic");
        let mut wrong = seen.wrongs.clone();
        println!("{} looks at the shards, {} changes of hands", seen.looks, seen.moves);
        if seen.looks == 0 {
            wrong.push("the shards were never looked at".to_owned());
        }
        let rows =
            server.connect("stress").query("SELECT writer, owner, shard FROM stress_wrong", &[]);
        for row in rows.expect("the wrong writes") {
            let (writer, owner, shard): (String, Option<String>, i32) =
                (row.get(0), row.get(1), row.get(2));
            wrong.push(format!("{writer} wrote into shard {shard}, which {owner:?} holds"));
        }
        wrong
    }
}
