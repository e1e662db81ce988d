//! Whose turn it is, and what becomes of a connection that is lent; the connections are numbers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::super::call::carry_out;
use super::super::session::Fault;
use super::*;
use crate::error::DbError;

const SEVEN: usize = 7;
const LOUD: Who = Who::Tenant(TenantId::Guild(1));
const QUIET: Who = Who::Tenant(TenantId::Guild(2));

/// Not later than any test may end.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[derive(Debug, Default)]
struct Numbered {
    number: usize,
    is_closed: bool,
    is_dead: bool,
}

impl Connection for Numbered {
    fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn is_alive(&self) -> bool {
        !self.is_dead && !self.is_closed
    }
}

fn pool_of(connections: usize) -> Pool<Numbered> {
    let pool = Pool::new(SEVEN);
    for number in 0..connections {
        pool.add(Box::new(Numbered { number, ..Numbered::default() }));
    }
    pool
}

/// Lends a connection only if one is free for this caller now.
fn now(pool: &Pool<Numbered>, who: Who, access: Access) -> Option<Loan<'_, Numbered>> {
    pool.borrow(who, access, Instant::now()).ok()
}

/// Waits until so many callers wait.
fn until_waiting(pool: &Pool<Numbered>, callers: usize) {
    let deadline = far();
    while pool.waiting() != callers {
        assert!(Instant::now() < deadline, "{} wait", pool.waiting());
        std::thread::yield_now();
    }
}

#[test]
fn one_write_of_a_tenant_at_a_time_and_in_order() {
    let pool = pool_of(SEVEN);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let first = now(&pool, LOUD, Access::Write).expect("a connection");
        assert!(now(&pool, LOUD, Access::Write).is_none(), "another of its writes is under way");
        assert!(now(&pool, QUIET, Access::Write).is_some(), "which is nothing to others");
        for number in 0..3 {
            let (pool, order) = (&pool, &order);
            scope.spawn(move || {
                let loan = pool.borrow(LOUD, Access::Write, far()).expect("a connection");
                order.lock().expect("no panic").push(number);
                drop(loan);
            });
            until_waiting(pool, number + 1);
        }
        drop(first);
    });
    assert_eq!(*order.lock().expect("no panic"), [0, 1, 2]);
    let inner = pool.lock();
    assert!(inner.lanes.is_empty() && inner.idle.len() == SEVEN, "nothing is left behind");
}

#[test]
fn a_tenant_s_operations_leave_a_connection_to_others() {
    let pool = pool_of(SEVEN);
    let mut loans: Vec<_> = std::iter::from_fn(|| now(&pool, LOUD, Access::Read)).collect();
    loans.extend(std::iter::from_fn(|| now(&pool, LOUD, Access::Write)));
    assert_eq!(loans.len(), SEVEN - 1);
    assert!(now(&pool, QUIET, Access::Write).is_some());
}

#[test]
fn lanes_take_turns() {
    let pool = pool_of(1);
    let order = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let first = now(&pool, Who::Everybody, Access::Write).expect("a connection");
        let callers = [LOUD, LOUD, LOUD, QUIET, Who::Everybody];
        for (number, who) in callers.into_iter().enumerate() {
            let (pool, order) = (&pool, &order);
            scope.spawn(move || {
                let loan = pool.borrow(who, Access::Read, far()).expect("a connection");
                order.lock().expect("no panic").push(number);
                drop(loan);
            });
            until_waiting(pool, number + 1);
        }
        drop(first);
    });
    assert_eq!(*order.lock().expect("no panic"), [0, 3, 4, 1, 2]);
}

#[test]
fn who_gives_up_leaves_no_trace_and_its_room_to_others() {
    let pool = pool_of(1);
    let first = now(&pool, LOUD, Access::Read).expect("a connection");
    for _ in 0..2 * POSTGRES_LANE_MAX {
        assert_eq!(pool.borrow(LOUD, Access::Read, Instant::now()).err(), Some(NotLent::Unavailable));
    }
    assert_eq!(pool.waiting(), 0);
    drop(first);
    assert!(pool.lock().lanes.is_empty());
    assert!(now(&pool, LOUD, Access::Read).is_some());
}

#[test]
fn a_full_lane_is_nobody_else_s() {
    let pool = pool_of(1);
    let first = now(&pool, LOUD, Access::Write).expect("a connection");
    let waiters: Vec<_> = {
        let mut inner = pool.lock();
        let (waiters, receivers): (VecDeque<_>, Vec<_>) = (0..POSTGRES_LANE_MAX).map(|_| inner.new_waiter()).unzip();
        inner.waiting += waiters.len();
        inner.lanes.entry((LOUD, Access::Write)).or_default().waiters = waiters;
        receivers
    };
    assert_eq!(pool.borrow(LOUD, Access::Write, far()).err(), Some(NotLent::Full));
    assert_eq!(pool.borrow(QUIET, Access::Write, Instant::now()).err(), Some(NotLent::Unavailable), "it may wait");
    drop(first);
    assert!(waiters[0].try_recv().is_ok(), "the first is served");
}

