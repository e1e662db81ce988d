//! The last five minutes of what the status page's charts show, so that a page that was just opened
//! shows them, too.
//!
//! Sums since the master started, taken at an interval by a thread of its own (`api-history`),
//! which [`InternalApi`](super::InternalApi) owns: the page makes rates and quantiles of their
//! differences, as it does of two answers of `/i/status`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde::Serialize;

use super::status::{self, CountedWorker, Latency};
use super::{Api, WorkerAnswer};
use crate::base::limits::{STATUS_HISTORY_INTERVAL, STATUS_HISTORY_SAMPLES};
use crate::base::sync::Lock;
use crate::base::thread::{self, OwnedThread};

/// What all workers had done at one moment, as if they were one.
#[derive(Debug, Default, Clone, Serialize)]
pub(super) struct Sample {
    at_ms: u64,
    events: u64,
    failures: u64,
    counts: Vec<u64>,
    us: u64,
    memory: u64,
}

impl Sample {
    fn of(at_ms: u64, workers: &[CountedWorker]) -> Self {
        let mut sample = Self { at_ms, ..Self::default() };
        // Worker threads share a process, and each of them tells its whole memory.
        let mut memory = BTreeMap::new();
        for (place, worker) in workers.iter().enumerate() {
            let (events, ok) = worker.ended();
            sample.events += events;
            sample.failures += events - ok;
            let Latency { counts, sum_us } = &worker.latency;
            sample.counts.resize(sample.counts.len().max(counts.len()), 0);
            sample.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            sample.us += sum_us;
            let WorkerAnswer { pid, memory_bytes, .. } = &worker.worker;
            memory.insert(pid.ok_or(place), memory_bytes.unwrap_or(0));
        }
        sample.memory = memory.into_values().fold(0, u64::saturating_add);
        sample
    }
}

/// The samples, the oldest first. Bound: [`STATUS_HISTORY_SAMPLES`].
#[derive(Debug, Default)]
pub(super) struct History(Lock<VecDeque<Sample>>);

impl History {
    pub(super) fn list(&self) -> Vec<Sample> {
        self.0.lock().iter().cloned().collect()
    }

    fn push(&self, sample: Sample) {
        let mut samples = self.0.lock();
        if samples.len() >= STATUS_HISTORY_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// The thread that takes the samples; dropping this ends and joins it.
#[derive(Debug)]
pub(super) struct Recorder {
    // First, so that it is dropped before the thread is joined.
    _stop_tx: Sender<()>,
    _thread: OwnedThread,
}

impl Recorder {
    /// # Errors
    /// The operating system refused a thread.
    pub(super) fn start(api: Arc<Api>) -> io::Result<Self> {
        let (stop_tx, stop_rx) = bounded(0);
        let thread = thread::spawn("api-history", move || record(&api, &stop_rx))?;
        Ok(Self { _stop_tx: stop_tx, _thread: thread })
    }
}

/// # Blocks
/// Until the next sample is due; the wake-up is the drop of the channel's other end.
fn record(api: &Api, stop_rx: &Receiver<()>) {
    loop {
        let (figures, now) = (api.ready.figures(), Instant::now());
        let workers = status::counted(figures.workers, &figures.traffic, now);
        let at_ms = status::millis(now.saturating_duration_since(figures.about.started));
        api.history.push(Sample::of(at_ms, &workers));
        if stop_rx.recv_timeout(STATUS_HISTORY_INTERVAL) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_samples_make_room() {
        let history = History::default();
        for at_ms in 0..1000 {
            history.push(Sample { at_ms, ..Sample::default() });
        }
        let kept: Vec<u64> = history.list().iter().map(|sample| sample.at_ms).collect();
        let oldest = 1000 - STATUS_HISTORY_SAMPLES as u64;
        assert_eq!(kept, (oldest..1000).collect::<Vec<_>>());
    }
}
