//! `mesophyll run-script`: a Luau file in a tenant's VM.

use std::path::Path;

use super::logs::LogSince;
use crate::base::limits::SOURCE_MAX_BYTES;

use crate::cli::console::client::{ApiClient, CLIENT};
use crate::cli::console::output;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::{self, DEADLINE, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "run-script",
    usage: "TENANT FILE [DATA] [OPTIONS]",
    about: "run a Luau file ('-': stdin) in a tenant's VM and print its result as JSON; on stderr, what is logged meanwhile",
    options: &[
        &[
            DEADLINE,
            OptionSpec::value("name", "NAME", "name shown in errors (default: the file's)"),
            JSON,
        ],
        CLIENT,
    ],
    examples: &[
        "mesophyll run-script guild:123 count.luau",
        r#"echo 'local ctx = ...; return ctx:event().data.n + 1' | mesophyll run-script user:456 - '{"n": 1}'"#,
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    let (tenant, file, data) = match args.words()[..] {
        [tenant, file] => (tenant, file, "null"),
        [tenant, file, data] => (tenant, file, data),
        _ => return Err(CliError::usage("run-script takes TENANT FILE [DATA]")),
    };
    let tenant = words::tenant(tenant)?;
    let data = words::json("DATA", data)?;
    let deadline = words::deadline(args)?;
    let client = ApiClient::new(args, deadline)?;
    let code = words::file(file, SOURCE_MAX_BYTES)?;
    let of_file = || {
        Path::new(file)
            .file_name()
            .map_or("script".into(), |name| name.to_string_lossy().into_owned())
    };
    let name = match args.get("name") {
        Some((name, _)) => name.to_owned(),
        None if file == "-" => "stdin".to_owned(),
        None => of_file(),
    };
    let body = words::object(&[
        ("name", words::quoted(&name)),
        ("code", words::quoted(&code)),
        ("data", data.get().to_owned()),
    ]);
    let path = words::path_within("run-script", tenant, deadline);
    let log = LogSince::begin(&client, tenant);
    let answer = client.post(&path, &body)?;
    log.iter().for_each(|log| log.tell(&client));
    output::print_json(&answer.success()?)
}
