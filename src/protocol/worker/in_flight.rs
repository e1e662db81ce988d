//! The jobs of one link that have not been answered, and how their answers leave.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::error::DispatchError;
use crate::base::sync::Lock;
use crate::dispatch::{Answer, AnswerTaker, DispatchResult, RequestId};
use crate::net::link::{LinkSender, SendError};
use crate::protocol::answers;
use crate::wire::data::{IdMap, TenantId};
use crate::wire::message::ClientMessage;

use super::session::MasterSession;

/// What came over a link and has not been answered.
pub(super) struct InFlightJobs {
    session: Arc<MasterSession>,
    /// Whose they are, to route a cancellation.
    tenants: Lock<IdMap<u64, TenantId>>,
}

impl InFlightJobs {
    pub(super) fn new(session: Arc<MasterSession>) -> Self {
        Self { session, tenants: Lock::default() }
    }

    /// Takes a job in; its answer goes to the master.
    pub(super) fn answer(self: &Arc<Self>, tenant: TenantId, id: RequestId) -> Answer {
        self.session.unanswered.fetch_add(1, Ordering::SeqCst);
        self.tenants.lock().insert(id.0, tenant);
        Answer::taken(tenant, id, self.clone())
    }

    /// Whose job it is, if it is under way.
    pub(super) fn tenant_of(&self, id: RequestId) -> Option<TenantId> {
        self.tenants.lock().get(&id.0).copied()
    }
}

impl AnswerTaker for InFlightJobs {
    fn take(&self, tenant: TenantId, id: RequestId, result: DispatchResult, is_subscribed: bool) {
        let link = &self.session.link;
        let has_said_hello = self.session.has_said_hello.load(Ordering::Relaxed);
        if has_said_hello {
            // So that a caller that has the answer finds there what the script logged.
            self.session.outbox.tell_lines(link);
        }
        if !is_subscribed && has_said_hello {
            // Before the answer, and on the same link, so that it arrives before it. Without room
            // the answer is enough.
            let _ = link.send_for(tenant, ClientMessage::NotSubscribed { req_id: id.0 }.encode());
        }
        let is_alone = {
            let mut tenants = self.tenants.lock();
            tenants.remove(&id.0);
            tenants.is_empty()
        };
        send_answer(link, tenant, id, result, is_alone, has_said_hello);
        self.session.unanswered.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sends an answer. One that does not fit into a message, or beside what waits of its tenant
/// already, becomes an error, for which there is room: a link never ends because of answers.
fn send_answer(
    link: &LinkSender,
    tenant: TenantId,
    RequestId(request_id): RequestId,
    result: DispatchResult,
    is_alone: bool,
    has_said_hello: bool,
) {
    let result = result.map_err(|error| answers::to_wire(&error, has_said_hello));
    let message = ClientMessage::DispatchResponse { req_id: request_id, result }.to_message();
    let sent =
        if is_alone { link.send_alone(tenant, message) } else { link.send_for(tenant, message) };
    let Err(error) = sent else { return };
    let text = match error {
        SendError::TooLarge { bytes, limit } => {
            format!("the result is too large: {bytes} bytes of at most {limit}")
        }
        SendError::Full => {
            "the result was dropped: too much of this tenant's waits to be sent".to_owned()
        }
        SendError::Closed => return,
    };
    let result = Err(answers::to_wire(&DispatchError::Script(text), has_said_hello));
    // Without room for a hundred thousand of these the master reads nothing, and the writer soon
    // ends the link.
    let _ = link.send(ClientMessage::DispatchResponse { req_id: request_id, result }.encode());
}

#[cfg(test)]
mod tests;
