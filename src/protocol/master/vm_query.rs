//! What a master asks a worker that is no job: which tenants have a VM there. Not seen by
//! templates, and nothing that runs.
//!
//! A query is answered like a dispatch and waits apart from those. Its answer counts only in
//! time: the asker gives a deadline, and what is not known by then is not known. Answers come
//! on the link's reader thread, which never blocks.

use std::sync::Arc;
use std::time::Instant;

use crate::base::answer::{AnswerPlace, AnswerSender};
use crate::dispatch::worker_like::next_request_id;
use crate::protocol::MesophyllServerConn;
use crate::wire::data::{EncodedValue, KhronosValue};
use crate::wire::pack::value;

/// A query under way: which of some tenants have a VM. Dropping it forgets it.
#[derive(Debug)]
#[must_use = "dropping it forgets the query"]
pub struct VmQuery {
    conn: MesophyllServerConn,
    request_id: u64,
    tenants: usize,
    answer: Arc<AnswerPlace<EncodedValue>>,
}

impl VmQuery {
    /// A query, and where its one answer goes: a sender that is dropped means that there is none.
    pub(super) fn new(
        conn: MesophyllServerConn,
        tenants: usize,
    ) -> (Self, AnswerSender<EncodedValue>) {
        let (answer_tx, answer) = AnswerSender::new();
        (Self { conn, request_id: next_request_id().0, tenants, answer }, answer_tx)
    }

    pub(super) fn request_id(&self) -> u64 {
        self.request_id
    }

    /// Waits for the answer: for each tenant, in the order in which they were asked for, whether it
    /// has a VM. Nothing if it did not come, or makes no sense.
    ///
    /// # Blocks
    /// Until the answer, the link's end, or `deadline`.
    pub fn wait(self, deadline: Instant) -> Option<Vec<bool>> {
        let answer = self.answer.take_by(deadline)?;
        vms_from_wire(&answer).filter(|has_vm| has_vm.len() == self.tenants)
    }
}

impl Drop for VmQuery {
    fn drop(&mut self) {
        self.conn.forget_vm_query(self.request_id);
    }
}

#[cfg(any(test, feature = "worker"))]
pub(in crate::protocol) fn vms_to_wire(has_vm: impl Iterator<Item = bool>) -> EncodedValue {
    value::encode(&KhronosValue::Buffer(has_vm.map(u8::from).collect()))
}

fn vms_from_wire(answer: &EncodedValue) -> Option<Vec<bool>> {
    match value::decode(answer) {
        Ok(KhronosValue::Buffer(bytes)) => Some(bytes.into_iter().map(|byte| byte == 1).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_back_and_any_other_value_is_none() {
        for has_vm in [vec![], vec![true, false, true, true]] {
            assert_eq!(vms_from_wire(&vms_to_wire(has_vm.iter().copied())), Some(has_vm));
        }
        assert_eq!(vms_from_wire(&EncodedValue::null()), None);
    }
}
