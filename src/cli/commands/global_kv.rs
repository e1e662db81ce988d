//! `mesophyll global-kv`: the shop's side of the staff: what waits for a review, deciding about it,
//! publishing, purchases.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::limits::API_DB_BODY_MAX_BYTES;

use crate::cli::console::client::{ApiClient, CLIENT, DATA_DEADLINE};
use crate::cli::console::output;
use crate::cli::console::table::{print_list, shortened};
use crate::cli::parse::args::{Args, OptionSpec};
use crate::cli::parse::words::{self, JSON};
use crate::cli::{CliError, Command};
use crate::store::global::APPROVED;

pub(in crate::cli) const COMMAND: Command = Command {
    name: "global-kv",
    usage: "list [PATTERN] | get SCOPE KEY VERSION | review SCOPE KEY VERSION STATE | price SCOPE KEY VERSION PRICE|none | \
            delete SCOPE KEY VERSION | create FILE | purchase TENANT SCOPE KEY VERSION",
    about: "review, price, publish and remove the entries that tenants share, and note purchases",
    options: &[
        &[
            OptionSpec::value(
                "review-state",
                "STATE",
                "list: only entries in this state, such as pending",
            ),
            OptionSpec::value("scope", "S", "list: only entries of this scope"),
            JSON,
        ],
        CLIENT,
    ],
    examples: &[
        "mesophyll global-kv list --review-state pending",
        "mesophyll global-kv get tags my.tag 1",
        "mesophyll global-kv review tags my.tag 1 approved",
        "mesophyll global-kv price tags our.tag 1 500",
        "mesophyll global-kv purchase guild:123 tags our.tag 1",
        r#"echo '{"scope":"tags","key":"our.tag","version":1,"short":"ours","data":{}}' | mesophyll global-kv create -"#,
    ],
    run,
};

/// An entry of a list.
#[derive(Deserialize)]
struct ShopEntry {
    scope: String,
    key: String,
    version: i32,
    owner_type: String,
    owner_id: String,
    review_state: String,
    price: Option<i64>,
    short: String,
}

/// A line about an entry is cut off after this.
const SHOWN_SHORT_CHARS: usize = 40;

fn run(args: &Args) -> Result<(), CliError> {
    match args.words()[..] {
        ["list"] => list(args, None),
        ["list", pattern] => list(args, Some(pattern)),
        ["get", scope, key, version] => {
            output::print_json(&ask(args, "get", address(scope, key, version)?)?)
        }
        ["review", scope, key, version, state] => {
            let mut members = address(scope, key, version)?;
            members.push(("review_state", words::quoted(state)));
            ask(args, "review", members)?;
            if state != APPROVED {
                output::tell(&format!("it is hidden: only what is {APPROVED} is seen"));
            }
            Ok(())
        }
        ["price", scope, key, version, price] => {
            let mut members = address(scope, key, version)?;
            members.push(("price", price_of(price)?));
            ask(args, "price", members).map(drop)
        }
        ["delete", scope, key, version] => {
            ask(args, "delete", address(scope, key, version)?).map(drop)
        }
        ["create", file] => create(args, file),
        ["purchase", tenant, scope, key, version] => {
            let path = words::path("purchase", words::tenant(tenant)?);
            send(args, &path, &address(scope, key, version)?).map(drop)
        }
        _ => Err(CliError::usage(format!("global-kv takes {}", COMMAND.usage))),
    }
}

type EntryMembers = Vec<(&'static str, String)>;

fn ask(args: &Args, op: &str, members: EntryMembers) -> Result<String, CliError> {
    let op = ("op", words::quoted(op));
    send(args, "/i/global-kv", &[vec![op], members].concat())
}

fn send(args: &Args, path: &str, members: &[(&str, String)]) -> Result<String, CliError> {
    ApiClient::new(args, DATA_DEADLINE)?.post(path, &words::object(members))?.success()
}

fn address(scope: &str, key: &str, version: &str) -> Result<EntryMembers, CliError> {
    let version: i32 = version
        .parse()
        .map_err(|_| CliError::usage(format!("VERSION is a whole number, not {version:?}")))?;
    Ok(vec![
        ("scope", words::quoted(scope)),
        ("key", words::quoted(key)),
        ("version", version.to_string()),
    ])
}

fn price_of(word: &str) -> Result<String, CliError> {
    match (word, word.parse::<u64>()) {
        ("none", _) => Ok("null".to_owned()),
        (_, Ok(price)) => Ok(price.to_string()),
        _ => Err(CliError::usage(format!("PRICE is a whole number or none, not {word:?}"))),
    }
}

fn list(args: &Args, pattern: Option<&str>) -> Result<(), CliError> {
    let given = [
        ("pattern", pattern),
        ("review_state", args.get("review-state").map(|(state, _)| state)),
        ("scope", args.get("scope").map(|(scope, _)| scope)),
    ];
    let members =
        given.iter().filter_map(|(name, value)| Some((*name, words::quoted((*value)?)))).collect();
    let text = ask(args, "list", members)?;
    let head = ["SCOPE", "KEY", "VERSION", "OWNER", "STATE", "PRICE", "ABOUT"];
    print_list(args, &text, "no entry matches", head, |entry: ShopEntry| {
        [
            entry.scope,
            entry.key,
            entry.version.to_string(),
            format!("{}:{}", entry.owner_type, entry.owner_id),
            entry.review_state,
            entry.price.map_or("-".to_owned(), |price| price.to_string()),
            shortened(&entry.short, SHOWN_SHORT_CHARS),
        ]
    })
}

fn create(args: &Args, file: &str) -> Result<(), CliError> {
    let text = words::file(file, API_DB_BODY_MAX_BYTES)?;
    // Each member as it stands: only that it is an object has to be known here.
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text)
        .map_err(|error| CliError::config(format!("{file}: it is not a JSON object: {error}")))?;
    let mut all: Vec<(&str, String)> = vec![("op", words::quoted("create"))];
    all.extend(members.iter().map(|(name, json)| (name.as_str(), json.get().to_owned())));
    send(args, "/i/global-kv", &all).map(drop)
}
