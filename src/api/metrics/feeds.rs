//! Families about what tenants publish.

use crate::base::metrics::Exposition;
use crate::feeds::FeedFigures;

pub(super) fn show(exposition: &mut Exposition, figures: FeedFigures) {
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
    exposition.one_gauge("mesophyll_feed_readers", "Readers of feeds.", Some(figures.readers));
    exposition.one_gauge(
        "mesophyll_feed_kept_bytes",
        "Bytes of events that are kept for readers that come back.",
        Some(figures.bytes),
    );
}
