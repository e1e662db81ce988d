//! Timers: what is kept of them, in which order they are due, and what a tenant may have.

use mesophyll::base::error::DbError;
use mesophyll::base::limits::{TIMER_CALLS, TIMER_DATA_MAX_BYTES, TIMERS_MAX, TIMERS_MAX_BYTES};
use mesophyll::store::Usage;
use mesophyll::store::timers::{TimerPlace, TimerRun};
use mesophyll::wire::data::sharding::{Shard, ShardSet};
use mesophyll::wire::data::{DbAnswer, DbOp, TenantId, Timer, TimerOp, TimerWhen, Timestamp};

use super::{OTHER, TENANT};
use crate::support::db::{Door, Kept, TestDb, Typed, refusal, text};

every_database! {
    timers_are_listed_as_they_are_due,
    a_timer_of_the_same_id_stays_as_it_is,
    due_timers_come_in_order_and_piece_by_piece,
    a_run_that_is_over_moves_its_timer_or_ends_it,
    timers_keep_to_their_limits,
    calls_of_timers_are_so_many_a_second,
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros).expect("in range")
}

fn set(id: &str, when: TimerWhen) -> TimerOp {
    let (id, name) = (id.to_owned(), format!("On {id}"));
    TimerOp::Set { id, name, when, data: text("what") }
}

impl TestDb {
    fn timer(&self, op: TimerOp) -> Result<DbAnswer, DbError> {
        self.tenants.answer(DbOp::Timer(TENANT, op))
    }

    fn timers(&self) -> Vec<Timer> {
        match self.timer(TimerOp::List) {
            Ok(DbAnswer::Timers(timers)) => timers,
            other => panic!("no timers: {other:?}"),
        }
    }

    /// As staff, whom no rate holds up.
    fn put_timer(&self, tenant: TenantId, id: &str, due: i64) {
        let name = "E".to_owned();
        let timer = Timer { id: id.to_owned(), name, due: at(due), every: None, data: text(id) };
        self.store.timer_set(tenant, timer).expect("made");
    }
}

fn timers_are_listed_as_they_are_due(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    assert_eq!(db.timers(), []);
    let now = Timestamp::now().unix_micros();
    let hour = 3_600_000_000;
    let far = at(now + 100 * hour);
    let ops = [
        set("at", TimerWhen::At(far)),
        set("every", TimerWhen::Every("90000".to_owned())),
        set("cron", TimerWhen::Every("* * * * *".to_owned())),
        set("after", TimerWhen::After(hour as u64)),
        set("past", TimerWhen::At(at(5))),
    ];
    for op in ops {
        assert_eq!(db.timer(op), Ok(DbAnswer::Done));
    }
    let timers = db.timers();
    let ids: Vec<&str> = timers.iter().map(|timer| timer.id.as_str()).collect();
    assert_eq!(ids, ["past", "cron", "after", "every", "at"]);
    assert!(timers[0].due >= at(now), "what has passed is due now");
    assert!(timers[1].due.unix_micros() % 60_000_000 == 0 && timers[1].due > at(now));
    assert!((now + hour..now + 2 * hour).contains(&timers[2].due.unix_micros()));
    assert_eq!((timers[3].every.as_deref(), timers[2].every.as_deref()), (Some("90000"), None));
    let name = "On at".to_owned();
    let whole = Timer { id: "at".to_owned(), name, due: far, every: None, data: text("what") };
    assert_eq!(timers[4], whole);
    assert_eq!(db.state.timers_of(OTHER), Ok(Vec::new()));
    let cancel = |id: &str| db.timer(TimerOp::Cancel { id: id.to_owned() });
    assert_eq!(cancel("cron"), Ok(DbAnswer::Cancelled(true)));
    assert_eq!(cancel("cron"), Ok(DbAnswer::Cancelled(false)));
    assert_eq!(db.timers().len(), 4);
    // They are no records.
    assert_eq!(db.found("%", &[]), []);
    assert_eq!(db.state.kv_usage(TENANT), Ok(Usage::default()));
    assert_eq!(db.state.timers_count(&ShardSet::full()), Ok(4));
}

fn a_timer_of_the_same_id_stays_as_it_is(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let far = |hours: u64| TimerWhen::After(3_600_000_000 * hours);
    db.timer(set("a", far(1))).expect("made");
    let first = db.timers();
    db.timer(set("a", far(2))).expect("it is there");
    assert_eq!(db.timers(), first);
}

/// The ids of those that are due by a time, so many at a time.
fn due(db: &TestDb, of: &ShardSet, until: i64, max: usize) -> (Vec<String>, Option<Timestamp>) {
    let mut behind: Option<TimerPlace> = None;
    let mut ids = Vec::new();
    loop {
        let found = db.store.timers_due(of, behind.as_ref(), at(until), max).expect("found");
        assert!(found.timers.len() <= max);
        for (tenant, timer) in &found.timers {
            assert_eq!(timer.data, text(&timer.id));
            ids.push(timer.id.clone());
            behind = Some((timer.due, *tenant, timer.id.clone()));
        }
        if found.timers.len() < max {
            return (ids, found.next);
        }
    }
}

