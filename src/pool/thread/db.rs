//! [`WorkerDb`]: the database, and other tenants, as a worker's tenants see them, in this process or
//! over HTTP, with nothing to tell which.
//!
//! Over HTTP the rules are checked here before anything is sent, so that a refusal costs no round
//! trip and reads the same; the master checks them again. Called from a worker's I/O threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use log::Level;

use crate::base::answer::AnswerSender;
use crate::base::error::DbError;
use crate::base::limits::MESSAGE_ANSWER_MAX;
use crate::dispatch::{HostAnswer, MessageDoor};
use crate::feeds::{self, Feeds};
use crate::net::link::SendError;
use crate::protocol::{MesophyllDbClient, Outbox};
use crate::runtime::TenantDb;
use crate::store::{Caller, DbState, rules};
use crate::wire::data::{
    DbAnswer, DbOp, EncodedJson, HostCall, MessageOutcome, TenantId, TenantMessage, TenantState,
};

/// A worker's way to the database.
#[derive(Debug, Clone)]
pub enum WorkerDb {
    /// In this process: thread-pool mode; with the feeds of its tenants, if it has any.
    Direct(Arc<DbState>, Caller, MessageDoor, Option<Arc<Feeds>>),
    /// Through the master.
    Mesophyll(MesophyllDbClient, Outbox),
}

impl WorkerDb {
    /// The database of this process, for one worker of so many; messages go to `messages`.
    pub fn direct(
        db: Arc<DbState>,
        worker_id: usize,
        workers: usize,
        messages: MessageDoor,
    ) -> Self {
        WorkerDb::Direct(db, Caller { worker_id, workers }, messages, None)
    }

    /// The same with the feeds of this process.
    pub fn with_feeds(self, feeds: Arc<Feeds>) -> Self {
        match self {
            WorkerDb::Direct(db, caller, messages, _) => {
                WorkerDb::Direct(db, caller, messages, Some(feeds))
            }
            WorkerDb::Mesophyll(..) => self,
        }
    }

    /// The database of a master, and the way of messages to it.
    pub fn mesophyll(client: MesophyllDbClient, outbox: Outbox) -> Self {
        WorkerDb::Mesophyll(client, outbox)
    }
}

impl TenantDb for WorkerDb {
    fn tenant_states(&self) -> Result<HashMap<TenantId, TenantState>, DbError> {
        match self {
            WorkerDb::Direct(db, caller, ..) => {
                let states = db.tenant_states(*caller).into_iter();
                Ok(states.map(|(tenant, state)| (tenant, (*state).clone())).collect())
            }
            WorkerDb::Mesophyll(client, _) => client.tenant_states(),
        }
    }

    fn ask(&self, op: DbOp) -> Result<DbAnswer, DbError> {
        match self {
            WorkerDb::Direct(db, caller, ..) => db.ask(*caller, op),
            WorkerDb::Mesophyll(client, _) => client.ask(&rules::checked(op)?),
        }
    }

    fn send(&self, message: TenantMessage) -> MessageOutcome {
        match self {
            WorkerDb::Direct(_, _, door, _) => {
                let (outcome_tx, outcome) = AnswerSender::new();
                door.hand_in(message, Box::new(move |outcome| outcome_tx.send(outcome)));
                let until = Instant::now() + MESSAGE_ANSWER_MAX;
                outcome.take_by(until).unwrap_or(MessageOutcome::Unknown)
            }
            WorkerDb::Mesophyll(_, outbox) => outbox.send(message),
        }
    }

    fn call_host(&self, call: HostCall, answer: HostAnswer) {
        match self {
            WorkerDb::Direct(_, _, door, _) => door.call_host(call, answer),
            WorkerDb::Mesophyll(_, outbox) => outbox.call_host(call, answer),
        }
    }

    fn log(&self, tenant: TenantId, line: Option<(Level, String)>) {
        match (self, line) {
            (WorkerDb::Direct(_, _, _, Some(feeds)), Some((level, text))) => {
                feeds.log(tenant, level, &text);
            }
            (WorkerDb::Direct(_, _, _, Some(feeds)), None) => feeds.lose_line(tenant),
            (WorkerDb::Direct(..), _) => {}
            (WorkerDb::Mesophyll(_, outbox), line) => outbox.log(tenant, line),
        }
    }

    /// A store in this process goes on: it is not only this worker's.
    fn close(&self) {
        match self {
            WorkerDb::Direct(..) => {}
            WorkerDb::Mesophyll(client, outbox) => {
                client.close();
                outbox.close();
            }
        }
    }

    fn publish(&self, from: TenantId, topic: String, data: EncodedJson) -> Result<(), DbError> {
        let away = || DbError::Unavailable("nothing can be published at the moment".to_owned());
        match self {
            WorkerDb::Direct(_, _, _, feeds) => {
                feeds.as_ref().ok_or_else(away)?.publish(from, &topic, &data)
            }
            WorkerDb::Mesophyll(_, outbox) => {
                feeds::check(&topic, &data)?;
                outbox.publish(from, topic, data).map_err(|error| match error {
                    SendError::Closed => away(),
                    SendError::Full | SendError::TooLarge { .. } => {
                        DbError::Busy("too much waits to be published".to_owned())
                    }
                })
            }
        }
    }
}
