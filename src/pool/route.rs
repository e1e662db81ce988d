//! Where a worker's dispatches go at the moment: to its link, into a bounded queue while it is
//! away, or nowhere.
//!
//! Called from any thread; nothing here blocks. The supervision loop changes the route and expires
//! what waits too long. An event that nobody waits for goes the same way as any other, so that it
//! counts as in flight until it is answered.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::base::error::DispatchError;
use crate::base::limits;
use crate::dispatch::worker_like::{WorkerLike, no_worker_in_time};
use crate::dispatch::{Answer, Cancelled, Job, RequestId};
use crate::protocol::{MesophyllServerConn, Unsent};
use crate::wire::data::{Shares, TenantId};

/// Where a router sends dispatches: a link, or a worker in this process. A cheap handle; nothing
/// here blocks.
pub(super) trait Target: Clone {
    /// Sends a dispatch.
    ///
    /// # Errors
    /// It did not leave; see [`Unsent`].
    fn try_submit(
        &self,
        tenant: TenantId,
        request_id: RequestId,
        job: Job,
        answer: Answer,
    ) -> Result<(), Box<Unsent>>;

    /// Gives up what it was sent.
    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled;

    /// Whether it takes dispatches still.
    fn takes_dispatches(&self) -> bool;
}

impl Target for MesophyllServerConn {
    fn try_submit(
        &self,
        tenant: TenantId,
        request_id: RequestId,
        job: Job,
        answer: Answer,
    ) -> Result<(), Box<Unsent>> {
        MesophyllServerConn::try_submit(self, tenant, request_id, job, answer)
    }

    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        WorkerLike::cancel(self, tenant, request_id)
    }

    fn takes_dispatches(&self) -> bool {
        MesophyllServerConn::takes_dispatches(self)
    }
}

/// The route of one worker.
pub(super) struct Router<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    route: Route<T>,
    /// Where dispatches went last: what is in flight there can still be given up when new ones go
    /// elsewhere.
    last_link: Option<T>,
    waiting: VecDeque<Waiting>,
    /// By what each of them weighs.
    shares: Shares,
}

enum Route<T> {
    Link(T),
    Queue,
    Nobody(String),
}

/// A dispatch that has not left.
#[derive(Debug)]
struct Waiting {
    tenant: TenantId,
    request_id: RequestId,
    job: Job,
    answer: Answer,
    deadline: Instant,
}

/// A dispatch that is not taken; its answer is still to be sent.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Answer, pub(super) DispatchError);

impl<T: Target> Router<T> {
    pub(super) fn new() -> Self {
        let state = State {
            route: Route::Queue,
            last_link: None,
            waiting: VecDeque::new(),
            shares: Shares::default(),
        };
        Self { state: Mutex::new(state) }
    }

    /// Sends a dispatch, or lets it wait.
    ///
    /// # Errors
    /// It can do neither; see [`Refused`].
    pub(super) fn submit(
        &self,
        tenant: TenantId,
        request_id: RequestId,
        job: Job,
        deadline: Instant,
        answer: Answer,
    ) -> Result<(), Refused> {
        let mut waiting = Waiting { tenant, request_id, job, answer, deadline };
        loop {
            let conn = match &self.lock().route {
                Route::Link(conn) => Some(conn.clone()),
                Route::Queue => None,
                Route::Nobody(reason) => {
                    return Err(Refused(waiting.answer, DispatchError::NoWorker(reason.clone())));
                }
            };
            if let Some(conn) = conn {
                waiting = match waiting.send(&conn)? {
                    None => return Ok(()),
                    // The link has just ended or takes no more, and nothing left: it waits like any
                    // other.
                    Some(unsent) => unsent,
                };
            }
            if matches!(waiting.job, Job::DropTenant) {
                self.end_dispatches(waiting.tenant);
            }
            waiting = match self.lock().wait(waiting)? {
                None => return Ok(()),
                // A link came up since: what has waited is on it already, so this one may go
                // directly.
                Some(unsent) => unsent,
            };
        }
    }

    /// As [`Router::submit`], but what is refused is answered so.
    pub(super) fn submit_answered(
        &self,
        tenant: TenantId,
        request_id: RequestId,
        job: Job,
        deadline: Instant,
        answer: Answer,
    ) {
        if let Err(Refused(answer, error)) = self.submit(tenant, request_id, job, deadline, answer)
        {
            answer.send(Err(error));
        }
    }

