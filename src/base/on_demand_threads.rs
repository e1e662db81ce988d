//! Threads that do what comes in, and that are there only while there is something to do: a job
//! that finds no thread free starts one, up to a bound, and one that has had nothing to do for a
//! while ends. A runtime whose templates ask for nothing has none.
//!
//! Owned by its maker, which stops it. A thread that ends by itself leaves its handle behind, which
//! the next start or the stop joins. Deliberately knows nothing of what a job is.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sync::{Lock, Signal};
use super::thread::{OwnedThread, spawn};
use super::turns::Turns;

/// The threads and their queue.
pub struct OnDemandThreads<K, J> {
    shared: Arc<SharedThreads<K, J>>,
}

struct SharedThreads<K, J> {
    /// Of each thread that there may be.
    names: Vec<String>,
    jobs_max: usize,
    /// After this a thread without a job ends.
    idle_max: Duration,
    /// Does not panic.
    work: Box<dyn Fn(J) + Send + Sync>,
    state: Lock<ThreadsState<K, J>>,
    changed: Signal,
}

struct ThreadsState<K, J> {
    // Limit: `jobs_max`.
    jobs: Turns<K, J>,
    /// Threads that wait for a job, those that have been woken for one included.
    waiting: usize,
    /// By the number of their names.
    threads: BTreeMap<usize, OwnedThread>,
    /// Threads that have nothing more to do than to end.
    ended: Vec<OwnedThread>,
    is_stopping: bool,
}

impl<K: Copy + Eq + Hash + Send + 'static, J: Send + 'static> OnDemandThreads<K, J> {
    /// As many threads at most as there are names, none of which is started yet.
    pub fn new(
        names: Vec<String>,
        jobs_max: usize,
        idle_max: Duration,
        work: impl Fn(J) + Send + Sync + 'static,
    ) -> Self {
        let state = ThreadsState {
            jobs: Turns::new(names.len()),
            waiting: 0,
            threads: BTreeMap::new(),
            ended: Vec::new(),
            is_stopping: false,
        };
        let work = Box::new(work);
        let (state, changed) = (Lock::new(state), Signal::new());
        Self { shared: Arc::new(SharedThreads { names, jobs_max, idle_max, work, state, changed }) }
    }

    /// Queues a job of an owner, mostly a tenant, and starts a thread for it if none is free.
    ///
    /// # Errors
    /// The queue is full, the threads have been stopped, or the operating system refused the first
    /// thread: the job comes back.
    pub fn submit(&self, owner: K, job: J) -> Result<(), J> {
        self.submit_within(self.shared.jobs_max, owner, job)
    }

    /// As [`OnDemandThreads::submit`], if fewer than `own_max` jobs of this owner wait.
    ///
    /// # Errors
    /// As many wait, or those of [`OnDemandThreads::submit`].
    pub fn submit_within(&self, own_max: usize, owner: K, job: J) -> Result<(), J> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let is_full = state.jobs.len() >= shared.jobs_max || state.jobs.of(owner) >= own_max;
        if state.is_stopping || is_full {
            return Err(job);
        }
        state.jobs.push(owner, job);
        if state.waiting >= state.jobs.len() {
            drop(state);
            shared.changed.notify_one();
            return Ok(());
        }
        let joinable = if state.threads.len() < shared.names.len() {
            if let Err(error) = self.start_one(&mut state) {
                log::warn!("no further thread for {}: {error}", shared.names[0]);
                if state.threads.is_empty() {
                    // Only this one: without a thread no other job is left here.
                    let only = state.jobs.begin();
                    state.jobs.ended(owner);
                    return only.map_or(Ok(()), |(_, job)| Err(job));
                }
            }
            state.take_ended()
        } else {
            // Those that are at work look for it when they are done.
            Vec::new()
        };
        drop(state);
        // One that waits, as no other owner's job may begin, takes it.
        shared.changed.notify_one();
        joinable.into_iter().for_each(|thread| thread.join().unwrap_or_default());
        Ok(())
    }

    fn start_one(&self, state: &mut ThreadsState<K, J>) -> std::io::Result<()> {
        let free = (0..self.shared.names.len()).find(|number| !state.threads.contains_key(number));
        let Some(number) = free else { return Ok(()) };
        let shared = self.shared.clone();
        let thread = spawn(self.shared.names[number].clone(), move || shared.run(number))?;
        state.threads.insert(number, thread);
        Ok(())
    }

    /// Refuses further jobs and lets go what is queued. Does not wait.
    pub fn abandon(&self) {
        let mut state = self.shared.state.lock();
        state.is_stopping = true;
        let queued = state.jobs.take();
        drop(state);
        // What a job holds may be the last of its kind: not under the lock.
        drop(queued);
    }

    /// Refuses further jobs, lets what is queued be done and joins the threads.
    ///
    /// # Blocks
    /// Until the jobs are done.
    pub fn finish(&self) {
        let mut state = self.shared.state.lock();
        state.is_stopping = true;
        let (threads, ended) =
            (std::mem::take(&mut state.threads), std::mem::take(&mut state.ended));
        drop(state);
        self.shared.changed.notify_all();
        threads.into_values().chain(ended).for_each(|thread| thread.join().unwrap_or_default());
    }

    /// How many threads there are.
    #[cfg(test)]
    pub fn threads(&self) -> usize {
        self.shared.state.lock().threads.len()
    }
}

