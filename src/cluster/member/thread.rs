//! The coordination thread: it runs the machine, has questions asked, loads and leaves carried out,
//! and keeps the table.
//!
//! It waits for notes only, until the machine or an answer is due: what blocks has a thread of its
//! own, which sends a note when it is done.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::helper::Helper;
use super::machine::{ClusterAction, ClusterEvent, ClusterMachine};
use super::{ClusterShared, JoinError, ShardTable, ShardTenants};
use crate::base::error::DbError;
use crate::base::limits::{CLUSTER_ANSWER_MAX, CLUSTER_HELPERS_LEFT_MAX};
use crate::base::thread::{self, OwnedThread, ThreadExit};
use crate::cluster::clock::boot_time;
use crate::store::lease::{
    ClusterLook, ConnectCoordination, JoinRefusal, LeaseAsk, LeaseTold, MasterState, Membership,
};
use crate::wire::data::sharding::{SHARDS, ShardSet};

/// The longest that the thread waits without a reason.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What others tell the coordination thread.
pub(super) enum ClusterNote {
    /// What the helper of this number was told.
    Answer(u64, Result<LeaseTold, DbError>),
    /// A thread of a load or a leave is done, or the table is to be renewed.
    Event(ClusterEvent),
    /// A thread of a load or a leave panicked.
    Panicked,
    /// The table is said to be old.
    Nudged,
    /// Shards may be taken, with this to do about them.
    Start(Arc<dyn ShardTenants>),
    /// A master's state is to be set.
    SetState(String, MasterState, Sender<Option<bool>>),
    /// All is to be handed over until then.
    Stop(Instant),
    /// The thread is to end at once.
    End,
}

/// The first join: its caller waits for it.
pub(super) struct FirstJoin {
    pub(super) told_tx: Sender<Result<(), JoinError>>,
    /// Until then a master that would stand in the way may go, or the database come.
    pub(super) until: Instant,
    pub(super) reachable_until: Instant,
}

/// A question that is under way.
struct UnderWay {
    asked_at: Duration,
    until: Instant,
    is_renewal: bool,
}

/// See the module's description.
pub(super) struct Coordinator {
    membership: Membership,
    machine: ClusterMachine,
    table: Arc<ShardTable>,
    shared: Arc<ClusterShared>,
    connect: Arc<ConnectCoordination>,
    notes_tx: Sender<ClusterNote>,
    notes_rx: Receiver<ClusterNote>,
    first_join: Option<FirstJoin>,
    tenants: Option<Arc<dyn ShardTenants>>,
    helper: Option<Helper>,
    helpers: u64,
    /// The helper has not answered its last question, which may be over.
    is_helper_busy: bool,
    under_way: Option<UnderWay>,
    /// What a step leads to at once.
    events: VecDeque<ClusterEvent>,
    replies: VecDeque<Sender<Option<bool>>>,
    left: Vec<OwnedThread>,
    jobs: Vec<OwnedThread>,
    last_refusal: Option<JoinRefusal>,
    /// The masters that live, and how many shards this one holds, as the log has them.
    logged_masters: String,
    logged_held: usize,
    is_over: bool,
}

impl Coordinator {
    #[expect(clippy::too_many_arguments, reason = "each is another part's, and it has one caller")]
    pub(super) fn new(
        membership: Membership,
        machine: ClusterMachine,
        table: Arc<ShardTable>,
        shared: Arc<ClusterShared>,
        connect: ConnectCoordination,
        notes_tx: Sender<ClusterNote>,
        notes_rx: Receiver<ClusterNote>,
        first_join: FirstJoin,
    ) -> Self {
        Self {
            membership,
            machine,
            table,
            shared,
            connect: Arc::new(connect),
            notes_tx,
            notes_rx,
            first_join: Some(first_join),
            tenants: None,
            helper: None,
            helpers: 0,
            is_helper_busy: false,
            under_way: None,
            events: VecDeque::from([ClusterEvent::Tick]),
            replies: VecDeque::new(),
            left: Vec::new(),
            jobs: Vec::new(),
            last_refusal: None,
            logged_masters: String::new(),
            logged_held: 0,
            is_over: false,
        }
    }

