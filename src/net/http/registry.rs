//! The connected peers: the table of one server's connections, its bound, and making room when it
//! is full.
//!
//! Invariant: an entry lives exactly as long as its connection's thread does its work; the thread
//! removes it as its last act and leaves its own handle behind to be joined. Used by the acceptor,
//! by every connection's thread and by shutdown.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::base::sync::{Lock, Signal};
use crate::base::thread::OwnedThread;
use crate::net::stream::Stream;

/// How long the acceptor waits for a displaced connection to leave: it was only reading, so this is
/// ample.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the acceptor waits for a connection's thread to find out whether a whole request has
/// arrived.
const ARRIVAL_PAUSE: Duration = Duration::from_millis(5);

/// Ended threads that are joined later: joining the very last one would wait for it to be
/// scheduled, at every accept.
const ENDED_KEPT: usize = 8;

/// What one connection is doing and since when, without a lock: several of these a request are on
/// the hot path.
///
/// Invariant: a connection whose request a handler has begun to answer is never displaced before
/// the answer is made, and a displaced one never begins.
pub(super) struct ConnectionSlot {
    state: AtomicU64,
    /// Wakes the connection's thread; without it, the end of its socket does.
    waker: OnceLock<Waker>,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Its peer has sent something that its thread has not read yet, a whole request perhaps: never
    /// displaced.
    Arrived,
    /// It waits for bytes of its peer: displaced at need.
    Waiting,
    /// It answers a request: never displaced.
    Answering,
    /// It waits for its peer to take the answer: displaced at need if that takes long.
    Writing,
    /// It made room for another: it ends.
    Displaced,
}

impl Doing {
    const BITS: u32 = 3;

    fn packed(self, since_us: u64) -> u64 {
        since_us << Self::BITS | self as u64
    }

    fn unpacked(state: u64) -> (Self, u64) {
        let doing = match state & 7 {
            0 => Doing::Arrived,
            1 => Doing::Waiting,
            2 => Doing::Answering,
            3 => Doing::Writing,
            _ => Doing::Displaced,
        };
        (doing, state >> Self::BITS)
    }
}

impl ConnectionSlot {
    fn new(now_us: u64) -> Self {
        let state = AtomicU64::new(Doing::Arrived.packed(now_us));
        Self { state, waker: OnceLock::new() }
    }

