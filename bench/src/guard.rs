//! The guard: instructions and allocations for one dispatch, which hardly depend on what else the
//! machine does, against those that are committed. Counted by valgrind over a master and a worker
//! of ours in one process; the driver's own are in it.
//!
//! Runs of two lengths are compared, so that starting and stopping is not in the figures.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::link;

/// What may be added to a figure before it counts as a loss, in per cent.
pub const TOLERANCE: f64 = 10.0;

/// Dispatches of the shorter and of the longer run.
const COUNTS: [u64; 2] = [500, 2500];

/// Runs of each length, of which the least counts.
const RUNS: usize = 3;

/// What is dispatched, see `link::guarded`.
const KINDS: [&str; 3] = ["lone_tiny", "lone_2k", "tiny_64"];

/// Shown and not judged: how many events share a batch, and so a wake-up, differs from run to run
/// by more than the tolerance.
const UNSTEADY: &str = "tiny_64_instructions";

type Figures = BTreeMap<String, f64>;

/// Measures, and compares with the figures in `baseline`: none may be more than so many per cent
/// above. Without a tolerance it replaces them.
pub fn run(baseline: &Path, tolerance: Option<f64>) -> Result<(), String> {
    let measured = measure()?;
    let Some(tolerance) = tolerance else {
        let text = format!("{:#}\n", json!(measured));
        std::fs::write(baseline, text)
            .map_err(|error| format!("{}: {error}", baseline.display()))?;
        println!("{} is written", baseline.display());
        return Ok(());
    };
    let text =
        std::fs::read(baseline).map_err(|error| format!("{}: {error}", baseline.display()))?;
    let before: Figures = serde_json::from_slice(&text)
        .map_err(|error| format!("{}: {error}", baseline.display()))?;
    let mut losses = Vec::new();
    println!("| figure | committed | now | change |\n|---|---:|---:|---:|");
    for (name, now) in &measured {
        let Some(before) = before.get(name) else {
            return Err(format!("{name} is not in {}", baseline.display()));
        };
        let change = (now / before - 1.0) * 100.0;
        println!("| `{name}` | {before:.1} | {now:.1} | {change:+.1} % |");
        if change > tolerance && name != UNSTEADY {
            losses.push(name.as_str());
        }
    }
    if losses.is_empty() {
        println!("\nNothing is more than {tolerance} % above what is committed.");
        return Ok(());
    }
    Err(format!(
        "lost more than {tolerance} %: {}; if that is meant, `make bench-guard \
         BENCH_FLAGS=--update`",
        losses.join(", ")
    ))
}

/// Does so many dispatches; what valgrind runs.
pub fn dispatch(kind: &str, count: &str) -> Result<(), String> {
    link::guarded(kind, count.parse().map_err(|_| format!("{count} is no number"))?)
}

fn measure() -> Result<Figures, String> {
    let mut figures = Figures::new();
    for kind in KINDS {
        for (what, count) in [("instructions", instructions as Count), ("allocations", allocations)]
        {
            let each = least(count, kind, COUNTS[1])?.saturating_sub(least(count, kind, COUNTS[0])?)
                as f64;
            let each = each / (COUNTS[1] - COUNTS[0]) as f64;
            eprintln!("{kind}: {each:.1} {what}");
            figures.insert(format!("{kind}_{what}"), (each * 10.0).round() / 10.0);
        }
    }
    Ok(figures)
}

/// What counts a figure of a run of this kind and length.
type Count = fn(&str, u64) -> Result<u64, String>;

/// The least of a few runs: what disturbs one of them, such as batches that come out smaller, adds
/// to it.
fn least(count: Count, kind: &str, dispatches: u64) -> Result<u64, String> {
    let counts: Result<Vec<u64>, String> = (0..RUNS).map(|_| count(kind, dispatches)).collect();
    Ok(counts?.into_iter().min().unwrap_or_default())
}

fn instructions(kind: &str, count: u64) -> Result<u64, String> {
    let said = valgrind(
        &["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"],
        kind,
        count,
    )?;
    number_after(&said, "I refs:")
        .or_else(|| number_after(&said, "I   refs:"))
        .ok_or_else(|| no_figure(&said))
}

fn allocations(kind: &str, count: u64) -> Result<u64, String> {
    let said = valgrind(&["--tool=dhat", "--dhat-out-file=/dev/null"], kind, count)?;
    // "Total: 1,234 bytes in 56 blocks"
    let line = said.lines().find(|line| line.contains("Total:")).ok_or_else(|| no_figure(&said))?;
    number_after(line, " in ").ok_or_else(|| no_figure(&said))
}

fn no_figure(said: &str) -> String {
    format!("valgrind gave no figure:\n{said}")
}

fn number_after(text: &str, words: &str) -> Option<u64> {
    let (_, rest) = text.split_once(words)?;
    let digits = rest.trim_start().chars().take_while(|char| char.is_ascii_digit() || *char == ',');
    digits.filter(|char| *char != ',').collect::<String>().parse().ok()
}

fn valgrind(tool: &[&str], kind: &str, count: u64) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    // Threads take turns fairly: a thread that waits for another one would spin for its whole turn.
    let mut command = Command::new("valgrind");
    command.arg("--fair-sched=yes").args(tool).arg(program).args([
        "guard-dispatch",
        kind,
        &count.to_string(),
    ]);
    let output = command
        .output()
        .map_err(|error| format!("valgrind: {error}; install it: apt install valgrind"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("valgrind: {}\n{said}", output.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_valgrind_prints() {
        assert_eq!(number_after("==7== I   refs:      1,234,567\n", "I   refs:"), Some(1_234_567));
        assert_eq!(number_after("==7== Total:     12,345 bytes in 678 blocks", " in "), Some(678));
        assert_eq!(number_after("nothing", "I refs:"), None);
    }
}