impl<K: Copy + Eq + Hash, J> SharedThreads<K, J> {
    /// Blocks: until there is a job, for `idle_max` at most; the stop wakes it.
    fn run(&self, number: usize) {
        let mut state = self.state.lock();
        let mut idle_until = Instant::now() + self.idle_max;
        loop {
            if let Some((owner, job)) = state.jobs.begin() {
                if state.waiting > 0 && state.jobs.has_next() {
                    self.changed.notify_one();
                }
                drop(state);
                (self.work)(job);
                state = self.state.lock();
                state.jobs.ended(owner);
                idle_until = Instant::now() + self.idle_max;
                continue;
            }
            if state.is_stopping {
                return;
            }
            if idle_until <= Instant::now() {
                let thread = state.threads.remove(&number);
                state.ended.extend(thread);
                return;
            }
            state.waiting += 1;
            state = self.changed.wait(state, idle_until);
            state.waiting -= 1;
        }
    }
}

impl<K, J> ThreadsState<K, J> {
    /// Threads that have come to their very end: joining them waits for nothing.
    fn take_ended(&mut self) -> Vec<OwnedThread> {
        self.ended.extract_if(.., |thread| thread.wait_until(Instant::now())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    use super::*;
    use crate::wire::data::TenantId;

    const TENANT: TenantId = TenantId::Guild(1);
    const SOON: Duration = Duration::from_secs(60);

    fn eventually(what: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !what() {
            assert!(Instant::now() < deadline, "it did not happen");
            std::thread::yield_now();
        }
    }

    /// Threads whose jobs say that they began and wait to be let go.
    struct Held {
        threads: OnDemandThreads<TenantId, usize>,
        began_rx: Receiver<usize>,
        go_tx: Sender<()>,
        done: Arc<AtomicUsize>,
    }

    fn held(threads: usize, jobs_max: usize, idle_max: Duration) -> Held {
        let (began_tx, began_rx) = unbounded();
        let (go_tx, go_rx) = bounded::<()>(0);
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let names = (0..threads).map(|number| format!("threads{number}")).collect();
        let threads = OnDemandThreads::new(names, jobs_max, idle_max, move |job| {
            began_tx.send(job).expect("the test waits");
            // An end of the test lets all of them go.
            let _ = go_rx.recv();
            count.fetch_add(1, Ordering::SeqCst);
        });
        Held { threads, began_rx, go_tx, done }
    }

    #[test]
    fn threads_start_when_they_are_needed_and_are_bounded() {
        let Held { threads, began_rx, go_tx, done } = held(2, 3, SOON);
        assert_eq!(threads.threads(), 0);
        let mut began = Vec::new();
        for job in 0..2 {
            threads.submit(TenantId::Guild(job as u64), job).expect("room");
            began.push(began_rx.recv_timeout(SOON).expect("it begins"));
            assert_eq!(threads.threads(), job + 1);
        }
        assert_eq!(began, [0, 1]);
        for job in 2..5 {
            let owner = TenantId::Guild(job as u64);
            threads.submit_within(1, owner, job).expect("room in the queue");
            assert_eq!(threads.submit_within(1, owner, 9), Err(9), "one of it waits");
        }
        assert_eq!(threads.submit(TENANT, 5), Err(5), "the queue is full");
        assert_eq!(threads.threads(), 2);
        for _ in 0..5 {
            go_tx.send(()).expect("one waits");
        }
        eventually(|| done.load(Ordering::SeqCst) == 5);
        // One that waits takes the next job: no third is started, nor the second needed.
        eventually(|| threads.shared.state.lock().waiting == 2);
        threads.submit(TENANT, 6).expect("room");
        began_rx.recv_timeout(SOON).expect("it begins");
        drop(go_tx);
        threads.finish();
        assert_eq!((threads.threads(), done.load(Ordering::SeqCst)), (0, 6));
        assert_eq!(threads.submit(TENANT, 7), Err(7), "it has been stopped");
    }

    #[test]
    fn an_idle_thread_ends_and_the_next_job_starts_another() {
        let Held { threads, began_rx: _began_rx, go_tx, done } =
            held(1, 1, Duration::from_millis(5));
        drop(go_tx);
        for round in 1..=3 {
            threads.submit(TENANT, 0).expect("room");
            eventually(|| done.load(Ordering::SeqCst) == round);
            eventually(|| threads.threads() == 0);
        }
        eventually(|| {
            threads.shared.state.lock().ended.iter().all(|thread| thread.wait_until(Instant::now()))
        });
        threads.submit(TENANT, 0).expect("room");
        assert!(threads.shared.state.lock().ended.is_empty(), "those that had ended were joined");
        threads.finish();
        assert_eq!(done.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn what_is_queued_at_the_end_is_done_unless_it_is_abandoned() {
        for (is_abandoned, expected) in [(true, 1), (false, 3)] {
            let Held { threads, began_rx, go_tx, done } = held(1, 2, SOON);
            threads.submit(TENANT, 0).expect("room");
            began_rx.recv_timeout(SOON).expect("it begins");
            for job in 1..3 {
                threads.submit(TENANT, job).expect("room in the queue");
            }
            if is_abandoned {
                threads.abandon();
                assert_eq!(threads.submit(TENANT, 3), Err(3));
            }
            drop(go_tx);
            threads.finish();
            assert_eq!((threads.threads(), done.load(Ordering::SeqCst)), (0, expected));
        }
    }
}