    /// Runs until the master has left, gives up, or is ended.
    ///
    /// # Blocks
    /// Until then; wakes up for each note.
    pub(super) fn run(mut self) {
        while !self.is_over {
            let event = self.events.pop_front().or_else(|| self.next_event());
            if let Some(event) = event {
                let now = boot_time();
                let actions = self.machine.step(event, now);
                // Before anything is served by it.
                self.table.begin_until(self.machine.fence_at());
                for action in actions {
                    self.carry_out(action, now);
                }
                self.publish();
            }
        }
        self.finish();
    }

    /// What happened, once something has or the machine is due.
    fn next_event(&mut self) -> Option<ClusterEvent> {
        let wait = self.machine.due().saturating_sub(boot_time()).min(WAIT_MAX);
        let due = Instant::now() + wait;
        let answer = self.under_way.as_ref().map(|asked| asked.until);
        let due = answer.map_or(due, |until| until.min(due));
        match self.notes_rx.recv_deadline(due) {
            Ok(note) => self.event_of(note),
            Err(_) => self.late().or(Some(ClusterEvent::Tick)),
        }
    }

    fn event_of(&mut self, note: ClusterNote) -> Option<ClusterEvent> {
        match note {
            ClusterNote::Answer(number, told) => self.answered(number, told),
            ClusterNote::Event(event) => Some(event),
            ClusterNote::Panicked => {
                self.give_up("a thread of it panicked");
                None
            }
            ClusterNote::Nudged => {
                self.shared.is_nudged.store(false, Ordering::Release);
                Some(ClusterEvent::Nudged)
            }
            ClusterNote::Start(tenants) => {
                self.tenants = Some(tenants);
                Some(ClusterEvent::Started)
            }
            ClusterNote::SetState(name, state, reply_tx) => {
                self.replies.push_back(reply_tx);
                Some(ClusterEvent::SetState(name, state))
            }
            ClusterNote::Stop(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                Some(ClusterEvent::Stop { until: boot_time() + left })
            }
            ClusterNote::End => {
                self.is_over = true;
                None
            }
        }
    }

    /// What the current helper was told; `None`: its question was over, or it is not the current
    /// one.
    fn answered(&mut self, number: u64, told: Result<LeaseTold, DbError>) -> Option<ClusterEvent> {
        self.helper.as_ref().filter(|helper| helper.number() == number)?;
        self.is_helper_busy = false;
        let UnderWay { asked_at, is_renewal, .. } = self.under_way.take()?;
        match told {
            Ok(told) => {
                if is_renewal {
                    self.shared.renewals.observe(boot_time().saturating_sub(asked_at));
                }
                self.log(&told);
                Some(ClusterEvent::Told { asked_at, told })
            }
            Err(error) => self.failed(asked_at, &error.to_string()),
        }
    }

    fn failed(&mut self, asked_at: Duration, why: &str) -> Option<ClusterEvent> {
        log::debug!("cluster: {why}");
        if let Some(first) = &self.first_join
            && Instant::now() >= first.reachable_until
        {
            self.refuse(JoinError::Unreachable(why.to_owned()));
            return None;
        }
        Some(ClusterEvent::Failed { asked_at })
    }

    /// Gives up a question whose answer did not come in time.
    fn late(&mut self) -> Option<ClusterEvent> {
        let asked = self.under_way.take_if(|asked| Instant::now() >= asked.until)?;
        // Connecting ends by itself, and may take longer than an answer.
        if let Some(helper) = self.helper.take_if(|helper| !helper.is_connecting()) {
            self.is_helper_busy = false;
            self.left.retain(|thread| !thread.wait_until(Instant::now()));
            self.left.push(helper.leave());
            if self.left.len() > CLUSTER_HELPERS_LEFT_MAX {
                self.give_up("its connections to the database say nothing and do not end");
            }
        }
        self.failed(asked.asked_at, "no answer came in time")
    }

