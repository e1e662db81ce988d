//! Where a worker's dispatches go at the moment: to its link, into a bounded queue while it is
//! away, or nowhere.
//!
//! Called from any thread; nothing here blocks. The supervision loop changes the route and expires
//! what waits too long. An event without a waiter goes the same way as any other, so that it
//! counts as in flight until it is answered.

use std::collections::VecDeque;
use std::time::Instant;

use crate::base::error::{DispatchError, TENANT_DROPPED};
use crate::base::limits;
use crate::base::sync::Lock;
use crate::dispatch::worker_like::{WorkerLike, no_worker_in_time};
use crate::dispatch::{Cancelled, Job, JobKind, Refused, Request, RequestId};
use crate::protocol::MesophyllServerConn;
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{Shares, TenantId};

/// Where a router sends dispatches: a link, or a worker in this process. A cheap handle. What it
/// refuses with `NotSent`, because it ends, waits for the next one.
pub(super) trait DispatchTarget: WorkerLike + Clone {
    /// Whether it takes dispatches still.
    fn takes_dispatches(&self) -> bool;
}

impl DispatchTarget for MesophyllServerConn {
    fn takes_dispatches(&self) -> bool {
        MesophyllServerConn::takes_dispatches(self)
    }
}

/// The route of one worker.
pub(super) struct Router<T> {
    state: Lock<RouterState<T>>,
}

struct RouterState<T> {
    route: CurrentRoute<T>,
    /// Where dispatches went last: what is in flight there can still be given up when new ones go
    /// elsewhere.
    last_link: Option<T>,
    waiting: VecDeque<Request>,
    /// By what each of them weighs.
    shares: Shares,
}

enum CurrentRoute<T> {
    Link(T),
    Queue,
    Nobody(String),
}

impl<T: DispatchTarget> Router<T> {
    pub(super) fn new() -> Self {
        let state = RouterState {
            route: CurrentRoute::Queue,
            last_link: None,
            waiting: VecDeque::new(),
            shares: Shares::default(),
        };
        Self { state: Lock::new(state) }
    }

    /// Sends a dispatch, or lets it wait.
    ///
    /// # Errors
    /// It can do neither; see [`Refused`].
    pub(super) fn try_submit(&self, mut request: Request) -> Result<(), Box<Refused>> {
        loop {
            let conn = match &self.state.lock().route {
                CurrentRoute::Link(conn) => Some(conn.clone()),
                CurrentRoute::Queue => None,
                CurrentRoute::Nobody(reason) => {
                    return Err(request.refused(DispatchError::NoWorker(reason.clone())));
                }
            };
            if let Some(conn) = conn {
                request = match send(request, &conn)? {
                    None => return Ok(()),
                    // The link has just ended or takes no more, and nothing left: it waits like any
                    // other.
                    Some(unsent) => unsent,
                };
            }
            if matches!(request.job, Job::DropTenant) {
                self.end_dispatches(request.tenant);
            }
            request = match self.state.lock().wait(request)? {
                None => return Ok(()),
                // A link came up since: what has waited is on it already, so this one may go
                // directly.
                Some(unsent) => unsent,
            };
        }
    }

