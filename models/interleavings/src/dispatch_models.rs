//! A request from its caller to its one answer, over the places that it passes: the caller's slot
//! and its deadline, the map of what waits, the link's end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::base::error::DispatchError;
use crate::base::primitives::atomic::{AtomicUsize, Ordering};
use crate::base::primitives::once_in;
use crate::check::{Model, far, spawn};
use crate::dispatch::worker_like::{WorkerLike, start_as};
use crate::dispatch::{
    Answer, Cancelled, Job, JobKind, Observed, Observer, Refused, Request, RequestId, Slot,
};
use crate::net::link::{CloseCause, Pending, Registered};
use crate::wire::data::{EncodedValue, TenantId};

const TENANT: TenantId = TenantId::Guild(1);

pub fn models() -> Vec<Model> {
    vec![
        Model { name: "slot", run: slot, is_tiny: true },
        Model { name: "dispatch", run: dispatch, is_tiny: false },
    ]
}

/// The answer, or its being dropped, reaches a thread that waits without a deadline, once.
fn slot() {
    let slot = Arc::new(Slot::default());
    let answer = Answer::slot(slot.clone());
    let is_dropped = once_in(3);
    let answering = spawn(move || match is_dropped {
        true => drop(answer),
        false => answer.send_not_subscribed(),
    });
    assert!(slot.wait_until_answered(far()), "the deadline is far");
    assert_eq!(slot.is_unsubscribed(), !is_dropped, "it is said before the answer is there");
    assert_eq!(slot.take().expect("an answer").is_err(), is_dropped);
    answering.join().expect("an end");
    assert_eq!(slot.take(), None);
}

/// A connection as far as it takes requests: as `protocol/master/conn.rs` does it.
struct Connection {
    pending: Pending<Answer>,
    ended: Arc<Ended>,
}

/// Counts the ends of requests.
#[derive(Default)]
struct Ended(AtomicUsize);

impl Observer for Ended {
    fn ended(&self, _: &Observed, _: Result<(), &DispatchError>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn handed_back(&self, _: &Observed) {
        panic!("none is offered again");
    }
}

impl WorkerLike for Connection {
    fn id(&self) -> usize {
        0
    }

    fn try_submit(&self, mut request: Request) -> Result<(), Box<Refused>> {
        let (kind, now) = (JobKind::Drop, Instant::now());
        request.answer.observe(Observed::new(self.ended.clone(), TENANT, kind, "", now));
        let Request { tenant, id, job, deadline, answer, delivery } = request;
        match self.pending.register(id.0, answer) {
            Registered::Waiting(_) => Ok(()),
            Registered::Closed(answer, _) | Registered::Sealed(answer) => {
                let request = Request { tenant, id, job, deadline, answer, delivery };
                Err(request.refused(DispatchError::NotSent(String::new())))
            }
            _ => panic!("there is room"),
        }
    }

    fn cancel(&self, _: TenantId, request_id: RequestId) -> Cancelled {
        match self.pending.take(request_id.0) {
            Some(answer) => {
                answer.send(Err(DispatchError::Deadline { sent: true }));
                Cancelled::Sent
            }
            None => Cancelled::Unknown,
        }
    }

    fn kill(&self) {
        let (waiting, _) = self.pending.close(CloseCause(0));
        let text = String::new();
        waiting
            .into_iter()
            .for_each(|answer| answer.send(Err(DispatchError::OutcomeUnknown(text.clone()))));
    }
}

/// The answer comes, if it is waited for.
fn answer(connection: &Connection) {
    if let Some(answer) = connection.pending.take(1) {
        answer.send(Ok(EncodedValue::null()));
    }
}

/// A caller learns of one outcome, whatever races: an answer, the link's end, its deadline. The
/// request ends once, and nothing of it is left.
fn dispatch() {
    let ended = Arc::<Ended>::default();
    let connection = Arc::new(Connection { pending: Pending::new(2), ended: ended.clone() });
    let (answers, ends) = (connection.clone(), connection.clone());
    let reader = spawn(move || (0..2).for_each(|_| answer(&answers)));
    let closer = once_in(2).then(|| spawn(move || ends.kill()));
    let has_passed = once_in(2);
    let deadline = if has_passed { Instant::now() } else { far() };
    let dispatch = start_as(&*connection, TENANT, RequestId(1), Job::DropTenant, deadline);
    // Without a deadline it needs an answer to come.
    if closer.is_none() && !has_passed {
        answer(&connection);
    }
    let result = dispatch.wait();
    // It is told of before the caller is; one whose answer came late may be told of yet.
    let is_late = matches!(result, Err(DispatchError::Deadline { .. }));
    assert!(is_late || ended.0.load(Ordering::SeqCst) == 1, "{result:?}");
    let is_known = match &result {
        Ok(_) => true,
        Err(DispatchError::Deadline { .. }) => has_passed,
        Err(DispatchError::OutcomeUnknown(_) | DispatchError::NotSent(_)) => closer.is_some(),
        Err(_) => false,
    };
    assert!(is_known, "{result:?}");
    reader.join().expect("an end");
    closer.map(|closer| closer.join().expect("an end"));
    assert_eq!((ended.0.load(Ordering::SeqCst), connection.pending.len()), (1, 0));
}
