//! Events that no caller waits for: they leave without a request id, and what became of them comes
//! in numbers. Of a worker that does not tell, one has ended when its bytes have left.

use std::time::Instant;

use super::{ConnHandler, MesophyllServerConn, SentRequest, not_sent};
use crate::base::error::DispatchError;
use crate::base::shared_bytes::OutMessage;
use crate::dispatch::{Refused, Request};
use crate::net::link::{Registered, SendError};
use crate::protocol::master::unheard::Ended;
use crate::wire::data::{EncodedValue, TenantId};
use crate::wire::message::FinishedEvents;

impl MesophyllServerConn {
    /// Sends an event without a request id, as this message.
    pub(super) fn submit_nowait(
        &self,
        request: Request,
        message: OutMessage,
    ) -> Result<(), Box<Refused>> {
        let Request { tenant, id, job, deadline, answer, delivery } = request;
        let refused = |job, SentRequest { answer, .. }: SentRequest, error| {
            Request { tenant, id, job, deadline, answer, delivery }.refused(error)
        };
        let unheard = &self.inner.unheard;
        let count = match unheard.register(tenant, id, SentRequest::new(tenant, &job, answer)) {
            Registered::Waiting(count) => count,
            Registered::Closed(event, _) | Registered::Sealed(event) => {
                return Err(refused(job, event, not_sent(SendError::Closed)));
            }
            Registered::Full(event) | Registered::Duplicate(event) => {
                let text = "too many events of this tenant have not ended yet".to_owned();
                return Err(refused(job, event, DispatchError::Busy(text)));
            }
        };
        let link = &self.inner.link;
        let sent = if !self.has_announced(|announced| announced.tells_finished) {
            link.send_told(tenant, message)
        } else if count <= 1 {
            link.send_alone(tenant, message)
        } else {
            link.send_for(tenant, message)
        };
        let Err(error) = sent else { return Ok(()) };
        // `None`: the link's end has answered it already.
        match unheard.take_back(tenant, id) {
            Some(event) => Err(refused(job, event, not_sent(error))),
            None => Ok(()),
        }
    }

    /// An event of each of these tenants has left, to a worker that does not tell what became of
    /// it.
    pub(super) fn events_left(&self, tenants: &[TenantId]) {
        let ended =
            |tenant: &TenantId| FinishedEvents { tenant: *tenant, ok: 1, failed: 0, busy: 0 };
        self.end_events(tenants.iter().map(ended));
    }

    /// Answers as many events, and returns how many were told of beyond those.
    fn end_events(&self, told: impl IntoIterator<Item = FinishedEvents>) -> u64 {
        let (ended, surplus) = self.inner.unheard.take_finished(told);
        for (event, how) in ended {
            event.answer.send(match how {
                Ended::Well => Ok(EncodedValue::null()),
                Ended::Failed => Err(DispatchError::Script(
                    "it failed; its tenant's recorded errors may say how".to_owned(),
                )),
                Ended::Busy => Err(DispatchError::Busy("its worker did not take it".to_owned())),
            });
        }
        surplus
    }
}

impl ConnHandler {
    /// What is told beyond what was sent may be of tenants that were handed over meanwhile, and
    /// ends nothing.
    pub(super) fn on_finished(&self, told: Vec<FinishedEvents>) {
        let surplus = self.conn.end_events(told);
        if surplus > 0
            && let Some(count) = self.conn.inner.counters.late_answers.record(Instant::now())
        {
            let id = self.conn.inner.worker_id;
            log::debug!(worker = id;
                "worker {id}: {count} answers that nobody waits for, the last of them told of \
                 {surplus} events that were not sent"
            );
        }
    }
}