    /// Gives up a job that waits here, or the link's if it has left.
    pub(super) fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        let (cancelled, conn) = {
            let mut state = self.state.lock();
            let place = state.waiting.iter().position(|waiting| waiting.id == request_id);
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
    pub(super) fn to_link(&self, conn: T, now: Instant) {
        let refused = {
            // Under the lock, so that nothing new overtakes what has waited; handing over does not
            // block.
            let mut state = self.state.lock();
            let refused = state.hand_over(&conn, now);
            state.last_link = Some(conn.clone());
            state.route = CurrentRoute::Link(conn);
            refused
        };
        // Without it, because an answer runs the code of others.
        for refused in refused {
            refused.answer();
        }
    }

    /// Everything waits from now on.
    pub(super) fn to_queue(&self) {
        self.state.lock().route = CurrentRoute::Queue;
    }

    /// Everything fails from now on, and what waits fails now.
    pub(super) fn to_nobody(&self, reason: &str) {
        let waiting = {
            let mut state = self.state.lock();
            state.route = CurrentRoute::Nobody(reason.to_owned());
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
        self.state.lock().waiting.iter().map(|waiting| waiting.deadline).min()
    }

    /// Fails those that wait and are not to run.
    pub(super) fn refuse(&self, which: impl Fn(&Request) -> bool, error: &DispatchError) {
        for waiting in self.take(which) {
            waiting.answer.send(Err(error.clone()));
        }
    }

    /// Hands back what waits of tenants of these shards, for its callers to ask another master. An
    /// event without a caller waits on for its worker, unless it `is_over`.
    pub(super) fn hand_back(&self, shards: &ShardSet, is_over: bool) {
        let is_handed_back = |waiting: &Request| {
            shards.contains(Shard::of(waiting.tenant))
                && (is_over || waiting.answer.kind() != Some(JobKind::EventNowait))
        };
        self.refuse(is_handed_back, &DispatchError::NotOwner);
    }

    /// Ends what waits of a tenant that is dropped, as its worker would end it; the drop goes on to
    /// the worker, where more may run. Drops of the tenant that wait already wait on.
    fn end_dispatches(&self, tenant: TenantId) {
        for waiting in
            self.take(|waiting| waiting.tenant == tenant && !matches!(waiting.job, Job::DropTenant))
        {
            let dropped = TENANT_DROPPED.to_owned();
            waiting.answer.send(Err(DispatchError::Script(dropped)));
        }
    }

    /// How many wait here.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    fn take(&self, which: impl Fn(&Request) -> bool) -> VecDeque<Request> {
        let mut state = self.state.lock();
        if !state.waiting.iter().any(&which) {
            return VecDeque::new();
        }
        let (taken, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut state.waiting).into_iter().partition(which);
        state.waiting = kept;
        for waiting in &taken {
            state.shares.remove(Some(waiting.tenant), weight(waiting));
        }
        taken
    }
}

impl<T: DispatchTarget> RouterState<T> {
    /// Lets a dispatch wait; hands it back if it need not.
    fn wait(&mut self, request: Request) -> Result<Option<Request>, Box<Refused>> {
        match &self.route {
            CurrentRoute::Nobody(reason) => {
                return Err(request.refused(DispatchError::NoWorker(reason.clone())));
            }
            CurrentRoute::Link(conn) if conn.takes_dispatches() => return Ok(Some(request)),
            CurrentRoute::Link(_) | CurrentRoute::Queue => {}
        }
        // A drop makes room, and a ban needs it; a caller waits for each, so that they stay few.
        let is_drop = matches!(request.job, Job::DropTenant);
        let (tenant, weight) = (request.tenant, weight(&request));
        if !is_drop && !self.shares.has_room(tenant, weight, limits::WAITING_FOR_WORKER_BYTES) {
            let text = "its worker is away, and too many dispatches wait for it".to_owned();
            return Err(request.refused(DispatchError::Busy(text)));
        }
        self.push(request);
        Ok(None)
    }

    /// Sends what waits; what has waited too long, or the link does not take, is returned, with the
    /// reason.
    fn hand_over(&mut self, conn: &T, now: Instant) -> Vec<Refused> {
        let mut refused = Vec::new();
        self.shares.clear();
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.deadline <= now {
                // There was no tidying up since.
                refused.push(Refused { request: waiting, error: no_worker_in_time() });
                continue;
            }
            match send(waiting, conn) {
                Ok(None) => {}
                Ok(Some(unsent)) => self.push(unsent),
                Err(error) => refused.push(*error),
            }
        }
        refused
    }

    fn remove(&mut self, place: usize) -> Option<Request> {
        let waiting = self.waiting.remove(place)?;
        self.shares.remove(Some(waiting.tenant), weight(&waiting));
        Some(waiting)
    }

    fn push(&mut self, waiting: Request) {
        self.shares.add(Some(waiting.tenant), weight(&waiting));
        self.waiting.push_back(waiting);
    }
}

/// Sends a request; hands it back if the link has ended or takes no more.
fn send<T: DispatchTarget>(request: Request, conn: &T) -> Result<Option<Request>, Box<Refused>> {
    match conn.try_submit(request) {
        Ok(()) => Ok(None),
        Err(refused) if matches!(refused.error, DispatchError::NotSent(_)) => {
            Ok(Some(refused.request))
        }
        Err(refused) => Err(refused),
    }
}

