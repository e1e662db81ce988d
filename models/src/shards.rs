//! How masters hold, take and give shards (docs/decisions/0033-several-masters.md): three masters
//! and two shards, in every order of events.
//!
//! There is no time in it. A lease may be over at any moment, a question or an answer may be under
//! way for any time or be lost, and a master that goes on after a pause is one whose next event
//! comes late. So what holds here holds whatever clocks and networks do. Each event that is
//! possible changes something, and failures are counted, so that every run comes to rest: there
//! each shard must be served.

use stateright::{Model, Property};

/// How many masters and shards there are.
pub const MASTERS: usize = 3;
pub const SHARDS: usize = 2;

/// What must hold in every state.
pub const ONE_WRITER: &str = "only a shard's owner writes, and epochs never go back";
pub const ALL_SERVED: &str = "at rest every shard is served by its owner";
pub const ALWAYS: [&str; 2] = [ONE_WRITER, ALL_SERVED];

/// What must come about in some state, or the model shows nothing.
pub const SOMETIMES: [&str; 4] = [
    "a write of a deposed master is refused",
    "a session is ended so that a shard can be taken",
    "a lease that was over is renewed",
    "a shard is given",
];

/// What a write is checked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Shard, epoch and owner, under a lock that a takeover waits for: the protocol.
    Locked,
    /// The same without the lock: broken.
    Unlocked,
    /// Nothing: broken.
    None,
}

/// How much may happen in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Leases that are over, masters that die, answers that are lost.
    pub failures: u8,
    pub writes: u8,
    pub gives: u8,
}

pub struct Protocol {
    pub fence: Fence,
    pub budget: Budget,
}

/// A master's row in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Row {
    /// There was none yet.
    Absent,
    Live,
    /// Its lease is over, and no other master has said so.
    Over,
    Dead,
}

/// What the database answered, before the master knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The shards that it holds, by epoch; 0: not.
    Renewed([u8; SHARDS]),
    Dead,
    Taken(usize, u8),
    Given(usize),
}

