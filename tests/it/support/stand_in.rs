//! A runtime without Luau: the event's name says what to do with it. Lives in the tests only.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use mesophyll::base::error::DispatchError;
use mesophyll::dispatch::{Answer, Cancelled, Job, RequestId};
use mesophyll::runtime::{RuntimeStats, TemplateRuntime};
use mesophyll::wire::data::sharding::ShardSet;
use mesophyll::wire::data::{EventData, KhronosValue, TenantId};
use mesophyll::wire::pack::value::encode;

/// What the runtime was told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Submitted(TenantId, String),
    Cancelled(TenantId, RequestId),
    Dropped(ShardSet),
    Shutdown,
}

/// `ECHO` answers the size of its data, `FAIL` a script error, `BUSY` that it is busy, `HOLD`
/// nothing until it is cancelled or released, `BIG` a result of 17 MiB, everything else its own
/// name.
pub(crate) struct StandInRuntime {
    told_tx: Sender<Told>,
    held: Mutex<HashMap<RequestId, Answer>>,
}

impl StandInRuntime {
    pub(crate) fn new() -> (Self, Receiver<Told>) {
        let (told_tx, told_rx) = unbounded();
        (Self { told_tx, held: Mutex::default() }, told_rx)
    }
}

impl TemplateRuntime for StandInRuntime {
    fn submit(&self, tenant: TenantId, request_id: RequestId, job: Job, answer: Answer) {
        let event = match job {
            Job::Dispatch(event) => event,
            Job::RunScript { code, .. } => {
                return answer.send(Ok(encode(&KhronosValue::Text(format!("ran {code}")))));
            }
            Job::DropTenant => return answer.send(Ok(encode(&KhronosValue::Null))),
        };
        // The test may have ended.
        let _ = self.told_tx.send(Told::Submitted(tenant, event.name.clone()));
        let text = "as asked".to_owned();
        match event.name.as_str() {
            "ECHO" => {
                let EventData::Json(json) = &event.data else { panic!("tests send JSON") };
                answer.send(Ok(encode(&KhronosValue::Integer(json.as_bytes().len() as i64))));
            }
            "FAIL" => answer.send(Err(DispatchError::Script(text))),
            "BUSY" => answer.send(Err(DispatchError::Busy(text))),
            "BIG" => answer.send(Ok(encode(&KhronosValue::Text("x".repeat(17 << 20))))),
            "HOLD" => drop(self.held.lock().expect("a lock").insert(request_id, answer)),
            name => answer.send(Ok(encode(&KhronosValue::Text(name.to_owned())))),
        }
    }

    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        let _ = self.told_tx.send(Told::Cancelled(tenant, request_id));
        match self.held.lock().expect("a lock").remove(&request_id) {
            Some(answer) => {
                answer.send(Err(DispatchError::Script("cancelled".to_owned())));
                Cancelled::Sent
            }
            None => Cancelled::Unknown,
        }
    }

    fn drop_shards(&self, shards: &ShardSet) {
        let _ = self.told_tx.send(Told::Dropped(*shards));
    }

    /// As if every guild had one.
    fn has_vm(&self, tenant: TenantId) -> bool {
        matches!(tenant, TenantId::Guild(_))
    }

    fn stats(&self) -> RuntimeStats {
        RuntimeStats { stalest_executor: Duration::from_millis(1), ..RuntimeStats::default() }
    }

    fn shutdown(&self) {
        self.held.lock().expect("a lock").clear();
        let _ = self.told_tx.send(Told::Shutdown);
    }
}
