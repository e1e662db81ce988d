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
    /// Ours, in the row's unit.
    AtMost(f64),
}

/// The aims of the store. Times are for a quiet machine.
pub const AIMS: &[Aim] = &[
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
            Bound::AtMost(most) => {
                let ours = row.ours.median()?;
                (format!("{ours:.0} {}", row.unit), ours <= most, format!("at most {most:.0} {}", row.unit))
            }
        };
        let verdict = if is_reached { "reached" } else { "MISSED" };
        Some(format!("{verdict}: `{}` {words}: {measured}", self.case))
    }
}
