//! The coroutines of a tenant that its executor resumes: handlers of events, and what `task`
//! started.
//!
//! Plain bookkeeping: what runs them, and what becomes of what they yield, is in `tenant`.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use mlua::{MultiValue, Thread, Value};

use super::api::{CallReply, PreparedCall};
use super::io::IoOutput;
use super::locks::RecordKey;
use super::ops::{CallOp, HOST_TAG, SCRIPT_TAG, tag_number};
use super::outside::Charge;
use super::timers::TimerKey;
use crate::wire::data::IdMap;

/// A coroutine that the executor resumes.
pub(super) struct Task {
    pub(super) thread: Thread,
    /// The event that it belongs to, whose budgets it uses.
    pub(super) event: u64,
    /// What it is resumed with.
    pub(super) next: Next,
    /// What it waits for.
    pub(super) wait: Wait,
    /// The `KV:update` whose function it runs.
    pub(super) updating: Option<Update>,
    /// A script holds its coroutine, or may.
    pub(super) is_seen: bool,
}

impl Task {
    /// If it waits for a lock, it waits no more: the record, and the call that the lock was for.
    pub(super) fn take_lock(&mut self) -> Option<(RecordKey, PreparedCall, Charge)> {
        if !matches!(self.wait, Wait::Lock(..)) {
            return None;
        }
        match std::mem::take(&mut self.wait) {
            Wait::Lock(record, call, charge) => Some((record, call, charge)),
            _ => None,
        }
    }
}

/// What a task is resumed with.
#[derive(Default)]
pub(super) enum Next {
    /// Nothing: it was preempted.
    #[default]
    Nothing,
    /// Values, as they are.
    Values(MultiValue),
    /// What came of a call, still to be turned into values: that is the task's own running time.
    Reply(CallReply, IoOutput, Charge),
    /// A call that failed.
    Failure(String),
    /// An error, where it yielded by itself and may not.
    Error(&'static str),
}

/// What a task waits for.
#[derive(Default)]
pub(super) enum Wait {
    /// Nothing: it runs, is ready to, or waits for a task that it spawned to wait.
    #[default]
    Nothing,
    /// Time.
    Time { timer: TimerKey, since: Option<Instant> },
    /// An operation on an I/O thread; the number of its turn, if it had to wait for one.
    Io(CallReply, Option<u64>),
    /// The lock of a record, for a call.
    Lock(RecordKey, PreparedCall, Charge),
    /// It yielded by itself; some other coroutine has to wake it.
    Parked,
}

/// A `KV:update` whose function runs.
pub(super) struct Update {
    pub(super) lease: u64,
    pub(super) record: RecordKey,
}

/// The tasks of a tenant.
#[derive(Default)]
pub(super) struct Tasks {
    // Limit: `COROUTINES_MAX` and a handler for each event that runs.
    by_id: IdMap<u64, Task>,
    /// By the thread's address, which is that of a live thread as long as the task holds it.
    by_thread: IdMap<u64, u64>,
    last: u64,
    /// The task that runs, above those that spawned it and wait for it to wait.
    running: Vec<u64>,
    /// Tasks that can go on, in the order in which they came to it.
    ready: VecDeque<u64>,
}

impl Tasks {
    /// Adds a task that waits for nothing.
    pub(super) fn add(&mut self, thread: Thread, event: u64, next: Next) -> u64 {
        self.last += 1;
        self.by_thread.insert(address(&thread), self.last);
        let (wait, updating) = (Wait::Nothing, None);
        self.by_id.insert(self.last, Task { thread, event, next, wait, updating, is_seen: true });
        self.last
    }

    /// Adds one whose coroutine no script has.
    pub(super) fn add_handler(&mut self, thread: Thread, event: u64, next: Next) -> u64 {
        let id = self.add(thread, event, next);
        if let Some(task) = self.by_id.get_mut(&id) {
            task.is_seen = false;
        }
        id
    }

    pub(super) fn get(&self, id: u64) -> Option<&Task> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Task> {
        self.by_id.get_mut(&id)
    }

    /// The task whose coroutine this is.
    pub(super) fn of_thread(&self, thread: &Thread) -> Option<u64> {
        self.by_thread.get(&address(thread)).copied()
    }

    /// The task that runs, if one does.
    pub(super) fn running(&self) -> Option<u64> {
        self.running.last().copied()
    }

    /// Runs a task, above those that run already.
    pub(super) fn run(&mut self, id: u64) {
        self.running.push(id);
    }

    /// The task that runs waits: the one below it goes on.
    pub(super) fn pause(&mut self) {
        self.running.pop();
    }

    /// A task can go on, behind those that can already.
    pub(super) fn make_ready(&mut self, id: u64) {
        self.ready.push_back(id);
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the task that is next of those that can go on.
    pub(super) fn next_ready(&mut self) -> Option<u64> {
        self.ready.pop_front()
    }

    /// Neither runs these tasks nor lets them go on.
    pub(super) fn halt(&mut self, ids: &[u64]) {
        // One is not worth a set, and with thousands each queue is gone through once.
        if let [one] = ids {
            self.running.retain(|id| id != one);
            self.ready.retain(|id| id != one);
        } else {
            let gone: HashSet<u64> = ids.iter().copied().collect();
            self.running.retain(|id| !gone.contains(id));
            self.ready.retain(|id| !gone.contains(id));
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Task> {
        let task = self.by_id.remove(&id)?;
        self.by_thread.remove(&address(&task.thread));
        Some(task)
    }

    /// The tasks of an event.
    pub(super) fn of_event(&self, event: u64) -> Vec<u64> {
        self.by_id.iter().filter(|(_, task)| task.event == event).map(|(id, _)| *id).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All tasks.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.by_id.keys().copied().collect()
    }
}

fn address(thread: &Thread) -> u64 {
    thread.to_pointer().addr() as u64
}

/// Why a task came back from being resumed.
pub(super) enum Outcome {
    /// The interrupt preempted it.
    Preempted,
    /// It yielded by itself.
    Parked,
    /// It makes a call that waits.
    Called(Option<CallOp>, Vec<Value>),
    /// It returned.
    Finished(Value),
    /// It raised an error.
    Failed(mlua::Error),
}

impl Outcome {
    pub(super) fn of(thread: &Thread, result: mlua::Result<MultiValue>) -> Self {
        let mut values = match result {
            Ok(values) => values.into_vec(),
            Err(error) => return Outcome::Failed(error),
        };
        match tag_number(values.first()) {
            HOST_TAG => {
                let op = CallOp::from_value(values.get(1));
                values.drain(..values.len().min(2));
                Outcome::Called(op, values)
            }
            SCRIPT_TAG => Outcome::Parked,
            _ if values.is_empty() && thread.is_resumable() => Outcome::Preempted,
            _ => Outcome::Finished(values.into_iter().next().unwrap_or(Value::Nil)),
        }
    }
}
