//! The queue of operations for PostgreSQL: a lane for each tenant's writes and one for its reads,
//! which take turns.
//!
//! Writes of one tenant wait for each other in the database, by its lock. So that they do not hold
//! every connection while they do, only one of them has a connection at a time, and the others wait
//! here, in their order; nor do a tenant's reads take them all. Deliberately knows nothing of
//! connections. Owned by [`super::PostgresStore`]; callers push, the threads of `worker.rs` take.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::calls::{self, Joint, PgJob};
use super::{Access, busy, closed};
use crate::base::error::DbError;
use crate::base::limits::{POSTGRES_LANE_MAX, STORE_QUEUE_MAX};
use crate::base::sync::{Lock, Signal};
use crate::wire::data::TenantId;

/// Whose operation it is. Of no tenant are operations on global entries, of the staff, and about
/// all tenants.
pub(super) type JobOwner = Option<TenantId>;

type LaneId = (JobOwner, Access);

/// Operations that fit together, and the lanes that they are of.
type Together = (Vec<Box<dyn PgJob>>, Vec<LaneId>);

/// Operations that wait, and how many threads there may be at each lane's.
pub(super) struct Queue {
    inner: Lock<Inner>,
    /// The queue is closed: for threads that wait for nothing else.
    closed: Signal,
    reads_at_once: usize,
}

#[derive(Default)]
struct Inner {
    lanes: HashMap<LaneId, PgLane>,
    /// Lanes of which an operation may be taken now; a lane that had its turn goes to the end.
    ready: VecDeque<LaneId>,
    /// The same of lanes whose next operation is a get. While a statement of gets is under way they
    /// wait for its end, and go together then.
    ready_gets: VecDeque<LaneId>,
    /// Statements of gets that are under way.
    gets: usize,
    /// Gets have waited for long: one more of these may go.
    may_go: bool,
    /// The two lines take turns.
    was_get: bool,
    waiting: usize,
    /// Threads that wait for an operation. The last to come is the next to get one: what it and its
    /// connection's process in the server use is in the processors' caches still.
    idle: Vec<Arc<Signal>>,
    /// One that was woken has not looked yet: what comes until then it takes together.
    is_waking: bool,
    is_closed: bool,
}

#[derive(Default)]
struct PgLane {
    jobs: VecDeque<Box<dyn PgJob>>,
    /// Threads that are at its operations.
    under_way: usize,
    is_ready: bool,
}

/// What a thread gets from the queue.
pub(super) enum Taken<'q> {
    /// One or more that fit together.
    Jobs(Vec<Box<dyn PgJob>>, PgLaneTurn<'q>),
    /// Nothing came in time.
    Nothing,
    /// The queue is closed, and everything in it was taken.
    End,
}

/// The places of a thread that is at operations of these lanes, given back when it is dropped.
pub(super) struct PgLaneTurn<'q> {
    queue: &'q Queue,
    lanes: Vec<LaneId>,
    are_gets: bool,
}

impl Queue {
    /// A queue for so many threads.
    pub(super) fn new(threads: usize) -> Self {
        // One is the writer's, and one is left to the others.
        let reads_at_once = threads.saturating_sub(2).max(1);
        Self { inner: Lock::default(), closed: Signal::new(), reads_at_once }
    }

    /// Puts an operation at the end of its lane.
    ///
    /// # Errors
    /// `Busy`: there is no room. `Unavailable`: no thread will take it.
    pub(super) fn push(
        &self,
        who: JobOwner,
        access: Access,
        job: Box<dyn PgJob>,
    ) -> Result<(), DbError> {
        let mut inner = self.inner.lock();
        if inner.is_closed {
            return Err(closed());
        }
        let has_room = |inner: &mut Inner| {
            let in_lane = inner.lanes.get(&(who, access)).map_or(0, |lane| lane.jobs.len());
            inner.waiting < STORE_QUEUE_MAX && in_lane < POSTGRES_LANE_MAX
        };
        if !has_room(&mut inner) {
            inner.forget_abandoned();
            if !has_room(&mut inner) {
                return Err(busy());
            }
        }
        inner.lanes.entry((who, access)).or_default().jobs.push_back(job);
        inner.waiting += 1;
        inner.put_in_line((who, access), self.at_once(access));
        inner.wake_for_next();
        Ok(())
    }

