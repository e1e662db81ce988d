//! Figures for monitoring: counters, latency histograms, and the Prometheus text that shows
//! them.
//!
//! Each layer owns the figures of what it does and hands out copies; nothing is registered
//! anywhere, so there is no global and two masters in one process do not mix. Deliberately ignorant
//! of what is counted. Written from every thread, without locks: one atomic addition for a counter,
//! two for a histogram. Names, units and labels follow Prometheus' own rules: base units, `_total`
//! for counters, labels of a bounded number of values, so never a tenant.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper ends of the buckets of every [`Histogram`], in microseconds: from a round trip over
/// loopback (30 µs) to the longest deadline that is common (35 s), three or four to a power of ten,
/// so that a quantile read from them is off by half at most.
pub const LATENCY_BOUNDS_US: [u64; 20] = [
    50, 100, 200, 400, 700, 1_000, 2_000, 4_000, 7_000, 10_000, 20_000, 40_000, 70_000, 100_000,
    250_000, 500_000, 1_000_000, 2_500_000, 10_000_000, 40_000_000,
];

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one that took so long.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// A copy of what was counted so far. What is counted meanwhile may be in it in part.
    pub fn snapshot(&self) -> Buckets {
        Buckets {
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

/// What a [`Histogram`] has counted: how many in each bucket, the last of which has no upper end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    counts: Vec<u64>,
    sum_us: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Histogram::default().snapshot()
    }
}

impl Buckets {
    /// Of counts and a sum that came from elsewhere, such as another process; `None` if there are
    /// not as many buckets as here.
    pub fn from_parts(counts: Vec<u64>, sum_us: u64) -> Option<Self> {
        (counts.len() == LATENCY_BOUNDS_US.len() + 1).then_some(Self { counts, sum_us })
    }

    /// How many in each bucket; not cumulative.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// All of them together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// How many in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Buckets) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }
}

/// What kind of figures a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// A label's name and value.
pub type LabelText<'l> = (&'static str, &'l str);

/// Figures as Prometheus reads them (text format 0.0.4), family by family.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// The `Content-Type` of the text.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family of what only grows; its name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, MetricKind::Counter)
    }

    /// Begins a family of what goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, MetricKind::Gauge)
    }

    /// Begins a family of durations; its name ends in `_seconds`.
    pub fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, MetricKind::Histogram)
    }

    /// A whole counter without labels; without a figure, a family without a sample.
    pub fn one_counter(
        &mut self,
        name: &'static str,
        help: &str,
        figure: Option<impl fmt::Display>,
    ) {
        let mut family = self.counter(name, help);
        if let Some(figure) = figure {
            family.sample(&[], figure);
        }
    }

    /// As [`Exposition::one_counter`], of what goes up and down.
    pub fn one_gauge(&mut self, name: &'static str, help: &str, figure: Option<impl fmt::Display>) {
        let mut family = self.gauge(name, help);
        if let Some(figure) = figure {
            family.sample(&[], figure);
        }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.text
    }

    fn family(&mut self, name: &'static str, help: &str, kind: MetricKind) -> Family<'_> {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        Family { exposition: self, name }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // A String takes all that there is memory for.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }
}

/// A family that is being written.
#[derive(Debug)]
pub struct Family<'e> {
    exposition: &'e mut Exposition,
    name: &'static str,
}

impl Family<'_> {
    /// One figure; an integer, or a float for seconds and ratios.
    pub fn sample(&mut self, labels: &[LabelText<'_>], value: impl fmt::Display) -> &mut Self {
        self.write("", labels, None, value);
        self
    }

    /// One histogram.
    pub fn buckets(&mut self, labels: &[LabelText<'_>], buckets: &Buckets) -> &mut Self {
        let mut count = 0_u64;
        for (place, in_bucket) in buckets.counts.iter().enumerate() {
            count = count.saturating_add(*in_bucket);
            let bound = LATENCY_BOUNDS_US
                .get(place)
                .map_or("+Inf".to_owned(), |us| seconds(*us).to_string());
            self.write("_bucket", labels, Some(&bound), count);
        }
        self.write("_sum", labels, None, seconds(buckets.sum_us));
        self.write("_count", labels, None, count);
        self
    }

    fn write(
        &mut self,
        suffix: &str,
        labels: &[LabelText<'_>],
        bound: Option<&str>,
        value: impl fmt::Display,
    ) {
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let labels: Vec<String> =
            labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.exposition.line(format_args!("{}{suffix}{labels} {value}", self.name));
    }
}

/// Exact for everything below a hundred years.
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_that_ends_at_it() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 40_000_000, 40_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let buckets = histogram.snapshot();
        assert_eq!((buckets.counts()[0], buckets.counts()[1]), (2, 1));
        assert_eq!(buckets.counts()[LATENCY_BOUNDS_US.len() - 1..], [1, 1]);
        assert_eq!((buckets.count(), buckets.sum_us()), (5, 80_000_102));
    }

    #[test]
    fn buckets_add_up_and_others_than_ours_are_refused() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(3));
        let mut sum = histogram.snapshot();
        sum.add(&histogram.snapshot());
        assert_eq!((sum.count(), sum.sum_us()), (2, 6_000));
        assert_eq!(Buckets::from_parts(sum.counts().to_vec(), sum.sum_us()), Some(sum));
        assert_eq!(Buckets::from_parts(vec![1; 3], 1), None);
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(60));
        let mut exposition = Exposition::default();
        exposition
            .counter("m_events_total", "Events.")
            .sample(&[("result", "a\"\\\n")], 3)
            .sample(&[], 4);
        exposition.gauge("m_age_seconds", "Age.").sample(&[("worker", "0")], 0.25);
        exposition
            .histogram("m_took_seconds", "Time.")
            .buckets(&[("worker", "1")], &histogram.snapshot());
        let text = exposition.into_text();
        assert!(text.starts_with(concat!(
            "# HELP m_events_total Events.\n# TYPE m_events_total counter\n",
            "m_events_total{result=\"a\\\"\\\\\\n\"} 3\nm_events_total 4\n",
            "# HELP m_age_seconds Age.\n# TYPE m_age_seconds gauge\nm_age_seconds{worker=\"0\"} 0.25\n",
            "# HELP m_took_seconds Time.\n# TYPE m_took_seconds histogram\n",
            "m_took_seconds_bucket{worker=\"1\",le=\"0.00005\"} 0\nm_took_seconds_bucket{worker=\"1\",le=\"0.0001\"} 1\n",
        )), "{text}");
        assert!(
            text.ends_with(concat!(
                "m_took_seconds_bucket{worker=\"1\",le=\"+Inf\"} 1\n",
                "m_took_seconds_sum{worker=\"1\"} 0.00006\nm_took_seconds_count{worker=\"1\"} 1\n",
            )),
            "{text}"
        );
    }
}
