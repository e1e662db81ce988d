//! From words, variables and files to plain values, and what a configuration comes to.

pub(super) mod api_options;
pub(super) mod args;
pub(super) mod config_file;
pub(super) mod config_values;
pub(super) mod environment;
pub(super) mod look;
pub(super) mod pool_options;
pub(super) mod words;
