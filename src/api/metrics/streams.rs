//! Families about events that come in lines, and the WebSockets that are served.

use crate::api::event_line::LineOutcomes;
use crate::api::served_links::{ServedEnd, ServedLinks};
use crate::base::metrics::Exposition;

pub(super) fn show(
    exposition: &mut Exposition,
    lines: &LineOutcomes,
    streams: &ServedLinks,
    hosts: &ServedLinks,
) {
    exposition.one_gauge("mesophyll_streams", "Streams of events.", Some(streams.count()));
    lines.show(exposition.counter(
        "mesophyll_stream_events_total",
        "Lines of streams, and of requests with many events, by what became of them.",
    ));
    let mut ended = exposition.counter(
        "mesophyll_stream_ends_total",
        "Streams, and connections of host processes, that ended, by cause.",
    );
    for (what, links) in [("stream", streams), ("host", hosts)] {
        for cause in ServedEnd::ALL {
            let labels = [("what", what), ("cause", cause.as_str())];
            ended.sample(&labels, links.ends().get(cause));
        }
    }
}
