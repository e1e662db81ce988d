//! Where a worker's dispatches go at the moment: to its link, into a bounded queue while it is away, or nowhere.
//!
//! Called from any thread; nothing here blocks. The supervision loop changes the route and expires what waits too long.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::error::DispatchError;
use crate::limits;
use crate::mesophyll::{MesophyllServerConn, Unsent};
use crate::model::{Answer, Cancelled, CreateEvent, Job, TenantId, Ticket};
use crate::worker_like::{WorkerLike, no_worker_in_time};

/// The route of one worker.
#[derive(Debug)]
pub(super) struct Router {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    route: Route,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

#[derive(Debug, Clone)]
enum Route {
    Link(MesophyllServerConn),
    Queue,
    Nobody(String),
}

/// A dispatch that has not left.
#[derive(Debug)]
struct Waiting {
    tenant: TenantId,
    work: Work,
    deadline: Instant,
    bytes: usize,
}

#[derive(Debug)]
enum Work {
    Job(Ticket, Job, Answer),
    Nowait(CreateEvent),
}

impl Router {
    pub(super) fn new() -> Self {
        let state = State { route: Route::Queue, waiting: VecDeque::new(), waiting_bytes: 0 };
        Self { state: Mutex::new(state) }
    }

    pub(super) fn submit(&self, tenant: TenantId, ticket: Ticket, job: Job, deadline: Instant, answer: Answer) {
        let (job, answer) = match self.link() {
            Ok(Some(conn)) => match conn.try_submit(tenant, ticket, job, answer).map_err(|unsent| *unsent) {
                Ok(()) => return,
                // The link has just ended and nothing left: it waits like any other.
                Err(Unsent::Ended(job, answer)) => (job, answer),
                Err(Unsent::Refused(answer, error)) => return answer.send(Err(error)),
            },
            Ok(None) => (job, answer),
            Err(error) => return answer.send(Err(error)),
        };
        let bytes = job.bytes();
        let waiting = Waiting { tenant, work: Work::Job(ticket, job, answer), deadline, bytes };
        if let Err(refused) = self.wait(waiting)
            && let (Work::Job(_, _, answer), error) = *refused
        {
            answer.send(Err(error));
        }
    }

    pub(super) fn submit_nowait(
        &self,
        tenant: TenantId,
        event: CreateEvent,
        deadline: Instant,
    ) -> Result<(), DispatchError> {
        let event = match self.link()? {
            Some(conn) => match conn.try_nowait(tenant, event) {
                Ok(sent) => return sent,
                Err(event) => event,
            },
            None => event,
        };
        let bytes = event.bytes();
        self.wait(Waiting { tenant, work: Work::Nowait(event), deadline, bytes }).map_err(|refused| refused.1)
    }

    /// Gives up a job that waits here, or the link's if it has left.
    pub(super) fn cancel(&self, tenant: TenantId, ticket: Ticket) -> Cancelled {
        let (cancelled, conn) = {
            let mut state = self.lock();
            let place = state.waiting.iter().position(|waiting| waiting.is(ticket));
            let cancelled = place.and_then(|place| state.remove(place));
            let conn = match &state.route {
                Route::Link(conn) => Some(conn.clone()),
                Route::Queue | Route::Nobody(_) => None,
            };
            (cancelled, conn)
        };
        match (cancelled, conn) {
            (Some(waiting), _) => {
                waiting.fail(no_worker_in_time());
                Cancelled::Waiting
            }
            (None, Some(conn)) => conn.cancel(tenant, ticket),
            (None, None) => Cancelled::Unknown,
        }
    }

    /// Sends everything that waits over this connection, in order, and all that comes from now on. Should the link have
    /// ended meanwhile, what did not leave waits on.
    pub(super) fn to_link(&self, conn: MesophyllServerConn) {
        let refused = {
            // Under the lock, so that nothing new overtakes what has waited; handing over does not block.
            let mut state = self.lock();
            let refused = state.hand_over(&conn);
            state.route = Route::Link(conn);
            refused
        };
        // Without it, because an answer runs the code of others.
        for (answer, error) in refused {
            answer.send(Err(error));
        }
    }

    /// Everything waits from now on.
    pub(super) fn to_queue(&self) {
        self.lock().route = Route::Queue;
    }

