//! What travels between a master, its workers, its stores and its callers. Pure data: no I/O, no clock. Event data
//! and values are the bytes that travel; `wire/` checked them when they came in.
//!
//! Deliberately without encoders: MessagePack and JSON forms are in `wire/`, rules of the store in `store/`.

mod dispatch;
mod encoded;
mod event;
mod figures;
mod global_kv;
mod khronos;
mod kv;
mod observed;
mod shares;
mod slot;
mod tenant_id;
mod tenant_state;
mod timestamp;

pub use dispatch::{Answer, Cancelled, DispatchResult, Job, Ticket};
pub use encoded::{EncodedJson, EncodedValue};
pub use event::{CreateEvent, EventData, ON_STARTUP};
pub use figures::{Budget, DbCall, DbFigures, FigureKind, RuntimeFigures};
pub use global_kv::{
    CreateGlobalKv, GlobalKeyValueOp, GlobalKv, GlobalKvData, PartialGlobalKv, PublicGlobalKeyValueOp,
};
pub use khronos::{Interval, KhronosValue};
pub use kv::{ERRORS_KEY, ERRORS_SCOPE, KeyValueOp, KvRecord, Scopes};
pub use observed::{JobKind, Observed, Observer};
pub use shares::{Held, IdMap, Shares};
pub use slot::Slot;
pub use tenant_id::{ParseTenantIdError, TenantId, TenantKind};
pub use tenant_state::TenantState;
pub use timestamp::{InvalidTimestamp, Timestamp};
