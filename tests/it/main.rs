//! The integration tests: one binary, so that they link once. Each module is about one thing;
//! `support` is what they share.

#[cfg(feature = "luau")]
mod broadcast;
#[cfg(feature = "luau")]
mod broker;
#[cfg(feature = "luau")]
mod cli_backup;
#[cfg(feature = "luau")]
mod cli_cluster;
#[cfg(feature = "luau")]
mod cli_config;
#[cfg(feature = "luau")]
mod cli_data;
#[cfg(feature = "luau")]
mod cli_escape;
#[cfg(feature = "luau")]
mod cli_faults;
#[cfg(feature = "luau")]
mod cli_load;
#[cfg(feature = "luau")]
mod cli_log;
#[cfg(feature = "luau")]
mod cli_master;
#[cfg(feature = "luau")]
mod cli_nowait;
#[cfg(feature = "luau")]
mod cli_python;
#[cfg(feature = "luau")]
mod cli_readme;
#[cfg(feature = "luau")]
mod cli_replay;
#[cfg(feature = "luau")]
mod cli_sources;
#[cfg(feature = "luau")]
mod cli_start;
#[cfg(feature = "luau")]
mod cli_systemd;
#[cfg(feature = "luau")]
mod cli_terminal;
#[cfg(feature = "luau")]
mod cli_test;
#[cfg(feature = "luau")]
mod cli_types;
#[cfg(feature = "luau")]
mod cli_usage;
mod cli_version;
#[cfg(not(feature = "luau"))]
mod cli_without_luau;
#[cfg(feature = "luau")]
mod cli_worker_host;
mod cli_worker_program;
#[cfg(feature = "luau")]
mod cut_network;
#[cfg(feature = "worker")]
mod db_client;
#[cfg(all(feature = "worker", feature = "http2"))]
mod db_http2;
#[cfg(feature = "worker")]
mod db_routes;
#[cfg(feature = "luau")]
mod dispatch_events;
#[cfg(feature = "luau")]
mod event_rules;
#[cfg(feature = "luau")]
mod faults;
#[cfg(feature = "luau")]
mod feeds;
mod fuzzed;
#[cfg(feature = "worker")]
mod hostile_master;
#[cfg(feature = "luau")]
mod hosts;
#[cfg(feature = "luau")]
mod live_tenants;
#[cfg(feature = "luau")]
mod logs;
#[cfg(all(feature = "postgres", feature = "luau"))]
mod masters;
#[cfg(feature = "luau")]
mod messages;
#[cfg(feature = "luau")]
mod metrics;
#[cfg(feature = "luau")]
mod metrics_files;
#[cfg(feature = "luau")]
mod metrics_of_workers;
#[cfg(feature = "luau")]
mod process_bounds;
#[cfg(feature = "worker")]
mod protocol;
#[cfg(feature = "luau")]
mod rates;
#[cfg(feature = "luau")]
mod reload;
#[cfg(all(feature = "luau", feature = "sandbox"))]
mod sandbox;
#[cfg(feature = "luau")]
mod shards;
#[cfg(all(feature = "postgres", feature = "luau"))]
mod shop;
#[cfg(feature = "luau")]
mod status_page;
#[cfg(feature = "luau")]
mod status_route;
#[cfg(feature = "worker")]
mod store_concurrency;
#[cfg(feature = "worker")]
mod store_conformance;
#[cfg(feature = "worker")]
mod store_crash;
#[cfg(feature = "worker")]
mod store_differential;
#[cfg(feature = "luau")]
mod store_full_disk;
#[cfg(all(feature = "postgres", feature = "worker"))]
mod store_lease;
#[cfg(all(feature = "postgres", feature = "worker"))]
mod store_migrate;
#[cfg(all(feature = "postgres", feature = "worker"))]
mod store_outage;
#[cfg(all(feature = "postgres", feature = "worker"))]
mod store_postgres_faults;
#[cfg(feature = "postgres")]
mod store_postgres_set;
#[cfg(all(feature = "postgres-tls", feature = "worker"))]
mod store_postgres_tls;
#[cfg(feature = "luau")]
mod stream;
mod supervision;
#[cfg(feature = "luau")]
mod supervision_binary;
mod supervision_faults;
mod supervision_output;
#[cfg(feature = "luau")]
mod supervision_rolling;
mod support;
#[cfg(feature = "luau")]
mod tenant_scale;
#[cfg(feature = "luau")]
mod timers;
#[cfg(all(feature = "luau", feature = "tls"))]
mod tls;
