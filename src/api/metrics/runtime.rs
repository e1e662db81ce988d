//! Families about what goes on inside the workers, as each says with its health: events, templates'
//! errors and budgets, their calls to the database, and the worker's process.
//!
//! A worker's counts begin at 0 with its process. One that has not said anything since, or is too
//! old to, has no samples.

use crate::base::metrics::{Buckets, Exposition};
use crate::base::process_figures::ProcessFigures;
use crate::pool::WorkerReport;
use crate::wire::data::{Budget, DbCall, Dropped, RuntimeFigures};
use crate::wire::message::Health;

/// Of each worker that tells them: its number as a label, and its figures.
type Of<'a, T> = Vec<(String, &'a T)>;

pub(super) fn show(exposition: &mut Exposition, workers: &[WorkerReport]) {
    let told =
        workers.iter().filter_map(|worker| Some((worker.id.to_string(), worker.health.as_ref()?)));
    show_health(exposition, &told.collect());
}

fn show_health(exposition: &mut Exposition, workers: &Of<'_, Health>) {
    let mut events =
        exposition.counter("mesophyll_worker_events_total", "Events that the worker has started.");
    for (id, health) in workers {
        events.sample(&[("worker", id)], health.events);
    }
    let figures =
        workers.iter().filter_map(|(id, health)| Some((id.clone(), health.figures.as_deref()?)));
    show_figures(exposition, &figures.collect());
    let processes =
        workers.iter().filter_map(|(id, health)| Some((id.clone(), health.process.as_ref()?)));
    show_processes(exposition, &processes.collect());
}

fn show_figures(exposition: &mut Exposition, workers: &Of<'_, RuntimeFigures>) {
    let mut now = |name, help, figure: fn(&RuntimeFigures) -> u64| {
        let mut family = exposition.gauge(name, help);
        for (id, figures) in workers {
            family.sample(&[("worker", id)], figure(figures));
        }
    };
    now(
        "mesophyll_worker_waiting_events",
        "Events that have come to the worker and not started.",
        |figures| figures.waiting_events,
    );
    now("mesophyll_worker_coroutines", "Coroutines of events that have not ended.", |figures| {
        figures.coroutines
    });
    let mut time = |name, help, figure: fn(&RuntimeFigures) -> &Buckets| {
        let mut family = exposition.histogram(name, help);
        for (id, figures) in workers {
            family.buckets(&[("worker", id)], figure(figures));
        }
    };
    time("mesophyll_event_running_seconds", "Running time of each event that ended.", |figures| {
        &figures.running
    });
    time(
        "mesophyll_event_wall_seconds",
        "Wall time of each event that ended, its tasks included.",
        |figures| &figures.wall,
    );
    let mut count = |name, help, figure: fn(&RuntimeFigures) -> u64| {
        let mut family = exposition.counter(name, help);
        for (id, figures) in workers {
            family.sample(&[("worker", id)], figure(figures));
        }
    };
    count(
        "mesophyll_vms_evicted_total",
        "VMs that were closed because nothing ran in them.",
        |figures| figures.evicted_vms,
    );
    count(
        "mesophyll_vms_discarded_total",
        "VMs that were thrown away with all that ran in them.",
        |figures| figures.discarded_vms,
    );
    count(
        "mesophyll_preemptions_total",
        "Scripts' turns that ended before the script paused.",
        |figures| figures.preemptions,
    );
    count("mesophyll_runtime_panics_total", "Panics while a tenant had its turn.", |figures| {
        figures.panics
    });
    count(
        "mesophyll_script_errors_total",
        "Events, and tasks that they left, that ended with an error.",
        |figures| figures.script_errors,
    );
    count(
        "mesophyll_large_answers_total",
        "Results that were larger than a message may be.",
        |figures| figures.large_answers,
    );
    count(
        "mesophyll_script_log_lines_dropped_total",
        "Lines that scripts logged beyond what they may.",
        |figures| figures.dropped_log_lines,
    );
    let mut exceeded = exposition
        .counter("mesophyll_budgets_exceeded_total", "Bounds that templates exceeded, by kind.");
    for (id, figures) in workers {
        for budget in Budget::ALL {
            exceeded.sample(&[("worker", id), ("kind", budget.as_str())], figures.budget(budget));
        }
    }
    let mut dropped = exposition.counter(
        "mesophyll_worker_dropped_total",
        "What a worker dropped, or refused before anybody else saw it, by kind.",
    );
    for (id, figures) in workers {
        for kind in Dropped::ALL {
            dropped.sample(&[("worker", id), ("kind", kind.as_str())], figures.dropped(kind));
        }
    }
    let mut warnings = exposition.counter(
        "mesophyll_budget_warnings_total",
        "Times that tenants were warned that they come near a bound, by kind.",
    );
    for (id, figures) in workers {
        for budget in [Budget::Memory, Budget::RunningTime] {
            warnings.sample(&[("worker", id), ("kind", budget.as_str())], figures.warnings(budget));
        }
    }
    show_calls(exposition, workers);
}

