//! Cases as data, and how they are run: everybody in a case takes turns, A B A B …, so that
//! whatever else the machine does meanwhile is done to all of them alike.

use std::time::Duration;

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often everybody in a case has a turn.
    pub rounds: usize,
    /// A turn.
    pub lasting: Duration,
    /// The turn before the first one, which does not count; none if it has no length.
    pub warm_up: Duration,
    /// Whether the whole run is to take about a minute.
    pub is_quick: bool,
}

/// Whom a case is about, or what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Mesophyll.
    Ours,
    /// The same by an async peer.
    Async,
    /// What it costs without anything of ours: the least there is.
    Floor,
    /// Another baseline; its name ends the name of a row of its own, in the place of the floor.
    Other(&'static str),
}

/// One that is measured.
pub struct Contestant<'c> {
    /// What it is here for.
    pub role: Role,
    /// Does a turn of so many callers and so long.
    pub measure: Box<dyn FnMut(usize, Duration) -> Result<Sample, String> + 'c>,
}

/// A comparison.
pub struct Case<'c> {
    /// What its rows are named after.
    pub name: String,
    /// Callers at once, or whatever the case counts.
    pub callers: usize,
    /// Who takes turns.
    pub contestants: Vec<Contestant<'c>>,
}

/// What is measured in a turn, in the unit of its figure.
pub type Sample = Vec<(Figure, f64)>;

/// What a number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Operations a second, more is better.
    Rate,
    /// The time that half of the operations took at most, in µs.
    P50,
    /// The time that 99 of 100 operations took at most, in µs.
    P99,
    /// The time that 999 of 1,000 operations took at most, in µs.
    P999,
    /// The time that the longest operation took, in µs.
    Worst,
    /// Processor time of all processes for a million operations, in seconds.
    CpuPerMillion,
    /// The most memory that the processes had, together, in MiB.
    PeakMemory,
    /// What its case is named after, in this unit.
    Only(&'static str),
}

impl Figure {
    pub fn unit(self) -> &'static str {
        match self {
            Figure::Rate => "1/s",
            Figure::P50 | Figure::P99 | Figure::P999 | Figure::Worst => "us",
            Figure::CpuPerMillion => "s",
            Figure::PeakMemory => "MiB",
            Figure::Only(unit) => unit,
        }
    }

    /// The name of a row: `kv_get_redb_64` is a rate, `kv_get_redb_64_p99` a time, and
    /// `kv_get_redb_p99` that of one caller.
    fn row_name(self, case: &str, callers: usize) -> String {
        let what = case.strip_prefix("dispatch_").unwrap_or(case);
        let figure = match self {
            Figure::Rate => return format!("{case}_{callers}"),
            Figure::CpuPerMillion => return format!("cpu_per_million_{what}_{callers}"),
            Figure::PeakMemory => return format!("peak_memory_{what}_{callers}"),
            Figure::Only(_) => return case.to_owned(),
            Figure::P50 => "p50",
            Figure::P99 => "p99",
            Figure::P999 => "p999",
            Figure::Worst => "worst",
        };
        if callers == 1 { format!("{case}_{figure}") } else { format!("{case}_{callers}_{figure}") }
    }
}

/// The rounds of one contestant in one figure.
#[derive(Debug, Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    #[cfg(test)]
    pub fn of(rounds: Vec<f64>) -> Self {
        Self(rounds)
    }

    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        }
    }

    /// What was measured, in order.
    pub fn rounds(&self) -> &[f64] {
        &self.0
    }

    /// The least and the most.
    pub fn spread(&self) -> Option<(f64, f64)> {
        let least = self.0.iter().copied().min_by(f64::total_cmp)?;
        Some((least, self.0.iter().copied().max_by(f64::total_cmp)?))
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    pub case: String,
    pub unit: &'static str,
    pub ours: Series,
    pub peer: Series,
    pub floor: Series,
}

impl Row {
    /// Ours ÷ the floor, of the medians.
    pub fn ratio_floor(&self) -> Option<f64> {
        ratio(&self.ours, &self.floor)
    }

    /// Ours ÷ the async peer, of the medians.
    pub fn ratio_async(&self) -> Option<f64> {
        ratio(&self.ours, &self.peer)
    }
}

fn ratio(ours: &Series, other: &Series) -> Option<f64> {
    Some(ours.median()? / other.median()?)
}

/// Runs a case and gives its rows.
pub fn run(case: &mut Case<'_>, plan: Plan) -> Result<Vec<Row>, String> {
    let name = case.name.clone();
    let failed = |why: String| format!("{name}: {why}");
    let mut samples: Vec<Vec<Sample>> = case.contestants.iter().map(|_| Vec::new()).collect();
    for contestant in case.contestants.iter_mut().filter(|_| !plan.warm_up.is_zero()) {
        (contestant.measure)(case.callers, plan.warm_up).map_err(failed)?;
    }
    for _ in 0..plan.rounds {
        for (contestant, samples) in case.contestants.iter_mut().zip(&mut samples) {
            samples.push((contestant.measure)(case.callers, plan.lasting).map_err(failed)?);
        }
    }
    Ok(rows(case, &samples))
}

fn rows(case: &Case<'_>, samples: &[Vec<Sample>]) -> Vec<Row> {
    let figures: Vec<Figure> = samples
        .first()
        .and_then(|rounds| rounds.first())
        .into_iter()
        .flatten()
        .map(|(figure, _)| *figure)
        .collect();
    let series = |role: Role, figure: Figure| {
        let of =
            case.contestants.iter().zip(samples).filter(|(contestant, _)| contestant.role == role);
        let numbers = of.flat_map(|(_, rounds)| rounds.iter().flatten());
        Series(numbers.filter(|(is, _)| *is == figure).map(|(_, number)| *number).collect())
    };
    let mut rows = Vec::new();
    for figure in figures {
        let row = Row {
            case: figure.row_name(&case.name, case.callers),
            unit: figure.unit(),
            ours: series(Role::Ours, figure),
            peer: series(Role::Async, figure),
            floor: series(Role::Floor, figure),
        };
        for contestant in &case.contestants {
            let floor = series(contestant.role, figure);
            if let (Role::Other(name), Some(_)) = (contestant.role, floor.median()) {
                rows.push(Row {
                    case: format!("{}_{name}", row.case),
                    floor,
                    peer: Series::default(),
                    ..row.clone()
                });
            }
        }
        rows.push(row);
    }
    rows.sort_by_key(|row| row.case.len());
    rows
}
