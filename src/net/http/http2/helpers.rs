//! The threads on which the handlers of one HTTP/2 connection run: started when there is none free,
//! ended when they were idle for a while, joined with the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::base::limits::{HTTP2_HELPER_IDLE_MAX, HTTP2_HELPERS_MAX, HTTP2_STREAMS_MAX};
use crate::base::sync::{CountedPermit, Lock};
use crate::base::thread::{self, OwnedThread};

type HelperJob = Box<dyn FnOnce() + Send>;

/// The helpers of a connection.
pub(super) struct Helpers {
    // In this order: the threads end when their channel is closed.
    jobs_tx: Sender<HelperJob>,
    jobs_rx: Receiver<HelperJob>,
    /// Threads that wait for a job, less jobs that wait for a thread.
    free: Arc<AtomicUsize>,
    /// How many helpers all connections of the server have.
    taken: Arc<AtomicUsize>,
    threads: Lock<Vec<OwnedThread>>,
}

impl Helpers {
    /// None yet; `taken` counts those of all connections.
    pub(super) fn new(taken: Arc<AtomicUsize>) -> Self {
        // As many jobs as there are requests under way.
        let (jobs_tx, jobs_rx) = bounded(HTTP2_STREAMS_MAX as usize);
        Self { jobs_tx, jobs_rx, free: Arc::default(), taken, threads: Lock::default() }
    }

    /// Has a thread do this; false if there is none for it.
    pub(super) fn run(&self, job: HelperJob) -> bool {
        if !take_one(&self.free) && !self.start() {
            return false;
        }
        self.jobs_tx.try_send(job).is_ok()
    }

    /// Starts a thread, which is not free: its first job is on its way.
    fn start(&self) -> bool {
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.wait_until(std::time::Instant::now()));
        let Some(permit) = CountedPermit::take(&self.taken, HTTP2_HELPERS_MAX) else {
            return false;
        };
        let (jobs_rx, free) = (self.jobs_rx.clone(), self.free.clone());
        let work = move || {
            let _permit = permit;
            loop {
                match jobs_rx.recv_timeout(HTTP2_HELPER_IDLE_MAX) {
                    Ok(job) => {
                        job();
                        free.fetch_add(1, Ordering::SeqCst);
                    }
                    // Unless a job that counts on this thread is on its way.
                    Err(RecvTimeoutError::Timeout) if !take_one(&free) => {}
                    Err(_) => return,
                }
            }
        };
        match thread::spawn("http2-helper", work) {
            Ok(thread) => {
                threads.push(thread);
                true
            }
            Err(error) => {
                log::warn!("no thread for a request: {error}");
                false
            }
        }
    }
}

/// Takes one of the free threads, if there is one.
fn take_one(free: &AtomicUsize) -> bool {
    let less = |free: usize| free.checked_sub(1);
    free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
}
