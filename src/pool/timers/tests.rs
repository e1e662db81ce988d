//! What becomes of timers, with the time in the test's hands.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use super::*;
use crate::base::clock::{ManualClock, ScriptClock};
use crate::base::limits::{
    TENANT_TIMERS_WAITING_MAX, TIMER_HELD_FOR, TIMER_PLACES, TIMER_RETRY_MAX, TIMER_TRIED_FOR,
    TIMERS_WAITING_MAX,
};
use crate::dispatch::{Cancelled, Refused, RequestId};
use crate::store::memory::MemoryStore;
use crate::store::{DbOptions, Store};
use crate::wire::data::{DbAnswer, EncodedValue, EventData, TimerOp, TimerWhen};
use crate::wire::json::value_to_json;

const A: TenantId = TenantId::Guild(1 << 22);
const B: TenantId = TenantId::User(2 << 22);

const DAY: i64 = 86_400_000_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros).expect("in range")
}

fn timer(id: &str, due: i64) -> Timer {
    let (id, name) = (id.to_owned(), "E".to_owned());
    Timer { id, name, due: at(due), every: None, data: EncodedValue::null() }
}

/// Lines in which a tenant's timers are read from what the test says is stored.
#[derive(Default)]
struct Bench {
    lines: TimerLines,
    stored: HashMap<TenantId, Vec<Timer>>,
    reads: usize,
}

impl Bench {
    fn put(&mut self, tenant: TenantId, timer: Timer, now: Instant) {
        self.stored.entry(tenant).or_default().push(timer.clone());
        self.lines.add(tenant, timer, now);
    }

    /// The next run, by its timer's id.
    fn next(&mut self, now: Instant, date: Timestamp) -> Option<(TenantId, u64, String)> {
        loop {
            match self.lines.next(now)? {
                TimerStep::Fire(tenant, number, timer) => return Some((tenant, number, timer.id)),
                TimerStep::Read(tenant, turn) => {
                    self.reads += 1;
                    let timers = self.stored.get(&tenant).cloned().unwrap_or_default();
                    self.lines.refill((tenant, turn), timers, now, date);
                }
            }
        }
    }

    /// Ends a run, and writes those that are over.
    fn end(
        &mut self,
        (tenant, number): (TenantId, u64),
        arrival: Arrival,
        now: Instant,
        date: Timestamp,
    ) -> TimerOutcome {
        let ended = self.lines.ended(tenant, number, arrival, now, date);
        for run in self.lines.over() {
            if let Some(stored) = self.stored.get_mut(&run.tenant) {
                stored.retain(|timer| timer.id != run.id);
            }
            self.lines.written(&run);
        }
        ended.expect("it was under way").0
    }
}

#[test]
fn a_tenants_timers_run_one_after_the_other() {
    let (mut bench, now, date) = (Bench::default(), Instant::now(), at(100));
    for id in ["1", "2", "3"] {
        bench.put(A, timer(id, 5), now);
    }
    bench.put(B, timer("of another", 5), now);
    let (_, number, id) = bench.next(now, date).expect("one");
    assert_eq!(id, "1");
    assert_eq!(bench.next(now, date).map(|(tenant, ..)| tenant), Some(B));
    assert_eq!(bench.next(now, date), None);
    assert_eq!(bench.end((A, number), Arrival::Arrived, now, date), TimerOutcome::Ran);
    let (_, number, id) = bench.next(now, date).expect("one");
    assert_eq!(id, "2");
    assert!(bench.lines.ended(A, number - 1, Arrival::Arrived, now, date).is_none(), "once");
    bench.end((A, number), Arrival::Arrived, now, date);
    assert_eq!(bench.next(now, date).map(|(.., id)| id).as_deref(), Some("3"));
}

#[test]
fn what_is_over_and_not_written_does_not_run_again() {
    let (mut lines, now, date) = (TimerLines::default(), Instant::now(), at(100));
    lines.add(A, timer("1", 5), now);
    let Some(TimerStep::Fire(_, number, _)) = lines.next(now) else { panic!("a run") };
    lines.add(A, timer("1", 5), now);
    lines.ended(A, number, Arrival::Arrived, now, date).expect("under way");
    lines.add(A, timer("1", 5), now);
    assert_eq!(lines.next(now), None);
    assert_eq!(lines.over().len(), 1);
    // The next run of it is another one.
    lines.add(A, timer("1", 6), now);
    assert!(lines.next(now).is_some());
}

