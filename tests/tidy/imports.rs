//! Who may import whom, and which file is the home of a third-party crate. The rules are the two tables; their texts are
//! what a failure shows.

use std::fs;

use crate::source::{CodePath, Source, paths, read_all, root};

/// What every folder may use.
const COMMON: &[&str] = &["base", "model"];

/// A folder or top-level file of `src/`, what else of ours it may use, and why no more.
struct Rule {
    who: &'static str,
    may_use: &'static [&'static str],
    why: &'static str,
}

/// In the order of dependencies, so that a rule names only what stands above it.
const RULES: &[Rule] = &[
    Rule { who: "base", may_use: &[], why: "what everything stands on knows nothing of it" },
    Rule { who: "model", may_use: &[], why: "what travels is pure data" },
    Rule { who: "sharding", may_use: &[], why: "the formula is a pure function of a tenant" },
    Rule { who: "busiest", may_use: &["sharding"], why: "who takes most is counted without knowing of what" },
    Rule { who: "log_line", may_use: &[], why: "a line of a log is text, wherever it goes" },
    Rule { who: "wire", may_use: &[], why: "bytes to messages and back: no I/O, no clock" },
    Rule { who: "stream", may_use: &[], why: "a connection does not know what goes over it" },
    Rule { who: "http", may_use: &["stream"], why: "the HTTP server knows nothing of Mesophyll" },
    Rule { who: "link", may_use: &["wire", "stream"], why: "a link carries messages and does not know who talks" },
    Rule { who: "store", may_use: &["wire", "sharding"], why: "the store is below everything that asks it" },
    Rule {
        who: "runtime",
        may_use: &["wire", "busiest"],
        why: "the runtime states as a trait what it needs of a database; WorkerDb implements it",
    },
    Rule { who: "worker_like", may_use: &[], why: "the trait knows none of its implementations" },
    Rule {
        who: "mesophyll",
        may_use: &["worker_like", "link", "http", "stream", "wire", "store", "sharding"],
        why: "the protocol's two ends know no supervisor and no runtime",
    },
    Rule {
        who: "worker",
        may_use: &["worker_like", "mesophyll", "runtime", "store", "wire", "link", "sharding", "busiest", "log_line"],
        why: "workers know neither the internal API nor the command line",
    },
    Rule {
        who: "internal_api",
        may_use: &["worker", "worker_like", "store", "http", "stream", "wire", "sharding"],
        why: "the internal API reaches tenants only through a WorkerLike",
    },
    Rule {
        who: "config",
        may_use: &["worker", "mesophyll", "store", "runtime", "link", "http", "stream", "wire", "internal_api"],
        why: "configuration is checked without running anything",
    },
    Rule {
        who: "master",
        may_use: &[
            "config",
            "internal_api",
            "worker",
            "worker_like",
            "mesophyll",
            "runtime",
            "store",
            "link",
            "http",
            "wire",
            "sharding",
        ],
        why: "a master is put together from everything, and knows no command line",
    },
    Rule { who: "cli", may_use: &["*"], why: "" },
    Rule { who: "lib", may_use: &["*"], why: "" },
    Rule { who: "main", may_use: &["cli"], why: "main parses, runs and maps the error to an exit code" },
];

/// A third-party crate, and the only files (or folders, with a slash at the end) of `src/` that may name it.
struct Home {
    krate: &'static str,
    homes: &'static [&'static str],
}

/// Every direct dependency has a home: a new one is entered here and in docs/dependencies.md.
const HOMES: &[Home] = &[
    Home { krate: "chrono", homes: &["model/timestamp.rs"] },
    Home {
        krate: "crossbeam_channel",
        homes: &[
            "model/dispatch.rs",
            "base/thread.rs",
            "worker_like.rs",
            "master.rs",
            "http/",
            "link/",
            "store/",
            "runtime/",
            "mesophyll/",
            "worker/",
            "internal_api/",
            "cli/",
        ],
    },
    Home { krate: "getrandom", homes: &["base/random.rs"] },
    Home { krate: "hmac", homes: &["internal_api/token.rs"] },
    Home { krate: "httparse", homes: &["http/"] },
    Home { krate: "log", homes: &[""] },
    Home { krate: "mlua", homes: &["runtime/luau/"] },
    Home { krate: "postgres", homes: &["store/postgres.rs", "store/postgres/"] },
    Home { krate: "redb", homes: &["store/redb.rs", "store/redb/"] },
    Home { krate: "rmp", homes: &["wire/"] },
    Home { krate: "rmp_serde", homes: &["wire/codec.rs"] },
    Home {
        krate: "rustix",
        homes: &[
            "http/",
            "link/",
            "mesophyll/db_transport.rs",
            "store/redb/open.rs",
            "stream.rs",
            "base/thread.rs",
            "worker/child.rs",
            "cli/interruptible.rs",
            "cli/lifeline.rs",
            "cli/systemd.rs",
        ],
    },
    Home { krate: "serde", homes: &[""] },
    Home {
        krate: "serde_json",
        homes: &["wire/", "log_line.rs", "store/postgres/", "internal_api/", "cli/", "master.rs"],
    },
    Home { krate: "sha2", homes: &["internal_api/token.rs"] },
    Home { krate: "signal_hook", homes: &["cli/signals.rs"] },
    Home { krate: "simple_logger", homes: &["cli/logging.rs"] },
    Home { krate: "thread_priority", homes: &["base/thread.rs"] },
    Home { krate: "tungstenite", homes: &["link/"] },
    Home {
        krate: "ureq",
        homes: &["mesophyll/db_buffers.rs", "mesophyll/db_client.rs", "mesophyll/db_transport.rs", "cli/client.rs"],
    },
];

