//! `mesophyll logs`: what a tenant's scripts logged, and what they log, as it comes.

use std::cell::RefCell;
use std::io::BufReader;

use serde_json::Value;

use super::feed::{CONNECTION_MAX, line_of, print_all};
use super::status::text;
use crate::base::escape;
use crate::feeds::sse::{SseEvent, read_event};
use crate::wire::data::TenantId;

use crate::cli::console::client::{ApiClient, CLIENT};
use crate::cli::console::output;
use crate::cli::console::watch::watch;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "logs",
    usage: "TENANT [--follow]",
    about: "show what a tenant's scripts logged last, in a running master",
    options: &[
        &[OptionSpec::switch("follow", "go on with what comes, until Ctrl-C"), JSON],
        CLIENT,
    ],
    examples: &["mesophyll logs guild:123", "mesophyll logs guild:123 --follow"],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let tenant = match args.words()[..] {
        [tenant] => words::tenant(tenant)?,
        _ => return Err(CliError::usage(format!("logs takes {}", COMMAND.usage))),
    };
    let client = ApiClient::new(args, CONNECTION_MAX)?;
    let is_json = args.is_on("json");
    let line = |event: &SseEvent| match is_json {
        true => escape::json(&line_of(event)).into_owned(),
        false => timed(event),
    };
    let (last_id, path) = (RefCell::default(), path(tenant));
    if !args.is_on("follow") {
        return print_all(client.follow(&path, "")?, &last_id, line).map(drop);
    }
    let path = format!("{path}&follow=true");
    watch(|| client.follow(&path, &last_id.borrow()), |stream| print_all(stream, &last_id, line))
}

fn path(tenant: TenantId) -> String {
    format!("/i/logs?tenants={tenant}")
}

/// A line with its time, if it has one.
fn timed(event: &SseEvent) -> String {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    let line = shown(&event.event, &data);
    match &data["at"] {
        Value::String(at) => escape::one_line(&format!("{at} {line}")).into_owned(),
        _ => line,
    }
}

/// A line as a replay shows it, or what the stream says of lines.
fn shown(kind: &str, data: &Value) -> String {
    let said = match (kind, &data["lost"]) {
        ("gap", Value::Number(lost)) => format!("(lines missing: {lost})"),
        ("gap", _) => "(lines may be missing)".to_owned(),
        ("moved", _) => "(another master has it)".to_owned(),
        _ => match text(&data["level"]) {
            level @ ("warn" | "error") => {
                format!("{} {}", level.to_uppercase(), text(&data["text"]))
            }
            _ => text(&data["text"]).to_owned(),
        },
    };
    escape::one_line(&format!("{}: {said}", text(&data["tenant"]))).into_owned()
}

/// What a tenant's scripts log while something is done.
pub(super) struct LogSince {
    tenant: TenantId,
    from: String,
}

impl LogSince {
    /// From now on; nothing, if the master does not tell.
    pub(super) fn begin(client: &ApiClient, tenant: TenantId) -> Option<Self> {
        let stream = client.follow(&format!("{}&only_new=true", path(tenant)), "").ok()?;
        let mut stream = BufReader::new(stream);
        let mut from = String::new();
        while let Ok(Some(event)) = read_event(&mut stream) {
            from = event.id;
        }
        (!from.is_empty()).then_some(Self { tenant, from })
    }

    /// Says on stderr what was logged.
    pub(super) fn tell(&self, client: &ApiClient) {
        let Ok(stream) = client.follow(&path(self.tenant), &self.from) else { return };
        let mut stream = BufReader::new(stream);
        while let Ok(Some(event)) = read_event(&mut stream) {
            if !event.data.is_empty() {
                let data = serde_json::from_str(&event.data).unwrap_or_default();
                output::tell(&shown(&event.event, &data));
            }
        }
    }
}