#[test]
fn a_tenant_that_is_not_reached_waits_and_others_go_on() {
    let (mut bench, date) = (Bench::default(), at(100));
    let mut now = Instant::now();
    for id in ["1", "2", "3"] {
        bench.put(A, timer(id, 5), now);
    }
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let (tenant, number, id) = bench.next(now, date).expect("the same one");
        assert_eq!((tenant, id.as_str()), (A, "1"));
        assert_eq!(bench.end((A, number), Arrival::NotYet, now, date), TimerOutcome::Again);
        assert_eq!(bench.lines.counts(), (0, 0), "nothing is kept meanwhile");
        bench.put(B, timer(&format!("{now:?}"), 5), now);
        let (tenant, number, _) = bench.next(now, date).expect("another tenant's");
        bench.end((tenant, number), Arrival::Arrived, now, date);
        assert_eq!((tenant, bench.next(now, date)), (B, None));
        let then = bench.lines.next_at().expect("a time");
        pauses.push((then - now).as_secs());
        now = then;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    let (_, number, _) = bench.next(now, date).expect("it");
    bench.end((A, number), Arrival::Arrived, now, date);
    assert_eq!(bench.next(now, date).map(|(.., id)| id).as_deref(), Some("2"), "at once");
}

#[test]
fn a_run_that_may_have_been_made_holds_no_other_up() {
    let (mut bench, mut now, date) = (Bench::default(), Instant::now(), at(100));
    bench.put(A, timer("bad", 5), now);
    for number in 0..100 {
        bench.put(A, timer(&format!("{number}"), 6), now);
    }
    let (_, number, id) = bench.next(now, date).expect("one");
    assert_eq!(id, "bad");
    bench.end((A, number), Arrival::MayHave, now, date);
    let mut bad = 0;
    let mut others = 0;
    while others < 100 {
        let Some((_, number, id)) = bench.next(now, date) else {
            now = bench.lines.next_at().expect("a time");
            continue;
        };
        let is_bad = id == "bad";
        (bad, others) = (bad + usize::from(is_bad), others + usize::from(!is_bad));
        let arrival = if is_bad { Arrival::MayHave } else { Arrival::Arrived };
        bench.end((A, number), arrival, now, date);
        now += Duration::from_millis(100);
    }
    assert!((2..=4).contains(&bad), "{bad} times in 10 s, at growing intervals");
    assert!(bench.reads < 20, "{} reads", bench.reads);
    let (_, number, id) = {
        now += TIMER_RETRY_MAX;
        bench.next(now, date).expect("again")
    };
    assert_eq!(id, "bad");
    bench.end((A, number), Arrival::Arrived, now, date);
    assert!(bench.lines.is_idle() && bench.lines.next_at().is_none());
}

#[test]
fn many_runs_that_may_have_been_made_pause_their_tenant() {
    let (mut bench, now, date) = (Bench::default(), Instant::now(), at(100));
    for number in 0..1000 {
        bench.put(A, timer(&format!("{number:04}"), 5), now);
    }
    let mut tried = 0;
    while let Some((_, number, _)) = bench.next(now, date) {
        bench.end((A, number), Arrival::MayHave, now, date);
        tried += 1;
    }
    assert_eq!(tried, 17);
    assert_eq!(bench.lines.counts(), (0, 0));
}

#[test]
fn a_banned_tenants_timers_are_held_for_as_long_as_it_takes() {
    let (mut bench, mut now, mut date) = (Bench::default(), Instant::now(), at(100));
    bench.put(A, timer("1", 5), now);
    for _ in 0..1000 {
        let (_, number, _) = bench.next(now, date).expect("it");
        assert_eq!(bench.end((A, number), Arrival::Held, now, date), TimerOutcome::Held);
        let then = bench.lines.next_at().expect("a time");
        assert_eq!(then, now + TIMER_HELD_FOR);
        now = then + TIMER_TRIED_FOR;
        date = at(date.unix_micros() + DAY);
    }
    let (_, number, id) = bench.next(now, date).expect("it");
    assert_eq!(id, "1");
    assert_eq!(bench.end((A, number), Arrival::Arrived, now, date), TimerOutcome::Ran);
}