fn show_calls(exposition: &mut Exposition, workers: &Of<'_, RuntimeFigures>) {
    let calls = || {
        let of = |(id, figures): &'_ (String, &'_ RuntimeFigures)| {
            DbCall::ALL
                .iter()
                .map(|call| (id.clone(), call.as_str(), figures.db(*call).clone()))
                .collect::<Vec<_>>()
        };
        workers.iter().flat_map(of)
    };
    let mut failed = exposition.counter(
        "mesophyll_template_db_call_failures_total",
        "Calls of templates to the database that failed.",
    );
    for (id, call, figures) in calls() {
        failed.sample(&[("worker", &id), ("operation", call)], figures.failed);
    }
    let mut took = exposition.histogram(
        "mesophyll_template_db_call_duration_seconds",
        "How long a call to the database took, as the template sees it.",
    );
    // A call that is not made is not worth its two dozen lines.
    for (id, call, figures) in calls().filter(|(_, _, figures)| figures.took.count() > 0) {
        took.buckets(&[("worker", &id), ("operation", call)], &figures.took);
    }
}

fn show_processes(exposition: &mut Exposition, workers: &Of<'_, ProcessFigures>) {
    let mut cpu = exposition.counter(
        "mesophyll_worker_cpu_seconds_total",
        "Processor time that the worker's process has used.",
    );
    for (id, process) in workers {
        cpu.sample(&[("worker", id)], process.cpu.as_secs_f64());
    }
    let mut now = |name, help, figure: fn(&ProcessFigures) -> u64| {
        let mut family = exposition.gauge(name, help);
        for (id, process) in workers {
            family.sample(&[("worker", id)], figure(process));
        }
    };
    now(
        "mesophyll_worker_open_fds",
        "File descriptors that the worker's process has open.",
        |process| process.open_fds,
    );
    now(
        "mesophyll_worker_max_fds",
        "How many it may have open; 0 is without a limit.",
        |process| process.max_fds,
    );
    now("mesophyll_worker_threads", "Threads of the worker's process.", |process| process.threads);
    let mut started = exposition.gauge(
        "mesophyll_worker_start_time_seconds",
        "When the worker's process started, in Unix time.",
    );
    for (id, process) in workers {
        started.sample(&[("worker", id)], process.started_unix_ms as f64 / 1e3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_a_worker_does_not_tell_have_no_samples() {
        let mut figures = RuntimeFigures::default();
        *figures.budget_mut(Budget::WallTime) = 2;
        figures.db_mut(DbCall::Find).failed = 1;
        figures.script_errors = 3;
        let newer = Health { events: 9, figures: Some(Box::new(figures)), ..Health::default() };
        let older = Health { events: 8, ..Health::default() };
        let mut exposition = Exposition::default();
        show_health(&mut exposition, &vec![("0".to_owned(), &newer), ("1".to_owned(), &older)]);
        let text = exposition.into_text();
        let samples = |part: &str| {
            text.lines().filter(|line| !line.starts_with('#') && line.contains(part)).count()
        };
        for line in [
            "mesophyll_worker_events_total{worker=\"0\"} 9",
            "mesophyll_worker_events_total{worker=\"1\"} 8",
            "mesophyll_script_errors_total{worker=\"0\"} 3",
            "mesophyll_budgets_exceeded_total{worker=\"0\",kind=\"wall_time\"} 2",
            "mesophyll_template_db_call_failures_total{worker=\"0\",operation=\"find\"} 1",
            "mesophyll_event_wall_seconds_count{worker=\"0\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in {text}");
        }
        assert_eq!(samples("worker=\"1\""), 1, "{text}");
        assert_eq!(samples("mesophyll_template_db_call_duration_seconds"), 0, "{text}");
        assert_eq!(samples("mesophyll_worker_open_fds"), 0, "{text}");
    }
}