/// The folder or top-level file of `src/` that a file belongs to.
fn owner(path: &str) -> &str {
    let below = path.trim_start_matches("src/");
    below.split_once('/').map_or_else(|| below.trim_end_matches(".rs"), |(folder, _)| folder)
}

/// The top-level module that a path leads to, if it leads to one of ours.
fn target<'p>(source: &Source, path: &'p CodePath) -> Option<&'p str> {
    let mut segments = path.segments.iter().map(String::as_str);
    let first = segments.next()?;
    if first == "crate" || (first == "mesophyll" && source.path == "src/main.rs") {
        return segments.next();
    }
    if first != "super" {
        return None;
    }
    // How deep this file's module is: `super` may lead out of its folder.
    let below = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let supers = path.segments.iter().take_while(|segment| *segment == "super").count();
    (supers == below.split('/').count()).then(|| path.segments.get(supers).map(String::as_str)).flatten()
}

fn problems_of_imports(source: &Source) -> Vec<String> {
    let who = owner(&source.path);
    let Some(rule) = RULES.iter().find(|rule| rule.who == who) else {
        return vec![format!("{}: src/{who} has no import rule; enter it in tests/tidy/imports.rs", source.path)];
    };
    let allowed = |name: &str| {
        name == who || COMMON.contains(&name) || rule.may_use.iter().any(|may| *may == name || *may == "*")
    };
    let known = |name: &str| RULES.iter().any(|rule| rule.who == name);
    paths(&source.product)
        .iter()
        .filter_map(|path| Some((path, target(source, path)?)))
        .filter(|(_, name)| known(name) && !allowed(name))
        .map(|(path, name)| {
            let may: Vec<&str> = COMMON.iter().chain(rule.may_use).copied().collect();
            format!("{}:{}: {who} uses {name}, but {}; it may use {}", source.path, path.line, rule.why, may.join(", "))
        })
        .collect()
}

fn problems_of_homes(source: &Source) -> Vec<String> {
    let below = source.path.trim_start_matches("src/");
    // A module of the same name as a crate, such as `store::redb`, declared here.
    let shadowed = |name: &str| source.product.contains(&format!("mod {name};"));
    paths(&source.product)
        .iter()
        .filter_map(|path| Some((path, HOMES.iter().find(|home| home.krate == path.segments[0])?)))
        .filter(|(_, home)| !shadowed(home.krate))
        .filter(|(_, home)| {
            !home.homes.iter().any(|at| below == *at || (at.is_empty() || at.ends_with('/')) && below.starts_with(at))
        })
        .map(|(path, home)| {
            let (krate, homes) = (home.krate, home.homes.join(", "));
            format!("{}:{}: {krate} is used outside its home; only these may: {homes}", source.path, path.line)
        })
        .collect()
}

/// The names of Cargo.toml's direct dependencies.
fn dependencies() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn folders_import_only_what_lies_below_them() {
    let problems: Vec<String> = read_all("src").iter().flat_map(problems_of_imports).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn rules_name_only_what_stands_above_them() {
    for (place, rule) in RULES.iter().enumerate() {
        for may in rule.may_use.iter().filter(|may| **may != "*" && rule.who != "main") {
            assert!(RULES[..place].iter().any(|above| above.who == *may), "{} may use {may}: a cycle?", rule.who);
        }
    }
}

#[test]
fn every_third_party_crate_stays_in_its_home() {
    let problems: Vec<String> = read_all("src").iter().flat_map(problems_of_homes).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_dependency_has_a_home_and_a_reason() {
    let homes: Vec<&str> = HOMES.iter().map(|home| home.krate).collect();
    let reasons = fs::read_to_string(root().join("docs/dependencies.md")).expect("docs/dependencies.md is there");
    let names = dependencies();
    let in_code: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
    assert_eq!(in_code, homes, "Cargo.toml's dependencies and HOMES differ");
    for name in names {
        assert!(reasons.contains(&format!("`{name}`")), "docs/dependencies.md does not say why we depend on {name}");
    }
}

#[test]
fn an_import_that_breaks_a_rule_is_found() {
    let source = |path: &str, code: &str| Source {
        path: path.to_owned(),
        text: String::new(),
        code: code.to_owned(),
        product: code.to_owned(),
    };
    let wrong = source("src/wire/json.rs", "use crate::{base, store::Store}; use super::super::link::Link;");
    assert_eq!(problems_of_imports(&wrong).len(), 2);
    let right = source("src/wire/json.rs", "use super::reader::Reader; use crate::model::TenantId;");
    assert!(problems_of_imports(&right).is_empty());
    assert_eq!(problems_of_homes(&source("src/wire/json.rs", "fn f() { rmp_serde::to_vec(&1) }")).len(), 1);
    assert!(problems_of_homes(&source("src/wire/codec.rs", "use rmp_serde::to_vec;")).is_empty());
    assert_eq!(problems_of_homes(&source("src/cli/x.rs", "use ureq::{Agent, Error};")).len(), 2);
}
