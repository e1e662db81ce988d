//! Families about what tenants publish, and what their scripts log.

use crate::base::metrics::Exposition;
use crate::feeds::FeedFigures;

pub(super) fn show(exposition: &mut Exposition, figures: FeedFigures, logs: FeedFigures) {
    let mut events = exposition.counter(
        "mesophyll_feed_events_total",
        "Events that tenants published, by what came of them.",
    );
    events.sample(&[("outcome", "published")], figures.published);
    events.sample(&[("outcome", "refused")], figures.refused);
    events.sample(&[("outcome", "too_many")], figures.excess);
    exposition.one_counter(
        "mesophyll_feed_lost_total",
        "Events that readers of feeds were told they lost, counted once a reader.",
        Some(figures.lost),
    );
    exposition.one_gauge(
        "mesophyll_feed_readers",
        "Readers of feeds, and of what scripts log.",
        Some(figures.readers + logs.readers),
    );
    exposition.one_gauge(
        "mesophyll_feed_kept_bytes",
        "Bytes of events that are kept for readers that come back.",
        Some(figures.bytes),
    );
    let mut lines = exposition.counter(
        "mesophyll_script_log_lines_total",
        "Lines that scripts logged, by what came of them.",
    );
    lines.sample(&[("outcome", "kept")], logs.published);
    lines.sample(&[("outcome", "too_many")], logs.excess);
    exposition.one_counter(
        "mesophyll_script_log_lost_total",
        "Lines that readers of logs were told they lost, counted once a reader.",
        Some(logs.lost),
    );
    exposition.one_gauge(
        "mesophyll_script_log_kept_bytes",
        "Bytes of lines that scripts logged and that are kept for readers.",
        Some(logs.bytes),
    );
}
