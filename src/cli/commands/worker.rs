//! `mesophyll worker`: one worker process. The master starts these; on another host a person does.
//!
//! It ends on TERM, when its master goes (`--lifeline stdin`), when a newer worker took its id, or
//! when the master refuses it.

#[cfg(feature = "luau")]
mod certificate;
#[cfg(feature = "luau")]
mod confine;
#[cfg(feature = "luau")]
mod serve;

use crate::master::config::WorkerConfig;
use crate::pool::TOKEN_VARIABLE;

use super::luau::{check_templates, need_luau};
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::config_values::of_worker;
use crate::cli::parse::look::{self, LOOK, SecretState};
use crate::cli::parse::pool_options::{WORKER_MASTER, WORKER_SIDE};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "worker",
    usage: "--id I --workers N --master ADDR [OPTIONS]",
    about: "run one worker process; its token is in MESOPHYLL_CLIENT_TOKEN",
    options: &[
        &[
            OptionSpec::value("id", "I", "this worker's number, from 0"),
            OptionSpec::value(
                "lifeline",
                "END",
                "stdin: end when stdin does, as the master has; host: and say there how it is",
            ),
        ],
        WORKER_MASTER,
        WORKER_SIDE,
        LOOK,
    ],
    examples: &[
        "MESOPHYLL_CLIENT_TOKEN=… mesophyll worker --id 0 --workers 2 --master 10.0.0.1:7450",
    ],
    run,
};

fn run(args: &Args) -> Result<(), CliError> {
    args.need_no_words()?;
    let config = WorkerConfig::from_options(args)?;
    if look::is_asked(args) {
        let token_state = SecretState { variable: TOKEN_VARIABLE, if_unset: "missing" };
        return look::report(args, &COMMAND, &of_worker(&config), &[token_state], || {
            need_luau()?;
            token()?;
            check_templates(config.runtime.templates.as_deref())?;
            #[cfg(feature = "luau")]
            confine::check(&config)?;
            Ok(())
        });
    }
    need_luau()?;
    #[cfg(feature = "luau")]
    serve::serve(&config)?;
    Ok(())
}

/// This worker's token.
fn token() -> Result<String, CliError> {
    let given = std::env::var_os(TOKEN_VARIABLE).ok_or_else(|| {
        CliError::config(format!("{TOKEN_VARIABLE} is not set: a worker needs its token"))
    })?;
    // It is part of a URL, which the error of a later request could not name without it.
    let is_token = |token: &String| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    // As of a file that it was read from.
    let token = given.into_string().ok().map(|token| token.trim().to_owned()).filter(is_token);
    token
        .ok_or_else(|| CliError::config(format!("{TOKEN_VARIABLE}: a token is letters and digits")))
}
