//! Of crossbeam's channels what the parts use, over the locks of the scheduler.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::sync::{Lock, Signal};

pub struct Sender<T>(Arc<Channel<T>>);

pub struct Receiver<T>(Arc<Channel<T>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvTimeoutError {
    Timeout,
    Disconnected,
}

struct Channel<T> {
    state: Lock<ChannelState<T>>,
    changed: Signal,
    room: usize,
}

struct ChannelState<T> {
    queue: VecDeque<T>,
    senders: usize,
    is_received: bool,
}

pub fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let state = ChannelState { queue: VecDeque::new(), senders: 1, is_received: true };
    let channel = Arc::new(Channel { state: Lock::new(state), changed: Signal::new(), room });
    (Sender(channel.clone()), Receiver(channel))
}

impl<T> Sender<T> {
    /// What was not sent comes back.
    pub fn try_send(&self, value: T) -> Result<(), T> {
        let mut state = self.0.state.lock();
        if !state.is_received || state.queue.len() >= self.0.room {
            return Err(value);
        }
        state.queue.push_back(value);
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Does not wait at all if the time is zero; otherwise it is never over.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let until = timeout.is_zero().then(Instant::now);
        let mut state = self.0.changed.wait_until(self.0.state.lock(), until, |state| {
            !state.queue.is_empty() || state.senders == 0
        });
        let none = |senders| match senders {
            0 => RecvTimeoutError::Disconnected,
            _ => RecvTimeoutError::Timeout,
        };
        state.queue.pop_front().ok_or(none(state.senders))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_received = false;
        let queue = std::mem::take(&mut state.queue);
        drop((state, queue));
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}
