//! Jobs as the messages that bring them to the worker.

use super::MesophyllServerConn;
use crate::base::shared_bytes::OutMessage;
use crate::dispatch::{Delivery, Job, RequestId};
use crate::wire::data::{CreateEvent, TenantId};
use crate::wire::message::ServerMessage;

impl MesophyllServerConn {
    /// The message that brings an event; to a worker that does not know deliveries it is as any
    /// other.
    pub(super) fn encode_event(
        &self,
        tenant: TenantId,
        event: &CreateEvent,
        id: Option<RequestId>,
        delivery: Delivery,
    ) -> OutMessage {
        let id = id.map(|RequestId(id)| id);
        if delivery == Delivery::Always
            && self.has_announced(|announced| announced.takes_deliveries)
        {
            ServerMessage::encode_delivery(tenant, event, id)
        } else {
            ServerMessage::encode_event(tenant, event, id)
        }
    }

    /// The message that brings a job, which may yet come back, to the worker.
    pub(super) fn encode(
        &self,
        tenant: TenantId,
        id: RequestId,
        job: &Job,
        delivery: Delivery,
    ) -> OutMessage {
        match job {
            Job::Dispatch(event) => self.encode_event(tenant, event, Some(id), delivery),
            Job::RunScript { name, code, event } => {
                ServerMessage::encode_script(tenant, name, code, event, id.0)
            }
            Job::DropTenant => {
                ServerMessage::DropWorker { id: tenant, req_id: id.0 }.encode().into()
            }
        }
    }
}
