//! Messages of tenants on their way from a worker to what carries them.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use crate::wire::data::{MessageOutcome, TenantMessage};

/// Gets what became of a message, exactly once; must not block.
pub type MessageAnswer = Box<dyn FnOnce(MessageOutcome) + Send>;

/// Carries messages between tenants.
pub trait MessageCarrier: Send + Sync {
    /// Takes a message of a tenant that is this master's, and returns at once. `answer` is called
    /// with what became of it, on any thread.
    fn carry(&self, message: TenantMessage, answer: MessageAnswer);
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
}

impl fmt::Debug for MessageDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageDoor")
    }
}
