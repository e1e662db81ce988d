//! One connection to PostgreSQL: its settings, its statements, its transactions, and what an error of it means.
//!
//! What matters about an error is whether the change may have been made. Everything before the COMMIT was sent is undone by
//! the server, whatever happened; of everything after, only the server's own word counts. Lent by `pool.rs` to one caller at a
//! time, on whose thread everything here runs; the migration and a backup have one of their own.

use std::time::{Duration, Instant};

use postgres::Config;

use super::client::{Client, Params};
use super::connect::connect;
use super::error::Error;
use super::row::Row;
use crate::error::DbError;
use crate::limits::{POSTGRES_CONNECT_TIMEOUT, POSTGRES_SILENCE_MAX, POSTGRES_STATEMENT_TIMEOUT};
use crate::store::OpenError;

/// A connection.
pub(super) struct Session {
    client: Client,
    /// In a transaction that could not be rolled back.
    is_broken: bool,
    /// A transaction's last statement was put and goes with its COMMIT.
    is_finished: bool,
}

/// Why an operation did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// This is the answer, and nothing was changed.
    Answer(DbError),
    /// Another transaction was in the way; nothing was changed, and it may be tried again.
    Conflict,
    /// The connection was lost before a commit was sent: nothing was changed, and it may be tried again.
    Lost,
    /// The commit was sent, and whether it was made is not known.
    Unknown,
}

impl Session {
    /// Connects.
    ///
    /// # Blocks
    /// Until the server has answered; see [`connect`].
    pub(super) fn connect(config: &Config) -> Result<Self, Error> {
        let mut client = connect(config)?;
        client.set_deadline(Some(Instant::now() + POSTGRES_STATEMENT_TIMEOUT));
        // A server-wide default may be off or local; what is stronger than on stays.
        client.put_query(&format!(
            "SET statement_timeout = {0}; SET lock_timeout = {0}; SET idle_in_transaction_session_timeout = {0};
             SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            POSTGRES_STATEMENT_TIMEOUT.as_millis()
        ))?;
        client.flush()?;
        client.settle_all_but(0)?;
        client.set_deadline(None);
        Ok(Self { client, is_broken: false, is_finished: false })
    }