/// A write that is under way, with what its master knew when it sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Write {
    shard: usize,
    epoch: u8,
    run: u8,
    /// It has passed the fence, and holds the lock.
    is_admitted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Master {
    is_alive: bool,
    /// Which of its ids it has.
    run: u8,
    row: Row,
    /// The epochs at which it thinks that it holds shards; 0: it does not.
    held: [u8; SHARDS],
    /// Shards that it has drained, and asked to be given.
    giving: [bool; SHARDS],
    answer: Option<Answer>,
    write: Option<Write>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cluster {
    masters: [Master; MASTERS],
    /// Each shard's owner, its run and the epoch.
    shards: [(Option<(usize, u8)>, u8); SHARDS],
    /// The epoch of each shard's last write.
    written: [u8; SHARDS],
    left: Budget,
    is_broken: bool,
    was_refused: bool,
    was_evicted: bool,
    was_late: bool,
    was_given: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Happening {
    Join(usize),
    Renew(usize),
    Take(usize, usize),
    /// Master, shard, heir.
    Give(usize, usize, usize),
    /// A master learns what it was answered.
    Learn(usize),
    SendWrite(usize, usize),
    AdmitWrite(usize),
    Commit(usize),
    Evict(usize),
    LeaseOver(usize),
    Die(usize),
    LoseAnswer(usize),
}

impl Cluster {
    /// What a master holds in truth.
    fn owned(&self, at: usize) -> [u8; SHARDS] {
        let me = Some((at, self.masters[at].run));
        self.shards.map(|(owner, epoch)| if owner == me { epoch } else { 0 })
    }

    /// Whether a shard's holder may be declared dead, or is.
    fn is_free(&self, shard: usize) -> bool {
        self.shards[shard].0.is_none_or(|(owner, run)| {
            let master = &self.masters[owner];
            master.run != run || matches!(master.row, Row::Over | Row::Dead)
        })
    }

    fn is_locked(&self, shard: usize) -> bool {
        let holds = |write: Write| write.is_admitted && write.shard == shard;
        self.masters.iter().any(|master| master.write.is_some_and(holds))
    }

    fn is_at_rest(&self, fence: Fence) -> bool {
        let mut actions = Vec::new();
        self.progress(fence, &mut actions);
        actions.is_empty()
    }

    /// What can happen without a failure, and changes something.
    fn progress(&self, fence: Fence, actions: &mut Vec<Happening>) {
        for (at, master) in self.masters.iter().enumerate() {
            let is_member = master.is_alive && master.row != Row::Absent;
            if master.answer.is_some() {
                actions.push(Happening::Learn(at));
            }
            // A row of the same name is in its way until its lease is over.
            if master.row == Row::Absent || !master.is_alive && master.row != Row::Live {
                actions.push(Happening::Join(at));
            }
            if !master.is_alive && master.row == Row::Live {
                actions.push(Happening::LeaseOver(at));
            }
            let is_news = master.row != Row::Live
                || master.held != self.owned(at)
                || master.giving.contains(&true);
            if is_member && master.answer.is_none() && is_news {
                actions.push(Happening::Renew(at));
            }
            for shard in 0..SHARDS {
                if is_member && master.answer.is_none() && master.row == Row::Live {
                    let is_locked = fence == Fence::Locked && self.is_locked(shard);
                    let may_take = self.is_free(shard) && !is_locked;
                    if may_take && master.held[shard] == 0 {
                        actions.push(Happening::Take(at, shard));
                    }
                }
            }
            match master.write {
                Some(write) if !write.is_admitted => actions.push(Happening::AdmitWrite(at)),
                // The session of a master that is gone, or was restarted, stands still.
                Some(write) if master.is_alive && write.run == master.run => {
                    actions.push(Happening::Commit(at));
                }
                _ => {}
            }
            if master.write.is_some_and(|write| write.is_admitted && self.is_free(write.shard)) {
                actions.push(Happening::Evict(at));
            }
        }
    }

    fn join(&mut self, at: usize) {
        let master = &mut self.masters[at];
        let run = master.run + 1;
        let write = master.write;
        *master = Master { run, row: Row::Live, is_alive: true, write, ..Master::NEW };
    }

    fn renew(&mut self, at: usize) {
        let owned = self.owned(at);
        let master = &mut self.masters[at];
        if master.row == Row::Dead {
            master.answer = Some(Answer::Dead);
            return;
        }
        self.was_late |= master.row == Row::Over;
        master.row = Row::Live;
        master.answer = Some(Answer::Renewed(owned));
    }

    fn take(&mut self, at: usize, shard: usize) {
        if let Some((owner, run)) = self.shards[shard].0
            && self.masters[owner].run == run
        {
            self.masters[owner].row = Row::Dead;
        }
        let epoch = self.shards[shard].1 + 1;
        self.shards[shard] = (Some((at, self.masters[at].run)), epoch);
        self.masters[at].answer = Some(Answer::Taken(shard, epoch));
    }

    fn give(&mut self, at: usize, shard: usize, heir: usize) {
        let epoch = self.masters[at].held[shard];
        self.masters[at].giving[shard] = true;
        let is_owner = self.shards[shard] == (Some((at, self.masters[at].run)), epoch);
        if is_owner && self.masters[heir].row == Row::Live {
            self.shards[shard] = (Some((heir, self.masters[heir].run)), epoch + 1);
            self.masters[at].answer = Some(Answer::Given(shard));
            self.was_given = true;
        }
    }

    fn learn(&mut self, at: usize) {
        let master = &mut self.masters[at];
        match master.answer.take() {
            Some(Answer::Renewed(owned)) => (master.held, master.giving) = (owned, [false; SHARDS]),
            Some(Answer::Dead) => {
                *master = Master { run: master.run, write: master.write, ..Master::NEW };
            }
            Some(Answer::Taken(shard, epoch)) => master.held[shard] = epoch,
            Some(Answer::Given(shard)) => (master.held[shard], master.giving[shard]) = (0, false),
            None => {}
        }
    }

    fn admit(&mut self, at: usize, fence: Fence) {
        let Some(write) = &mut self.masters[at].write else { return };
        let is_owner = self.shards[write.shard] == (Some((at, write.run)), write.epoch);
        if is_owner || fence == Fence::None {
            write.is_admitted = true;
        } else {
            self.masters[at].write = None;
            self.was_refused = true;
        }
    }

    fn commit(&mut self, at: usize) {
        let Some(write) = self.masters[at].write.take() else { return };
        let is_owner = self.shards[write.shard] == (Some((at, write.run)), write.epoch);
        self.is_broken |= !is_owner || write.epoch < self.written[write.shard];
        self.written[write.shard] = write.epoch;
    }
}

impl Master {
    const NEW: Self = Self {
        is_alive: true,
        run: 0,
        row: Row::Absent,
        held: [0; SHARDS],
        giving: [false; SHARDS],
        answer: None,
        write: None,
    };
}

impl Model for Protocol {
    type State = Cluster;
    type Action = Happening;

    fn init_states(&self) -> Vec<Cluster> {
        // One of them has all, as after its start; the others have just joined.
        let mut masters = [Master { run: 1, row: Row::Live, ..Master::NEW }; MASTERS];
        masters[0].held = [1; SHARDS];
        vec![Cluster {
            masters,
            shards: [(Some((0, 1)), 1); SHARDS],
            written: [0; SHARDS],
            left: self.budget,
            is_broken: false,
            was_refused: false,
            was_evicted: false,
            was_late: false,
            was_given: false,
        }]
    }

    fn actions(&self, state: &Cluster, actions: &mut Vec<Happening>) {
        state.progress(self.fence, actions);
        for (at, master) in state.masters.iter().enumerate() {
            for shard in (0..SHARDS).filter(|shard| master.held[*shard] > 0) {
                let is_quiet = master.is_alive && !master.giving[shard];
                if state.left.writes > 0 && is_quiet && master.write.is_none() {
                    actions.push(Happening::SendWrite(at, shard));
                }
                // A shard is given once nothing of it is under way.
                let is_idle = master.write.is_none_or(|write| write.shard != shard);
                if state.left.gives > 0 && is_quiet && is_idle && master.answer.is_none() {
                    let heirs = (0..MASTERS).filter(|heir| *heir != at);
                    actions.extend(heirs.map(|heir| Happening::Give(at, shard, heir)));
                }
            }
            if state.left.failures > 0 {
                if master.is_alive && master.row == Row::Live {
                    actions.push(Happening::LeaseOver(at));
                }
                if master.is_alive {
                    actions.push(Happening::Die(at));
                }
                if master.answer.is_some() {
                    actions.push(Happening::LoseAnswer(at));
                }
            }
        }
    }

    fn next_state(&self, last: &Cluster, happening: Happening) -> Option<Cluster> {
        let mut next = last.clone();
        match happening {
            Happening::Join(at) => next.join(at),
            Happening::Renew(at) => next.renew(at),
            Happening::Take(at, shard) => next.take(at, shard),
            Happening::Give(at, shard, heir) => {
                next.left.gives -= 1;
                next.give(at, shard, heir);
            }
            Happening::Learn(at) => next.learn(at),
            Happening::SendWrite(at, shard) => {
                next.left.writes -= 1;
                let Master { held, run, .. } = next.masters[at];
                let write = Write { shard, epoch: held[shard], run, is_admitted: false };
                next.masters[at].write = Some(write);
            }
            Happening::AdmitWrite(at) => next.admit(at, self.fence),
            Happening::Commit(at) => next.commit(at),
            Happening::Evict(at) => {
                next.masters[at].write = None;
                next.was_evicted = true;
            }
            Happening::LeaseOver(at) => {
                // That of a dead master is no failure of its own.
                next.left.failures -= u8::from(next.masters[at].is_alive);
                next.masters[at].row = Row::Over;
            }
            Happening::Die(at) => {
                next.left.failures -= 1;
                let Master { run, row, write, .. } = next.masters[at];
                next.masters[at] = Master { is_alive: false, run, row, write, ..Master::NEW };
            }
            Happening::LoseAnswer(at) => {
                next.left.failures -= 1;
                next.masters[at].answer = None;
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_WRITER, |_, state: &Cluster| !state.is_broken),
            Property::always(ALL_SERVED, |protocol: &Self, state: &Cluster| {
                let serves = |shard: usize| {
                    (0..MASTERS).any(|at| {
                        let held = state.masters[at].held[shard];
                        held > 0 && state.owned(at)[shard] == held
                    })
                };
                !state.is_at_rest(protocol.fence) || (0..SHARDS).all(serves)
            }),
            Property::sometimes(SOMETIMES[0], |_, state: &Cluster| state.was_refused),
            Property::sometimes(SOMETIMES[1], |_, state: &Cluster| state.was_evicted),
            Property::sometimes(SOMETIMES[2], |_, state: &Cluster| state.was_late),
            Property::sometimes(SOMETIMES[3], |_, state: &Cluster| state.was_given),
        ]
    }
}