#[test]
fn a_run_is_dropped_after_a_day_of_tries() {
    for arrival in [Arrival::NotYet, Arrival::MayHave] {
        let (mut lines, began) = (TimerLines::default(), Instant::now());
        let every = Some("3600".to_owned());
        let timer = Timer { every, ..timer("1", 0) };
        let stored = vec![timer.clone()];
        lines.add(A, timer, began);
        let (mut now, mut tries) = (began, 0);
        let outcome = loop {
            let date = at((now - began).as_micros() as i64);
            let number = match lines.next(now) {
                Some(TimerStep::Fire(_, number, _)) => number,
                Some(TimerStep::Read(_, turn)) => {
                    lines.refill((A, turn), stored.clone(), now, date);
                    continue;
                }
                None => {
                    now = lines.next_at().expect("a time");
                    continue;
                }
            };
            tries += 1;
            let (outcome, dropped) = lines.ended(A, number, arrival, now, date).expect("it");
            assert_eq!(dropped.is_some(), outcome == TimerOutcome::Dropped);
            if outcome != TimerOutcome::Again {
                break outcome;
            }
        };
        assert_eq!(outcome, TimerOutcome::Dropped);
        assert!(now - began >= TIMER_TRIED_FOR && tries > 280, "{tries} tries");
        let over = lines.over();
        assert!(over[0].next.expect("it goes on") > at(DAY), "{over:?}");
    }
}

#[test]
fn places_and_memory_are_bounded() {
    let (mut bench, now, date) = (Bench::default(), Instant::now(), at(100));
    for number in 0..1000 {
        bench.put(A, timer(&format!("{number:04}"), 5), now);
    }
    assert_eq!(bench.lines.counts().0, TENANT_TIMERS_WAITING_MAX);
    let mut tenants = 0;
    while bench.lines.has_room() {
        tenants += 1;
        bench.put(TenantId::User(tenants << 22), timer("1", 5), now);
    }
    assert_eq!(bench.lines.counts().0, TIMERS_WAITING_MAX);
    let mut running = Vec::new();
    while let Some((tenant, number, _)) = bench.next(now, date) {
        running.push((tenant, number));
    }
    assert_eq!(running.len(), TIMER_PLACES);
    // Those that take their time keep their tenants waiting and no others.
    let later = now + TIMER_PLACE_FOR;
    assert_eq!(bench.lines.expire(later), []);
    let more = std::iter::from_fn(|| bench.next(later, date)).count();
    assert_eq!(more, TIMER_PLACES);
    let lost = bench.lines.expire(now + Duration::from_secs(90));
    assert_eq!(lost.len(), TIMER_PLACES, "those that never answer");
    // All of one tenant's, however many it has.
    let mut bench = Bench { stored: bench.stored, ..Bench::default() };
    bench.lines.more(A, now);
    let mut ids = Vec::new();
    while let Some((tenant, number, id)) = bench.next(now, date) {
        bench.end((tenant, number), Arrival::Arrived, now, date);
        ids.push(id);
    }
    assert!(ids.len() == 1000 && ids.is_sorted() && bench.reads < 20, "{}", bench.reads);
}

