//! Families about tenants' timers.

use crate::base::metrics::Exposition;
use crate::pool::TimerFigures;

pub(super) fn show(exposition: &mut Exposition, figures: &TimerFigures) {
    let runs = exposition.counter(
        "mesophyll_timer_runs_total",
        "Runs of timers that were tried, by what came of them.",
    );
    figures.outcomes.show(runs);
    exposition.one_gauge(
        "mesophyll_timers",
        "Timers that there are, as they were counted in the last minute.",
        Some(figures.armed),
    );
    exposition.one_gauge(
        "mesophyll_timers_pending",
        "Timers that are due and wait for their turn, or for the end of their handler.",
        Some(figures.waiting),
    );
    exposition.one_gauge(
        "mesophyll_timers_lag_seconds",
        "How late the timer is that has waited longest for its turn.",
        Some(figures.lag_seconds),
    );
}