    /// Gives up a job that waits here, or the link's if it has left.
    pub(super) fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        let (cancelled, conn) = {
            let mut state = self.lock();
            let place = state.waiting.iter().position(|waiting| waiting.request_id == request_id);
            (place.and_then(|place| state.remove(place)), state.last_link.clone())
        };
        match (cancelled, conn) {
            (Some(waiting), _) => {
                waiting.answer.send(Err(no_worker_in_time()));
                Cancelled::Waiting
            }
            (None, Some(conn)) => conn.cancel(tenant, request_id),
            (None, None) => Cancelled::Unknown,
        }
    }

    /// Sends everything that waits over this connection, in order, and all that comes from now on.
    /// Should the link have ended meanwhile, what did not leave waits on.
    pub(super) fn to_link(&self, conn: T) {
        let refused = {
            // Under the lock, so that nothing new overtakes what has waited; handing over does not
            // block.
            let mut state = self.lock();
            let refused = state.hand_over(&conn);
            state.last_link = Some(conn.clone());
            state.route = Route::Link(conn);
            refused
        };
        // Without it, because an answer runs the code of others.
        for Refused(answer, error) in refused {
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
            state.shares.clear();
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting {
            waiting.answer.send(Err(DispatchError::NoWorker(reason.to_owned())));
        }
    }

    /// Fails what has waited beyond its deadline; says when to look again.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
        for waiting in self.take(|waiting| waiting.deadline <= now) {
            waiting.answer.send(Err(no_worker_in_time()));
        }
        self.lock().waiting.iter().map(|waiting| waiting.deadline).min()
    }

    /// Fails what waits of these tenants, which are not to run.
    pub(super) fn refuse(&self, tenants: &[TenantId], error: &DispatchError) {
        for waiting in self.take(|waiting| tenants.contains(&waiting.tenant)) {
            waiting.answer.send(Err(error.clone()));
        }
    }

    /// Ends what waits of a tenant that is dropped, as its worker would end it; the drop goes on to
    /// the worker, where more may run. Drops of the tenant that wait already wait on.
    fn end_dispatches(&self, tenant: TenantId) {
        for waiting in
            self.take(|waiting| waiting.tenant == tenant && !matches!(waiting.job, Job::DropTenant))
        {
            let dropped = "cancelled: the tenant was dropped".to_owned();
            waiting.answer.send(Err(DispatchError::Script(dropped)));
        }
    }

    /// How many wait here.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn take(&self, which: impl Fn(&Waiting) -> bool) -> VecDeque<Waiting> {
        let mut state = self.lock();
        if !state.waiting.iter().any(&which) {
            return VecDeque::new();
        }
        let (taken, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut state.waiting).into_iter().partition(which);
        state.waiting = kept;
        for waiting in &taken {
            state.shares.remove(Some(waiting.tenant), waiting.weight());
        }
        taken
    }

    // No code of others runs under this lock, so poison means nothing here.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T: Target> State<T> {
    /// Lets a dispatch wait; hands it back if it need not.
    fn wait(&mut self, waiting: Waiting) -> Result<Option<Waiting>, Refused> {
        match &self.route {
            Route::Nobody(reason) => {
                return Err(Refused(waiting.answer, DispatchError::NoWorker(reason.clone())));
            }
            Route::Link(conn) if conn.takes_dispatches() => return Ok(Some(waiting)),
            Route::Link(_) | Route::Queue => {}
        }
        // A drop makes room, and a ban needs it; a caller waits for each, so that they stay few.
        let is_drop = matches!(waiting.job, Job::DropTenant);
        if !is_drop
            && !self.shares.has_room(
                waiting.tenant,
                waiting.weight(),
                limits::WAITING_FOR_WORKER_BYTES,
            )
        {
            let error = DispatchError::Busy(
                "its worker is away, and too many dispatches wait for it".to_owned(),
            );
            return Err(Refused(waiting.answer, error));
        }
        self.push(waiting);
        Ok(None)
    }

    /// Sends what waits; what has waited too long, or the link does not take, is returned, with the
    /// reason.
    fn hand_over(&mut self, conn: &T) -> Vec<Refused> {
        let mut refused = Vec::new();
        self.shares.clear();
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.deadline <= now {
                // Nobody has tidied up since.
                refused.push(Refused(waiting.answer, no_worker_in_time()));
                continue;
            }
            match waiting.send(conn) {
                Ok(None) => {}
                Ok(Some(unsent)) => self.push(unsent),
                Err(error) => refused.push(error),
            }
        }
        refused
    }

    fn remove(&mut self, place: usize) -> Option<Waiting> {
        let waiting = self.waiting.remove(place)?;
        self.shares.remove(Some(waiting.tenant), waiting.weight());
        Some(waiting)
    }

    fn push(&mut self, waiting: Waiting) {
        self.shares.add(Some(waiting.tenant), waiting.weight());
        self.waiting.push_back(waiting);
    }
}