/// A dispatch without data weighs something too: so their number is bounded with their bytes.
fn weight(request: &Request) -> usize {
    request.job.bytes() + limits::WAITING_FOR_WORKER_BYTES / limits::WAITING_FOR_WORKER_MAX
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::dispatch::{Answer, Delivery, Observed};
    use crate::pool::Traffic;
    use crate::wire::data::{CreateEvent, EncodedJson, EventData};

    /// Takes everything and notes it.
    #[derive(Clone, Default)]
    struct Noting(Arc<Lock<Vec<Request>>>);

    impl Noting {
        fn ids(&self) -> Vec<u64> {
            self.0.lock().iter().map(|request| request.id.0).collect()
        }
    }

    impl WorkerLike for Noting {
        fn id(&self) -> usize {
            0
        }

        fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
            self.0.lock().push(request);
            Ok(())
        }

        fn cancel(&self, _: TenantId, _: RequestId) -> Cancelled {
            Cancelled::Unknown
        }

        fn kill(&self) {}
    }

    impl DispatchTarget for Noting {
        fn takes_dispatches(&self) -> bool {
            true
        }
    }

    fn event() -> Job {
        let data = EventData::Json(EncodedJson::null());
        Job::Dispatch(CreateEvent { name: "E".to_owned(), author: None, data })
    }

    #[test]
    fn a_job_beyond_its_deadline_is_not_sent_to_a_new_worker() {
        let router = Router::new();
        let (answered_tx, answered_rx) = unbounded();
        let submit = |id, deadline| {
            let answered_tx = answered_tx.clone();
            let answer =
                Answer::callback(move |result| answered_tx.send((id, result)).unwrap_or_default());
            let (tenant, id) = (TenantId::Guild(1), RequestId(id));
            let delivery = Delivery::default();
            let request = Request { tenant, id, job: event(), deadline, answer, delivery };
            router.try_submit(request).expect("it waits");
        };
        submit(1, Instant::now());
        submit(2, Instant::now() + Duration::from_secs(600));
        let noting = Noting::default();
        router.to_link(noting.clone(), Instant::now());
        assert_eq!(noting.ids(), [2]);
        assert_eq!(answered_rx.try_recv(), Ok((1, Err(no_worker_in_time()))));
        assert_eq!(router.waiting(), 0);
    }

    #[test]
    fn what_waits_of_a_shard_that_leaves_goes_back_to_its_callers() {
        let (router, traffic) = (Router::new(), Arc::new(Traffic::new(1)));
        let (answered_tx, answered_rx) = unbounded();
        let (gone, kept) = (TenantId::Guild(1 << 22), TenantId::Guild(2 << 22));
        for (id, tenant, kind) in [
            (1, gone, JobKind::Event),
            (2, gone, JobKind::EventNowait),
            (3, kept, JobKind::Event),
            (4, gone, JobKind::Script),
        ] {
            let answered_tx = answered_tx.clone();
            let mut answer =
                Answer::callback(move |result| answered_tx.send((id, result)).unwrap_or_default());
            let now = Instant::now();
            answer.observe(Observed::new(traffic.clone(), tenant, kind, "E", now));
            let (id, deadline) = (RequestId(id), now + Duration::from_secs(600));
            let delivery = Delivery::default();
            let request = Request { tenant, id, job: event(), deadline, answer, delivery };
            router.try_submit(request).expect("it waits");
        }
        let shards = Shard::new(1).into_iter().collect();
        let not_owner = |id| (id, Err(DispatchError::NotOwner));
        router.hand_back(&shards, false);
        assert_eq!(answered_rx.try_iter().collect::<Vec<_>>(), [not_owner(1), not_owner(4)]);
        router.hand_back(&shards, true);
        assert_eq!(answered_rx.try_iter().collect::<Vec<_>>(), [not_owner(2)]);
        let noting = Noting::default();
        router.to_link(noting.clone(), Instant::now());
        assert_eq!(noting.ids(), [3]);
    }

    #[test]
    fn a_drop_finds_room_and_ends_what_its_tenant_has_waiting() {
        let router = Router::new();
        let (answered_tx, answered_rx) = unbounded();
        let (greedy, other) = (TenantId::Guild(1), TenantId::Guild(2));
        let deadline = Instant::now() + Duration::from_secs(600);
        let submit = |tenant, id, job| {
            let answered_tx = answered_tx.clone();
            let answer =
                Answer::callback(move |result| answered_tx.send((id, result)).unwrap_or_default());
            let delivery = Delivery::default();
            router.try_submit(Request {
                tenant,
                id: RequestId(id),
                job,
                deadline,
                answer,
                delivery,
            })
        };
        submit(other, 0, event()).expect("it waits");
        let many = (1..).take_while(|id| submit(greedy, *id, event()).is_ok()).count();
        assert!(many > 1000);
        // That of the event which was refused.
        assert!(answered_rx.try_recv().is_ok());
        submit(greedy, 1_000_001, Job::DropTenant).expect("it waits");
        submit(greedy, 1_000_002, Job::DropTenant).expect("it waits");
        let ended: Vec<_> = answered_rx.try_iter().collect();
        let dropped = Err(DispatchError::Script(TENANT_DROPPED.to_owned()));
        assert_eq!(ended.len(), many);
        assert!(ended.iter().all(|(_, result)| *result == dropped));
        let noting = Noting::default();
        router.to_link(noting.clone(), Instant::now());
        assert_eq!(noting.ids(), [0, 1_000_001, 1_000_002]);
    }
}