#[test]
fn a_panic_costs_its_connection_and_nothing_else() {
    let pool = pool_of(1);
    let loan = now(&pool, LOUD, Access::Write).expect("a connection");
    let panics = |_: &mut Numbered| -> Result<(), Fault> { panic!("on purpose: a panic in an operation") };
    assert!(matches!(carry_out(loan, far(), panics), Err(DbError::OutcomeUnknown(_))));
    {
        let inner = pool.lock();
        assert_eq!((inner.open, inner.turns, inner.lanes.len()), (0, 0, 0));
    }
    std::thread::scope(|scope| {
        let next = scope.spawn(|| pool.borrow(LOUD, Access::Write, far()).map(|loan| loan.connection.is_some()));
        // Whoever comes next makes the connecting thread make another.
        assert_eq!(pool.next_wish(), Wish::Connect);
        pool.add(Box::default());
        assert_eq!(next.join().expect("no panic"), Ok(true));
    });
}

#[test]
fn a_lost_connection_takes_the_dead_ones_with_it_and_its_operation_gets_another() {
    let pool = pool_of(3);
    for connection in &mut pool.lock().idle[..2] {
        connection.is_dead = true;
    }
    let loan = now(&pool, LOUD, Access::Write).expect("a connection");
    let attempts = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let operation = scope.spawn(|| {
            carry_out(loan, far(), |connection| match attempts.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Fault::Lost),
                _ => Ok(connection.number),
            })
        });
        assert_eq!(pool.next_wish(), Wish::Connect);
        assert_eq!(pool.open(), 0);
        pool.add(Box::new(Numbered { number: 100, ..Numbered::default() }));
        assert!(matches!(operation.join(), Ok(Ok(100))));
    });
    assert_eq!(pool.lock().idle.len(), 1);
}

#[test]
fn nobody_waits_for_a_server_that_is_away() {
    let pool = pool_of(0);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.borrow(LOUD, Access::Read, far()).err());
        assert_eq!(pool.next_wish(), Wish::Connect);
        assert_eq!(pool.connecting_failed(), Reach::JustLost);
        assert_eq!(waits.join().expect("no panic"), Some(NotLent::Unavailable));
    });
    assert_eq!(pool.borrow(LOUD, Access::Read, far()).err(), Some(NotLent::Unavailable), "at once");
    assert_eq!(pool.next_wish(), Wish::Connect, "after a pause, whoever asks");
    assert_eq!(pool.connecting_failed(), Reach::StillLost);
    assert!(pool.add(Box::default()), "the server was away");
    assert!(now(&pool, LOUD, Access::Read).is_some());
}

#[test]
fn connections_that_are_left_serve_while_no_more_can_be_made() {
    let pool = pool_of(1);
    let first = now(&pool, LOUD, Access::Read).expect("a connection");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.borrow(QUIET, Access::Read, far()).is_ok());
        assert_eq!(pool.next_wish(), Wish::Connect);
        pool.connecting_failed();
        drop(first);
        assert!(waits.join().expect("no panic"));
    });
}

#[test]
fn the_end_waits_for_who_has_a_connection_and_for_who_waits_for_one() {
    let pool = pool_of(1);
    let first = now(&pool, LOUD, Access::Write).expect("a connection");
    let is_closed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let loan = pool.borrow(LOUD, Access::Write, far());
            assert!(is_closed.load(Ordering::SeqCst));
            loan.is_ok()
        });
        until_waiting(&pool, 1);
        pool.close();
        is_closed.store(true, Ordering::SeqCst);
        assert_eq!(pool.borrow(QUIET, Access::Read, far()).err(), Some(NotLent::Closed));
        assert!(!pool.wait_until_over(Instant::now()), "one has a connection, and one waits");
        let connecting = scope.spawn(|| pool.next_wish());
        drop(first);
        assert!(waits.join().expect("no panic"), "who waited is served");
        assert!(pool.wait_until_over(far()));
        assert_eq!(connecting.join().expect("no panic"), Wish::End);
    });
    assert_eq!(pool.open(), 0, "the connections are ended");
}

/// Whatever callers do, each comes to its end, and nothing is left over.
#[test]
fn many_callers_whose_connections_break_all_come_to_an_end() {
    const CALLERS: usize = 16;
    let pool = pool_of(0);
    let (at_once, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut number = 0;
            while pool.next_wish() == Wish::Connect {
                number += 1;
                if number % 5 == 0 {
                    pool.connecting_failed();
                } else {
                    pool.add(Box::new(Numbered { number, ..Numbered::default() }));
                }
            }
        });
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (pool, at_once, most) = (&pool, &at_once, &most);
                scope.spawn(move || {
                    for round in 0..2000 {
                        let who = if caller % 2 == 0 { LOUD } else { QUIET };
                        let access = if round % 3 == 0 { Access::Write } else { Access::Read };
                        let Ok(loan) = pool.borrow(who, access, far()) else { continue };
                        let _ = carry_out(loan, far(), |connection| {
                            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::yield_now();
                            at_once.fetch_sub(1, Ordering::SeqCst);
                            connection.is_closed = (round + caller) % 50 == 0;
                            match (round + caller) % 40 {
                                0 => Err(Fault::Lost),
                                1 => Err(Fault::Unknown),
                                _ => Ok(()),
                            }
                        });
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.join().expect("no panic");
        }
        pool.close();
        assert!(pool.wait_until_over(far()));
        connecting.join().expect("no panic");
    });
    let inner = pool.lock();
    assert!(inner.lanes.is_empty() && inner.bereft.is_empty() && inner.ready.is_empty());
    assert_eq!((inner.open, inner.turns, inner.waiting), (0, 0, 0));
    assert!(most.load(Ordering::SeqCst) <= SEVEN);
}
