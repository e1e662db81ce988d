//! What a worker says of itself in its Ready: kept for as long as its link.

use crate::wire::data::Sandbox;
use crate::wire::message::{
    DELIVER_EXTENSION, NOWAIT_EXTENSION, RETIRE_EXTENSION, Ready, SHARDS_EXTENSION,
};

/// Limit: of the version and the host that a worker names, which are texts of its own making, so
/// much is kept and shown. What is longer is cut off.
const TEXT_MAX_CHARS: usize = 64;

/// What a worker says of itself; the reference's says nothing.
pub(super) struct Announced {
    pub(super) version: String,
    pub(super) host: Option<String>,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) answers_vm_queries: bool,
    pub(super) takes_shards: bool,
    pub(super) takes_deliveries: bool,
    /// It says what became of events without a request id.
    pub(super) tells_finished: bool,
    pub(super) retires: bool,
}

impl Announced {
    pub(super) fn of(ready: Ready) -> Self {
        let names = |extension: &str| ready.extensions.iter().any(|name| name == extension);
        let cut = |text: String| text.chars().take(TEXT_MAX_CHARS).collect::<String>();
        Self {
            answers_vm_queries: ready.live_tenants,
            takes_shards: names(SHARDS_EXTENSION),
            takes_deliveries: names(DELIVER_EXTENSION),
            tells_finished: names(NOWAIT_EXTENSION),
            retires: names(RETIRE_EXTENSION),
            version: cut(ready.version),
            host: ready.host.map(cut),
            sandbox: ready.sandbox.map(|sandbox| Sandbox {
                mode: cut(sandbox.mode),
                landlock_status: cut(sandbox.landlock_status),
                ..sandbox
            }),
        }
    }
}