#[test]
fn tenants_with_slow_handlers_leave_room_for_others() {
    let (mut bench, began, date) = (Bench::default(), Instant::now(), at(100));
    let tenants = (1..=200).map(|number| TenantId::User(number << 22));
    for tenant in tenants {
        let stored = (0..100).map(|number| timer(&format!("{number:03}"), 5)).collect();
        bench.stored.insert(tenant, stored);
        bench.lines.more(tenant, began);
    }
    // Every handler takes three seconds.
    let (mut now, mut running, mut ran) = (began, Vec::new(), 0);
    for _ in 0..10 {
        while let Some((tenant, number, id)) = bench.next(now, date) {
            running.push((now, tenant, number, id));
        }
        assert!(bench.lines.counts().0 <= TIMERS_WAITING_MAX);
        now += TIMER_PLACE_FOR;
        assert_eq!(bench.lines.expire(now), []);
        assert!(bench.lines.has_room() && bench.lines.counts().0 == 0);
        let is_over = |since: Instant| now - since >= Duration::from_secs(3);
        for (_, tenant, number, id) in running.extract_if(.., |(since, ..)| is_over(*since)) {
            assert_eq!(bench.stored[&tenant][0].id, id, "in order");
            bench.end((tenant, number), Arrival::Arrived, now, date);
            ran += 1;
        }
    }
    assert!(ran > 400, "{ran}");
}

#[test]
fn many_tenants_with_many_timers_have_their_share_of_room() {
    let (mut bench, mut now, date) = (Bench::default(), Instant::now(), at(100));
    for tenant in (1..=200).map(|number| TenantId::User(number << 22)) {
        let stored = (0..100).map(|number| timer(&format!("{number:03}"), 5)).collect();
        bench.stored.insert(tenant, stored);
        bench.lines.more(tenant, now);
    }
    let mut ran = 0;
    while let Some((tenant, number, _)) = bench.next(now, date) {
        let most = TIMERS_WAITING_MAX + TENANT_TIMERS_WAITING_MAX;
        assert!(bench.lines.counts().0 <= most, "{}", bench.lines.counts().0);
        // Others have their turn before it has the next one.
        now += Duration::from_millis(1);
        bench.end((tenant, number), Arrival::Arrived, now, date);
        ran += 1;
    }
    assert_eq!(ran, 200 * 100);
}

#[test]
fn a_cancelled_timer_and_a_tenant_that_moved_do_not_run() {
    let (mut lines, now) = (TimerLines::default(), Instant::now());
    for id in ["1", "2"] {
        lines.add(A, timer(id, 5), now);
        lines.add(B, timer(id, 5), now);
    }
    lines.cancelled(A, "1", now);
    let Some(TimerStep::Fire(A, number, Timer { id, .. })) = lines.next(now) else { panic!("A") };
    assert_eq!(id, "2");
    lines.retain(|tenant| tenant == B);
    assert!(lines.ended(A, number, Arrival::Arrived, now, at(100)).is_none());
    assert!(matches!(lines.next(now), Some(TimerStep::Fire(B, ..))));
    lines.retain(|_| false);
    assert!(lines.is_idle() && lines.next(now).is_none());
    assert_eq!(lines.counts(), (0, 0));
}

/// A pool that answers as the test says, and notes what it was asked for.
#[derive(Default)]
struct Answering {
    random: Lock<u64>,
    seen: Lock<Vec<(TenantId, String, Timestamp)>>,
    /// Of so many one fails.
    failing: AtomicU64,
    open: Lock<Vec<Answer>>,
}

impl Answering {
    fn draw(&self, below: u64) -> u64 {
        let mut random = self.random.lock();
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*random >> 33) % below.max(1)
    }
}

impl WorkerLike for Answering {
    fn id(&self) -> usize {
        0
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        let Job::Dispatch(event) = &request.job else { panic!("events only") };
        let EventData::KhronosValue(data) = &event.data else { panic!("a value") };
        let json = value_to_json(data).expect("JSON");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let due = json["due"]["$timestamp"].as_str().expect("a time").parse().expect("a time");
        let id = json["timer"].as_str().expect("an id").to_owned();
        let failing = self.failing.load(Ordering::Relaxed);
        if failing > 0 && self.draw(failing) == 0 {
            return match self.draw(4) {
                0 => Err(request.refused(DispatchError::Busy("full".to_owned()))),
                1 => Err(request.refused(DispatchError::NoWorker("gone".to_owned()))),
                _ => {
                    // It may have run, and has.
                    self.seen.lock().push((request.tenant, id, due));
                    drop(request.answer);
                    Ok(())
                }
            };
        }
        self.seen.lock().push((request.tenant, id, due));
        self.open.lock().push(request.answer);
        Ok(())
    }

    fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
        Cancelled::Unknown
    }

    fn kill(&self) {}
}

struct TimerWorld {
    clock: Arc<ManualClock>,
    db: Arc<DbState>,
    pool: Arc<Answering>,
    firer: TimerFirer,
}

impl TimerWorld {
    fn new(store: Arc<dyn Store>, clock: Arc<ManualClock>) -> Self {
        let db = DbState::new(store, DbOptions::default()).expect("a store");
        let db = Arc::new(db.with_clock(ScriptClock::Manual(clock.clone())));
        let pool = Arc::new(Answering::default());
        let firer = TimerFirer::new(pool.clone(), db.clone(), ShardSet::full(), TIMERS_PACE);
        Self { clock, db, pool, firer }
    }

    fn set(&self, tenant: TenantId, id: &str, when: TimerWhen) {
        let (id, name) = (id.to_owned(), "E".to_owned());
        let op = TimerOp::Set { id, name, when, data: EncodedValue::null() };
        assert_eq!(self.db.timers(tenant, op), Ok(DbAnswer::Done));
    }

    /// Lets the time go on by so much.
    fn advance(&mut self, time: Duration) {
        let until = self.clock.now() + time;
        loop {
            let next = self.firer.turn();
            let answers = std::mem::take(&mut *self.pool.open.lock());
            let has_answered = !answers.is_empty();
            answers.into_iter().for_each(|answer| answer.send(Ok(EncodedValue::null())));
            if has_answered {
                continue;
            }
            match next.filter(|next| *next <= until) {
                Some(next) => {
                    let least = self.clock.now() + Duration::from_micros(1);
                    self.clock.move_to(next.max(least));
                }
                None => return self.clock.move_to(until),
            }
        }
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)))
}

#[test]
fn timers_run_when_they_are_due_and_not_before() {
    let mut world = TimerWorld::new(Arc::new(MemoryStore::new()), clock());
    world.set(A, "once", TimerWhen::After(10_000_000));
    world.set(B, "every", TimerWhen::Every("60".to_owned()));
    let seen = |world: &TimerWorld| world.pool.seen.lock().len();
    world.advance(Duration::from_millis(9_999));
    assert_eq!(seen(&world), 0);
    world.advance(Duration::from_millis(1));
    assert_eq!(seen(&world), 1);
    world.advance(Duration::from_secs(600));
    assert_eq!(seen(&world), 1 + 10);
    assert_eq!(world.db.timers_count(&ShardSet::full()), Ok(1));
    // One that is due before what was looked at last.
    world.set(A, "now", TimerWhen::After(0));
    world.advance(Duration::ZERO);
    assert_eq!(seen(&world), 1 + 10 + 1);
    // Missed runs are one.
    let op = TimerOp::List;
    let Ok(DbAnswer::Timers(before)) = world.db.timers(B, op) else { panic!("timers") };
    world.clock.move_to(world.clock.now() + Duration::from_secs(3600));
    world.advance(Duration::ZERO);
    let last = world.pool.seen.lock().last().cloned().expect("one");
    assert_eq!(last, (B, "every".to_owned(), before[0].due));
    assert_eq!(seen(&world), 1 + 10 + 1 + 1);
}

#[test]
fn overdue_timers_come_at_a_pace() {
    let world = TimerWorld::new(Arc::new(MemoryStore::new()), clock());
    for number in 0..10_000_u64 {
        world.set(TenantId::User(number << 22), "1", TimerWhen::After(number));
    }
    let TimerWorld { clock, db, .. } = world;
    clock.move_to(clock.now() + Duration::from_secs(3600));
    // A master that starts finds them all.
    let pool = Arc::new(Answering::default());
    let firer = TimerFirer::new(pool.clone(), db.clone(), ShardSet::full(), TIMERS_PACE);
    let mut world = TimerWorld { clock, db, pool, firer };
    world.advance(Duration::from_secs(1));
    let first = world.pool.seen.lock().len();
    assert!((1_500..=2_200).contains(&first), "{first} in a second");
    world.advance(Duration::from_secs(6));
    let seen = world.pool.seen.lock().clone();
    assert!(seen.len() == 10_000 && seen.is_sorted_by_key(|(_, _, due)| *due));
}

