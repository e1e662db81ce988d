//! `mesophyll tenant`: what a tenant has and is subscribed to, and whether it is banned.
//!
//! A change of subscriptions reads the state and puts it back: of two at the same moment one may be
//! lost.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::escape;
use crate::base::limits::DISPATCH_DEADLINE;

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "tenant",
    usage: "show TENANT | subscribe TENANT EVENT… | unsubscribe TENANT EVENT… | ban TENANT | unban TENANT",
    about: "show a tenant, change what it is subscribed to, or ban it",
    options: &[&[JSON], CLIENT],
    examples: &[
        "mesophyll tenant show guild:123",
        "mesophyll tenant subscribe guild:123 MESSAGE_CREATE GUILD_MEMBER_ADD",
        "mesophyll tenant unsubscribe guild:123 MESSAGE_CREATE",
        "mesophyll tenant ban user:456",
    ],
    run,
};

/// What the API says of a tenant.
#[derive(Deserialize)]
struct ShownTenant {
    tenant: String,
    banned: bool,
    quarantined: bool,
    state: Option<TenantBody>,
    default_events: BTreeSet<String>,
    template: bool,
    usage: Amount,
    quota: Amount,
}

#[derive(Deserialize)]
struct TenantBody {
    events: BTreeSet<String>,
    data: Box<RawValue>,
}

#[derive(Deserialize)]
struct Amount {
    records: u64,
    bytes: u64,
}

fn run(args: &Args) -> Result<(), CliError> {
    match args.words()[..] {
        ["show", tenant] => show(args, tenant),
        ["subscribe", tenant, _, ..] => change(args, tenant, |events, word| {
            events.insert(word.to_owned());
        }),
        ["unsubscribe", tenant, _, ..] => change(args, tenant, |events, word| {
            if !events.remove(word) {
                output::tell(&format!("it was not subscribed to {}", escape::one_line(word)));
            }
        }),
        ["ban", tenant] => ban(args, tenant, true),
        ["unban", tenant] => ban(args, tenant, false),
        _ => Err(CliError::usage(format!("tenant takes {}", COMMAND.usage))),
    }
}

fn shown(client: &ApiClient, tenant: &str) -> Result<(String, ShownTenant), CliError> {
    let text = client.get(&words::path("tenant", words::tenant(tenant)?))?.success()?;
    let shown = understood(&text)?;
    Ok((text, shown))
}

fn show(args: &Args, tenant: &str) -> Result<(), CliError> {
    words::tenant(tenant)?;
    let client = ApiClient::new(args, DATA_DEADLINE)?;
    let (text, shown) = shown(&client, tenant)?;
    if args.is_on("json") {
        return output::print_json(&text);
    }
    let events = |events: &BTreeSet<String>| match events.len() {
        0 => "none".to_owned(),
        _ => events.iter().map(|name| escape::one_line(name)).collect::<Vec<_>>().join(", "),
    };
    let (subscribed, data) = match &shown.state {
        Some(state) => (events(&state.events), state.data.get()),
        None => {
            (format!("{} (by default: it has no state)", events(&shown.default_events)), "none")
        }
    };
    let (usage, quota) = (&shown.usage, &shown.quota);
    output::print(&format!(
        "tenant     {}\nstanding   {}\nevents     {subscribed}\ndata       {}\ntemplate   {}\nrecords    {} of {}\nbytes      {} of {}",
        shown.tenant,
        match (shown.banned, shown.quarantined) {
            (true, _) => "banned",
            (false, true) => "quarantined (mesophyll quarantine list says why)",
            (false, false) => "good",
        },
        escape::json(data),
        if shown.template { "its own" } else { "the templates directory's" },
        usage.records,
        quota.records,
        usage.bytes,
        quota.bytes,
    ))
}

/// Changes the events of a tenant's state by those of the command line.
fn change(
    args: &Args,
    tenant: &str,
    by: impl Fn(&mut BTreeSet<String>, &str),
) -> Result<(), CliError> {
    let id = words::tenant(tenant)?;
    let client = ApiClient::new(args, DATA_DEADLINE)?;
    let (_, shown) = shown(&client, tenant)?;
    let (mut events, data) = match shown.state {
        Some(state) => (state.events, state.data.get().to_owned()),
        None => (defaults(shown.default_events, tenant), "null".to_owned()),
    };
    args.positional[2..].iter().for_each(|word| by(&mut events, word));
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let body = words::object(&[("events", &words::list(&events)), ("data", &data)]);
    client.put(&words::path("tenant-state", id), &body)?.success()?;
    let events = if events.is_empty() { "no events".to_owned() } else { events.join(", ") };
    let events = escape::one_line(&events);
    output::print_as_asked(args, &body, &format!("{id} is subscribed to {events}"))
}

/// What a tenant without a state starts from. A state names its events; there is none that means
/// every event.
fn defaults(events: BTreeSet<String>, tenant: &str) -> BTreeSet<String> {
    let named: BTreeSet<String> = events.iter().filter(|name| *name != "*").cloned().collect();
    if named.len() < events.len() {
        output::tell(&format!(
            "{tenant} had no state and so every event; from now on it has those that it is subscribed to"
        ));
    }
    named
}

fn ban(args: &Args, tenant: &str, is_banned: bool) -> Result<(), CliError> {
    let tenant = words::tenant(tenant)?;
    // A ban is stored, and then waits for the end of what the tenant has running.
    let client = ApiClient::new(args, DATA_DEADLINE + DISPATCH_DEADLINE)?;
    let body = words::object(&[("banned", if is_banned { "true" } else { "false" })]);
    client.post(&words::path("ban", tenant), &body)?.success()?;
    let standing = if is_banned { "is banned" } else { "is in good standing" };
    output::print_as_asked(args, &body, &format!("{tenant} {standing}"))
}
