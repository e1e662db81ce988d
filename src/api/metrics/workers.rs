//! Families about the workers, as their reports have it.

use super::Figures;
use crate::base::metrics::Exposition;
use crate::pool::WorkerReport;
use crate::pool::process::supervisor::{Cause, State};

pub(super) fn show(exposition: &mut Exposition, figures: &Figures) {
    let workers = &figures.workers;
    let mut family = exposition.gauge("mesophyll_workers", "Workers in each state.");
    for state in State::ALL {
        let count = workers.iter().filter(|worker| worker.state == state).count();
        family.sample(&[("state", state.as_str())], count);
    }
    let ids: Vec<String> = workers.iter().map(|worker| worker.id.to_string()).collect();
    let mut each = |name, help, figure: &dyn Fn(&WorkerReport) -> Option<f64>| {
        let mut family = exposition.gauge(name, help);
        for (worker, id) in workers.iter().zip(&ids) {
            if let Some(figure) = figure(worker) {
                family.sample(&[("worker", id)], figure);
            }
        }
    };
    each("mesophyll_worker_ready", "1 if the worker takes dispatches, else 0.", &|worker| {
        Some(f64::from(u8::from(worker.state == State::Ready)))
    });
    each("mesophyll_worker_uptime_seconds", "Since when the worker runs.", &|worker| {
        worker.started.map(|started| started.elapsed().as_secs_f64())
    });
    each(
        "mesophyll_worker_heartbeat_age_seconds",
        "How long ago the worker's last heartbeat came.",
        &|worker| worker.heartbeat_age.map(|age| age.as_secs_f64()),
    );
    each(
        "mesophyll_dispatches_in_flight",
        "Dispatches that left for the worker and wait for their answers.",
        &|worker| Some(worker.in_flight as f64),
    );
    each(
        "mesophyll_dispatches_waiting",
        "Dispatches that wait for the worker to be ready.",
        &|worker| Some(worker.waiting as f64),
    );
    each("mesophyll_worker_vms", "VMs of tenants that are alive in the worker.", &|worker| {
        worker.health.as_ref().map(|health| health.vms as f64)
    });
    each(
        "mesophyll_worker_resident_memory_bytes",
        "Resident memory of the process that the worker runs in.",
        &|worker| worker.health.as_ref().map(|health| health.memory_bytes as f64),
    );
    let mut layers = exposition.gauge(
        "mesophyll_worker_sandbox",
        "1 if this layer of the sandbox confines the worker's process, else 0.",
    );
    for (worker, id) in workers.iter().zip(&ids) {
        let Some(sandbox) = &worker.sandbox else { continue };
        let in_force = [
            ("landlock", sandbox.landlock_abi > 0),
            ("seccomp", sandbox.seccomp),
            ("broker", worker.is_handed_out),
        ];
        for (layer, is_in_force) in in_force {
            layers.sample(&[("worker", id), ("layer", layer)], u8::from(is_in_force));
        }
    }
    let mut kills = exposition.counter(
        "mesophyll_worker_sandbox_kills_total",
        "Processes of the worker that their sandbox has ended.",
    );
    for (worker, id) in workers.iter().zip(&ids) {
        kills.sample(&[("worker", id)], worker.sandbox_kills);
    }
    exposition.one_counter(
        "mesophyll_worker_output_lines_dropped_total",
        "Lines that workers printed and that were not logged, as they came too fast.",
        figures.output_lines_dropped,
    );
    let mut restarts = exposition.counter(
        "mesophyll_worker_restarts_total",
        "How often the worker was started again, and why.",
    );
    for (worker, id) in workers.iter().zip(&ids) {
        for cause in Cause::ALL {
            restarts.sample(&[("worker", id), ("reason", cause.as_str())], worker.restarts[cause]);
        }
    }
}
