//! `mesophyll token`: mints a token for the internal API.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::api::token::{Secret, mint, mint_acting, mint_serving};
use crate::base::limits::{HOST_NAME_MAX_BYTES, HOST_NAMES_MAX};
use crate::master::config::{span, wrong};
use crate::wire::data::is_host_name;

use crate::cli::console::output;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "token",
    usage: "--user ID [--act-as-any | --serve NAME[,NAME]] [--expires 24h]",
    about: "mint an internal API token",
    options: &[&[
        OptionSpec::value("user", "ID", "Discord id of the user that the caller acts for"),
        OptionSpec::switch(
            "act-as-any",
            "the caller may name any user as an event's author, as a gateway has to",
        ),
        OptionSpec::value(
            "serve",
            "NAMES",
            "for a host process: the names of calls that it serves, and nothing else",
        ),
        OptionSpec::value("expires", "D", "how long it is good for (default: 24h)"),
    ]],
    examples: &[
        "MESOPHYLL_API_SECRET=… mesophyll token --user 123",
        "mesophyll token --user 123 --expires 5m",
        "mesophyll token --user 123 --act-as-any",
        "mesophyll token --user 123 --serve discord.send,discord.mute",
    ],
    run,
};

/// The variable with the secret under which tokens are signed.
pub(in crate::cli) const SECRET_VARIABLE: &str = "MESOPHYLL_API_SECRET";

fn run(args: &Args) -> Result<(), CliError> {
    args.need_no_words()?;
    let (user, _) = args.get("user").ok_or_else(|| CliError::usage("--user is missing"))?;
    let user: u64 =
        user.parse().map_err(|_| wrong(args, "user", "is a Discord id, a decimal number"))?;
    let good_for = span(args, "expires", Duration::from_secs(86_400))?;
    let secret = secret_from_environment()?.ok_or_else(|| {
        CliError::config(format!(
            "{SECRET_VARIABLE} is not set; a token needs the secret that the master has"
        ))
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some((names, _)) = args.get("serve") {
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        let are_names = names.iter().all(|name| is_host_name(name, HOST_NAME_MAX_BYTES));
        if !are_names || names.len() > HOST_NAMES_MAX {
            let text = "takes names of letters, digits, '.', '_' and '-', with commas between";
            return Err(wrong(args, "serve", text).into());
        } else if args.is_on("act-as-any") {
            return Err(CliError::usage("--serve and --act-as-any exclude each other"));
        }
        return output::print(&mint_serving(&secret, user, &names, (now + good_for).as_secs()));
    }
    let mint = if args.is_on("act-as-any") { mint_acting } else { mint };
    output::print(&mint(&secret, user, (now + good_for).as_secs()))
}

/// The secret, if the environment has one.
///
/// # Errors
/// It is too short to be one, or has white space at its ends.
pub(in crate::cli) fn secret_from_environment() -> Result<Option<Secret>, CliError> {
    // Any bytes: a secret need not be text.
    let bytes = std::env::var_os(SECRET_VARIABLE).map(OsString::into_vec);
    // Trimmed it would be another secret than the one that other programs sign with.
    if bytes.as_ref().is_some_and(|bytes| bytes.trim_ascii().len() < bytes.len()) {
        let why = "it begins or ends with white space, such as the line end of a file: remove that";
        return Err(CliError::config(format!("{SECRET_VARIABLE}: {why}")));
    }
    bytes
        .map(Secret::new)
        .transpose()
        .map_err(|error| CliError::config(format!("{SECRET_VARIABLE}: {error}")))
}
