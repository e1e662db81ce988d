//! `mesophyll template`: a tenant's own template, which is a record of the tenant's: key `main`,
//! scope `template`.

use serde_json::Value;

use crate::base::limits::SOURCE_MAX_BYTES;

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "template",
    usage: "set TENANT FILE | show TENANT | clear TENANT",
    about: "give a tenant a template of its own, print it, or take it away",
    options: &[&[JSON], CLIENT],
    examples: &[
        "mesophyll template set guild:123 hello.luau",
        "mesophyll template show guild:123 > hello.luau",
        "mesophyll template clear guild:123",
    ],
    run,
};

/// What addresses the record, in the API's words.
const ADDRESS: [(&str, &str); 2] = [("key", r#""main""#), ("scopes", r#"["template"]"#)];

fn run(args: &Args) -> Result<(), CliError> {
    match args.words()[..] {
        ["set", tenant, file] => set(args, tenant, file),
        ["show", tenant] => show(args, tenant),
        ["clear", tenant] => ask(args, tenant, &[("op", r#""delete""#)]).map(drop),
        _ => Err(CliError::usage(format!("template takes {}", COMMAND.usage))),
    }
}

fn ask(args: &Args, tenant: &str, members: &[(&str, &str)]) -> Result<String, CliError> {
    let tenant = words::tenant(tenant)?;
    let body = words::object(&[&ADDRESS, members].concat());
    ApiClient::new(args, DATA_DEADLINE)?.post(&words::path("kv", tenant), &body)?.success()
}

fn set(args: &Args, tenant: &str, file: &str) -> Result<(), CliError> {
    words::tenant(tenant)?;
    let source = words::file(file, SOURCE_MAX_BYTES)?;
    check(if file == "-" { "stdin" } else { file }, &source)?;
    ask(args, tenant, &[("op", r#""set""#), ("value", &words::quoted(&source))]).map(drop)
}

fn show(args: &Args, tenant: &str) -> Result<(), CliError> {
    let text = ask(args, tenant, &[("op", r#""get""#)])?;
    let record: Value = understood(&text)?;
    match &record["value"] {
        _ if record.is_null() => {
            Err(CliError::failed(format!("{tenant} has no template of its own")))
        }
        _ if args.is_on("json") => output::print_json(&text),
        // As it was set, to the last byte.
        Value::String(source) => output::print_exactly(source),
        _ => Err(CliError::failed(format!("what {tenant} has there is no text; --json shows it"))),
    }
}

/// Refuses what does not compile: its tenant would have nothing to run.
#[cfg(feature = "luau")]
fn check(file: &str, source: &str) -> Result<(), CliError> {
    match crate::runtime::luau::check_source(file, source.as_bytes()) {
        None => Ok(()),
        Some(finding) => {
            Err(CliError::failed(format!("{finding}\nnothing was changed: it does not compile")))
        }
    }
}

#[cfg(not(feature = "luau"))]
fn check(_: &str, _: &str) -> Result<(), CliError> {
    super::luau::need_luau()
}
