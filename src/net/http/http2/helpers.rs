//! The threads on which the handlers of one HTTP/2 connection run: started when there is none free,
//! ended when they were idle for a while, joined with the connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use crate::base::limits::{HTTP2_HELPER_IDLE_MAX, HTTP2_HELPERS_MAX, HTTP2_STREAMS_MAX};
use crate::base::sync::{CountedPermit, Lock, Signal};
use crate::base::thread::{self, OwnedThread};

pub(super) type HelperJob = Box<dyn FnOnce() + Send>;

/// As many threads as there are requests under way; as many jobs wait for one, which is that of a
/// request that was taken back.
const MAX: usize = HTTP2_STREAMS_MAX as usize;

/// The helpers of a connection. Dropping them joins the threads.
pub(super) struct Helpers {
    queue: Arc<HelperQueue>,
    /// How many helpers all connections of the server have.
    taken: Arc<AtomicUsize>,
    threads: Vec<OwnedThread>,
}

#[derive(Default)]
struct HelperQueue {
    jobs: Lock<HelperJobs>,
    changed: Signal,
}

#[derive(Default)]
struct HelperJobs {
    waiting: VecDeque<HelperJob>,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    is_closed: bool,
}

impl Helpers {
    /// None yet; `taken` counts those of all connections.
    pub(super) fn new(taken: Arc<AtomicUsize>) -> Self {
        Self { queue: Arc::default(), taken, threads: Vec::new() }
    }

    /// Has a thread do this; false if there is none for it.
    pub(super) fn run(&mut self, job: HelperJob) -> bool {
        let mut jobs = self.queue.jobs.lock();
        if jobs.waiting.len() >= jobs.idle {
            if jobs.threads < MAX {
                let Some(thread) = self.start() else { return false };
                jobs.threads += 1;
                self.threads.retain(|thread| !thread.wait_until(Instant::now()));
                self.threads.push(thread);
            } else if jobs.waiting.len() >= MAX {
                return false;
            }
        }
        jobs.waiting.push_back(job);
        drop(jobs);
        self.queue.changed.notify_one();
        true
    }

    fn start(&self) -> Option<OwnedThread> {
        let permit = CountedPermit::take(&self.taken, HTTP2_HELPERS_MAX)?;
        let queue = self.queue.clone();
        let work = move || {
            let _permit = permit;
            while let Some(job) = queue.next_job() {
                job();
            }
        };
        let started = thread::spawn("http2-helper", work);
        started.map_err(|error| log::warn!("no thread for a request: {error}")).ok()
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.queue.jobs.lock().is_closed = true;
        self.queue.changed.notify_all();
    }
}

impl HelperQueue {
    /// What to do next; `None` if the thread is to end.
    ///
    /// # Blocks
    /// Until there is a job, or there was none for a while.
    fn next_job(&self) -> Option<HelperJob> {
        let mut jobs = self.jobs.lock();
        jobs.idle += 1;
        let deadline = Instant::now() + HTTP2_HELPER_IDLE_MAX;
        let is_wanted = |jobs: &mut HelperJobs| jobs.is_closed || !jobs.waiting.is_empty();
        jobs = self.changed.wait_until(jobs, deadline, is_wanted);
        jobs.idle -= 1;
        let job = jobs.waiting.pop_front();
        if job.is_none() {
            jobs.threads -= 1;
        }
        job
    }
}