    fn carry_out(&mut self, action: ClusterAction, now: Duration) {
        match action {
            ClusterAction::Serve(shards) => self.table.serve(&shards),
            ClusterAction::Hold(master, held) => self.table.held().set(master, held),
            ClusterAction::Suspend(is_suspended) => {
                match is_suspended {
                    true => log::warn!("cluster: the lease is not renewed: nothing is begun"),
                    false => log::info!("cluster: events are taken again"),
                }
                self.table.suspend(is_suspended);
            }
            ClusterAction::Show(me, look, wanted) => {
                self.log_masters(&look);
                self.table.show(me, look, wanted);
            }
            ClusterAction::Load(shards) => self.begin_load(shards),
            ClusterAction::Leave(shards, until) => self.begin_leave(shards, until),
            ClusterAction::Ask(ask) => self.ask(ask, now),
            ClusterAction::Joined => {
                self.last_refusal = None;
                log::info!("cluster: joined as {}", self.membership.name);
                if let Some(first) = self.first_join.take() {
                    let _ = first.told_tx.send(Ok(()));
                }
            }
            ClusterAction::Refused(refusal) => self.refused(refusal),
            ClusterAction::Lost => {
                log::error!("cluster: the lease was over, and others may have the shards now");
            }
            ClusterAction::StateSet(is_there) => {
                if let Some(reply_tx) = self.replies.pop_front() {
                    let _ = reply_tx.try_send(is_there);
                }
            }
            ClusterAction::StateNotAsked => {
                if let Some(reply_tx) = self.replies.pop_back() {
                    let _ = reply_tx.try_send(None);
                }
            }
            ClusterAction::Ended => self.is_over = true,
        }
    }

    fn ask(&mut self, ask: LeaseAsk, asked_at: Duration) {
        let until = Instant::now() + CLUSTER_ANSWER_MAX;
        let is_renewal = matches!(ask, LeaseAsk::Renew(..));
        if self.is_helper_busy {
            let failed = self.failed(asked_at, "the database is being connected to");
            self.events.extend(failed);
            return;
        }
        if !self.helper.as_ref().is_some_and(|helper| helper.ask(ask.clone(), until)) {
            self.helpers += 1;
            let (connect, notes_tx) = (self.connect.clone(), self.notes_tx.clone());
            match Helper::start(self.helpers, connect, notes_tx) {
                Ok(helper) => {
                    helper.ask(ask, until);
                    self.helper = Some(helper);
                }
                Err(error) => return self.give_up(&format!("no thread could be started: {error}")),
            }
        }
        self.is_helper_busy = true;
        self.under_way = Some(UnderWay { asked_at, until, is_renewal });
    }

    fn begin_load(&mut self, shards: ShardSet) {
        let Some(tenants) = self.tenants.clone() else { return };
        self.begin("shards-load", move || match tenants.load(&shards) {
            Ok(()) => ClusterEvent::Loaded(shards),
            Err(error) => {
                log::warn!("cluster: {} shards are not loaded yet: {error}", shards.len());
                ClusterEvent::LoadFailed(shards)
            }
        });
    }

    fn begin_leave(&mut self, shards: ShardSet, until: Duration) {
        let Some(tenants) = self.tenants.clone() else { return };
        let deadline = Instant::now() + until.saturating_sub(boot_time());
        self.begin("shards-leave", move || {
            tenants.leave(&shards, deadline);
            ClusterEvent::Left(shards)
        });
    }

    fn begin(&mut self, name: &str, job: impl FnOnce() -> ClusterEvent + Send + 'static) {
        let (done_tx, exit_tx) = (self.notes_tx.clone(), self.notes_tx.clone());
        let run = move || {
            let _ = done_tx.send(ClusterNote::Event(job()));
        };
        let panicked = move |exit| {
            if let ThreadExit::Panicked(_) = exit {
                let _ = exit_tx.send(ClusterNote::Panicked);
            }
        };
        self.jobs.retain(|thread| !thread.wait_until(Instant::now()));
        match thread::spawn_watched(name, run, panicked) {
            Ok(thread) => self.jobs.push(thread),
            Err(error) => self.give_up(&format!("no thread could be started: {error}")),
        }
    }

