//! Whether a run may be believed: an async peer that comes out too slow makes us look good, and is
//! not fair.

use crate::harness::Row;

/// The peer's tiny round trip may be at most so many times the floor with one hand-over on each
/// side.
const ROUND_TRIP_MAX: f64 = 2.5;

/// Its throughput with 64 in flight may be no less than this share of what NATS does.
const THROUGHPUT_MIN: f64 = 0.7;

/// Why this run is invalid; nothing if it is not, as far as it measured what tells.
pub fn complaints(rows: &[Row]) -> Vec<String> {
    let row = |name: &str| rows.iter().find(|row| row.case == name);
    let round_trip = row("dispatch_rtt_tiny_p50").and_then(|row| {
        let ratio = row.peer.median()? / row.floor.median()?;
        (ratio > ROUND_TRIP_MAX).then(|| {
            format!("the peer's tiny round trip is {ratio:.2} × the floor with a hand-over, more than {ROUND_TRIP_MAX}")
        })
    });
    let peer = row("dispatch_tiny_64").and_then(|row| row.peer.median());
    let nats = row("dispatch_tiny_64_vs_nats").and_then(|row| row.floor.median());
    let throughput = peer.zip(nats).and_then(|(peer, nats)| {
        let ratio = peer / nats;
        (ratio < THROUGHPUT_MIN).then(|| {
            format!("the peer's throughput with 64 in flight is {ratio:.2} × that of NATS, less than {THROUGHPUT_MIN}")
        })
    });
    round_trip.into_iter().chain(throughput).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Series;

    fn row(case: &str, peer: f64, floor: f64) -> Row {
        let of = |number: f64| Series::of(vec![number]);
        Row { case: case.to_owned(), unit: "us", ours: of(1.0), peer: of(peer), floor: of(floor) }
    }

    #[test]
    fn a_peer_that_is_too_slow_makes_the_run_invalid() {
        let nats = row("dispatch_tiny_64_vs_nats", 0.0, 100.0);
        let fair = [
            row("dispatch_rtt_tiny_p50", 49.0, 20.0),
            row("dispatch_tiny_64", 71.0, 1.0),
            nats.clone(),
        ];
        assert_eq!(complaints(&fair), [""; 0]);
        let unfair =
            [row("dispatch_rtt_tiny_p50", 51.0, 20.0), row("dispatch_tiny_64", 69.0, 1.0), nats];
        assert_eq!(complaints(&unfair).len(), 2);
        assert_eq!(complaints(&[]), [""; 0]);
    }
}
