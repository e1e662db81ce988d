//! `mesophyll host`: which names of host processes a tenant may call. They are a record of the
//! tenant's, which no worker writes.

use serde_json::Value;

use crate::base::limits::{HOST_NAME_MAX_BYTES, HOST_NAMES_MAX};
use crate::wire::data::{HOST_RULES_KEY, HOST_RULES_SCOPE, is_host_name};

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "host",
    usage: "allow TENANT NAME | disallow TENANT NAME | show TENANT",
    about: "say which names of host processes a tenant may call",
    options: &[&[JSON], CLIENT],
    examples: &[
        "mesophyll host allow guild:123 discord.send",
        "mesophyll host show guild:123",
        "mesophyll host disallow guild:123 discord.send",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    match args.words()[..] {
        ["allow", tenant, name] => change(args, tenant, name, true),
        ["disallow", tenant, name] => change(args, tenant, name, false),
        ["show", tenant] => {
            let names = read(args, tenant)?;
            if args.is_on("json") {
                return output::print_json(&Value::from(names).to_string());
            } else if names.is_empty() {
                output::tell("it may call what every tenant may (--host-allow), and no more");
                return Ok(());
            }
            output::print(&names.join("\n"))
        }
        _ => Err(CliError::usage(format!("host takes {}", COMMAND.usage))),
    }
}

fn ask(args: &Args, tenant: &str, members: &[(&str, &str)]) -> Result<String, CliError> {
    let tenant = words::tenant(tenant)?;
    let (key, scopes) = (words::quoted(HOST_RULES_KEY), words::list(&[HOST_RULES_SCOPE]));
    let address = [("key", key.as_str()), ("scopes", scopes.as_str())];
    let body = words::object(&[&address, members].concat());
    ApiClient::new(args, DATA_DEADLINE)?.post(&words::path("kv", tenant), &body)?.success()
}

fn read(args: &Args, tenant: &str) -> Result<Vec<String>, CliError> {
    let record: Value = understood(&ask(args, tenant, &[("op", r#""get""#)])?)?;
    let names = record["value"].as_array().into_iter().flatten();
    Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
}

fn change(args: &Args, tenant: &str, name: &str, is_allowed: bool) -> Result<(), CliError> {
    if !is_host_name(name, HOST_NAME_MAX_BYTES) {
        let text = "a name is letters, digits, '.', '_' and '-', at most 64 of them";
        return Err(CliError::usage(text));
    }
    let mut names = read(args, tenant)?;
    names.retain(|known| known != name);
    if is_allowed {
        names.push(name.to_owned());
    }
    if names.len() > HOST_NAMES_MAX {
        return Err(CliError::failed(format!("a tenant may call at most {HOST_NAMES_MAX} names")));
    }
    let names = Value::from(names).to_string();
    ask(args, tenant, &[("op", r#""set""#), ("value", &names)]).map(drop)
}
