//! What travels between a master, its workers, its stores and its callers. Pure data: no I/O, no
//! clock, no bytes.
//!
//! Deliberately without encoders: the MessagePack and JSON forms are in the rest of `wire/`, rules
//! of the store in `store/`.

mod db;
mod encoded;
mod event;
mod figures;
mod global_kv;
mod host_call;
mod khronos;
mod kv;
mod sandbox;
pub mod sharding;
mod shares;
mod shop_update;
mod template_sources;
mod tenant_id;
mod tenant_message;
mod tenant_state;
mod timer;
mod timestamp;
pub mod timezone;

pub use db::{DbAnswer, DbOp};
pub use encoded::{EncodedJson, EncodedValue};
pub use event::{CreateEvent, EventData, ON_STARTUP};
pub use figures::{Budget, DbCall, DbFigures, Dropped, RuntimeFigures};
pub use global_kv::{
    CreateGlobalKv, GlobalKeyValueOp, GlobalKv, GlobalKvData, PartialGlobalKv,
    PublicGlobalKeyValueOp,
};
pub use host_call::{
    HOST_RULES_KEY, HOST_RULES_SCOPE, HostCall, HostError, HostOutcome, HostResult, is_host_name,
};
pub use khronos::{Interval, KhronosValue};
pub use kv::{ERRORS_KEY, ERRORS_SCOPE, KeyValueOp, KvRecord, Scopes};
pub use sandbox::{Sandbox, SandboxMode};
pub use shares::{HeldShare, IdMap, Shares};
pub use shop_update::{SHOP_UPDATE, SHOP_WATCH_KEY, SHOP_WATCH_SCOPE};
pub use template_sources::{TEMPLATE_HISTORY_SCOPE, TEMPLATE_KEY, TEMPLATE_SCOPE, TemplateSources};
pub use tenant_id::{ParseTenantIdError, TenantId, TenantKind};
pub use tenant_message::{
    MESSAGE_RULES_KEY, MESSAGE_RULES_SCOPE, MessageOutcome, TENANT_MESSAGE, TenantMessage,
};
pub use tenant_state::TenantState;
pub use timer::{Timer, TimerOp, TimerWhen};
pub use timestamp::{InvalidTimestamp, Timestamp};
