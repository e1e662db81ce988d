//! `mesophyll masters`: the masters over one database. `mesophyll route`: which of them has a
//! tenant.

use crate::api::{ListedMaster, RouteAnswer};

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::console::table::print_list;
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "masters",
    usage: "",
    about: "show the masters of a cluster",
    options: &[&[JSON], CLIENT],
    examples: &["mesophyll masters", "mesophyll masters --json"],
    run,
};

pub(in crate::cli) const ROUTE: Command = Command {
    name: "route",
    usage: "TENANT",
    about: "show which master of a cluster has a tenant",
    options: &[&[JSON], CLIENT],
    examples: &["mesophyll route guild:123", "mesophyll route user:456 --json"],
    run: route,
};

fn run(args: &Args) -> Result<(), CliError> {
    args.need_no_words()?;
    let text = ApiClient::new(args, DATA_DEADLINE)?.get("/i/masters")?.success()?;
    let none = "the master knows no others: its store is for one only";
    let head = ["NAME", "STATE", "LEASE", "SHARDS", "WANTED", "VERSION", "API"];
    print_list(args, &text, none, head, |master: ListedMaster| {
        let lease = format!("{}.{} s", master.lease_ms / 1000, master.lease_ms % 1000 / 100);
        let (shards, wanted) = (master.shards.to_string(), master.wanted.to_string());
        [master.name, master.state, lease, shards, wanted, master.version, master.api]
    })
}

fn route(args: &Args) -> Result<(), CliError> {
    let [tenant] = args.words()[..] else {
        return Err(CliError::usage("route takes a tenant: guild:ID or user:ID"));
    };
    let path = words::path("route", words::tenant(tenant)?);
    let text = ApiClient::new(args, DATA_DEADLINE)?.get(&path)?.success()?;
    let place: RouteAnswer = understood(&text)?;
    let shown = match (place.master, place.api) {
        (Some(master), Some(api)) => format!("{tenant} is at {master}, {api}"),
        (Some(master), None) => format!("{tenant} is at {master}"),
        (None, _) => format!("no master has {tenant} at the moment"),
    };
    output::print_as_asked(args, &text, &shown)
}
