//! The thread that connects to PostgreSQL, so that no caller waits for a name to be looked up or for a server to let us in.
//!
//! It makes a connection when somebody waits for one and there may be more. While the server is away callers are answered at
//! once, and this thread tries again with growing pauses. Owned and joined by [`super::PostgresStore`]; what ends it is that the
//! pool is closed and nobody needs it any more.

use std::io::ErrorKind;
use std::sync::Arc;

use postgres::Config;

use super::error::Error;
use super::pool::{Connection, Pool, Reach, Wish};
use super::session::Session;
use crate::metrics::Counter;
use crate::store::ServerFigures;

impl Connection for Session {
    fn is_closed(&self) -> bool {
        Session::is_closed(self)
    }

    fn is_alive(&self) -> bool {
        Session::is_alive(self)
    }
}

/// The pool, and how often it was connected.
pub(super) struct Connections {
    pub(super) pool: Pool<Session>,
    config: Config,
    connects: Counter,
    connect_failures: Counter,
}

impl Connections {
    /// At most so many; the first is there.
    pub(super) fn new(config: Config, connections_max: usize, first: Session) -> Arc<Self> {
        let (connects, connect_failures) = Default::default();
        let connections = Self { pool: Pool::new(connections_max), config, connects, connect_failures };
        connections.add(first);
        Arc::new(connections)
    }

    /// Connects whenever it has to, until the end.
    ///
    /// # Blocks
    /// On the pool, and on the server as [`Session::connect`] does.
    pub(super) fn keep_up(&self) {
        while self.pool.next_wish() == Wish::Connect {
            match self.connect() {
                Ok(session) => self.add(session),
                Err(error) => {
                    self.connect_failures.inc();
                    if self.pool.connecting_failed() == Reach::JustLost {
                        log::warn!("postgres: not reachable, trying again: {error}");
                    }
                }
            }
        }
    }

    /// A connection that was made and broke before it was ready says nothing of the server, so there is a second attempt.
    fn connect(&self) -> Result<Session, Error> {
        match Session::connect(&self.config) {
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                Session::connect(&self.config)
            }
            connected => connected,
        }
    }

    fn add(&self, session: Session) {
        self.connects.inc();
        if self.pool.add(Box::new(session)) {
            log::info!("postgres: connected again");
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn figures(&self) -> ServerFigures {
        ServerFigures {
            connected: self.pool.open(),
            connects: self.connects.get(),
            connect_failures: self.connect_failures.get(),
        }
    }
}
