//! Calls of tenants to host processes: the owner's own programs, which do for templates what
//! Mesophyll does not, such as calling Discord.
//!
//! A host process is connected to the internal API (`api/host.rs`), says which names it serves, and
//! answers calls in any order. A call is sent to one of those that serve its name, once, and has
//! one outcome: an answer, its deadline, or the end of the connection. Owned by the master's
//! messages, whose threads call in; the connections bring the answers and look at the deadlines.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::base::labels::OutcomeCounters;
use crate::base::limits::{
    HOST_ARGS_MAX_BYTES, HOST_DEADLINE, HOST_NAME_MAX_BYTES, HOST_STRAYS_MAX, HOSTS_MAX,
};
use crate::base::sync::Lock;
use crate::dispatch::HostAnswer;
use crate::store::{DbState, Standing};
use crate::wire::data::{
    HostCall, HostError, HostOutcome, HostResult, IdMap, TenantId, is_host_name,
};
use crate::wire::json;

/// The connection of a host process.
pub trait HostLink: Send + Sync {
    /// Says that it is taken in, before anything is sent to it. Never blocks.
    fn welcome(&self);

    /// Queues a text for it; false: there is no room, or it has gone. Never blocks.
    fn send(&self, tenant: TenantId, text: String) -> bool;

    /// Has its clock look at deadlines again, as it has a call now. Never blocks.
    fn wake(&self);
}

/// Why a host process is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRefusal {
    /// Another user's serves this name.
    Taken(String),
    /// As many are connected as may be.
    Full,
}

/// The host processes of a master, and what they have been asked.
pub struct Hosts {
    db: Arc<DbState>,
    /// Names that every tenant may call.
    allowed: Vec<String>,
    ended: OutcomeCounters<HostOutcome>,
    state: Lock<HostsState>,
}

#[derive(Default)]
struct HostsState {
    /// Those that were asked last stand last. Limit: `HOSTS_MAX`.
    servers: Vec<HostServer>,
    /// The last number that a server or a call got.
    last: u64,
}

struct HostServer {
    number: u64,
    user_id: u64,
    names: Vec<String>,
    credits: usize,
    /// What it has not answered. Limit: `credits`.
    calls: IdMap<u64, OpenCall>,
    /// How many of these are overdue.
    overdue: usize,
    /// Answers in a row that no call waited for.
    strays: u32,
    link: Arc<dyn HostLink>,
}

struct OpenCall {
    until: Instant,
    /// None: its deadline has passed, and the server has not answered yet.
    answer: Option<HostAnswer>,
}

impl Hosts {
    /// Without any yet. `allowed`: names that every tenant may call.
    pub fn new(db: Arc<DbState>, allowed: Vec<String>) -> Arc<Self> {
        Arc::new(Self { db, allowed, ended: OutcomeCounters::default(), state: Lock::default() })
    }