impl Waiting {
    /// Sends it; hands it back if the link has ended or takes no more.
    fn send<T: Target>(self, conn: &T) -> Result<Option<Self>, Refused> {
        let Waiting { tenant, request_id, job, answer, deadline } = self;
        match conn.try_submit(tenant, request_id, job, answer).map_err(|unsent| *unsent) {
            Ok(()) => Ok(None),
            Err(Unsent::Ended(job, answer)) => {
                Ok(Some(Waiting { tenant, request_id, job, answer, deadline }))
            }
            Err(Unsent::Refused(answer, error)) => Err(Refused(answer, error)),
        }
    }

    /// A dispatch without data weighs something too: so their number is bounded with their bytes.
    fn weight(&self) -> usize {
        self.job.bytes() + limits::WAITING_FOR_WORKER_BYTES / limits::WAITING_FOR_WORKER_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::wire::data::{CreateEvent, EncodedJson, EventData};

    /// Takes everything and notes it.
    #[derive(Clone, Default)]
    struct Noting(Arc<Mutex<Vec<(RequestId, Answer)>>>);

    impl Target for Noting {
        fn try_submit(
            &self,
            _: TenantId,
            request_id: RequestId,
            _: Job,
            answer: Answer,
        ) -> Result<(), Box<Unsent>> {
            self.0.lock().expect("not poisoned").push((request_id, answer));
            Ok(())
        }

        fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
            Cancelled::Unknown
        }

        fn takes_dispatches(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_job_beyond_its_deadline_is_not_sent_to_a_new_worker() {
        let router = Router::new();
        let (answered_tx, answered_rx) = unbounded();
        let submit = |request_id, deadline| {
            let answered_tx = answered_tx.clone();
            let answer = Answer::callback(move |result| {
                answered_tx.send((request_id, result)).unwrap_or_default()
            });
            let event = CreateEvent {
                name: "E".to_owned(),
                author: None,
                data: EventData::Json(EncodedJson::null()),
            };
            router
                .submit(
                    TenantId::Guild(1),
                    RequestId(request_id),
                    Job::Dispatch(event),
                    deadline,
                    answer,
                )
                .expect("it waits");
        };
        submit(1, Instant::now());
        submit(2, Instant::now() + Duration::from_secs(600));
        let noting = Noting::default();
        router.to_link(noting.clone());
        let taken: Vec<RequestId> = noting
            .0
            .lock()
            .expect("not poisoned")
            .iter()
            .map(|(request_id, _)| *request_id)
            .collect();
        assert_eq!(taken, [RequestId(2)]);
        assert_eq!(answered_rx.try_recv(), Ok((1, Err(no_worker_in_time()))));
        assert_eq!(router.waiting(), 0);
    }

    #[test]
    fn a_drop_finds_room_and_ends_what_its_tenant_has_waiting() {
        let router = Router::new();
        let (answered_tx, answered_rx) = unbounded();
        let (greedy, other) = (TenantId::Guild(1), TenantId::Guild(2));
        let deadline = Instant::now() + Duration::from_secs(600);
        let submit = |tenant, request_id, job| {
            let answered_tx = answered_tx.clone();
            let answer = Answer::callback(move |result| {
                answered_tx.send((request_id, result)).unwrap_or_default()
            });
            router
                .submit(tenant, RequestId(request_id), job, deadline, answer)
                .map_err(|Refused(_, error)| error)
        };
        let event = || {
            let data = EventData::Json(EncodedJson::null());
            Job::Dispatch(CreateEvent { name: "E".to_owned(), author: None, data })
        };
        submit(other, 0, event()).expect("it waits");
        let many =
            (1..).take_while(|request_id| submit(greedy, *request_id, event()).is_ok()).count();
        assert!(many > 1000);
        // That of the event which was refused.
        assert!(answered_rx.try_recv().is_ok());
        submit(greedy, 1_000_001, Job::DropTenant).expect("it waits");
        submit(greedy, 1_000_002, Job::DropTenant).expect("it waits");
        let ended: Vec<_> = answered_rx.try_iter().collect();
        let dropped = Err(DispatchError::Script("cancelled: the tenant was dropped".to_owned()));
        assert_eq!(ended.len(), many);
        assert!(ended.iter().all(|(_, result)| *result == dropped));
        let noting = Noting::default();
        router.to_link(noting.clone());
        let taken: Vec<RequestId> = noting
            .0
            .lock()
            .expect("not poisoned")
            .iter()
            .map(|(request_id, _)| *request_id)
            .collect();
        assert_eq!(taken, [RequestId(0), RequestId(1_000_001), RequestId(1_000_002)]);
    }
}
