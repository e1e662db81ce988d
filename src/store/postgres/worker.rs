//! The threads that talk to PostgreSQL: each owns a connection and takes the next operation from
//! `queue.rs`.
//!
//! While the server is away operations are answered `Unavailable` at once, and one thread at a time
//! tries to connect, with growing pauses. An operation is tried again only if it is known to have
//! changed nothing. Which operation comes next is the queue's business; that writes of one tenant
//! take turns is a lock's in the database too, for other masters on it. The threads are owned and
//! joined by [`super::PostgresStore`]; what wakes them is the end of the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::calls::{self, PgJob};
use super::connector::PgConnector;
use super::queue::{Queue, Taken};
use super::session::{NoSession, PgSession, SessionFault, unavailable, unknown};
use crate::base::error::DbError;
use crate::base::limits::{POSTGRES_ATTEMPTS_MAX, STORE_REOPEN_MAX, STORE_REOPEN_MIN};
use crate::base::metrics::Counter;
use crate::base::sync::{Lock, Signal};
use crate::store::ServerFigures;

/// What the threads share.
pub(super) struct PgShared {
    connector: PgConnector,
    /// Threads that have a connection.
    connected: AtomicUsize,
    connects: Counter,
    connect_failures: Counter,
    /// None while the server answers, as far as is known.
    down: Lock<Option<Down>>,
}

/// How attempts to reach a server that is away are spread.
struct Down {
    next_attempt: Instant,
    pause: Duration,
    /// Some thread is at it.
    trying: bool,
    /// Why the last attempt failed, as it was logged.
    why: String,
}

/// Whether a cause is to be logged: once, but another one again, as a server may refuse connections
/// and then passwords.
fn is_news(down: Option<&Down>, why: &str) -> bool {
    down.is_none_or(|down| down.why != why)
}

/// Which operation may try to reach a server that is away.
enum ReconnectTurn {
    /// The server is back already.
    Up,
    Mine,
    NotBefore(Instant),
}

impl PgShared {
    pub(super) fn new(connector: PgConnector) -> Self {
        let (connects, connect_failures) = Default::default();
        Self {
            connector,
            connected: AtomicUsize::new(0),
            connects,
            connect_failures,
            down: Lock::new(None),
        }
    }

    pub(super) fn figures(&self) -> ServerFigures {
        ServerFigures {
            connected: self.connected.load(Ordering::Relaxed),
            connects: self.connects.get(),
            connect_failures: self.connect_failures.get(),
        }
    }

    fn is_down(&self) -> bool {
        self.down.lock().is_some()
    }

    fn take_turn(&self) -> ReconnectTurn {
        let now = Instant::now();
        match self.down.lock().as_mut() {
            None => ReconnectTurn::Up,
            Some(down) if down.trying => ReconnectTurn::NotBefore(now + STORE_REOPEN_MIN),
            Some(down) if down.next_attempt > now => ReconnectTurn::NotBefore(down.next_attempt),
            Some(down) => {
                down.trying = true;
                ReconnectTurn::Mine
            }
        }
    }

    fn set_up(&self) {
        if self.down.lock().take().is_some() {
            log::info!("postgres: connected again");
        }
    }

    fn set_down(&self, why: &NoSession) {
        let mut down = self.down.lock();
        let why = why.to_string();
        if is_news(down.as_ref(), &why) {
            log::warn!("postgres: not reachable, trying again: {why}");
        }
        let pause = match down.as_ref() {
            None => STORE_REOPEN_MIN,
            Some(down) if down.trying => (down.pause * 2).min(STORE_REOPEN_MAX),
            Some(down) => down.pause,
        };
        *down = Some(Down { next_attempt: Instant::now() + pause, pause, trying: false, why });
    }
}

/// Whether a thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterJob {
    Go,
    Stop,
}

/// One thread's side.
pub(super) struct Worker {
    shared: Arc<PgShared>,
    session: Option<PgSession>,
    queue: Arc<Queue>,
    /// What wakes this thread when there is an operation.
    turn: Arc<Signal>,
}

impl Worker {
    pub(super) fn new(shared: Arc<PgShared>, queue: Arc<Queue>) -> Self {
        Self { shared, session: None, queue, turn: Arc::default() }
    }

    /// Serves until the queue is closed and everything in it is answered.
    ///
    /// # Blocks
    /// On the queue, and on the server: `POSTGRES_STATEMENT_TIMEOUT` for a statement; connecting
    /// has a bound, too.
    pub(super) fn run(mut self, first: Option<PgSession>) {
        self.keep(first);
        let queue = Arc::clone(&self.queue);
        loop {
            let is_away = self.session.is_none() && self.shared.is_down();
            let then = if is_away { self.wait_for_server(&queue) } else { self.serve_next(&queue) };
            if then == AfterJob::Stop {
                break;
            }
        }
        self.keep(None);
    }

    fn serve_next(&mut self, queue: &Queue) -> AfterJob {
        match queue.take(None, &self.turn.clone()) {
            Taken::Jobs(jobs, turn) => {
                self.serve(jobs);
                drop(turn);
                AfterJob::Go
            }
            Taken::Nothing => AfterJob::Go,
            Taken::End => AfterJob::Stop,
        }
    }

