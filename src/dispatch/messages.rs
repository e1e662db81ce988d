//! Messages of tenants, and their calls to host processes, on their way from a worker to what
//! carries them.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use crate::wire::data::{
    HostCall, HostError, HostOutcome, HostResult, MessageOutcome, TenantMessage,
};

/// Gets what became of a message, exactly once; must not block.
pub type MessageAnswer = Box<dyn FnOnce(MessageOutcome) + Send>;

/// Gets what came of a call, exactly once; must not block.
pub type HostAnswer = Box<dyn FnOnce(HostResult) + Send>;

/// Carries messages between tenants, and calls to host processes.
pub trait MessageCarrier: Send + Sync {
    /// Takes a message of a tenant that is this master's, and returns at once. `answer` is called
    /// with what became of it, on any thread.
    fn carry(&self, message: TenantMessage, answer: MessageAnswer);

    /// Takes a call of such a tenant, and returns at once, as [`MessageCarrier::carry`] does.
    fn call_host(&self, call: HostCall, answer: HostAnswer);
}

/// Where workers hand in their tenants' messages. The carrier comes later than the workers, over
/// which it carries; clones lead to the same one.
#[derive(Clone, Default)]
pub struct MessageDoor(Arc<OnceLock<Weak<dyn MessageCarrier>>>);

impl MessageDoor {
    /// Leads to this carrier from now on; the first one stays.
    pub fn open(&self, carrier: Weak<dyn MessageCarrier>) {
        let _ = self.0.set(carrier);
    }

    /// Hands a message in; without a carrier it is answered `Busy`.
    pub fn hand_in(&self, message: TenantMessage, answer: MessageAnswer) {
        match self.0.get().and_then(Weak::upgrade) {
            Some(carrier) => carrier.carry(message, answer),
            None => answer(MessageOutcome::Busy),
        }
    }

    /// Hands a call in; without a carrier no host process serves it.
    pub fn call_host(&self, call: HostCall, answer: HostAnswer) {
        match self.0.get().and_then(Weak::upgrade) {
            Some(carrier) => carrier.call_host(call, answer),
            None => answer(Err(HostError::new(HostOutcome::NoHost))),
        }
    }
}

impl fmt::Debug for MessageDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageDoor")
    }
}
