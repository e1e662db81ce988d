//! `mesophyll errors`: the last errors of templates, of all tenants or as they are kept with one of
//! them.

use serde_json::Value;

use crate::base::escape;
use crate::wire::data::{ERRORS_KEY, ERRORS_SCOPE, TenantId};

use super::status::{number, text};
use super::workers::span;
use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::console::table::{shortened, table};
use crate::cli::console::watch::watch;
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "errors",
    usage: "[TENANT] [--follow]",
    about: "show the last errors of a running master's templates, or those that are kept with one tenant",
    options: &[
        &[
            OptionSpec::switch("follow", "go on with those that come, each second, until Ctrl-C"),
            JSON,
        ],
        CLIENT,
    ],
    examples: &[
        "mesophyll errors",
        "mesophyll errors guild:123",
        "mesophyll errors guild:123 --follow",
    ],
    run,
};

/// Limit: of a message on a terminal; `--json` has it whole.
const MESSAGE_MAX_CHARS: usize = 200;

fn run(args: &Args) -> Result<(), CliError> {
    let tenant = match args.positional.as_slice() {
        [] => None,
        [tenant] => Some(words::tenant(tenant)?),
        _ => return Err(CliError::usage(format!("errors takes {}", COMMAND.usage))),
    };
    let source = ErrorSource { client: ApiClient::new(args, DATA_DEADLINE)?, tenant };
    let is_json = args.is_on("json");
    if args.is_on("follow") {
        return source.follow(is_json);
    }
    let (_, errors) = source.fetch()?;
    if is_json {
        return output::print_json(&Value::from(errors).to_string());
    }
    if errors.is_empty() {
        output::tell("no errors");
        return Ok(());
    }
    output::print(&table(source.head(), errors.iter().map(|error| source.row(error))))
}

/// Where the errors are.
struct ErrorSource {
    client: ApiClient,
    tenant: Option<TenantId>,
}

impl ErrorSource {
    /// The master's process, if it says so, and the errors that are known now, the newest first.
    fn fetch(&self) -> Result<(Value, Vec<Value>), CliError> {
        let (text, member) = match self.tenant {
            None => (self.client.get("/i/status")?.success()?, "errors"),
            Some(tenant) => {
                let (key, scopes) = (words::quoted(ERRORS_KEY), words::list(&[ERRORS_SCOPE]));
                let body = words::object(&[("op", "\"get\""), ("key", &key), ("scopes", &scopes)]);
                (self.client.post(&words::path("kv", tenant), &body)?.success()?, "value")
            }
        };
        let mut answer: Value = understood(&text)?;
        let master = answer.pointer("/master/pid").cloned().unwrap_or_default();
        let errors = answer
            .get_mut(member)
            .and_then(Value::as_array_mut)
            .map(std::mem::take)
            .unwrap_or_default();
        Ok((master, errors))
    }

    /// Prints what there is, the oldest first, and then what comes.
    fn follow(&self, is_json: bool) -> Result<(), CliError> {
        let mut seen = Vec::new();
        let show = |(master, errors): (Value, Vec<Value>)| {
            let identity = |error: &Value| identity(self.tenant, &master, error);
            for error in errors.iter().rev().filter(|error| !seen.contains(&identity(error))) {
                let line = if is_json {
                    escape::json(&error.to_string()).into_owned()
                } else {
                    self.row(error).join("  ")
                };
                if !output::print_on(&escape::one_line(&line))? {
                    return Ok(false);
                }
            }
            seen = errors.iter().map(identity).collect();
            Ok(true)
        };
        watch(|| self.fetch(), show)
    }

    fn head(&self) -> [&'static str; 4] {
        match self.tenant {
            Some(_) => ["AT", "EVENT", "TEMPLATE", "MESSAGE"],
            None => ["AGO", "TIMES", "TENANT", "EVENT: MESSAGE"],
        }
    }

    fn row(&self, error: &Value) -> [String; 4] {
        let (event, message) =
            (text(&error["event"]), shortened(text(&error["message"]), MESSAGE_MAX_CHARS));
        match self.tenant {
            Some(_) => {
                let (at, template) = (text(&error["at"]["$timestamp"]), text(&error["template"]));
                [at.to_owned(), event.to_owned(), template.to_owned(), message]
            }
            None => {
                let (ago, times) =
                    (span(number(&error["last_s"])), number(&error["count"]).to_string());
                [ago, times, text(&error["tenant"]).to_owned(), format!("{event}: {message}")]
            }
        }
    }
}

/// What tells an error from those that were printed: a record is written once, an error of the
/// master's counts on. Each master numbers its errors from 1, so that the number alone says nothing
/// after a restart.
fn identity(tenant: Option<TenantId>, master: &Value, error: &Value) -> Value {
    if tenant.is_some() {
        return error.clone();
    }
    let members = ["id", "count", "tenant", "event", "message"].map(|member| error[member].clone());
    members.into_iter().chain([master.clone()]).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_after_a_restart_of_the_master_is_another() {
        let error = json!({"id": 1, "count": 1, "tenant": "guild:1", "event": "A", "message": "m", "last_s": 0});
        let before = identity(None, &json!(1), &error);
        let with = |name: &str, value: Value| {
            let mut error = error.clone();
            error[name] = value;
            error
        };
        assert_eq!(
            identity(None, &json!(1), &with("last_s", json!(9))),
            before,
            "it is only older"
        );
        assert_ne!(identity(None, &json!(2), &error), before, "of another process");
        // In a container each master is process 1.
        for (name, value) in
            [("count", json!(2)), ("tenant", json!("guild:2")), ("message", json!("n"))]
        {
            assert_ne!(identity(None, &json!(1), &with(name, value)), before, "{name}");
        }
    }
}
