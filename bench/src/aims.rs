//! What we want to reach, as data, and whether this run did.

use crate::harness::Row;

/// Something to reach.
pub struct Aim {
    /// The row.
    pub case: &'static str,
    pub bound: Bound,
}

/// Of a row, what must hold.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// Ours ÷ the floor.
    FloorAtLeast(f64),
    FloorAtMost(f64),
    /// Ours ÷ the async peer.
    AsyncAtLeast(f64),
    AsyncAtMost(f64),
    /// Ours, in the row's unit.
    AtMost(f64),
}

/// All of them. Times are for a quiet machine; ratios hold on a busy one too, as far as everybody
/// in a case is disturbed alike.
pub const AIMS: &[Aim] = &[
    Aim { case: "dispatch_rtt_tiny_p50", bound: Bound::AsyncAtMost(0.5) },
    // What a master's own workers have; the one above is over TCP.
    Aim { case: "dispatch_rtt_tiny_unix_p50", bound: Bound::AsyncAtMost(0.4) },
    Aim { case: "dispatch_rtt_2k_p50", bound: Bound::AsyncAtMost(0.4) },
    // A stall of Nagle's algorithm and a delayed acknowledgement would be 40 ms.
    Aim { case: "dispatch_rtt_tiny_p999", bound: Bound::AtMost(40_000.0) },
    Aim { case: "dispatch_tiny_64", bound: Bound::AsyncAtLeast(3.5) },
    Aim { case: "dispatch_tiny_1024", bound: Bound::AsyncAtLeast(4.0) },
    Aim { case: "dispatch_2k_64", bound: Bound::AsyncAtLeast(4.0) },
    Aim { case: "dispatch_rtt_tiny_tls_p50_vs_tcp", bound: Bound::FloorAtMost(1.25) },
    Aim { case: "dispatch_tiny_tls_64_vs_tcp", bound: Bound::FloorAtLeast(0.8) },
    Aim { case: "nowait_tiny", bound: Bound::AsyncAtLeast(3.0) },
    Aim { case: "dispatch_10m_p50", bound: Bound::AsyncAtMost(0.8) },
    Aim { case: "api_dispatch_64", bound: Bound::AsyncAtLeast(1.5) },
    Aim { case: "api_stream_64", bound: Bound::AsyncAtLeast(1.5) },
    Aim { case: "cpu_per_million_tiny_64", bound: Bound::AsyncAtMost(0.3) },
    Aim { case: "kv_get_pg_p50", bound: Bound::AsyncAtMost(0.6) },
    Aim { case: "kv_get_pg_16", bound: Bound::AsyncAtLeast(1.5) },
    Aim { case: "kv_get_pg_http2_16", bound: Bound::AsyncAtLeast(1.3) },
    Aim { case: "kv_get_pg_http2_p50", bound: Bound::AsyncAtMost(0.8) },
    Aim { case: "kv_set_pg_http2_p50", bound: Bound::AsyncAtMost(1.1) },
    Aim { case: "noisy_neighbour_p99", bound: Bound::AsyncAtMost(0.01) },
    Aim { case: "idle_memory", bound: Bound::AsyncAtMost(0.5) },
    Aim { case: "kv_set_redb_direct_64", bound: Bound::FloorAtLeast(8.0) },
    Aim { case: "kv_set_redb_direct_64_worst", bound: Bound::AtMost(50_000.0) },
    Aim { case: "kv_get_memory_p50", bound: Bound::FloorAtMost(3.0) },
    Aim { case: "kv_get_redb_p50", bound: Bound::FloorAtMost(3.0) },
    Aim { case: "kv_find_memory_direct_p50", bound: Bound::AtMost(1000.0) },
    Aim { case: "kv_find_redb_direct_p50", bound: Bound::AtMost(1000.0) },
];

impl Aim {
    /// In words, with what this run measured; none if it did not measure that.
    pub fn verdict(&self, rows: &[Row]) -> Option<String> {
        let row = rows.iter().find(|row| row.case == self.case)?;
        let (measured, is_reached, words) = match self.bound {
            Bound::FloorAtLeast(least) => {
                let ratio = row.ratio_floor()?;
                (format!("{ratio:.2} ×"), ratio >= least, format!("at least {least} × the floor"))
            }
            Bound::FloorAtMost(most) => {
                let ratio = row.ratio_floor()?;
                (format!("{ratio:.2} ×"), ratio <= most, format!("at most {most} × the floor"))
            }
            Bound::AsyncAtLeast(least) => {
                let ratio = row.ratio_async()?;
                (
                    format!("{ratio:.2} ×"),
                    ratio >= least,
                    format!("at least {least} × the async peer"),
                )
            }
            Bound::AsyncAtMost(most) => {
                let ratio = row.ratio_async()?;
                (format!("{ratio:.3} ×"), ratio <= most, format!("at most {most} × the async peer"))
            }
            Bound::AtMost(most) => {
                let ours = row.ours.median()?;
                (
                    format!("{ours:.0} {}", row.unit),
                    ours <= most,
                    format!("at most {most:.0} {}", row.unit),
                )
            }
        };
        let verdict = if is_reached { "reached" } else { "MISSED" };
        Some(format!("{verdict}: `{}` {words}: {measured}", self.case))
    }
}
