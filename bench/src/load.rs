//! Callers that do one thing again and again for a while, each on a thread of its own, and how long
//! each time took.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Figure, Sample};

/// What one caller does again and again.
pub type Caller<'c> = Box<dyn FnMut() -> Result<(), String> + Send + 'c>;

/// Lets callers go on for `lasting`; closed loop: each waits for its answer before it asks again.
pub fn drive(callers: Vec<Caller<'_>>, lasting: Duration) -> Result<Sample, String> {
    let start = Barrier::new(callers.len() + 1);
    let stop = AtomicBool::new(false);
    let (times, took) = std::thread::scope(|scope| {
        let threads: Vec<_> = callers
            .into_iter()
            .map(|mut caller| {
                let (start, stop) = (&start, &stop);
                scope.spawn(move || -> Result<Vec<u64>, String> {
                    let mut times = Vec::with_capacity(100_000);
                    start.wait();
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        caller()?;
                        times.push(begun.elapsed().as_nanos() as u64);
                    }
                    Ok(times)
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        std::thread::sleep(lasting);
        stop.store(true, Ordering::Relaxed);
        let times: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        (times, begun.elapsed())
    });
    let mut all = Vec::new();
    for times in times {
        all.extend(times.map_err(|_| "a caller panicked".to_owned())??);
    }
    summary(all, took)
}

fn summary(mut times: Vec<u64>, took: Duration) -> Result<Sample, String> {
    times.sort_unstable();
    let worst = *times.last().ok_or("nothing was done in this time")?;
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    let us = |nanos: u64| nanos as f64 / 1000.0;
    Ok(vec![
        (Figure::Rate, times.len() as f64 / took.as_secs_f64()),
        (Figure::P50, us(at(0.5))),
        (Figure::P99, us(at(0.99))),
        (Figure::Worst, us(worst)),
    ])
}