    /// The next operation, as soon as there is one; `own` is the calling thread's, and no other's.
    ///
    /// # Blocks
    /// Until then, until the queue is closed, and not longer than `until`.
    pub(super) fn take(&self, until: Option<Instant>, own: &Arc<Signal>) -> Taken<'_> {
        let mut inner = self.inner.lock();
        loop {
            if let Some((mut jobs, lanes)) = inner.pop_together(|access| self.at_once(access)) {
                let are_gets = jobs.first_mut().is_some_and(is_get);
                if are_gets {
                    inner.gets += 1;
                    inner.may_go = false;
                }
                inner.wake_for_next();
                return Taken::Jobs(jobs, PgLaneTurn { queue: self, lanes, are_gets });
            }
            // What waits behind another's turn is taken when that is over.
            if inner.is_closed && inner.waiting == 0 {
                return Taken::End;
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Taken::Nothing;
            }
            inner.idle.push(own.clone());
            inner = own.wait(inner, until);
            // It is there still if the time is over.
            match inner.idle.iter().position(|one| Arc::ptr_eq(one, own)) {
                Some(at) => drop(inner.idle.remove(at)),
                None => inner.is_waking = false,
            }
        }
    }

    /// Waits for the end; true if the queue is closed.
    ///
    /// # Blocks
    /// Not longer than `until`.
    pub(super) fn is_closed_by(&self, until: Instant) -> bool {
        self.closed.wait_until(self.inner.lock(), until, |inner| inner.is_closed).is_closed
    }

    /// Gets have waited for long: those under way may be held up, and a statement more may go.
    pub(super) fn let_gets_go(&self) {
        let mut inner = self.inner.lock();
        inner.may_go = true;
        inner.wake_for_next();
    }

    /// Takes nothing in any more, and wakes everybody.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.is_closed = true;
        inner.wake_all();
        self.closed.notify_all();
    }

    /// Operations that wait.
    pub(super) fn waiting(&self) -> usize {
        self.inner.lock().waiting
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inner.lock().is_closed
    }

    fn at_once(&self, access: Access) -> usize {
        match access {
            Access::Read => self.reads_at_once,
            Access::Write => 1,
        }
    }
}

impl PgLane {
    /// Whether its next operation can be carried out together with those.
    fn fits(&mut self, those: &mut [Box<dyn PgJob>]) -> bool {
        self.jobs.front_mut().is_some_and(|next| calls::fits(those, next))
    }
}

fn is_get(job: &mut Box<dyn PgJob>) -> bool {
    matches!(job.joint(), Some(Joint::Get(_)))
}

impl Inner {
    /// Wakes a thread if there is something for it.
    fn wake_for_next(&mut self) {
        if self.is_waking || self.next_line().is_none() {
            return;
        }
        let thread = self.idle.pop();
        self.is_waking = thread.inspect(|thread| thread.notify_one()).is_some();
    }

    /// The line of which the next operation comes: whether it is that of gets.
    fn next_line(&self) -> Option<bool> {
        let may_get = !self.ready_gets.is_empty() && (self.gets == 0 || self.may_go);
        let is_get = may_get && (self.ready.is_empty() || !self.was_get);
        (is_get || !self.ready.is_empty()).then_some(is_get)
    }

    fn line(&mut self, of_gets: bool) -> &mut VecDeque<LaneId> {
        if of_gets { &mut self.ready_gets } else { &mut self.ready }
    }

    fn wake_all(&mut self) {
        self.idle.drain(..).for_each(|thread| thread.notify_one());
    }

    /// Lets a lane take turns, if it has something that may be taken and does not yet.
    fn put_in_line(&mut self, id: LaneId, at_once: usize) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(next) = lane.jobs.front_mut() else { return };
        if !lane.is_ready && lane.under_way < at_once {
            lane.is_ready = true;
            let of_gets = is_get(next);
            self.line(of_gets).push_back(id);
        }
    }

    fn pop(
        &mut self,
        of_gets: bool,
        at_once: impl Fn(Access) -> usize,
    ) -> Option<(Box<dyn PgJob>, LaneId)> {
        loop {
            let id = self.line(of_gets).pop_front()?;
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            lane.is_ready = false;
            // Those whose callers gave up may have left none.
            let Some(job) = lane.jobs.pop_front() else { continue };
            lane.under_way += 1;
            self.waiting -= 1;
            self.put_in_line(id, at_once(id.1));
            return Some((job, id));
        }
    }

    /// The next operation, and what fits together with it: of the lanes whose turn is next, and
    /// then of those that it has operations of already.
    fn pop_together(&mut self, at_once: impl Fn(Access) -> usize) -> Option<Together> {
        let (mut jobs, mut lanes) = (Vec::new(), Vec::new());
        while jobs.is_empty() {
            self.was_get = self.next_line()?;
            while self.next_fits(self.was_get, &mut jobs) {
                let Some((job, lane)) = self.pop(self.was_get, &at_once) else { break };
                jobs.push(job);
                lanes.push(lane);
            }
        }
        for id in &lanes {
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            while lane.fits(&mut jobs) {
                jobs.extend(lane.jobs.pop_front());
                self.waiting -= 1;
            }
        }
        Some((jobs, lanes))
    }

    /// Whether the next of a line goes together with those; without any, everything does.
    fn next_fits(&mut self, of_gets: bool, those: &mut [Box<dyn PgJob>]) -> bool {
        let Some(next) = self.line(of_gets).front().copied() else { return false };
        those.is_empty() || self.lanes.get_mut(&next).is_some_and(|lane| lane.fits(those))
    }

    /// Makes room: the operations dropped here have no waiter.
    fn forget_abandoned(&mut self) {
        let mut forgotten = 0;
        for lane in self.lanes.values_mut() {
            let before = lane.jobs.len();
            lane.jobs.retain(|job| job.is_wanted());
            forgotten += before - lane.jobs.len();
        }
        self.waiting -= forgotten;
        self.lanes.retain(|_, lane| lane.is_ready || lane.under_way > 0 || !lane.jobs.is_empty());
    }
}

