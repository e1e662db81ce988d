//! `mesophyll status`: how a running master is, on one screen.

use serde_json::Value;

use super::workers::span;
use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, not_understood};
use crate::cli::console::output;
use crate::cli::console::table::{shortened, table};
use crate::cli::parse::args::Args;
use crate::cli::parse::words::JSON;
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "status",
    usage: "",
    about: "show how a running master is: its workers, what was dispatched, the last errors, its store",
    options: &[&[JSON], CLIENT],
    examples: &["mesophyll status", "mesophyll status --json"],
    run,
};

/// Limit: of an error's message on this screen; `mesophyll errors` shows more.
const MESSAGE_MAX_CHARS: usize = 80;

/// Limit: tenants that are named.
const TENANTS_MAX: usize = 3;

fn run(args: &Args) -> Result<(), CliError> {
    args.need_no_words()?;
    let text = ApiClient::new(args, DATA_DEADLINE)?.get("/i/status")?.success()?;
    if args.is_on("json") {
        return output::print_json(&text);
    }
    let status: Value = serde_json::from_str(&text).unwrap_or_default();
    if !status["master"].is_object() {
        return Err(not_understood());
    }
    output::print(&screen(&status))
}

fn screen(status: &Value) -> String {
    let rows = [
        ("master", master(status)),
        ("store", text(&status["master"]["store"]).to_owned()),
        ("workers", workers(&status["workers"])),
        (
            "tenants",
            format!(
                "{} VMs, {} quarantined",
                total(status, "vms"),
                list(&status["quarantine"]).len()
            ),
        ),
        (
            "under way",
            format!("{}, {} waiting", total(status, "in_flight"), total(status, "waiting")),
        ),
        ("dispatches", outcomes(&status["workers"])),
        ("busiest", busiest(&status["busiest"])),
        ("errors", errors(&status["errors"])),
    ];
    table(["WHAT", "HOW IT IS"], rows.map(|(what, how)| [what.to_owned(), how]))
}

fn master(status: &Value) -> String {
    let (about, up) = (&status["master"], span(number(&status["at_ms"]) / 1000));
    let name = about["name"].as_str().map(|name| format!("{name}, ")).unwrap_or_default();
    format!(
        "{name}{}, pid {}, {}, up {up}",
        text(&about["version"]),
        number(&about["pid"]),
        text(&about["mode"])
    )
}

/// How many are in which state, and how often they were started anew.
fn workers(workers: &Value) -> String {
    let states = summed(list(workers).iter().map(|worker| (text(&worker["state"]), 1)));
    let states: Vec<String> =
        states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let restarts: u64 = list(workers).iter().map(|worker| number(&worker["restarts"])).sum();
    format!("{}; {restarts} restarts", states.join(", "))
}

/// How many jobs ended, and how.
fn outcomes(workers: &Value) -> String {
    let outcomes = list(workers).iter().filter_map(|worker| worker["outcomes"].as_object());
    let all = summed(outcomes.flatten().map(|(name, count)| (name.as_str(), number(count))));
    let sum: u64 = all.iter().map(|(_, count)| count).sum();
    let each: Vec<String> = all.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if each.is_empty() { "none so far".to_owned() } else { format!("{sum}: {}", each.join(", ")) }
}

/// The sum of each name's figures, in the order in which the names come.
fn summed<'a>(figures: impl Iterator<Item = (&'a str, u64)>) -> Vec<(&'a str, u64)> {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for (name, figure) in figures {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += figure,
            None => sums.push((name, figure)),
        }
    }
    sums
}

fn busiest(busiest: &Value) -> String {
    let tenants = list(&busiest["tenants"]).iter().take(TENANTS_MAX);
    let tenants =
        tenants.map(|share| format!("{} {}", text(&share["tenant"]), number(&share["events"])));
    let tenants: Vec<String> = tenants.collect();
    match tenants.as_slice() {
        [] => "nobody".to_owned(),
        some => format!("{} (events in {})", some.join(", "), span(number(&busiest["seconds"]))),
    }
}

fn errors(errors: &Value) -> String {
    let Some(last) = list(errors).first() else { return "none of late".to_owned() };
    let message = shortened(text(&last["message"]), MESSAGE_MAX_CHARS);
    let (ago, tenant, event) =
        (span(number(&last["last_s"])), text(&last["tenant"]), text(&last["event"]));
    format!("{} different; the last {ago} ago: {tenant} {event}: {message}", list(errors).len())
}

/// A figure of all workers together.
fn total(status: &Value, name: &str) -> u64 {
    list(&status["workers"]).iter().map(|worker| number(&worker[name])).sum()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text of the API's; a question mark where there is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// A figure of the API's; 0 where there is none.
pub(super) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
