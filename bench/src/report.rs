//! The results: a table for people, Markdown and a picture for docs/benchmarks, JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::aims::AIMS;
use crate::harness::{Plan, Row, Series};
use crate::machine::Machine;
use crate::picture;
use crate::validity;

/// Prints the results and writes them into `latest.json`, `latest.md` and `latest.svg`, and what is
/// to be known about the run into `run.json`.
pub fn write(
    out: &Path,
    machine: &Machine,
    plan: Plan,
    rows: &[Row],
    left_out: &[String],
) -> Result<(), String> {
    let complaints = validity::complaints(rows);
    let markdown = markdown(machine, plan, rows, left_out, &complaints);
    println!("{markdown}");
    let json = Value::Array(rows.iter().map(as_json).collect());
    let save = |name: &str, text: String| {
        fs::write(out.join(name), text)
            .map_err(|error| format!("{}: {error}", out.join(name).display()))
    };
    save("latest.md", markdown)?;
    save("latest.json", format!("{json:#}\n"))?;
    if let Some(svg) = picture::draw(rows) {
        save("latest.svg", svg)?;
    }
    let run = json!({
        "valid": complaints.is_empty(), "why_invalid": complaints, "quick": plan.is_quick, "left_out": left_out,
        "machine": machine.lines, "verdicts": verdicts(rows), "spreads": rows.iter().map(spreads).collect::<Value>(),
    });
    save("run.json", format!("{run:#}\n"))?;
    for why in complaints {
        eprintln!("INVALID RUN: {why}");
    }
    Ok(())
}

/// The least and the most of each series.
fn spreads(row: &Row) -> Value {
    json!({ "case": row.case, "ours": row.ours.spread(), "async": row.peer.spread(), "floor": row.floor.spread() })
}

fn verdicts(rows: &[Row]) -> Vec<String> {
    AIMS.iter().filter_map(|aim| aim.verdict(rows)).collect()
}

fn as_json(row: &Row) -> Value {
    json!({
        "case": row.case, "unit": row.unit, "ours": row.ours.median(), "async": row.peer.median(),
        "floor": row.floor.median(), "ratio_async": row.ratio_async(), "ratio_floor": row.ratio_floor(),
    })
}

fn markdown(
    machine: &Machine,
    plan: Plan,
    rows: &[Row],
    left_out: &[String],
    complaints: &[String],
) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    for words in &machine.lines {
        line(format!("- {words}"));
    }
    line(format!(
        "- {} rounds of {:?} each, in turn; medians, and in brackets the least and the most",
        plan.rounds, plan.lasting
    ));
    for what in left_out {
        line(format!("- **left out:** {what}"));
    }
    for why in complaints {
        line(format!("- **INVALID RUN:** {why}"));
    }
    line(String::new());
    for verdict in verdicts(rows) {
        line(format!("- {verdict}"));
    }
    line(String::new());
    line("| case | unit | ours | async | floor | ours ÷ async | ours ÷ floor |".to_owned());
    line("|---|---|---:|---:|---:|---:|---:|".to_owned());
    for row in rows {
        line(format!(
            "| `{}` | {} | {} | {} | {} | {} | {} |",
            row.case,
            row.unit,
            cell(&row.ours),
            cell(&row.peer),
            cell(&row.floor),
            ratio(row.ratio_async()),
            ratio(row.ratio_floor()),
        ));
    }
    text
}

fn cell(series: &Series) -> String {
    match (series.median(), series.spread()) {
        (Some(median), Some((least, most))) => {
            format!("{} ({}–{})", number(median), number(least), number(most))
        }
        _ => "–".to_owned(),
    }
}

fn number(number: f64) -> String {
    if number < 10.0 {
        format!("{number:.2}")
    } else if number < 100.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"))
}
