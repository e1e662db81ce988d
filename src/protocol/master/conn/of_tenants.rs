//! What a worker says for its tenants: messages, calls to host processes, and lines of their logs.
//!
//! Part of [`ConnHandler`], on the link's reader thread; nothing of it blocks.

use super::ConnHandler;
use crate::base::limits;
use crate::net::link::SendError;
use crate::wire::data::{HostCall, HostError, HostOutcome, MessageOutcome, TenantMessage};
use crate::wire::message::{ScriptLine, ServerMessage};

impl ConnHandler {
    pub(super) fn on_script_line(&self, line: ScriptLine) -> Result<(), u16> {
        let ScriptLine { tenant, level, text } = line;
        let is_taken = self.conn.inner.counters.check_from(self.caller, tenant)?;
        if is_taken && text.len() <= limits::SCRIPT_LINE_MAX_BYTES {
            self.feeds.log(tenant, level.parse().unwrap_or(log::Level::Info), &text);
        } else {
            self.feeds.lose_line(tenant);
        }
        Ok(())
    }

    pub(super) fn on_send(&self, request_id: u64, message: TenantMessage) -> Result<(), u16> {
        let may_send = self.conn.inner.counters.check_from(self.caller, message.from)?;
        let (link, from) = (self.conn.inner.link.clone(), message.from);
        let answer = move |outcome| {
            // One that finds no room is as one that never came: the sender waits for so long only.
            let _ = link.send_for(from, ServerMessage::send_answer(request_id, outcome).encode());
        };
        match may_send {
            true => self.messages.hand_in(message, Box::new(answer)),
            false => answer(MessageOutcome::Busy),
        }
        Ok(())
    }

    pub(super) fn on_host_call(&self, request_id: u64, call: HostCall) -> Result<(), u16> {
        let may_call = self.conn.inner.counters.check_from(self.caller, call.from)?;
        let (link, from) = (self.conn.inner.link.clone(), call.from);
        let answer = move |result| {
            let message = ServerMessage::host_answer(request_id, result).encode();
            if link.send_for(from, message) == Err(SendError::Full) {
                // There is room for this one, and its worker waits for no other.
                let lost = Err(HostError::new(HostOutcome::Unknown));
                let _ = link.send(ServerMessage::host_answer(request_id, lost).encode());
            }
        };
        match may_call {
            true => self.messages.call_host(call, Box::new(answer)),
            false => answer(Err(HostError::new(HostOutcome::Busy))),
        }
        Ok(())
    }
}
