//! The families that Prometheus' own libraries have of a process, for the master's.

use std::sync::atomic::Ordering;

use crate::base::metrics::Exposition;
use crate::base::process_figures::{LOG_LINES_LOST, ProcessFigures};

pub(super) fn show(exposition: &mut Exposition, process: &ProcessFigures, virtual_bytes: u64) {
    exposition.one_counter(
        "mesophyll_log_lines_lost_total",
        "Lines of the master's log that stderr did not take.",
        Some(LOG_LINES_LOST.load(Ordering::Relaxed)),
    );
    exposition
        .counter(
            "process_cpu_seconds_total",
            "Processor time of the master, in user and in system mode.",
        )
        .sample(&[], process.cpu.as_secs_f64());
    let mut gauge = |name, help, figure: u64| {
        exposition.gauge(name, help).sample(&[], figure);
    };
    gauge(
        "process_resident_memory_bytes",
        "Resident memory of the master.",
        process.resident_bytes,
    );
    gauge("process_virtual_memory_bytes", "Virtual memory of the master.", virtual_bytes);
    gauge("process_open_fds", "File descriptors that the master has open.", process.open_fds);
    gauge(
        "process_max_fds",
        "File descriptors that the master may have open; 0 is without a limit.",
        process.max_fds,
    );
    gauge("process_threads", "Threads of the master.", process.threads);
    let started = process.started_unix_ms as f64 / 1e3;
    exposition
        .gauge("process_start_time_seconds", "When the master started, in Unix time.")
        .sample(&[], started);
}
