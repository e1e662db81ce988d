//! `mesophyll template`: a tenant's own template, which is a record of the tenant's: key `main`,
//! scope `template`. Versions that were replaced are records too, which the master writes.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::data::TEMPLATE_HISTORY_SCOPE;

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE, understood};
use crate::cli::console::output;
use crate::cli::console::table::table;
use crate::cli::parse::args::Args;
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};

pub(in crate::cli) const COMMAND: Command = Command {
    name: "template",
    usage: "set TENANT FILE|DIR | show TENANT [MODULE] | clear TENANT | history TENANT | rollback TENANT [VERSION]",
    about: "give a tenant a template of its own, print it, take it away, or bring an earlier one back",
    options: &[&[JSON], CLIENT],
    examples: &[
        "mesophyll template set guild:123 hello.luau",
        "mesophyll template set guild:123 ./game    (main.luau and the modules that it requires)",
        "mesophyll template show guild:123 > hello.luau",
        "mesophyll template rollback guild:123",
        "mesophyll template clear guild:123",
    ],
    run,
};

/// What addresses the record, in the API's words.
const ADDRESS: [(&str, &str); 2] = [("key", r#""main""#), ("scopes", r#"["template"]"#)];

/// A version that was replaced, or the one there is, as the API gives its record.
#[derive(Deserialize)]
struct VersionRow {
    key: String,
    value: Box<RawValue>,
    last_updated_at: Option<String>,
}

fn run(args: &Args) -> Result<(), CliError> {
    match args.words()[..] {
        ["set", tenant, source] => set(args, tenant, source),
        ["show", tenant] => show(args, tenant, None),
        ["show", tenant, module] => show(args, tenant, Some(module)),
        ["clear", tenant] => ask(args, tenant, &ADDRESS, &[("op", r#""delete""#)]).map(drop),
        ["history", tenant] => history(args, tenant),
        ["rollback", tenant] => rollback(args, tenant, None),
        ["rollback", tenant, version] => rollback(args, tenant, Some(version)),
        _ => Err(CliError::usage(format!("template takes {}", COMMAND.usage))),
    }
}

fn ask(
    args: &Args,
    tenant: &str,
    address: &[(&str, &str)],
    members: &[(&str, &str)],
) -> Result<String, CliError> {
    let tenant = words::tenant(tenant)?;
    let body = words::object(&[address, members].concat());
    ApiClient::new(args, DATA_DEADLINE)?.post(&words::path("kv", tenant), &body)?.success()
}

fn set(args: &Args, tenant: &str, source: &str) -> Result<(), CliError> {
    words::tenant(tenant)?;
    put(args, tenant, &value_of(source)?)
}

fn put(args: &Args, tenant: &str, value: &str) -> Result<(), CliError> {
    ask(args, tenant, &ADDRESS, &[("op", r#""set""#), ("value", value)]).map(drop)
}

/// The record of the template there is; `None`: there is none.
fn current(args: &Args, tenant: &str) -> Result<Option<VersionRow>, CliError> {
    understood(&ask(args, tenant, &ADDRESS, &[("op", r#""get""#)])?)
}

fn show(args: &Args, tenant: &str, module: Option<&str>) -> Result<(), CliError> {
    let text = ask(args, tenant, &ADDRESS, &[("op", r#""get""#)])?;
    let record: Value = understood(&text)?;
    if record.is_null() {
        return Err(CliError::failed(format!("{tenant} has no template of its own")));
    } else if args.is_on("json") {
        return output::print_json(&text);
    }
    let modules = modules(record["value"].clone());
    match (&modules[..], module) {
        // As it was set, to the last byte.
        ([(_, source)], None) => output::print_exactly(source),
        (modules, Some(wanted)) => match modules.iter().find(|(name, _)| name == wanted) {
            Some((_, source)) => output::print_exactly(source),
            None => Err(CliError::failed(format!("{tenant} has no module {wanted} of its own"))),
        },
        (modules, None) => modules.iter().try_for_each(|(name, source)| {
            output::print(&format!("-- {name}.luau"))?;
            output::print_exactly(source)?;
            let has_end = source.ends_with('\n');
            if has_end { Ok(()) } else { output::print("") }
        }),
    }
}

/// Names and sources of a template's modules.
fn modules(value: Value) -> Vec<(String, String)> {
    let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
    match value {
        Value::Object(modules) => {
            modules.into_iter().map(|(name, source)| (name, text(source))).collect()
        }
        main => vec![("main".to_owned(), text(main))],
    }
}

/// The versions that were replaced, the newest last. One that was kept, and then not replaced after
/// all, is left out.
fn replaced(
    args: &Args,
    tenant: &str,
    current: Option<&VersionRow>,
) -> Result<Vec<VersionRow>, CliError> {
    let scopes = words::list(&[TEMPLATE_HISTORY_SCOPE]);
    let address = [("pattern", r#""%""#), ("scopes", scopes.as_str())];
    let mut rows: Vec<VersionRow> =
        understood(&ask(args, tenant, &address, &[("op", r#""find""#)])?)?;
    rows.retain(|row| version(row).is_some());
    rows.sort_by_key(version);
    let value = |row: &VersionRow| serde_json::from_str::<Value>(row.value.get()).ok();
    rows.pop_if(|last| current.is_some_and(|current| value(current) == value(last)));
    Ok(rows)
}

fn version(row: &VersionRow) -> Option<u32> {
    row.key.parse().ok()
}

fn history(args: &Args, tenant: &str) -> Result<(), CliError> {
    let current = current(args, tenant)?;
    let replaced = replaced(args, tenant, current.as_ref())?;
    let next = replaced.last().and_then(version).unwrap_or(0) + 1;
    let kept =
        replaced.iter().map(|row| (version(row).unwrap_or(0), row.last_updated_at.clone(), row));
    let all: Vec<_> = kept.chain(current.iter().map(|row| (next, None, row))).collect();
    let figures = |row: &VersionRow| {
        let modules = modules(serde_json::from_str(row.value.get()).unwrap_or_default());
        let bytes: usize = modules.iter().map(|(_, source)| source.len()).sum();
        (modules.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), bytes)
    };
    if args.is_on("json") {
        let rows: Vec<Value> = all
            .into_iter()
            .map(|(version, until, row)| {
                let (modules, bytes) = figures(row);
                serde_json::json!({
                    "version": version, "until": until, "modules": modules, "bytes": bytes,
                })
            })
            .collect();
        return output::print_json(&Value::from(rows).to_string());
    } else if all.is_empty() {
        output::tell("it has no template of its own, and had none");
        return Ok(());
    }
    let rows = all.into_iter().map(|(version, until, row)| {
        let (modules, bytes) = figures(row);
        let until = until.unwrap_or_else(|| "now".to_owned());
        [version.to_string(), until, modules.len().to_string(), bytes.to_string()]
    });
    output::print(&table(["VERSION", "UNTIL", "MODULES", "BYTES"], rows))
}

/// Sets an earlier version anew; `None`: the newest that was replaced.
fn rollback(args: &Args, tenant: &str, wanted: Option<&str>) -> Result<(), CliError> {
    let number = |word: &str| {
        word.parse::<u32>().map_err(|_| CliError::usage(format!("{word} is no version")))
    };
    let wanted = wanted.map(number).transpose()?;
    let current = current(args, tenant)?;
    let replaced = replaced(args, tenant, current.as_ref())?;
    let found = match wanted {
        Some(wanted) => replaced.iter().find(|row| version(row) == Some(wanted)),
        None => replaced.last(),
    };
    let found = found.ok_or_else(|| {
        let which =
            wanted.map_or("earlier version".to_owned(), |wanted| format!("version {wanted}"));
        CliError::failed(format!("{tenant} has no {which} of its template; history shows them"))
    })?;
    put(args, tenant, found.value.get())
}

/// What a file or a directory says, as the record's value in JSON. Refuses what does not compile:
/// its tenant would have nothing to run.
#[cfg(feature = "luau")]
fn value_of(source: &str) -> Result<String, CliError> {
    use crate::base::limits::SOURCE_MAX_BYTES;
    use crate::runtime::luau::{check_source, is_module, read_files};
    let failed = |finding: &dyn std::fmt::Display| {
        CliError::failed(format!("{finding}\nnothing was changed: it does not compile"))
    };
    let check = |name: &str, text: &str| {
        check_source(name, text.as_bytes()).map_or(Ok(()), |finding| Err(failed(&finding)))
    };
    let directory = std::path::Path::new(source);
    if source == "-" || !directory.is_dir() {
        let text = words::file(source, SOURCE_MAX_BYTES)?;
        check(if source == "-" { "stdin" } else { source }, &text)?;
        return Ok(words::quoted(&text));
    }
    let unreadable = |error| CliError::config(format!("{source}: {error}"));
    let (files, findings) = read_files(directory, is_module).map_err(unreadable)?;
    if let Some(finding) = findings.first() {
        return Err(CliError::failed(format!("{finding}\nnothing was changed")));
    }
    let mut modules = serde_json::Map::new();
    for (name, text) in files {
        check(&name, &text)?;
        modules.insert(name.trim_end_matches(".luau").to_owned(), text.into());
    }
    if !modules.contains_key("main") {
        return Err(CliError::failed(format!("{source}: there is no main.luau in it")));
    }
    Ok(Value::from(modules).to_string())
}

#[cfg(not(feature = "luau"))]
fn value_of(_: &str) -> Result<String, CliError> {
    super::luau::need_luau().map(|()| String::new())
}