#[test]
fn none_is_lost_whatever_fails_and_whenever_the_master_ends() {
    for seed in 1..=20 {
        let store = Arc::new(MemoryStore::new());
        let (clock, mut expected) = (clock(), BTreeMap::new());
        let mut world = TimerWorld::new(store.clone(), clock.clone());
        *world.pool.random.lock() = seed;
        let mut ran: BTreeMap<(TenantId, String), Vec<Timestamp>> = BTreeMap::new();
        for round in 0..30 {
            world.pool.failing.store(3, Ordering::Relaxed);
            for number in 0..20 {
                let tenant = TenantId::User(world.pool.draw(10) << 22);
                let id = format!("{round}-{number}");
                let after = world.pool.draw(30_000_000);
                world.set(tenant, &id, TimerWhen::After(after));
                let due = world.db.now().unix_micros() + after as i64;
                expected.insert((tenant, id), at(due));
            }
            world.advance(Duration::from_millis(world.pool.draw(5_000)));
            let (now, seen) = (world.db.now(), std::mem::take(&mut *world.pool.seen.lock()));
            for (tenant, id, due) in seen {
                assert!(due <= now, "early");
                ran.entry((tenant, id)).or_default().push(due);
            }
            if world.pool.draw(3) == 0 {
                // The master ends in the middle, and another one begins.
                let random = world.pool.draw(u64::MAX);
                world = TimerWorld::new(store.clone(), clock.clone());
                *world.pool.random.lock() = random;
            }
        }
        world.pool.failing.store(0, Ordering::Relaxed);
        world.advance(TIMER_RETRY_MAX * 2);
        for (tenant, id, due) in std::mem::take(&mut *world.pool.seen.lock()) {
            ran.entry((tenant, id)).or_default().push(due);
        }
        assert_eq!(ran.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (timer, due) in ran {
            assert!(due.iter().all(|due| *due == expected[&timer]), "{timer:?}: {due:?}");
        }
        assert_eq!(world.db.timers_count(&ShardSet::full()), Ok(0), "seed {seed}");
    }
}

#[test]
fn one_due_again_where_a_look_has_gone_by_runs() {
    let mut world = TimerWorld::new(Arc::new(MemoryStore::new()), clock());
    let began = world.clock.now();
    let turn_at = |world: &mut TimerWorld, millis| {
        world.clock.move_to(began + Duration::from_millis(millis));
        world.firer.turn();
        world.pool.open.lock().pop()
    };
    world.set(A, "every", TimerWhen::Every("* * * * *".to_owned()));
    world.set(B, "before", TimerWhen::After(119_940_000));
    world.set(B, "same", TimerWhen::After(120_000_000));
    let slow = turn_at(&mut world, 60_000).expect("a run");
    let other = turn_at(&mut world, 119_940).expect("a run");
    other.send(Ok(EncodedValue::null()));
    assert!(turn_at(&mut world, 119_980).is_none(), "it writes, and again after 50 ms");
    slow.send(Ok(EncodedValue::null()));
    assert!(turn_at(&mut world, 119_990).is_none());
    // The end of the slow run, which is due again now, is written after this look.
    let same = turn_at(&mut world, 120_000).expect("a run");
    same.send(Ok(EncodedValue::null()));
    world.advance(Duration::from_millis(200));
    let last = world.pool.seen.lock().last().cloned();
    assert_eq!(last, Some((A, "every".to_owned(), at(1_767_225_720_000_000))));
}

#[test]
fn timers_made_after_the_date_was_set_back_run() {
    let store = Arc::new(MemoryStore::new());
    let mut before = TimerWorld::new(store.clone(), clock());
    before.set(A, "before", TimerWhen::After(3_600_000_000));
    before.advance(Duration::from_secs(3600));
    before.advance(TIMERS_PACE);
    assert_eq!(before.pool.seen.lock().len(), 1);
    // The same firer, an hour earlier.
    let mut world = TimerWorld::new(store, clock());
    (world.firer.behind, world.firer.next) = (before.firer.behind.take(), before.firer.next);
    assert!(world.firer.behind.as_ref().is_some_and(|(due, ..)| *due > world.db.now()));
    world.set(A, "after", TimerWhen::After(10_000_000));
    world.advance(Duration::from_secs(10));
    assert_eq!(world.pool.seen.lock().len(), 1);
}

#[test]
fn a_ban_that_ends_a_run_holds_its_timer() {
    let mut world = TimerWorld::new(Arc::new(MemoryStore::new()), clock());
    world.set(A, "once", TimerWhen::After(0));
    world.firer.turn();
    let waiting = world.pool.open.lock().pop().expect("a run");
    world.db.set_standing(A, Standing::Banned).expect("set");
    waiting.send(Err(DispatchError::Script(TENANT_DROPPED.to_owned())));
    world.advance(Duration::from_secs(60));
    let outcomes = world.firer.shared.outcomes.clone();
    assert_eq!((world.pool.seen.lock().len(), outcomes.get(TimerOutcome::Again)), (1, 1));
    assert!(outcomes.get(TimerOutcome::Held) > 0);
    assert_eq!(world.db.timers_count(&ShardSet::full()), Ok(1));
    world.db.set_standing(A, Standing::Good).expect("set");
    world.advance(TIMER_HELD_FOR + TIMERS_PACE);
    assert_eq!((world.pool.seen.lock().len(), outcomes.get(TimerOutcome::Ran)), (2, 1));
    assert_eq!(world.db.timers_count(&ShardSet::full()), Ok(0));
}

#[test]
fn a_worker_that_asks_for_subscriptions_loses_no_timer() {
    let mut world = TimerWorld::new(Arc::new(MemoryStore::new()), clock());
    world.set(A, "once", TimerWhen::After(0));
    world.firer.turn();
    world.pool.open.lock().pop().expect("a run").send_not_subscribed();
    world.firer.turn();
    let outcomes = world.firer.shared.outcomes.clone();
    assert_eq!(outcomes.get(TimerOutcome::Again), 1);
    world.advance(TIMER_RETRY_MIN + TIMERS_PACE);
    assert_eq!((world.pool.seen.lock().len(), outcomes.get(TimerOutcome::Ran)), (2, 1));
    assert_eq!(world.db.timers_count(&ShardSet::full()), Ok(0));
}

#[test]
fn writes_in_doubt_are_looked_for_while_more_come() {
    let store = Arc::new(MemoryStore::new());
    let mut world = TimerWorld::new(store.clone(), clock());
    let doubt = |world: &TimerWorld| {
        let shared = &world.firer.shared;
        shared.note(|notes| notes.news.push(TimerNews::Doubt));
    };
    let seen = |world: &TimerWorld| world.pool.seen.lock().len();
    world.set(A, "1", TimerWhen::After(0));
    // Two that took effect though their writers were told that this is not known.
    for (id, expected) in [("2", 2), ("3", 3)] {
        let due = world.db.now();
        world.advance(Duration::from_secs(1));
        store.timer_set(A, Timer { due, ..timer(id, 0) }).expect("set");
        for _ in 0..4 {
            doubt(&world);
            world.advance(DOUBT_ENDS / 3);
        }
        assert_eq!(seen(&world), expected);
    }
    // And one that takes effect after the look for those before it.
    world.advance(DOUBT_ENDS * 2);
    for _ in 0..2 {
        doubt(&world);
        world.advance(DOUBT_ENDS / 2);
    }
    store.timer_set(A, Timer { due: world.db.now(), ..timer("4", 0) }).expect("set");
    world.advance(DOUBT_ENDS);
    assert_eq!(seen(&world), 4);
}

#[test]
fn a_time_between_two_microseconds_is_not_early() {
    let world = TimerWorld::new(Arc::new(MemoryStore::new()), clock());
    let time = "2026-01-01T00:00:01.000000500Z".parse().expect("a time");
    world.set(A, "1", TimerWhen::At(time));
    let timers = world.db.timers_of(A).expect("timers");
    assert_eq!(timers[0].due, at(1_767_225_601_000_001));
}