    fn wait_for_server(&mut self, queue: &Queue) -> AfterJob {
        let until = match self.shared.take_turn() {
            ReconnectTurn::Up => return AfterJob::Go,
            ReconnectTurn::Mine => {
                self.connect();
                return AfterJob::Go;
            }
            ReconnectTurn::NotBefore(until) => until,
        };
        // If others are connected, they serve: too many connections for the server is no reason to
        // refuse.
        let others_serve = self.shared.connected.load(Ordering::Relaxed) > 0;
        if others_serve && !queue.is_closed_by(until) {
            return AfterJob::Go;
        }
        match queue.take(Some(until), &self.turn) {
            Taken::Jobs(jobs, _turn) => {
                let wanted = jobs.into_iter().filter(|job| job.begin());
                wanted.for_each(|job| job.finish(Err(unavailable())));
            }
            Taken::Nothing => {}
            Taken::End => return AfterJob::Stop,
        }
        AfterJob::Go
    }

    fn serve(&mut self, mut jobs: Vec<Box<dyn PgJob>>) {
        jobs.retain(|job| job.begin());
        if jobs.len() > 1 {
            jobs = self.serve_together(jobs);
            // One that waits for another program's lock must not hold up those that came with it.
            jobs = jobs.into_iter().flat_map(|job| self.serve_together(vec![job])).collect();
        }
        jobs.into_iter().for_each(|job| self.serve_alone(job));
    }

    /// Carries them out in one exchange, and answers them; those that are left were not carried
    /// out.
    fn serve_together(&mut self, mut jobs: Vec<Box<dyn PgJob>>) -> Vec<Box<dyn PgJob>> {
        let Some(session) = self.session.as_mut().filter(|session| !session.is_closed()) else {
            return jobs;
        };
        match catch_unwind(AssertUnwindSafe(|| calls::attempt_together(session, &mut jobs))) {
            Ok(Ok(())) => {
                let mut left = Vec::new();
                for mut job in jobs {
                    if job.has_answer() {
                        job.finish(Ok(()));
                    } else {
                        left.push(job);
                    }
                }
                return left;
            }
            Ok(Err(SessionFault::Answer(_) | SessionFault::Conflict)) => {}
            Ok(Err(SessionFault::Lost)) => self.keep(None),
            Ok(Err(SessionFault::Unknown)) | Err(_) => {
                self.keep(None);
                jobs.drain(..).for_each(|job| job.finish(Err(unknown())));
            }
        }
        jobs
    }

    fn serve_alone(&mut self, mut job: Box<dyn PgJob>) {
        for _ in 0..POSTGRES_ATTEMPTS_MAX {
            if self.session.as_ref().is_none_or(PgSession::is_closed) && !self.connect() {
                return job.finish(Err(unavailable()));
            }
            let Some(session) = self.session.as_mut() else { continue };
            match catch_unwind(AssertUnwindSafe(|| job.attempt(session))) {
                Ok(Ok(())) => return job.finish(Ok(())),
                Ok(Err(SessionFault::Answer(error))) => return job.finish(Err(error)),
                Ok(Err(SessionFault::Conflict)) => {}
                Ok(Err(SessionFault::Lost)) => self.keep(None),
                // A panic may have come anywhere.
                Ok(Err(SessionFault::Unknown)) | Err(_) => {
                    self.keep(None);
                    return job.finish(Err(unknown()));
                }
            }
        }
        let why = "the database is busy with other changes of the same kind: try again later";
        job.finish(Err(DbError::Busy(why.to_owned())));
    }

    /// Connects anew; true if that succeeded. While the server is known to be away only
    /// [`Worker::wait_for_server`] tries.
    fn connect(&mut self) -> bool {
        self.keep(None);
        match PgSession::connect(&self.shared.connector) {
            Ok(session) => {
                self.keep(Some(session));
                self.shared.set_up();
                true
            }
            Err(error) => {
                self.shared.connect_failures.inc();
                self.shared.set_down(&error);
                false
            }
        }
    }

    fn keep(&mut self, session: Option<PgSession>) {
        let (before, after) = (self.session.is_some(), session.is_some());
        self.session = session;
        match (before, after) {
            (false, true) => {
                self.shared.connects.inc();
                self.shared.connected.fetch_add(1, Ordering::Relaxed)
            }
            (true, false) => self.shared.connected.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_of_an_outage_is_logged_once() {
        let shared = PgShared::new(PgConnector::new("postgres://h/d").expect("a URL"));
        let mut told = Vec::new();
        let causes = [
            NoSession::Held,
            NoSession::Held,
            NoSession::Silent(Duration::from_secs(8)),
            NoSession::Held,
        ];
        for why in causes {
            told.push(is_news(shared.down.lock().as_ref(), &why.to_string()));
            shared.set_down(&why);
        }
        assert_eq!(told, [true, false, true, true]);
    }
}
