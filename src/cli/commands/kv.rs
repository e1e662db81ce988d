//! `mesophyll kv`: a tenant's records, for staff.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::escape;
use crate::base::limits::API_DB_BODY_MAX_BYTES;

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::console::table::{print_list, shortened};
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "kv",
    usage: "get TENANT KEY | set TENANT KEY VALUE | delete TENANT KEY | find TENANT [PATTERN] | scopes TENANT",
    about: "read and change a tenant's records; VALUE is JSON, '-' reads it from stdin",
    options: &[
        &[
            OptionSpec::list(
                "scope",
                "S",
                "a scope; get, set and delete want exactly a record's own",
            ),
            JSON,
        ],
        CLIENT,
    ],
    examples: &[
        "mesophyll kv set guild:123 greeting '\"hello\"' --scope settings",
        "mesophyll kv get guild:123 greeting --scope settings",
        "mesophyll kv find guild:123 'greet%'",
        "mesophyll kv scopes guild:123",
        "mesophyll kv delete guild:123 greeting --scope settings",
    ],
    run,
};

/// A value longer than this is cut off in a table.
const SHOWN_VALUE_CHARS: usize = 60;

/// A record as the API gives it.
#[derive(Deserialize)]
struct KvRow {
    key: String,
    value: Box<RawValue>,
    scopes: Vec<String>,
    last_updated_at: Option<String>,
}

fn run(args: &Args) -> Result<(), CliError> {
    let key = |key: &str| -> Result<(&str, String), CliError> { Ok(("key", words::quoted(key))) };
    match args.words()[..] {
        ["get", tenant, name] => get(args, &ask(args, tenant, "get", &[key(name)?, exact(args)?])?),
        ["set", tenant, name, value] => {
            words::tenant(tenant)?;
            let members = [key(name)?, exact(args)?, ("value", value_of(value)?)];
            ask(args, tenant, "set", &members).map(drop)
        }
        ["delete", tenant, name] => {
            ask(args, tenant, "delete", &[key(name)?, exact(args)?]).map(drop)
        }
        ["find", tenant] => find(args, tenant, "%"),
        ["find", tenant, pattern] => find(args, tenant, pattern),
        ["scopes", tenant] => scopes(args, &ask(args, tenant, "list_scopes", &[])?),
        _ => Err(CliError::usage(format!("kv takes {}", COMMAND.usage))),
    }
}

fn ask(
    args: &Args,
    tenant: &str,
    op: &str,
    members: &[(&str, String)],
) -> Result<String, CliError> {
    let tenant = words::tenant(tenant)?;
    let body = words::object(&[&[("op", words::quoted(op))], members].concat());
    ApiClient::new(args, DATA_DEADLINE)?.post(&words::path("kv", tenant), &body)?.success()
}

/// The scopes that address a record.
fn exact(args: &Args) -> Result<(&'static str, String), CliError> {
    let scopes = args.all("scope");
    if scopes.is_empty() {
        return Err(CliError::usage(
            "--scope is missing: a record is addressed by its key and all of its scopes",
        ));
    }
    Ok(("scopes", words::list(&scopes)))
}

fn value_of(word: &str) -> Result<String, CliError> {
    let text = if word == "-" { words::file("-", API_DB_BODY_MAX_BYTES)? } else { word.to_owned() };
    Ok(words::json("VALUE", &text)?.get().to_owned())
}

fn get(args: &Args, text: &str) -> Result<(), CliError> {
    let record: Option<KvRow> = understood(text)?;
    match record {
        None => Err(CliError::failed(
            "there is no such record; `kv find` shows which there are, with their scopes",
        )),
        Some(_) if args.is_on("json") => output::print_json(text),
        Some(record) => output::print_json(record.value.get()),
    }
}

fn find(args: &Args, tenant: &str, pattern: &str) -> Result<(), CliError> {
    let members =
        [("pattern", words::quoted(pattern)), ("scopes", words::list(&args.all("scope")))];
    let text = ask(args, tenant, "find", &members)?;
    let head = ["KEY", "SCOPES", "UPDATED", "VALUE"];
    print_list(args, &text, "no record matches", head, |record: KvRow| {
        let updated = record.last_updated_at.unwrap_or_default();
        let value = shortened(record.value.get(), SHOWN_VALUE_CHARS);
        [record.key, record.scopes.join(","), updated, value]
    })
}

fn scopes(args: &Args, text: &str) -> Result<(), CliError> {
    if args.is_on("json") {
        return output::print_json(text);
    }
    let scopes: Vec<String> = understood(text)?;
    scopes.iter().try_for_each(|scope| output::print(&escape::one_line(scope)))
}
