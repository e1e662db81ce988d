//! The board of a worker's status.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::board::Board;
use super::process::supervisor::{Cause, State};
use crate::check::{Model, far, spawn};

pub fn models() -> Vec<Model> {
    vec![Model { name: "board", run: board, is_tiny: false }]
}

/// Each change is kept, each that waits for one is woken by it, and each change of the state is
/// told of.
fn board() {
    let told = Arc::<AtomicUsize>::default();
    let counts = told.clone();
    let on_change = move || {
        counts.fetch_add(1, Ordering::SeqCst);
    };
    let board: Arc<Board<()>> = Arc::new(Board::new(0, State::Starting, on_change));
    let (shown, restarted) = (board.clone(), board.clone());
    let waits = spawn(move || {
        shown.wait_until(far(), |status| status.report.state == State::Ready).report.state
    });
    let waits_for_restart = spawn(move || restarted.wait_until_restarted(0, far(), ""));
    let counting: Vec<_> = (0..2)
        .map(|_| {
            let board = board.clone();
            spawn(move || board.publish(|status| status.report.in_flight += 1))
        })
        .collect();
    board.publish(|status| status.report.restarts.count(Cause::ALL[0]));
    board.publish(|status| status.report.state = State::Ready);
    counting.into_iter().for_each(|thread| thread.join().expect("an end"));
    assert_eq!(waits.join().expect("an end"), State::Ready);
    assert_eq!(waits_for_restart.join().expect("an end"), Ok(()));
    assert_eq!(board.status().report.in_flight, 2);
    assert_eq!(told.load(Ordering::SeqCst), 1);
}
