//! The commands, one file each: its row of the table, and what it does.

pub(super) mod broadcast;
pub(super) mod check;
pub(super) mod completions;
pub(super) mod dispatch;
pub(super) mod drain;
pub(super) mod drop_tenant;
pub(super) mod errors;
pub(super) mod feed;
pub(super) mod global_kv;
pub(super) mod init;
pub(super) mod kv;
pub(super) mod log_level;
pub(super) mod logs;
pub(super) mod luau;
pub(super) mod man;
pub(super) mod master;
pub(super) mod masters;
pub(super) mod message;
pub(super) mod migrate;
pub(super) mod quarantine;
pub(super) mod replay;
pub(super) mod restart;
pub(super) mod run_script;
#[cfg(feature = "luau")]
mod runtimes;
pub(super) mod status;
pub(super) mod store;
pub(super) mod template;
pub(super) mod tenant;
pub(super) mod test;
pub(super) mod token;
pub(super) mod types;
pub(super) mod version;
pub(super) mod worker;
pub(super) mod worker_host;
pub(super) mod workers;
