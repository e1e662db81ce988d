//! The ticker, which sleeps while no executor is busy.

use super::config::OnBroken;
use super::ticker::Ticker;
use crate::base::limits::TICKER_LINGER;
use crate::base::primitives;
use crate::check::{Model, spawn};

pub fn models() -> Vec<Model> {
    vec![Model { name: "ticker", run: ticker, is_tiny: false }]
}

/// An executor that gets busy is told of the end of its slice, whether or not the ticker slept; and
/// a stop ends the ticker.
fn ticker() {
    // Of one that sleeps, a slice is over at once.
    primitives::end_timed_waits();
    let started = Ticker::start_watched("", 1, TICKER_LINGER, &OnBroken);
    let (ticker, ticks) = started.expect("threads are there");
    let tick = ticks[0].clone();
    let executor = spawn(move || {
        for _ in 0..2 {
            tick.start_turn(false);
            tick.busy();
            while !tick.has_signal() {
                shuttle::thread::yield_now();
            }
            tick.take();
            tick.idle();
        }
    });
    executor.join().expect("an end");
    ticker.stop();
}