    /// Takes a host process in; its number.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn register(
        &self,
        user_id: u64,
        names: Vec<String>,
        credits: usize,
        link: Arc<dyn HostLink>,
    ) -> Result<u64, HostRefusal> {
        let mut state = self.state.lock();
        let others = state.servers.iter().filter(|server| server.user_id != user_id);
        let taken = others.flat_map(|server| &server.names).find(|name| names.contains(name));
        if let Some(name) = taken {
            return Err(HostRefusal::Taken(name.clone()));
        } else if state.servers.len() >= HOSTS_MAX {
            return Err(HostRefusal::Full);
        }
        state.last += 1;
        let number = state.last;
        // Nothing is called before: for that it must be there.
        link.welcome();
        let (calls, overdue, strays) = (IdMap::default(), 0, 0);
        state.servers.push(HostServer {
            number,
            user_id,
            names,
            credits,
            calls,
            overdue,
            strays,
            link,
        });
        Ok(number)
    }

    /// Whether its tenant may call the name.
    ///
    /// # Blocks
    /// As a reading of a [`crate::store::Store`].
    ///
    /// # Errors
    /// It may not, or that cannot be read.
    pub(in crate::pool) fn check_allowed(&self, call: &HostCall) -> Result<(), HostError> {
        if self.db.standing(call.from) == Standing::Banned {
            return Err(HostError::new(HostOutcome::NotAllowed));
        } else if self.allowed.contains(&call.name) {
            return Ok(());
        }
        match self.db.allows_host(call.from, &call.name) {
            Ok(true) => Ok(()),
            Ok(false) => Err(HostError::new(HostOutcome::NotAllowed)),
            Err(_) => Err(HostError::new(HostOutcome::Busy)),
        }
    }

    /// Sends a call to one of the host processes that serve its name.
    pub(in crate::pool) fn send(&self, call: &HostCall, answer: HostAnswer) {
        let Ok(args) = json::json_from_encoded(&call.args) else {
            return self.end(answer, Err(HostError::new(HostOutcome::TooLarge)));
        };
        let Entered { server, number, link, is_first } = {
            let mut state = self.state.lock();
            match state.enter(&call.name, answer) {
                Ok(entered) => entered,
                Err((outcome, answer)) => {
                    drop(state);
                    return self.end(answer, Err(HostError::new(outcome)));
                }
            }
        };
        let HostCall { from, name, .. } = call;
        let deadline_ms = HOST_DEADLINE.as_millis();
        // The name is letters, digits and signs that JSON leaves as they are.
        let text = format!(
            "{{\"id\":{number},\"tenant\":\"{from}\",\"name\":\"{name}\",\"args\":{args},\
             \"deadline_ms\":{deadline_ms}}}"
        );
        if !link.send(*from, text) {
            let call = self.state.lock().server(server).and_then(|server| server.take(number));
            if let Some(answer) = call.and_then(|call| call.answer) {
                self.end(answer, Err(HostError::new(HostOutcome::Busy)));
            }
        } else if is_first {
            link.wake();
        }
    }

    /// A host process answers; false: too many of its answers are none to any call.
    pub fn answered(&self, server: u64, number: u64, result: HostResult) -> bool {
        let call = {
            let mut state = self.state.lock();
            let Some(server) = state.server(server) else { return true };
            let Some(call) = server.take(number) else {
                server.strays += 1;
                return server.strays <= HOST_STRAYS_MAX;
            };
            server.strays = 0;
            call
        };
        // One that is late only gives its credit back.
        if let Some(answer) = call.answer {
            self.end(answer, result);
        }
        true
    }

    /// Ends the calls of a host process whose deadline has passed; whether it has any call left.
    pub fn expire(&self, server: u64, now: Instant) -> bool {
        let (overdue, has_more) = {
            let mut state = self.state.lock();
            let Some(server) = state.server(server) else { return false };
            let late = server.calls.values_mut().filter(|call| call.until <= now);
            let overdue: Vec<_> = late.filter_map(|call| call.answer.take()).collect();
            server.overdue += overdue.len();
            (overdue, server.overdue < server.calls.len())
        };
        overdue.into_iter().for_each(|answer| {
            self.end(answer, Err(HostError::new(HostOutcome::Deadline)));
        });
        has_more
    }

    /// A host process has gone: what it has not answered it may have done.
    pub fn gone(&self, server: u64) {
        let lost = {
            let mut state = self.state.lock();
            let at = state.servers.iter().position(|one| one.number == server);
            at.map(|at| state.servers.remove(at))
        };
        let calls = lost.into_iter().flat_map(|server| server.calls.into_values());
        for answer in calls.filter_map(|call| call.answer) {
            self.end(answer, Err(HostError::new(HostOutcome::Unknown)));
        }
    }

    /// How many calls ended how.
    pub fn outcomes(&self) -> &OutcomeCounters<HostOutcome> {
        &self.ended
    }

    /// How many host processes are connected.
    pub fn count(&self) -> usize {
        self.state.lock().servers.len()
    }

    pub(in crate::pool) fn end(&self, answer: HostAnswer, result: HostResult) {
        let outcome = result.as_ref().map_or_else(|error| error.outcome, |_| HostOutcome::Answered);
        self.ended.add(outcome, 1);
        answer(result);
    }
}

/// Whether a call has a name that may be, and no more than it may.
pub(in crate::pool) fn has_bounds(call: &HostCall) -> bool {
    is_host_name(&call.name, HOST_NAME_MAX_BYTES)
        && call.args.as_bytes().len() <= HOST_ARGS_MAX_BYTES
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hosts")
    }
}

/// A call that a server is to be sent.
struct Entered {
    server: u64,
    number: u64,
    link: Arc<dyn HostLink>,
    /// The server's clock looks at no other.
    is_first: bool,
}

impl HostsState {
    /// Registers a call with a server that has a credit left. What is not taken comes back, to be
    /// answered.
    fn enter(
        &mut self,
        name: &str,
        answer: HostAnswer,
    ) -> Result<Entered, (HostOutcome, HostAnswer)> {
        let serves = |server: &HostServer| server.names.iter().any(|served| served == name);
        let has_credit = |server: &HostServer| server.calls.len() < server.credits;
        let found = self.servers.iter().position(|server| serves(server) && has_credit(server));
        let Some(at) = found else {
            let is_served = self.servers.iter().any(serves);
            let outcome = if is_served { HostOutcome::Busy } else { HostOutcome::NoHost };
            return Err((outcome, answer));
        };
        self.last += 1;
        let mut server = self.servers.remove(at);
        let entered = Entered {
            server: server.number,
            number: self.last,
            link: server.link.clone(),
            is_first: server.overdue == server.calls.len(),
        };
        let until = Instant::now() + HOST_DEADLINE;
        server.calls.insert(self.last, OpenCall { until, answer: Some(answer) });
        self.servers.push(server);
        Ok(entered)
    }

    fn server(&mut self, number: u64) -> Option<&mut HostServer> {
        self.servers.iter_mut().find(|one| one.number == number)
    }
}

impl HostServer {
    /// Takes a call out, which gives its credit back.
    fn take(&mut self, number: u64) -> Option<OpenCall> {
        let call = self.calls.remove(&number)?;
        self.overdue -= usize::from(call.answer.is_none());
        Some(call)
    }
}
