//! The connections to PostgreSQL and who waits for one: a lane for each tenant's writes and one for its reads, which take turns.
//!
//! A caller borrows a connection and uses it on its own thread. If none is free it waits, in its lane, and who gives one back
//! hands it over. Writes of one tenant wait for each other in the database, by its lock: so that they do not hold every
//! connection while they do, only one of them has a connection at a time; nor do a tenant's reads take them all. Deliberately
//! makes no connections: the thread of `connector.rs` asks here whether one is wanted. Shared by that thread and
//! [`super::PostgresStore`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Access;
use crate::limits::{POSTGRES_LANE_MAX, STORE_QUEUE_MAX, STORE_REOPEN_MAX, STORE_REOPEN_MIN};
use crate::model::TenantId;

/// Whose operation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Tenant(TenantId),
    /// What is of no tenant: the shop, its staff, and what is about all tenants.
    Everybody,
}

type LaneId = (Who, Access);

/// What the pool has to know of a connection.
pub(super) trait Connection: Send {
    /// Whether it is known to be of no use any more.
    fn is_closed(&self) -> bool;

    /// Whether it looks as if it could be used; does not block.
    fn is_alive(&self) -> bool;
}

/// Connections that are free, and callers that wait for one.
pub(super) struct Pool<C> {
    inner: Mutex<Inner<C>>,
    /// A connection may be wanted, or the pool is closed.
    wanted: Condvar,
    /// The pool is closed, and nobody has a connection or waits for one.
    over: Condvar,
    connections_max: usize,
    reads_at_once: usize,
}

struct Inner<C> {
    lanes: HashMap<LaneId, Lane<C>>,
    /// Lanes of which a caller may be served now; whoever had its turn goes to the end.
    ready: VecDeque<LaneId>,
    /// Callers who have their turn and lost its connection.
    bereft: VecDeque<Waiter<C>>,
    /// Callers in lanes.
    waiting: usize,
    /// The one that was used last is the first to be used again: the server has it in its caches.
    idle: Vec<Box<C>>,
    /// Connections that there are, lent or idle.
    open: usize,
    /// Callers that have their turn.
    turns: usize,
    next_waiter: u64,
    /// None while the server can be reached, as far as is known.
    down: Option<Down>,
    is_closed: bool,
}

/// How attempts to reach a server that is away are spread.
struct Down {
    next_attempt: Instant,
    pause: Duration,
}

struct Lane<C> {
    waiters: VecDeque<Waiter<C>>,
    /// Callers that have their turn.
    under_way: usize,
    is_ready: bool,
}

/// Dropped without a word: there will be no connection.
struct Waiter<C> {
    number: u64,
    /// Has room for the one connection.
    connection_tx: Sender<Box<C>>,
}

/// Why no connection was lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotLent {
    /// Too many wait already.
    Full,
    Closed,
    /// The server is away, or no connection was free in time.
    Unavailable,
}

/// What the connecting thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Connect,
    End,
}

/// What a failed attempt to connect changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    JustLost,
    StillLost,
}

/// A caller's turn, with a connection as long as it has not lost it. Over when dropped.
pub(super) struct Loan<'p, C: Connection> {
    pool: &'p Pool<C>,
    lane: LaneId,
    connection: Option<Box<C>>,
}

/// A caller's place among those that wait.
enum Place {
    Lane(LaneId),
    Bereft,
}

impl<C: Connection> Pool<C> {
    /// A pool of at most so many connections.
    pub(super) fn new(connections_max: usize) -> Self {
        // One is the writer's, and one is left to the others.
        let reads_at_once = connections_max.saturating_sub(2).max(1);
        let (wanted, over) = Default::default();
        Self { inner: Mutex::new(Inner::new()), wanted, over, connections_max, reads_at_once }
    }