    /// Until when each call may block, from now on; None is for as long as it takes.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.client.set_deadline(deadline);
    }

    /// Whether it is known to be gone, or of no use any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_broken || self.client.is_closed()
    }

    /// Whether it looks as if it could be used; asks the kernel, and does not block.
    pub(super) fn is_alive(&self) -> bool {
        !self.is_broken && self.client.is_quiet()
    }

    /// Runs statements without parameters or results.
    pub(super) fn run(&mut self, sql: &str) -> Result<(), Fault> {
        self.client.put_query(sql)?;
        self.settle()
    }

    /// Sends what was put, and reads all answers.
    fn settle(&mut self) -> Result<(), Fault> {
        self.client.flush()?;
        Ok(self.client.settle_all_but(0)?)
    }

    /// Runs a statement and counts the rows that it touched.
    ///
    /// What it changes must not outlive a BEGIN that failed, so it waits for that one's answer.
    pub(super) fn execute(&mut self, sql: &'static str, params: Params<'_>) -> Result<u64, Fault> {
        self.settle()?;
        self.exchange(sql, params, &mut |_| {})
    }

    /// The rows of a statement.
    pub(super) fn query(&mut self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Fault> {
        let mut rows = Vec::new();
        self.exchange(sql, params, &mut |row| rows.push(row))?;
        Ok(rows)
    }

    /// The first row of a statement.
    pub(super) fn first(&mut self, sql: &'static str, params: Params<'_>) -> Result<Option<Row>, Fault> {
        let mut first = None;
        self.exchange(sql, params, &mut |row| {
            first.get_or_insert(row);
        })?;
        Ok(first)
    }

    /// Looks at one row of a statement after the other, so that they need not all be in memory; at none after an error.
    pub(super) fn each(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
        mut look: impl FnMut(&Row) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut looked = Ok(());
        self.exchange(sql, params, &mut |row| {
            if looked.is_ok() {
                looked = look(&row);
            }
        })?;
        looked
    }

    /// Sends a statement, behind what was put before it, and reads the answers.
    fn exchange(&mut self, sql: &'static str, params: Params<'_>, look: &mut dyn FnMut(Row)) -> Result<u64, Fault> {
        let statement = self.client.prepared(sql)?;
        self.client.put(&statement, params)?;
        self.client.flush()?;
        let before = self.client.settle_all_but(1);
        let answer = self.client.answer(Some(statement.columns()), look);
        before?;
        Ok(answer?)
    }

    /// Runs a transaction, alone among those that take the same lock (if it is to take one).
    ///
    /// Its reads see what was committed before the lock was got, which is why the lock is a statement of its own. It begins in
    /// the exchange of its first statement, if that only reads.
    pub(super) fn transaction<T>(
        &mut self,
        lock: Option<i64>,
        body: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let lock = lock.map_or(String::new(), |lock| format!("SELECT pg_advisory_xact_lock({lock})"));
        self.is_finished = false;
        self.client.put_query(&format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {lock}"))?;
        body(self).inspect_err(|_| self.roll_back()).and_then(|value| self.commit().map(|()| value))
    }

    /// Puts the last statement of a transaction, which is sent together with its COMMIT.
    ///
    /// If it touches no row, the transaction is a conflict: so it has to be all that the transaction changes.
    pub(super) fn finish(&mut self, sql: &'static str, params: Params<'_>) -> Result<(), Fault> {
        self.settle()?;
        let statement = self.client.prepared(sql)?;
        self.client.put(&statement, params)?;
        self.is_finished = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Fault> {
        self.client.put_query("COMMIT")?;
        // Its last byte was not sent.
        self.client.flush()?;
        let mut finished = Ok(1);
        while self.client.owed() > 1 {
            finished = finished.and(self.client.answer(None, &mut |_| {}));
            if self.client.is_closed() {
                break;
            }
        }
        let committed = match self.client.is_closed() {
            false => self.client.answer(None, &mut |_| {}).map(drop),
            true => Err(Error::Io(std::io::ErrorKind::UnexpectedEof.into())),
        };
        match (finished, committed) {
            // The server said no to the statement, and a COMMIT after that is a ROLLBACK.
            (Err(error @ Error::Refused { .. }), _) => Err(error.into()),
            (Ok(0), Ok(())) if self.is_finished => Err(Fault::Conflict),
            (Ok(_), Ok(())) => Ok(()),
            (Err(error), _) | (Ok(_), Err(error)) => Err(of_commit(&error)),
        }
    }

    /// After an error, of which nothing must stay; a connection on which that fails is not used again.
    fn roll_back(&mut self) {
        self.is_broken = self.client.is_closed() || {
            // What was put before is answered first, with errors that were told already.
            let sent = self.client.put_query("ROLLBACK").and_then(|()| self.client.flush());
            let _ = sent.is_ok().then(|| self.client.settle_all_but(1));
            sent.is_err() || self.client.is_closed() || self.client.settle_all_but(0).is_err()
        };
    }
}

/// What an error in a commit's answer means.
fn of_commit(error: &Error) -> Fault {
    match error {
        // The server refused to commit: a serialization failure, a deadlock, a deferred constraint.
        Error::Refused { code, .. } if code.starts_with("40") && code != "40003" => Fault::Conflict,
        Error::Refused { code, .. } if code.starts_with("23") => Fault::Conflict,
        _ => {
            log::warn!("postgres: whether a commit was made is not known: {error}");
            Fault::Unknown
        }
    }
}

impl From<Error> for Fault {
    /// Of any error before a commit was sent.
    fn from(error: Error) -> Self {
        let refused = |why: &str| Fault::Answer(DbError::Refused(why.to_owned()));
        let late = || Fault::Answer(DbError::Unavailable("the database did not answer in time".to_owned()));
        let code = match &error {
            Error::Refused { code, .. } => code,
            Error::Io(_) | Error::Strange(_) => {
                log::debug!("postgres: connection lost: {error}");
                return Fault::Lost;
            }
            Error::TimedOut => return late(),
            Error::Value(_) => return Fault::Answer(unreadable(&error)),
        };
        match code.as_str() {
            // Serialization failure, deadlock, lock timeout; a row that another program made at the same moment.
            "40001" | "40P01" | "55P03" | "23505" => Fault::Conflict,
            // The server shuts down or crashed, or closed the connection for being idle; a pooler lost our statements, or
            // a migration made them void.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "26000" | "0A000" => Fault::Lost,
            code if code.starts_with("08") => Fault::Lost,
            "57014" => late(),
            "54000" => refused("the key and the scopes are together too long for the database's index"),
            "22003" => refused("the number is too large for the database's column"),
            // Out of memory, disk or connections; read-only, which is what a standby is.
            code if code.starts_with("53") || code == "25006" || code == "58030" => {
                log::error!("postgres: {error}");
                Fault::Answer(unavailable())
            }
            _ => {
                log::error!("postgres: {error}");
                Fault::Answer(DbError::Internal("the database refused an operation".to_owned()))
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

/// Reads a URL, and fills in what it leaves open.
///
/// # Errors
/// It is none, or asks for what is not built in. Its text is never repeated: it may hold a password.
pub(super) fn config(url: &str) -> Result<Config, OpenError> {
    let mut config: Config = url.parse().map_err(|_| OpenError::BadUrl("it is no URL that PostgreSQL understands"))?;
    if config.get_ssl_mode() == postgres::config::SslMode::Require {
        return Err(OpenError::BadUrl("sslmode=require: connections with TLS are not built in"));
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(POSTGRES_CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("mesophyll");
    }
    // A server that vanished without a word is noticed by its silence.
    config.tcp_user_timeout(POSTGRES_SILENCE_MAX);
    config.keepalives_idle(POSTGRES_SILENCE_MAX / 2).keepalives_interval(Duration::from_secs(1)).keepalives_retries(3);
    Ok(config)
}
