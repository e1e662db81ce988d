//! One connection to PostgreSQL: its settings, its prepared statements, its transactions, and what
//! an error of it means.
//!
//! What matters about an error is whether the change may have been made. Everything before the
//! COMMIT was sent (or a statement that commits by itself) is undone by the server in any case; of
//! everything after, only the server's own word counts. Owned by one thread of `worker.rs`, on
//! which everything here runs; the migration has one of its own.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use postgres::fallible_iterator::FallibleIterator as _;
use postgres::types::ToSql;
use postgres::{Client, Row, SimpleQueryMessage, Statement};

use super::connector::PgConnector;
use crate::base::error::DbError;
use crate::base::limits::{
    POSTGRES_FRESH, POSTGRES_HELD_MAX, POSTGRES_STATEMENT_TIMEOUT, STORE_REOPEN_MAX,
};
use crate::base::sync::Lock;
use crate::base::thread;
use crate::store::lease::{Fence, not_owner};
use crate::wire::json::JsonError;

/// Parameters of a statement.
pub(super) type Params<'p> = &'p [&'p (dyn ToSql + Sync)];

/// A connection.
pub(super) struct PgSession {
    client: Client,
    statements: HashMap<&'static str, Statement>,
    /// When the server answered last.
    heard: Instant,
    /// In a transaction that could not be rolled back.
    is_broken: bool,
}

/// Why an operation did not succeed.
#[derive(Debug)]
pub(super) enum SessionFault {
    /// This is the answer, and nothing was changed.
    Answer(DbError),
    /// Another transaction was in the way; nothing was changed, and it may be tried again.
    Conflict,
    /// The connection was lost before a commit was sent: nothing was changed, and it may be tried
    /// again.
    Lost,
    /// The commit was sent, and whether it was made is not known.
    Unknown,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoSession {
    /// The server, or the way to it, says so.
    Refused(postgres::Error),
    /// A peer accepts there and says nothing, for so long.
    Silent(Duration),
    /// As many attempts as there may be are held by such a server.
    Held,
    /// The operating system refused a thread, or a file for TLS cannot be used, which it names.
    Io(io::Error),
}

impl fmt::Display for NoSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoSession::Refused(error) => f.write_str(&describe(error)),
            NoSession::Silent(time) => {
                write!(
                    f,
                    "the connection is accepted, but no answer came within {} s",
                    time.as_secs()
                )
            }
            NoSession::Held => {
                write!(f, "{POSTGRES_HELD_MAX} earlier attempts still wait for an answer")
            }
            NoSession::Io(error) => error.fmt(f),
        }
    }
}

impl From<postgres::Error> for NoSession {
    fn from(error: postgres::Error) -> Self {
        NoSession::Refused(error)
    }
}

/// Threads that were left in connecting.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// One side of an attempt that is left by its caller: when its thread has ended, too, it is held no
/// more.
struct Left(Arc<AtomicBool>);

