//! Who is connected: the table of one server's connections, its bound, and making room when it is full.
//!
//! Invariant: an entry lives exactly as long as its connection's thread does its work; the thread removes it as its last
//! act and leaves its own handle behind to be joined. Used by the acceptor, by every connection's thread and by shutdown.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::thread::OwnedThread;

/// How long the acceptor waits for a displaced connection to leave: it was only reading, so this is ample.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// What one connection is doing, without a lock: two of these a request are on the hot path.
///
/// Invariant: a connection that answers a request is never displaced, and a displaced one never starts to answer.
pub(super) struct Slot(AtomicU64);

const BUSY: u64 = u64::MAX;
const DISPLACED: u64 = u64::MAX - 1;

impl Slot {
    fn new(now_us: u64) -> Self {
        Self(AtomicU64::new(now_us))
    }

    /// From waiting for the peer to answering it; false if the connection was displaced meanwhile and must end.
    pub(super) fn begin(&self) -> bool {
        let state = self.0.load(Ordering::SeqCst);
        state != DISPLACED && self.0.compare_exchange(state, BUSY, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Back to waiting for the peer.
    pub(super) fn rest(&self, now_us: u64) {
        let _ = self.0.compare_exchange(BUSY, now_us, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn waiting_since(&self) -> Option<u64> {
        let state = self.0.load(Ordering::SeqCst);
        (state < DISPLACED).then_some(state)
    }

    fn displace(&self, since: u64) -> bool {
        self.0.compare_exchange(since, DISPLACED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

struct Entry {
    slot: Arc<Slot>,
    // None once the connection was handed over to another owner.
    stream: Option<Arc<TcpStream>>,
    thread: OwnedThread,
}

#[derive(Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    /// Threads that have done their work. Bound: the connections there were when the last one was admitted.
    ended: Vec<OwnedThread>,
    next_id: u64,
}

/// The connections of one server.
pub(super) struct Registry {
    table: Mutex<Table>,
    changed: Condvar,
    stopping: AtomicBool,
    started: Instant,
    max: usize,
}

/// Why a connection was not admitted.
pub(super) enum NotAdmitted {
    /// Every connection is answering a request.
    Full,
    /// The operating system refused a thread.
    NoThread(std::io::Error),
}

impl Registry {
    pub(super) fn new(max: usize) -> Self {
        Self {
            table: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            max,
        }
    }

    /// The clock of the slots.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(DISPLACED - 1)
    }

    pub(super) fn open(&self) -> usize {
        self.lock().entries.len()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Enters a connection and starts its thread. True if another had to make room.
    ///
    /// # Blocks
    /// At most `ROOM_TIMEOUT`, when full.
    pub(super) fn admit(
        &self,
        stream: &Arc<TcpStream>,
        spawn: impl FnOnce(u64, Arc<Slot>) -> std::io::Result<OwnedThread>,
    ) -> Result<bool, NotAdmitted> {
        self.join_ended();
        let mut displaced = false;
        let mut table = self.lock();
        if table.entries.len() >= self.max {
            displaced = displace_oldest(&table);
            let is_full = |table: &mut Table| table.entries.len() >= self.max;
            if displaced {
                let waited = self.changed.wait_timeout_while(table, ROOM_TIMEOUT, is_full);
                table = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if is_full(&mut table) {
                return Err(NotAdmitted::Full);
            }
        }
        let id = table.next_id;
        table.next_id += 1;
        let slot = Arc::new(Slot::new(self.now_us()));
        // The lock is held across the spawn, so that the thread cannot leave before it is entered.
        let thread = spawn(id, Arc::clone(&slot)).map_err(NotAdmitted::NoThread)?;
        table.entries.insert(id, Entry { slot, stream: Some(Arc::clone(stream)), thread });
        Ok(displaced)
    }

    /// A connection's thread is at its end.
    pub(super) fn leave(&self, id: u64) {
        let mut table = self.lock();
        if let Some(entry) = table.entries.remove(&id) {
            table.ended.push(entry.thread);
        }
        drop(table);
        self.changed.notify_all();
    }

    /// A connection's socket gets another owner; its place is taken until its thread leaves.
    pub(super) fn hand_over(&self, id: u64) {
        if let Some(entry) = self.lock().entries.get_mut(&id) {
            entry.stream = None;
        }
    }

    /// Ends the connection that has been waiting longest, if there is one: when descriptors ran out.
    pub(super) fn displace_one(&self) -> bool {
        displace_oldest(&self.lock())
    }

    /// Refuses new requests and ends every connection that waits for its peer.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for entry in self.lock().entries.values() {
            if entry.slot.waiting_since().is_some_and(|since| entry.slot.displace(since)) {
                entry.shut_down();
            }
        }
        self.changed.notify_all();
    }

    /// Ends every socket; handlers that run are not ended by this.
    pub(super) fn shut_down_all(&self) {
        self.lock().entries.values().for_each(Entry::shut_down);
    }

    /// Waits until every connection has left; false at the deadline.
    pub(super) fn wait_empty(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, |table| !table.entries.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.entries.is_empty()
    }

    /// Waits for a while, or until the server stops.
    pub(super) fn pause(&self, time: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |_| !self.is_stopping());
        drop(waited);
    }

    /// Joins the threads that have left; each is at its very end.
    pub(super) fn join_ended(&self) {
        let ended = std::mem::take(&mut self.lock().ended);
        for thread in ended {
            thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that runs under this lock leaves the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn shut_down(&self) {
        if let Some(stream) = &self.stream {
            // It fails only if the peer has gone, which is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Ends the connection that has been waiting longest for its peer; false if none waits.
fn displace_oldest(table: &Table) -> bool {
    loop {
        let waiting = table.entries.values().filter_map(|entry| Some((entry.slot.waiting_since()?, entry)));
        let Some((since, entry)) = waiting.min_by_key(|(since, _)| *since) else { return false };
        // If it started to answer at this moment, the next one is it.
        if entry.slot.displace(since) {
            entry.shut_down();
            return true;
        }
    }
}