    /// Lends a connection.
    ///
    /// # Blocks
    /// Until one is free and it is this caller's turn, not longer than `until`.
    ///
    /// # Errors
    /// There is none for it.
    pub(super) fn borrow(&self, who: Who, access: Access, until: Instant) -> Result<Loan<'_, C>, NotLent> {
        let id = (who, access);
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(NotLent::Closed);
        }
        let under_way = inner.lanes.get(&id).map_or(0, |lane| lane.under_way);
        // While one is idle, nobody waits who might have it.
        if under_way < self.at_once(access)
            && let Some(connection) = inner.idle.pop()
        {
            inner.begin_turn(id);
            return Ok(Loan { pool: self, lane: id, connection: Some(connection) });
        }
        if inner.is_out_of_reach() {
            return Err(NotLent::Unavailable);
        }
        let in_lane = inner.lanes.get(&id).map_or(0, |lane| lane.waiters.len());
        if inner.waiting >= STORE_QUEUE_MAX || in_lane >= POSTGRES_LANE_MAX {
            return Err(NotLent::Full);
        }
        let (waiter, connection_rx) = inner.new_waiter();
        let number = waiter.number;
        inner.lanes.entry(id).or_default().waiters.push_back(waiter);
        inner.waiting += 1;
        inner.put_in_line(id, self.at_once(access));
        self.ask_for_connection(inner);
        let connection = self.wait(number, &Place::Lane(id), &connection_rx, until)?;
        Ok(Loan { pool: self, lane: id, connection: Some(connection) })
    }

    /// Waits for what another hands over. A connection that comes in the last moment is taken.
    fn wait(
        &self,
        number: u64,
        place: &Place,
        connection_rx: &Receiver<Box<C>>,
        until: Instant,
    ) -> Result<Box<C>, NotLent> {
        if let Ok(connection) = connection_rx.recv_deadline(until) {
            return Ok(connection);
        }
        let given_up = self.lock().remove(number, place);
        // Who took it out of the line is about to hand over, or to let it go.
        if given_up { Err(NotLent::Unavailable) } else { connection_rx.recv().map_err(|_| NotLent::Unavailable) }
    }

    /// What the connecting thread is to do next.
    ///
    /// # Blocks
    /// Until there is something, or the pool is closed and nobody needs a connection any more.
    pub(super) fn next_wish(&self) -> Wish {
        let mut inner = self.lock();
        loop {
            let next_attempt = inner.down.as_ref().map(|down| down.next_attempt);
            if inner.is_over() {
                return Wish::End;
            }
            // After the end nobody looks for a server that is away.
            let left = match next_attempt.filter(|_| !inner.is_closed) {
                None if next_attempt.is_none() && inner.wants_connection(self.connections_max) => return Wish::Connect,
                None => None,
                Some(at) => Some(at.saturating_duration_since(Instant::now())),
            };
            inner = match left {
                Some(Duration::ZERO) => return Wish::Connect,
                Some(left) => self.wanted.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wanted.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Takes a new connection in; true if the server was away.
    pub(super) fn add(&self, connection: Box<C>) -> bool {
        let mut inner = self.lock();
        let was_down = inner.down.take().is_some();
        inner.open += 1;
        self.pass_on(inner, Some(connection));
        was_down
    }

    /// No connection could be made. If there is none at all, nobody waits for one any more.
    pub(super) fn connecting_failed(&self) -> Reach {
        let mut inner = self.lock();
        let reach = if inner.down.is_some() { Reach::StillLost } else { Reach::JustLost };
        let pause = inner.down.as_ref().map_or(STORE_REOPEN_MIN, |down| (down.pause * 2).min(STORE_REOPEN_MAX));
        inner.down = Some(Down { next_attempt: Instant::now() + pause, pause });
        if inner.open == 0 {
            inner.send_away();
        }
        reach
    }

    /// Lends nothing any more; who waits is served still.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.wanted.notify_all();
        self.over.notify_all();
    }

    /// Waits until nobody has a connection or waits for one, and ends those that there are. True if nobody has.
    ///
    /// # Blocks
    /// Not longer than `until`.
    pub(super) fn wait_until_over(&self, until: Instant) -> bool {
        let mut inner = self.lock();
        while !inner.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.over.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let idle = std::mem::take(&mut inner.idle);
        inner.open -= idle.len();
        let is_over = inner.is_over();
        drop(inner);
        drop(idle);
        is_over
    }

    /// Callers that wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Connections that there are.
    pub(super) fn open(&self) -> usize {
        self.lock().open
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Hands a connection that is free to whoever is next, after one came or a turn ended; asks for one more if that is not
    /// enough.
    fn pass_on(&self, mut inner: MutexGuard<'_, Inner<C>>, connection: Option<Box<C>>) {
        inner.idle.extend(connection);
        // At most one may be served who could not before.
        let next = if inner.idle.is_empty() { None } else { inner.pop(|access| self.at_once(access)) };
        let handed_over = next.and_then(|waiter| Some((waiter, inner.idle.pop()?)));
        self.ask_for_connection(inner);
        if let Some((waiter, connection)) = handed_over {
            // It waits, or is about to look.
            let _ = waiter.connection_tx.send(connection);
        }
    }

    /// Wakes the connecting thread if it has something to do.
    fn ask_for_connection(&self, inner: MutexGuard<'_, Inner<C>>) {
        let is_wanted = inner.wants_connection(self.connections_max);
        self.tell_if_over(inner);
        if is_wanted {
            self.wanted.notify_one();
        }
    }

    fn tell_if_over(&self, inner: MutexGuard<'_, Inner<C>>) {
        let is_over = inner.is_over();
        drop(inner);
        if is_over {
            self.wanted.notify_all();
            self.over.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<C>> {
        // Nothing under this lock can panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_once(&self, access: Access) -> usize {
        match access {
            Access::Read => self.reads_at_once,
            Access::Write => 1,
        }
    }
}

impl<C: Connection> Inner<C> {
    fn new() -> Self {
        let (lanes, ready, bereft, idle) = Default::default();
        let (waiting, open, turns, next_waiter) = Default::default();
        Self { lanes, ready, bereft, waiting, idle, open, turns, next_waiter, down: None, is_closed: false }
    }

    fn new_waiter(&mut self) -> (Waiter<C>, Receiver<Box<C>>) {
        let (connection_tx, connection_rx) = bounded(1);
        self.next_waiter += 1;
        (Waiter { number: self.next_waiter, connection_tx }, connection_rx)
    }

    /// The server is away, and no connection to it is left.
    fn is_out_of_reach(&self) -> bool {
        self.down.is_some() && self.open == 0
    }

    /// Whether somebody would have a connection if there were one more.
    fn wants_connection(&self, connections_max: usize) -> bool {
        self.open < connections_max && self.idle.is_empty() && !(self.bereft.is_empty() && self.ready.is_empty())
    }

    fn is_over(&self) -> bool {
        self.is_closed && self.waiting == 0 && self.turns == 0
    }

    /// Lets a lane take turns, if somebody of it may be served and it does not yet.
    fn put_in_line(&mut self, id: LaneId, at_once: usize) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if !lane.is_ready && !lane.waiters.is_empty() && lane.under_way < at_once {
            lane.is_ready = true;
            self.ready.push_back(id);
        }
    }

    fn begin_turn(&mut self, id: LaneId) {
        self.lanes.entry(id).or_default().under_way += 1;
        self.turns += 1;
    }

    fn end_turn(&mut self, id: LaneId, at_once: usize) {
        self.turns -= 1;
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.under_way -= 1;
        if lane.is_needed() {
            self.put_in_line(id, at_once);
        } else {
            self.lanes.remove(&id);
        }
    }

    /// Who is served next, taken out of the line.
    fn pop(&mut self, at_once: impl Fn(Access) -> usize) -> Option<Waiter<C>> {
        if let Some(waiter) = self.bereft.pop_front() {
            return Some(waiter);
        }
        loop {
            let id = self.ready.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            lane.is_ready = false;
            // Those who gave up may have left none.
            let Some(waiter) = lane.waiters.pop_front() else {
                if !lane.is_needed() {
                    self.lanes.remove(&id);
                }
                continue;
            };
            self.waiting -= 1;
            self.begin_turn(id);
            self.put_in_line(id, at_once(id.1));
            return Some(waiter);
        }
    }

    /// Takes one who gives up out of the line; false if another did.
    fn remove(&mut self, number: u64, place: &Place) -> bool {
        let waiters = match place {
            Place::Bereft => Some(&mut self.bereft),
            Place::Lane(id) => self.lanes.get_mut(id).map(|lane| &mut lane.waiters),
        };
        let Some(waiters) = waiters else { return false };
        let Some(at) = waiters.iter().position(|waiter| waiter.number == number) else { return false };
        waiters.remove(at);
        if let Place::Lane(id) = place {
            self.waiting -= 1;
            if self.lanes.get(id).is_some_and(|lane| !lane.is_needed()) {
                self.lanes.remove(id);
            }
        }
        true
    }

    /// Tells all who wait that there will be no connection.
    fn send_away(&mut self) {
        self.bereft.clear();
        self.ready.clear();
        self.waiting = 0;
        for lane in self.lanes.values_mut() {
            lane.waiters.clear();
            lane.is_ready = false;
        }
        self.lanes.retain(|_, lane| lane.is_needed());
    }
}

impl<C> Lane<C> {
    fn is_needed(&self) -> bool {
        self.is_ready || self.under_way > 0 || !self.waiters.is_empty()
    }
}

impl<C> Default for Lane<C> {
    fn default() -> Self {
        Self { waiters: VecDeque::new(), under_way: 0, is_ready: false }
    }
}

impl<C: Connection> Loan<'_, C> {
    /// The connection; another one, if that was lost.
    ///
    /// # Blocks
    /// Until there is another one, not longer than `until`.
    pub(super) fn connection(&mut self, until: Instant) -> Option<&mut C> {
        if self.connection.as_ref().is_some_and(|connection| connection.is_closed()) {
            self.discard();
        }
        if self.connection.is_none() {
            self.connection = self.another(until);
        }
        self.connection.as_deref_mut()
    }

    /// Lets the connection go for good.
    ///
    /// What ended it may have ended others that nobody uses just now: they are looked at, so that the next caller gets none of
    /// them.
    pub(super) fn discard(&mut self) {
        let Some(lost) = self.connection.take() else { return };
        let mut inner = self.pool.lock();
        let (alive, dead): (Vec<_>, Vec<_>) = inner.idle.drain(..).partition(|connection| connection.is_alive());
        inner.idle = alive;
        inner.open -= 1 + dead.len();
        if inner.is_out_of_reach() {
            inner.send_away();
        }
        self.pool.ask_for_connection(inner);
        drop((lost, dead));
    }

    fn another(&self, until: Instant) -> Option<Box<C>> {
        let mut inner = self.pool.lock();
        if let Some(connection) = inner.idle.pop() {
            return Some(connection);
        }
        if inner.is_out_of_reach() {
            return None;
        }
        let (waiter, connection_rx) = inner.new_waiter();
        let number = waiter.number;
        inner.bereft.push_back(waiter);
        self.pool.ask_for_connection(inner);
        self.pool.wait(number, &Place::Bereft, &connection_rx, until).ok()
    }
}

impl<C: Connection> Drop for Loan<'_, C> {
    fn drop(&mut self) {
        if self.connection.as_ref().is_some_and(|connection| connection.is_closed()) {
            self.discard();
        }
        let mut inner = self.pool.lock();
        inner.end_turn(self.lane, self.pool.at_once(self.lane.1));
        self.pool.pass_on(inner, self.connection.take());
    }
}

#[cfg(test)]
mod tests;