impl Drop for Left {
    fn drop(&mut self) {
        if self.0.swap(true, Ordering::AcqRel) {
            HELD.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

static PROBES: Lock<Probes> = Lock::new(Probes::NONE);

fn probes() -> MutexGuard<'static, Probes> {
    PROBES.lock()
}

/// Attempts while as many threads are held as may be: those held may never end though the server
/// answers again. The pauses double, so that even a night of silence holds only a few threads more.
#[derive(Debug)]
struct Probes {
    /// When the next attempt may be made; `None`: at any time, as the last one was answered.
    next: Option<Instant>,
    pause: Duration,
}

impl Probes {
    const NONE: Self = Self { next: None, pause: STORE_REOPEN_MAX };

    fn admit(&mut self, held: usize, now: Instant) -> bool {
        match self.next {
            _ if held < POSTGRES_HELD_MAX => *self = Self::NONE,
            Some(next) if now < next => return false,
            Some(_) => self.put_off(now),
            None => {}
        }
        true
    }

    fn answered(&mut self) {
        self.next = None;
    }

    fn silent(&mut self, held: usize, now: Instant) {
        if held >= POSTGRES_HELD_MAX && self.next.is_none() {
            self.put_off(now);
        }
    }

    fn put_off(&mut self, now: Instant) {
        self.next = Some(now + self.pause);
        self.pause *= 2;
    }
}

impl PgSession {
    /// Connects, on a thread of its own (`store-dial`): the `postgres` crate gives no handle on a
    /// connection before it is made, so a thread whose server says nothing can only be left to the
    /// end of that connection.
    ///
    /// # Blocks
    /// Until the session can be used, at most [`PgConnector::time`].
    pub(super) fn connect(connector: &PgConnector) -> Result<Self, NoSession> {
        if !probes().admit(HELD.load(Ordering::Relaxed), Instant::now()) {
            return Err(NoSession::Held);
        }
        // Without room: a session is handed over to a caller that waits for it, or it is dropped.
        let (session_tx, session_rx) = bounded(0);
        let (own, time) = (connector.clone(), connector.time());
        let is_over = Arc::new(AtomicBool::new(false));
        let dialled = Left(Arc::clone(&is_over));
        let thread = thread::spawn("store-dial", move || {
            // Also when it panics.
            let _dialled = dialled;
            // Without its caller, the session is dropped.
            let _ = session_tx.send(Self::dial(&own));
        });
        let thread = thread.map_err(NoSession::Io)?;
        match session_rx.recv_timeout(time) {
            Ok(session) => {
                probes().answered();
                session
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(NoSession::Io(io::Error::other("connecting panicked")))
            }
            Err(RecvTimeoutError::Timeout) => {
                let held = HELD.fetch_add(1, Ordering::Relaxed) + 1;
                drop(Left(is_over));
                probes().silent(held, Instant::now());
                std::mem::forget(thread);
                Err(NoSession::Silent(time))
            }
        }
    }

    fn dial(connector: &PgConnector) -> Result<Self, NoSession> {
        let mut client = connector.connect()?;
        // A server-wide default may be another isolation, off or local; what is stronger than on
        // stays.
        client.batch_execute(&format!(
            "SET statement_timeout = {0}; SET lock_timeout = {0}; SET idle_in_transaction_session_timeout = {0};
             SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;
             SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            POSTGRES_STATEMENT_TIMEOUT.as_millis()
        ))?;
        let heard = Instant::now();
        Ok(Self { client, statements: HashMap::new(), heard, is_broken: false })
    }

    /// Whether it is known to be gone, or of no use any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_broken || self.client.is_closed()
    }

    /// Whether the server was heard of just now. Otherwise the connection may be dead, as all are
    /// after the server's restart, without that this is known.
    pub(super) fn is_fresh(&self) -> bool {
        !self.is_closed() && self.heard.elapsed() < POSTGRES_FRESH
    }

    /// The number of the server's process that answers now.
    pub(super) fn process(&mut self) -> Result<Option<String>, SessionFault> {
        // Prepares nothing: it is asked before it is known that what is prepared stays.
        let rows = self.answers("SELECT pg_backend_pid()")?;
        Ok(rows.iter().find_map(|row| match row {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Runs statements without parameters or results.
    pub(super) fn run(&mut self, sql: &str) -> Result<(), SessionFault> {
        Ok(self.client.batch_execute(sql)?)
    }

    /// Runs statements without parameters in one exchange and one commit; what they answer, in
    /// their order.
    pub(super) fn answers(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, SessionFault> {
        Ok(self.client.simple_query(sql)?)
    }

    /// Runs a statement and counts the rows that it touched.
    pub(super) fn execute(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<u64, SessionFault> {
        let statement = self.prepared(sql)?;
        Ok(self.client.execute(&statement, params)?)
    }

    /// The rows of a statement.
    pub(super) fn query(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, SessionFault> {
        let statement = self.prepared(sql)?;
        let rows = self.client.query(&statement, params)?;
        self.heard = Instant::now();
        Ok(rows)
    }

    /// The first row of a statement.
    pub(super) fn first(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<Row>, SessionFault> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    /// The rows of a statement that changes something and commits by itself. Once it is sent, a
    /// lost connection leaves open whether the change was made.
    pub(super) fn commit_query(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, SessionFault> {
        let statement = self.prepared(sql)?;
        if self.client.is_closed() {
            return Err(SessionFault::Lost);
        }
        let rows = self.client.query(&statement, params).map_err(|error| {
            // The statement is known no more: it was not begun.
            let is_void = matches!(error.code().map(|code| code.code()), Some("26000" | "0A000"));
            let said = describe(&error);
            match SessionFault::from(error) {
                SessionFault::Lost if !is_void => not_known(&said),
                fault => fault,
            }
        })?;
        self.heard = Instant::now();
        Ok(rows)
    }

    /// Looks at one row of a statement after the other, so that they need not all be in memory.
    pub(super) fn each(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
        mut look: impl FnMut(&Row) -> Result<(), SessionFault>,
    ) -> Result<(), SessionFault> {
        let statement = self.prepared(sql)?;
        let mut rows = self.client.query_raw(&statement, params.iter().copied())?;
        while let Some(row) = rows.next()? {
            look(&row)?;
        }
        Ok(())
    }

    /// Runs a transaction, alone among those that take the same lock (if it is to take one), and
    /// only while the fence holds (if there is one).
    ///
    /// Its reads see what was committed before the lock was got, which is why the lock is a
    /// statement of its own. The fence comes first: a change of the shard's holder waits for
    /// what has passed it.
    pub(super) fn transaction<T>(
        &mut self,
        lock: Option<i64>,
        fence: Option<Fence>,
        body: impl FnOnce(&mut Self) -> Result<T, SessionFault>,
    ) -> Result<T, SessionFault> {
        let fence = fence.map_or(String::new(), |Fence { shard, epoch, master }| {
            format!("SELECT mesophyll_fence({shard}, {epoch}, '{master}');")
        });
        let lock =
            lock.map_or(String::new(), |lock| format!("SELECT pg_advisory_xact_lock({lock})"));
        self.run(&format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {fence} {lock}"))
            .and_then(|()| body(self))
            .inspect_err(|_| self.roll_back())
            .and_then(|value| self.commit().map(|()| value))
    }

    fn commit(&mut self) -> Result<(), SessionFault> {
        if self.client.is_closed() {
            return Err(SessionFault::Lost);
        }
        self.client.batch_execute("COMMIT").map_err(|error| {
            match error.code().map(|code| code.code()) {
                // The server refused to commit: a serialization failure, a deadlock, a deferred
                // constraint.
                Some(code) if code.starts_with("40") && code != "40003" => SessionFault::Conflict,
                Some(code) if code.starts_with("23") => SessionFault::Conflict,
                _ => not_known(&describe(&error)),
            }
        })
    }

    /// After an error, of which nothing must stay; a connection on which that fails is not used
    /// again.
    fn roll_back(&mut self) {
        self.is_broken = self.client.is_closed() || self.client.batch_execute("ROLLBACK").is_err();
    }

    fn prepared(&mut self, sql: &'static str) -> Result<Statement, SessionFault> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

fn not_known(said: &str) -> SessionFault {
    log::warn!("postgres: whether a commit was made is not known: {said}");
    SessionFault::Unknown
}

impl From<DbError> for SessionFault {
    fn from(error: DbError) -> Self {
        SessionFault::Answer(error)
    }
}

impl From<JsonError> for SessionFault {
    /// Of JSON in a row that is not what it should be.
    fn from(error: JsonError) -> Self {
        unreadable(&error).into()
    }
}

impl From<postgres::Error> for SessionFault {
    /// Of any error before a commit was sent.
    fn from(error: postgres::Error) -> Self {
        let refused = |why: &str| DbError::Refused(why.to_owned()).into();
        let Some(code) = error.code().map(|code| code.code().to_owned()) else {
            if error.is_closed() || error.source().is_some_and(|source| source.is::<io::Error>()) {
                log::debug!("postgres: connection lost: {}", describe(&error));
                return SessionFault::Lost;
            }
            return unreadable(&describe(&error)).into();
        };
        match code.as_str() {
            // Serialization failure, deadlock, lock timeout; a row that another program made at the
            // same moment.
            "40001" | "40P01" | "55P03" | "23505" => SessionFault::Conflict,
            // The server shuts down or crashed, or closed the connection for being idle; a pooler
            // lost our statements, or a migration made them void.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "26000" | "0A000" => {
                SessionFault::Lost
            }
            code if code.starts_with("08") => SessionFault::Lost,
            "57014" => {
                DbError::Unavailable("the database did not answer in time".to_owned()).into()
            }
            "54000" => {
                refused("the key and the scopes are together too long for the database's index")
            }
            // Of the fence.
            "MSF01" => not_owner().into(),
            "22003" => refused("the number is too large for the database's column"),
            // Out of memory, disk or connections; read-only, which is what a standby is.
            code if code.starts_with("53") || code == "25006" || code == "58030" => {
                log::error!("postgres: {}", describe(&error));
                unavailable().into()
            }
            _ => {
                log::error!("postgres: {}", describe(&error));
                DbError::Internal("the database refused an operation".to_owned()).into()
            }
        }
    }
}

/// What a caller gets while the database is away.
pub(super) fn unavailable() -> DbError {
    DbError::Unavailable("the database cannot be reached: try again later".to_owned())
}

/// What a caller gets whose commit was sent and not answered.
pub(super) fn unknown() -> DbError {
    DbError::OutcomeUnknown("the database did not say whether the change was made".to_owned())
}

/// What a caller gets when a row is not what it should be; the cause is the operator's.
pub(super) fn unreadable(error: &dyn std::fmt::Display) -> DbError {
    log::error!("postgres: a row cannot be read: {error}");
    DbError::Internal("what the store holds there cannot be read".to_owned())
}

/// An error for the operator: what the server said, without the details, which quote tenants' data.
pub(super) fn describe(error: &postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_attempts_let_ever_fewer_through_until_one_is_answered() {
        let (mut probes, begun) = (Probes::NONE, Instant::now());
        assert!(probes.admit(POSTGRES_HELD_MAX - 1, begun));
        let mut held = POSTGRES_HELD_MAX;
        probes.silent(held, begun);
        let mut admitted = 0;
        for second in 1..3600 {
            let now = begun + Duration::from_secs(second);
            if probes.admit(held, now) {
                held += 1;
                admitted += 1;
                probes.silent(held, now);
            }
        }
        assert!((5..15).contains(&admitted), "{admitted}");
        probes.answered();
        let late = begun + Duration::from_secs(3600);
        assert!(probes.admit(held, late) && probes.admit(held, late), "the server answers");
        probes.silent(held, late);
        assert!(!probes.admit(held, late) && probes.admit(0, late));
    }

    #[test]
    fn an_attempt_is_held_until_its_thread_ends() {
        let is_over = Arc::new(AtomicBool::new(false));
        let before = HELD.fetch_add(1, Ordering::Relaxed);
        let dialled = Left(Arc::clone(&is_over));
        drop(Left(is_over));
        assert_eq!(HELD.load(Ordering::Relaxed), before + 1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _dialled = dialled;
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(HELD.load(Ordering::Relaxed), before);
    }
}