    /// Everything fails from now on, and what waits fails now.
    pub(super) fn to_nobody(&self, reason: &str) {
        let waiting = {
            let mut state = self.lock();
            state.route = Route::Nobody(reason.to_owned());
            state.waiting_bytes = 0;
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting {
            waiting.fail(DispatchError::NoWorker(reason.to_owned()));
        }
    }

    /// Fails what has waited beyond its deadline; says when to look again.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
        let (expired, next) = {
            let mut state = self.lock();
            let (expired, kept): (VecDeque<_>, VecDeque<_>) =
                std::mem::take(&mut state.waiting).into_iter().partition(|waiting| waiting.deadline <= now);
            state.waiting = kept;
            state.waiting_bytes -= expired.iter().map(|waiting| waiting.bytes).sum::<usize>();
            (expired, state.waiting.iter().map(|waiting| waiting.deadline).min())
        };
        for waiting in expired {
            waiting.fail(no_worker_in_time());
        }
        next
    }

    /// How many wait here.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn link(&self) -> Result<Option<MesophyllServerConn>, DispatchError> {
        match &self.lock().route {
            Route::Link(conn) => Ok(Some(conn.clone())),
            Route::Queue => Ok(None),
            Route::Nobody(reason) => Err(DispatchError::NoWorker(reason.clone())),
        }
    }

    fn wait(&self, waiting: Waiting) -> Result<(), Box<(Work, DispatchError)>> {
        let mut state = self.lock();
        match &state.route {
            Route::Nobody(reason) => return Err(Box::new((waiting.work, DispatchError::NoWorker(reason.clone())))),
            // The link came up since: the queue is flushed, so this one may go directly.
            Route::Link(conn) if !conn.is_closed() => {
                let conn = conn.clone();
                drop(state);
                match waiting.work {
                    Work::Job(ticket, job, answer) => {
                        conn.submit(waiting.tenant, ticket, job, waiting.deadline, answer);
                    }
                    Work::Nowait(event) => {
                        let sent = conn.dispatch_event_nowait(waiting.tenant, event.clone(), waiting.deadline);
                        return sent.map_err(|error| Box::new((Work::Nowait(event), error)));
                    }
                }
                return Ok(());
            }
            Route::Link(_) | Route::Queue => {}
        }
        let full = state.waiting.len() >= limits::WAITING_FOR_WORKER_MAX
            || state.waiting_bytes + waiting.bytes > limits::WAITING_FOR_WORKER_BYTES;
        if full {
            let error = DispatchError::Busy("its worker is away, and too many dispatches wait for it".to_owned());
            return Err(Box::new((waiting.work, error)));
        }
        state.waiting_bytes += waiting.bytes;
        state.waiting.push_back(waiting);
        Ok(())
    }

    // No code of others runs under this lock, so poison means nothing here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Sends what waits; what the link does not take is returned, with the reason.
    fn hand_over(&mut self, conn: &MesophyllServerConn) -> Vec<(Answer, DispatchError)> {
        let mut refused = Vec::new();
        self.waiting_bytes = 0;
        for Waiting { tenant, work, deadline, bytes } in std::mem::take(&mut self.waiting) {
            let kept = match work {
                Work::Job(ticket, job, answer) => match conn.try_submit(tenant, ticket, job, answer) {
                    Ok(()) => None,
                    Err(unsent) => match *unsent {
                        Unsent::Ended(job, answer) => Some(Work::Job(ticket, job, answer)),
                        Unsent::Refused(answer, error) => {
                            refused.push((answer, error));
                            None
                        }
                    },
                },
                Work::Nowait(event) => match conn.try_nowait(tenant, event) {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => {
                        log::warn!("an event for {tenant} was dropped: {error}");
                        None
                    }
                    Err(event) => Some(Work::Nowait(event)),
                },
            };
            if let Some(work) = kept {
                self.waiting_bytes += bytes;
                self.waiting.push_back(Waiting { tenant, work, deadline, bytes });
            }
        }
        refused
    }

    fn remove(&mut self, place: usize) -> Option<Waiting> {
        let waiting = self.waiting.remove(place)?;
        self.waiting_bytes -= waiting.bytes;
        Some(waiting)
    }
}

impl Waiting {
    fn is(&self, ticket: Ticket) -> bool {
        matches!(&self.work, Work::Job(own, _, _) if *own == ticket)
    }

    fn fail(self, error: DispatchError) {
        match self.work {
            Work::Job(_, _, answer) => answer.send(Err(error)),
            Work::Nowait(_) => log::warn!("an event for {} was dropped: {error}", self.tenant),
        }
    }
}