    /// A master that joins for the first time waits for one of its name that may be about to end,
    /// such as the one that it replaces; a later one waits for as long as it takes.
    fn refused(&mut self, refusal: JoinRefusal) {
        let Some(first) = &self.first_join else {
            let is_new =
                |last: &JoinRefusal| mem::discriminant(last) != mem::discriminant(&refusal);
            if self.last_refusal.as_ref().is_none_or(is_new) {
                log::error!("cluster: it may not join again yet: {}", self.refusal(&refusal));
            }
            self.last_refusal = Some(refusal);
            return;
        };
        let may_go = match &refusal {
            JoinRefusal::NameLives(_) => true,
            JoinRefusal::OtherLives(names) => {
                self.membership.cluster.is_none() && *names == [self.membership.name.as_str()]
            }
            JoinRefusal::OtherCluster(_) => false,
        };
        if !may_go || Instant::now() >= first.until {
            self.refuse(self.refusal(&refusal));
        } else if self.last_refusal.is_none() {
            log::info!(
                "cluster: waits for the end of another master named {}",
                self.membership.name
            );
            self.last_refusal = Some(refusal);
        }
    }

    fn refusal(&self, refusal: &JoinRefusal) -> JoinError {
        match refusal.clone() {
            // To one that would be alone, any other is in the way, under any name.
            JoinRefusal::NameLives(_) if self.membership.cluster.is_none() => {
                JoinError::OtherLives(vec![self.membership.name.clone()])
            }
            JoinRefusal::NameLives(_) => JoinError::NameLives(self.membership.name.clone()),
            JoinRefusal::OtherLives(names) => JoinError::OtherLives(names),
            JoinRefusal::OtherCluster(name) => JoinError::OtherCluster(name),
        }
    }

    fn refuse(&mut self, error: JoinError) {
        if let Some(first) = self.first_join.take() {
            let _ = first.told_tx.send(Err(error));
        }
        self.is_over = true;
    }

    fn log(&self, told: &LeaseTold) {
        match told {
            LeaseTold::Taken(taken) if !taken.is_empty() => {
                log::debug!("cluster: took {} shards", taken.len());
            }
            LeaseTold::Given(given) => log::debug!("cluster: handed {} shards over", given.len()),
            LeaseTold::Evicted(sessions) if *sessions > 0 => {
                self.shared.evicted.add(*sessions);
                log::warn!("cluster: ended {sessions} sessions of masters that are gone");
            }
            _ => {}
        }
    }

    /// One line for each master that comes, goes, drains or is to take its share again.
    fn log_masters(&mut self, look: &ClusterLook) {
        let alive = look.masters.iter().filter(|master| master.lives());
        let alive = alive.map(|master| format!("{} ({})", master.name, master.state.as_str()));
        let masters = alive.collect::<Vec<_>>().join(", ");
        if self.membership.cluster.is_some()
            && !masters.is_empty()
            && masters != self.logged_masters
        {
            log::info!("cluster: the masters are {masters}");
            self.logged_masters = masters;
        }
    }

    /// One line for all that a change of the masters has moved.
    fn log_held(&mut self, held: usize) {
        if held != self.logged_held {
            log::info!("cluster: this master holds {held} of {SHARDS} shards");
            self.logged_held = held;
        }
    }

    fn give_up(&mut self, why: &str) {
        log::error!("cluster: this master gives up: {why}");
        self.is_over = true;
        self.shared.give_up();
    }

    fn publish(&mut self) {
        let (held, draining, wanted) = self.machine.counts();
        if held == wanted {
            self.log_held(held);
        }
        self.shared.publish(|seen| {
            seen.is_settled = self.machine.is_settled();
            seen.lease_until = self.machine.lease_until();
            (seen.held, seen.draining, seen.wanted) = (held, draining, wanted);
            seen.moves = self.machine.moves();
            seen.left_helpers = self.left.len();
        });
    }

    /// Joins what ends; a connection that says nothing is left to the end of the process.
    fn finish(self) {
        self.table.serve(&ShardSet::default());
        self.table.end();
        // Their notes are of no use any more, and must not wait.
        drop((self.notes_rx, self.notes_tx));
        let until = Instant::now() + CLUSTER_ANSWER_MAX;
        for thread in self.left.into_iter().chain(self.helper.map(Helper::leave)) {
            if !thread.wait_until(until) {
                log::warn!("cluster: {} is left in a question", thread.name());
                mem::forget(thread);
            }
        }
        self.jobs.into_iter().for_each(|thread| {
            thread.join();
        });
        self.shared.publish(|seen| seen.is_over = true);
    }
}