fn due_timers_come_in_order_and_piece_by_piece(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let tenants: Vec<TenantId> = (0..4).map(|number| TenantId::User(number << 22)).collect();
    for (number, tenant) in (0..).zip(&tenants) {
        db.put_timer(*tenant, &format!("{number}"), 1000 - number);
        db.put_timer(*tenant, &format!("late {number}"), 5000 + number);
    }
    let all = ShardSet::full();
    for max in [1, 2, 3, 100] {
        assert_eq!(due(&db, &all, 999, max).0, ["3", "2", "1"]);
        let (ids, next) = due(&db, &all, 1000, max);
        assert_eq!((ids.len(), next), (4, Some(at(5000))));
        assert_eq!(due(&db, &all, 9000, max).1, None);
    }
    assert_eq!(due(&db, &all, 996, 10), (Vec::new(), Some(at(997))), "none is early");
    let one: ShardSet = [Shard::of(tenants[1])].into_iter().collect();
    assert_eq!(due(&db, &one, 4000, 10), (vec!["1".to_owned()], Some(at(5001))));
    assert_eq!(db.store.timers_count(&one), Ok(2));
    // Many that are due at one time.
    for number in 0..50 {
        db.put_timer(tenants[number % 4], &format!("same {number}"), 2000);
    }
    let mut ids = due(&db, &all, 2000, 7).0;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 54);
}

fn a_run_that_is_over_moves_its_timer_or_ends_it(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    for (id, due) in [("a", 1000), ("b", 1000), ("c", 1000), ("d", 1000)] {
        db.put_timer(TENANT, id, due);
    }
    let run = |id: &str, due, next: Option<i64>| TimerRun {
        tenant: TENANT,
        id: id.to_owned(),
        due: at(due),
        next: next.map(at),
    };
    let runs = vec![
        run("a", 1000, None),
        run("b", 1000, Some(3000)),
        run("c", 999, None),
        run("d", 1001, Some(4000)),
        run("gone", 1000, Some(4000)),
    ];
    for _ in 0..2 {
        db.state.timers_ran(&runs).expect("noted, and once more");
        let (ids, next) = due(&db, &ShardSet::full(), 2000, 100);
        assert_eq!((ids, next), (vec!["c".to_owned(), "d".to_owned()], Some(at(3000))));
    }
    assert_eq!(db.store.timers(TENANT).expect("listed").len(), 3);
}

fn timers_keep_to_their_limits(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let hour = || TimerWhen::After(3_600_000_000);
    for when in [
        TimerWhen::After(u64::MAX),
        TimerWhen::At(at(i64::MAX / 100)),
        TimerWhen::Every("9.9".to_owned()),
        TimerWhen::Every("60 * * * *".to_owned()),
        TimerWhen::Every("0 0 30 2 *".to_owned()),
    ] {
        refusal(db.timer(set("a", when)));
    }
    refusal(db.timer(set("", hour())));
    refusal(db.timer(set(&"i".repeat(65), hour())));
    refusal(db.timer(set("a\0", hour())));
    let named = |name: &str, data| TimerOp::Set {
        id: "a".to_owned(),
        name: name.to_owned(),
        when: hour(),
        data,
    };
    refusal(db.timer(named("", text(""))));
    refusal(db.timer(named(&"n".repeat(513), text(""))));
    refusal(db.timer(named("n", text(&"x".repeat(TIMER_DATA_MAX_BYTES)))));
    refusal(db.timer(named("n", text("\0"))));
    assert_eq!(db.timers(), []);
    // So many, and no more.
    for number in 0..TIMERS_MAX {
        db.state.timers(TENANT, set(&number.to_string(), hour())).expect("room");
    }
    assert!(refusal(db.timer(set("more", hour()))).contains("timers"));
    db.timer(TimerOp::Cancel { id: "7".to_owned() }).expect("ended");
    db.timer(set("more", hour())).expect("room again");
    // So large, and no larger; another tenant's are its own.
    let large = || text(&"x".repeat(TIMER_DATA_MAX_BYTES - 16));
    let of_other = |number: u64| {
        let (id, name) = (number.to_string(), "n".to_owned());
        db.state.timers(OTHER, TimerOp::Set { id, name, when: hour(), data: large() })
    };
    let fit = (0..).take_while(|number| of_other(*number).is_ok()).count() as u64;
    let each = TIMER_DATA_MAX_BYTES as u64;
    assert!((TIMERS_MAX_BYTES / each - 1..=TIMERS_MAX_BYTES / each).contains(&fit), "{fit}");
    assert!(refusal(of_other(1000)).contains("bytes"));
}

fn calls_of_timers_are_so_many_a_second(kept: Kept, door: Door) {
    let db = TestDb::new(kept, door);
    let (_, burst) = TIMER_CALLS;
    let is_busy = |_| matches!(db.timer(TimerOp::List), Err(DbError::Busy(_)));
    assert!((0..burst / 2).all(|number| !is_busy(number)), "a burst");
    // However slow the machine is: more a second than anything takes.
    let calls = (0..100_000).position(is_busy);
    assert!(calls.is_some(), "more than a burst");
    assert!(db.state.timers(TENANT, TimerOp::List).is_ok(), "staff is not held up");
}