impl Drop for PgLaneTurn<'_> {
    fn drop(&mut self) {
        let mut inner = self.queue.inner.lock();
        if self.are_gets {
            inner.gets -= 1;
            inner.may_go = false;
        }
        for id in &self.lanes {
            let Some(lane) = inner.lanes.get_mut(id) else { continue };
            lane.under_way -= 1;
            if lane.under_way == 0 && lane.jobs.is_empty() && !lane.is_ready {
                inner.lanes.remove(id);
            } else {
                inner.put_in_line(*id, self.queue.at_once(id.1));
            }
        }
        if inner.is_closed && inner.waiting == 0 {
            inner.wake_all();
        } else {
            inner.wake_for_next();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::super::records::{GetWork, RecordAddress};
    use super::super::session::{PgSession, SessionFault};
    use super::*;
    use crate::wire::data::Scopes;

    const SEVEN: usize = 7;
    const LOUD: JobOwner = Some(TenantId::Guild(1));
    const QUIET: JobOwner = Some(TenantId::Guild(2));

    /// Gives its name when it is finished.
    struct Named {
        number: u64,
        finished: Arc<Lock<Vec<u64>>>,
        is_wanted: Arc<AtomicBool>,
        get: Option<GetWork>,
    }

    impl PgJob for Named {
        fn is_wanted(&self) -> bool {
            self.is_wanted.load(Ordering::SeqCst)
        }

        fn begin(&self) -> bool {
            true
        }

        fn attempt(&mut self, _: &mut PgSession) -> Result<(), SessionFault> {
            Ok(())
        }

        fn has_answer(&mut self) -> bool {
            true
        }

        fn finish(self: Box<Self>, _: Result<(), DbError>) {
            self.finished.lock().push(self.number);
        }

        fn joint(&mut self) -> Option<Joint<'_>> {
            self.get.as_mut().map(Joint::Get)
        }
    }

    struct Bench {
        queue: Queue,
        finished: Arc<Lock<Vec<u64>>>,
        is_wanted: Arc<AtomicBool>,
    }

    impl Bench {
        fn new(threads: usize) -> Self {
            Self {
                queue: Queue::new(threads),
                finished: Arc::default(),
                is_wanted: Arc::new(AtomicBool::new(true)),
            }
        }

        fn named(&self, number: u64) -> Box<Named> {
            let (finished, is_wanted) = (Arc::clone(&self.finished), Arc::clone(&self.is_wanted));
            Box::new(Named { number, finished, is_wanted, get: None })
        }

        fn push(&self, who: JobOwner, access: Access, number: u64) -> Result<(), DbError> {
            self.queue.push(who, access, self.named(number))
        }

        /// A get of a tenant with that number.
        fn push_get(&self, number: u64) {
            let (tenant, scopes) = (TenantId::Guild(number), Scopes::default());
            let mut job = self.named(number);
            let address = RecordAddress { tenant, key: "key".to_owned(), scopes };
            job.get = Some(GetWork::new(address, Arc::default()));
            self.queue.push(Some(tenant), Access::Read, job).expect("room");
        }

        /// Takes one if there is one, and stays at it.
        fn take(&self) -> Option<(u64, PgLaneTurn<'_>)> {
            match self.queue.take(Some(Instant::now()), &Arc::default()) {
                Taken::Jobs(jobs, turn) => {
                    jobs.into_iter().for_each(|job| job.finish(Ok(())));
                    Some((*self.finished.lock().last()?, turn))
                }
                Taken::Nothing | Taken::End => None,
            }
        }
    }

    #[test]
    fn one_write_of_a_tenant_at_a_time_and_in_order() {
        let bench = Bench::new(SEVEN);
        for number in 0..3 {
            bench.push(LOUD, Access::Write, number).expect("room");
        }
        for expected in 0..3 {
            let (number, turn) = bench.take().expect("a turn");
            assert_eq!(number, expected);
            assert!(bench.take().is_none(), "another of its writes is under way");
            drop(turn);
        }
        assert!(
            bench.take().is_none() && bench.queue.inner.lock().lanes.is_empty(),
            "nothing is left behind"
        );
    }

    #[test]
    fn a_tenant_s_reads_leave_a_connection_to_others() {
        let bench = Bench::new(SEVEN);
        for number in 0..100 {
            bench.push(LOUD, Access::Read, number).expect("room");
            bench.push(LOUD, Access::Write, 1000 + number).expect("room");
        }
        let mut turns: Vec<_> = std::iter::from_fn(|| bench.take()).collect();
        assert_eq!(turns.len(), SEVEN - 1);
        bench.push(QUIET, Access::Write, 7).expect("room");
        turns.push(bench.take().expect("a turn"));
        assert_eq!(turns.last().map(|(number, _)| *number), Some(7));
    }

    #[test]
    fn lanes_take_turns() {
        let bench = Bench::new(SEVEN);
        for number in 0..100 {
            bench.push(LOUD, Access::Read, number).expect("room");
        }
        bench.push(QUIET, Access::Read, 100).expect("room");
        bench.push(None, Access::Read, 200).expect("room");
        let order: Vec<u64> =
            (0..5).filter_map(|_| bench.take().map(|(number, _)| number)).collect();
        assert_eq!(order, [0, 100, 200, 1, 2]);
    }

    #[test]
    fn gets_go_together_when_those_under_way_are_over() {
        let bench = Bench::new(SEVEN);
        bench.push_get(0);
        let (_, first) = bench.take().expect("none is under way");
        (1..4).for_each(|number| bench.push_get(number));
        bench.push(None, Access::Read, 100).expect("room");
        assert_eq!(bench.take().map(|(number, _)| number), Some(100), "others go on");
        assert!(bench.take().is_none());
        drop(first);
        let (_, _second) = bench.take().expect("a turn");
        assert_eq!(*bench.finished.lock(), [0, 100, 1, 2, 3]);
    }

    #[test]
    fn a_statement_of_gets_that_hangs_holds_up_no_others() {
        let bench = Bench::new(SEVEN);
        bench.push_get(0);
        let hanging = bench.take().expect("a turn");
        bench.push_get(1);
        assert!(bench.take().is_none());
        bench.queue.let_gets_go();
        let (number, second) = bench.take().expect("one more may go");
        bench.push_get(2);
        assert!(number == 1 && bench.take().is_none(), "one more, and not any number");
        drop(second);
        assert!(bench.take().is_none());
        bench.queue.let_gets_go();
        assert_eq!(bench.take().map(|(number, _)| number), Some(2));
        drop(hanging);
    }

    #[test]
    fn a_thread_that_was_woken_takes_what_comes_until_it_looks() {
        let bench = Bench::new(SEVEN);
        bench.queue.inner.lock().idle = vec![Arc::default(), Arc::default()];
        (0..3).for_each(|number| bench.push_get(number));
        assert_eq!(bench.queue.inner.lock().idle.len(), 1);
    }

    #[test]
    fn a_full_lane_is_one_tenants_and_forgets_the_given_up() {
        let bench = Bench::new(SEVEN);
        for number in 0..POSTGRES_LANE_MAX as u64 {
            bench.push(LOUD, Access::Write, number).expect("room");
        }
        assert_eq!(bench.push(LOUD, Access::Write, 0), Err(busy()));
        bench.push(QUIET, Access::Write, 1).expect("room");
        bench.is_wanted.store(false, Ordering::SeqCst);
        bench.push(LOUD, Access::Write, 7).expect("room again");
        assert_eq!(bench.take().map(|(number, _)| number), Some(7));
        assert!(bench.take().is_none());
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_ends() {
        let bench = Bench::new(SEVEN);
        for number in 0..3 {
            bench.push(LOUD, Access::Write, number).expect("room");
        }
        bench.queue.close();
        assert_eq!(bench.push(QUIET, Access::Read, 9), Err(closed()));
        let far = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            for _ in 0..SEVEN {
                scope.spawn(|| {
                    let own = Arc::default();
                    while let Taken::Jobs(jobs, _turn) = bench.queue.take(Some(far), &own) {
                        jobs.into_iter().for_each(|job| job.finish(Ok(())));
                    }
                });
            }
        });
        assert!(Instant::now() < far, "whoever waits is woken");
        assert_eq!(*bench.finished.lock(), [0, 1, 2]);
        assert!(bench.queue.is_closed_by(far));
    }
}