    /// Goes on to something else; false if the connection was displaced meanwhile and must end.
    pub(super) fn enter(&self, doing: Doing, now_us: u64) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        // Only two threads ever change it, and the other's change is to Displaced, for good.
        Doing::unpacked(state).0 != Doing::Displaced && self.swap(state, doing.packed(now_us))
    }

    /// Gives the connection's thread a waker, so that it can still read when it is to end.
    #[cfg(feature = "http2")]
    pub(super) fn wake_by(&self, waker: Waker) {
        // Called once for each connection.
        let _ = self.waker.set(waker);
    }

    pub(super) fn has_arrived(&self) -> bool {
        self.look().0 == Doing::Arrived
    }

    pub(super) fn is_displaced(&self) -> bool {
        self.look().0 == Doing::Displaced
    }

    fn look(&self) -> (Doing, u64) {
        Doing::unpacked(self.state.load(Ordering::SeqCst))
    }

    fn displace(&self, (doing, since_us): (Doing, u64)) -> bool {
        self.swap(doing.packed(since_us), Doing::Displaced.packed(since_us))
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

struct ConnectionEntry {
    slot: Arc<ConnectionSlot>,
    // None once the connection was handed over to another owner.
    stream: Option<Arc<Stream>>,
    thread: OwnedThread,
}

#[derive(Default)]
struct ConnectionTable {
    entries: HashMap<u64, ConnectionEntry>,
    /// Threads that have done their work. Bound: the connections there were when the last one was
    /// admitted, and twice [`ENDED_KEPT`].
    ended: Vec<OwnedThread>,
    next_id: u64,
}

/// The connections of one server.
pub(super) struct Registry {
    table: Lock<ConnectionTable>,
    changed: Signal,
    stopping: AtomicBool,
    started: Instant,
    max: usize,
    stalled_after: Duration,
}

/// Why a connection was not admitted.
pub(super) enum NotAdmitted {
    /// Every connection is answering a request.
    Full,
    /// The operating system refused a thread.
    NoThread(std::io::Error),
}

impl Registry {
    pub(super) fn new(max: usize, stalled_after: Duration) -> Self {
        Self {
            table: Lock::default(),
            changed: Signal::new(),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            max,
            stalled_after,
        }
    }

    /// The clock of the slots.
    pub(super) fn now_us(&self) -> u64 {
        // 64 bits less three hold 73,000 years.
        self.started.elapsed().as_micros() as u64
    }

    pub(super) fn open(&self) -> usize {
        self.table.lock().entries.len()
    }

    /// Connections that wait for their peer.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let table = self.table.lock();
        table.entries.values().filter(|entry| entry.slot.look().0 == Doing::Waiting).count()
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
        stream: &Arc<Stream>,
        spawn: impl FnOnce(u64, Arc<ConnectionSlot>) -> std::io::Result<OwnedThread>,
    ) -> Result<bool, NotAdmitted> {
        self.join_ended(ENDED_KEPT);
        let mut displaced = false;
        let mut table = self.table.lock();
        let deadline = Instant::now() + ROOM_TIMEOUT;
        while table.entries.len() >= self.max {
            let left = deadline.saturating_duration_since(Instant::now());
            let makes_room = !left.is_zero() && self.displace_in(&table);
            displaced |= makes_room;
            let patience = match makes_room {
                true => left,
                false if table.entries.values().any(|entry| entry.slot.has_arrived()) => {
                    left.min(ARRIVAL_PAUSE)
                }
                false => Duration::ZERO,
            };
            if patience.is_zero() {
                return Err(NotAdmitted::Full);
            }
            let has_room = |table: &mut ConnectionTable| table.entries.len() < self.max;
            table = self.changed.wait_until(table, Instant::now() + patience, has_room);
        }
        let id = table.next_id;
        table.next_id += 1;
        let slot = Arc::new(ConnectionSlot::new(self.now_us()));
        // The lock is held across the spawn, so that the thread cannot leave before it is entered.
        let thread = spawn(id, Arc::clone(&slot)).map_err(NotAdmitted::NoThread)?;
        table
            .entries
            .insert(id, ConnectionEntry { slot, stream: Some(Arc::clone(stream)), thread });
        Ok(displaced)
    }

    /// A connection's thread is at its end.
    pub(super) fn leave(&self, id: u64) {
        let mut table = self.table.lock();
        if let Some(entry) = table.entries.remove(&id) {
            table.ended.push(entry.thread);
        }
        drop(table);
        self.changed.notify_all();
    }

    /// A connection's socket gets another owner; its place is taken until its thread leaves.
    pub(super) fn hand_over(&self, id: u64) {
        if let Some(entry) = self.table.lock().entries.get_mut(&id) {
            entry.stream = None;
        }
    }

    /// Ends one connection if any may be, and waits until it has left, or for `time` (or the stop):
    /// for when descriptors ran out. True if one was ended.
    pub(super) fn displace_or_pause(&self, time: Duration) -> bool {
        let table = self.table.lock();
        let before = table.entries.len();
        let displaced = self.displace_in(&table);
        let is_over = |table: &mut ConnectionTable| {
            self.is_stopping() || displaced && table.entries.len() < before
        };
        drop(self.changed.wait_until(table, Instant::now() + time, is_over));
        displaced
    }

    /// Ends every connection that waits for its peer, and lets no other begin a further request.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for entry in self.table.lock().entries.values() {
            let state = entry.slot.look();
            if matches!(state.0, Doing::Arrived | Doing::Waiting) && entry.slot.displace(state) {
                entry.call_away();
            } else if let Some(waker) = entry.slot.waker.get() {
                // It takes no further requests, and its peer is told.
                waker.wake_by_ref();
            }
        }
        self.changed.notify_all();
    }

    /// Ends every socket; handlers that run are not ended by this.
    pub(super) fn shut_down_all(&self) {
        self.table.lock().entries.values().for_each(|entry| entry.shut_down(Shutdown::Both));
    }

    /// Waits until every connection has left; false at the deadline.
    pub(super) fn wait_until_empty(&self, deadline: Instant) -> bool {
        let is_empty = |table: &mut ConnectionTable| table.entries.is_empty();
        self.changed.wait_until(self.table.lock(), deadline, is_empty).entries.is_empty()
    }

    /// Joins the threads that have left, but for the last `kept`: each is at its very end.
    pub(super) fn join_ended(&self, kept: usize) {
        let mut table = self.table.lock();
        if table.ended.len() <= 2 * kept {
            return;
        }
        let old = table.ended.len() - kept;
        let old: Vec<_> = table.ended.drain(..old).collect();
        drop(table);
        for thread in old {
            thread.join();
        }
    }

    /// Ends the connection that has been waiting longest for its peer, or else the one that has
    /// been writing longest to a peer that does not read; false if there is neither.
    fn displace_in(&self, table: &ConnectionTable) -> bool {
        let stalled_us = self.now_us().saturating_sub(self.stalled_after.as_micros() as u64);
        loop {
            let candidates = table.entries.values().filter_map(|entry| match entry.slot.look() {
                (Doing::Waiting, since_us) => Some((0, since_us, entry)),
                (Doing::Writing, since_us) if since_us <= stalled_us => Some((1, since_us, entry)),
                _ => None,
            });
            let Some((kind, since_us, entry)) =
                candidates.min_by_key(|(kind, since_us, _)| (*kind, *since_us))
            else {
                return false;
            };
            // If it went on at this moment, the next one is it.
            if kind == 0 && entry.slot.displace((Doing::Waiting, since_us)) {
                // Its reader wakes, and may still say 503 if its peer had begun to ask.
                entry.call_away();
                return true;
            }
            if kind == 1 && entry.slot.displace((Doing::Writing, since_us)) {
                entry.shut_down(Shutdown::Both);
                return true;
            }
        }
    }
}

impl ConnectionEntry {
    /// Wakes the thread of a connection that was displaced while it waited.
    fn call_away(&self) {
        match self.slot.waker.get() {
            Some(waker) => waker.wake_by_ref(),
            None => self.shut_down(Shutdown::Read),
        }
    }

    fn shut_down(&self, how: Shutdown) {
        if let Some(stream) = &self.stream {
            // It fails only if the peer has gone, which is as good.
            let _ = stream.shutdown(how);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_goes_on_until_it_is_displaced() {
        let slot = ConnectionSlot::new(5);
        assert_eq!(slot.look(), (Doing::Arrived, 5));
        for doing in [Doing::Answering, Doing::Writing, Doing::Waiting] {
            assert!(slot.enter(doing, 9));
            assert_eq!(slot.look(), (doing, 9));
        }
        assert!(!slot.displace((Doing::Waiting, 8)), "it went on meanwhile");
        assert!(slot.displace((Doing::Waiting, 9)));
        assert!(slot.is_displaced());
        assert!(!slot.enter(Doing::Answering, 10));
        assert!(slot.is_displaced());
    }
}
