//! Who may import whom, and which file is the home of a third-party crate. The rules are the two
//! tables; their texts are what a failure shows.

use std::fs;

use crate::assert_none;
use crate::source::{CodePath, Source, paths, read_all, root};

/// What every folder may use.
const COMMON: &[&str] = &["base", "wire/data"];

/// A folder or top-level file of `src/`, what else of ours it may use, and why no more.
struct Rule {
    who: &'static str,
    may_use: &'static [&'static str],
    why: &'static str,
}

/// In the order of dependencies, so that a rule names only what stands above it.
const RULES: &[Rule] = &[
    Rule { who: "base", may_use: &[], why: "what everything stands on knows nothing of it" },
    Rule { who: "wire/data", may_use: &[], why: "what travels is pure data" },
    Rule { who: "wire", may_use: &[], why: "bytes to messages and back: no I/O, no clock" },
    Rule { who: "net", may_use: &[], why: "it only names its rooms" },
    Rule { who: "net/stream", may_use: &[], why: "a connection does not know what goes over it" },
    Rule {
        who: "net/http",
        may_use: &["net/stream"],
        why: "the HTTP server knows nothing of Mesophyll",
    },
    Rule {
        who: "net/link",
        may_use: &["net/stream"],
        why: "a link carries messages and does not know who talks",
    },
    Rule { who: "net/lookup", may_use: &[], why: "a name does not know who is behind it" },
    Rule {
        who: "net/https",
        may_use: &["net/link", "net/stream"],
        why: "a client's connections do not know what is asked over them",
    },
    Rule {
        who: "net/broker",
        may_use: &["net/stream"],
        why: "the broker hands out connections and does not know what for",
    },
    Rule { who: "net/lifeline", may_use: &[], why: "a few bytes between two processes" },
    Rule {
        who: "store",
        may_use: &["net/stream", "wire"],
        why: "the store is below everything that asks it",
    },
    Rule {
        who: "cluster",
        may_use: &["store"],
        why: "who holds which shard is known without workers and without callers",
    },
    Rule {
        who: "dispatch",
        may_use: &[],
        why: "a job knows neither where it runs nor how it gets there",
    },
    Rule {
        who: "feeds",
        may_use: &["wire"],
        why: "what tenants publish is kept without knowing who brings it and who reads it",
    },
    Rule {
        who: "runtime",
        may_use: &["wire", "dispatch"],
        why: "the runtime states as a trait what it needs of a database; WorkerDb implements it",
    },
    Rule { who: "sandbox", may_use: &[], why: "a leaf: what a process gives up is all it knows" },
    Rule {
        who: "protocol",
        may_use: &[
            "dispatch",
            "feeds",
            "net/broker",
            "net/link",
            "net/lookup",
            "net/http",
            "net/stream",
            "wire",
            "store",
        ],
        why: "the protocol's two ends know no supervisor and no runtime",
    },
    Rule {
        who: "pool",
        may_use: &[
            "cluster",
            "dispatch",
            "feeds",
            "protocol",
            "runtime",
            "store",
            "wire",
            "net/broker",
            "net/lifeline",
            "net/link",
            "net/stream",
        ],
        why: "workers know neither the internal API nor the command line",
    },
    Rule {
        who: "api",
        may_use: &[
            "cluster",
            "pool",
            "dispatch",
            "feeds",
            "store",
            "net/http",
            "net/link",
            "net/https",
            "net/lookup",
            "net/stream",
            "wire",
        ],
        why: "the internal API reaches tenants only through a WorkerLike",
    },
    Rule {
        who: "master",
        may_use: &[
            "net/stream",
            "api",
            "pool",
            "cluster",
            "dispatch",
            "feeds",
            "protocol",
            "runtime",
            "store",
        ],
        why: "a master is put together from everything, and knows no command line",
    },
    Rule { who: "cli", may_use: &["*"], why: "" },
    Rule { who: "lib", may_use: &["*"], why: "" },
    Rule {
        who: "main",
        may_use: &["cli"],
        why: "main parses, runs and maps the error to an exit code",
    },
];

/// A third-party crate, and the only files (or folders, with a slash at the end) of `src/` that may
/// name it.
struct Home {
    krate: &'static str,
    homes: &'static [&'static str],
}

/// Every direct dependency has a home: a new one is entered here and in docs/dependencies.md.
const HOMES: &[Home] = &[
    Home { krate: "bytes", homes: &["net/http/http2/"] },
    Home { krate: "chrono", homes: &["wire/data/timestamp.rs", "net/stream/tls/expiry.rs"] },
    Home {
        krate: "crossbeam_channel",
        homes: &[
            "net/broker.rs",
            "dispatch/job.rs",
            "cluster/",
            "base/thread.rs",
            "master/",
            "store/",
            "runtime/",
            "protocol/",
            "pool/",
            "api/",
            "cli/",
        ],
    },
    Home { krate: "ctutils", homes: &["protocol/master/server.rs"] },
    Home { krate: "data_encoding", homes: &["api/token.rs", "wire/json/tagged.rs"] },
    Home { krate: "getrandom", homes: &["base/random.rs"] },
    Home { krate: "h2", homes: &["net/http/http2/"] },
    Home { krate: "hmac", homes: &["api/token.rs"] },
    Home {
        krate: "http",
        homes: &["net/http/http2/", "net/http/head.rs", "net/link/handshake.rs"],
    },
    Home { krate: "httparse", homes: &["net/http/"] },
    Home { krate: "landlock", homes: &["sandbox/"] },
    Home { krate: "libc", homes: &["sandbox/"] },
    Home { krate: "log", homes: &[""] },
    Home { krate: "mlua", homes: &["runtime/luau/"] },
    Home { krate: "postgres", homes: &["store/postgres/"] },
    Home { krate: "redb", homes: &["store/redb/"] },
    Home { krate: "rmp", homes: &["wire/"] },
    Home { krate: "rmp_serde", homes: &["wire/pack/codec.rs"] },
    Home {
        krate: "rustix",
        homes: &[
            "net/http/",
            "net/link/",
            "protocol/worker/db_transport.rs",
            "store/redb/open.rs",
            "net/stream/",
            "net/stream.rs",
            "cluster/clock.rs",
            "base/thread.rs",
            "pool/process/child.rs",
            "pool/process/sandbox_probe.rs",
            "sandbox/",
            "net/broker.rs",
            "net/lifeline.rs",
            "master/config/cluster.rs",
            "cli/commands/worker/confine.rs",
            "cli/console/interruptible.rs",
            "cli/console/lifeline.rs",
            "cli/console/systemd.rs",
        ],
    },
    Home { krate: "rustls", homes: &["net/stream/tls/"] },
    Home { krate: "seccompiler", homes: &["sandbox/"] },
    Home { krate: "serde", homes: &[""] },
    Home { krate: "serde_json", homes: &["wire/", "api/", "cli/", "master/"] },
    Home { krate: "sha2", homes: &["api/token.rs", "cluster/member/assign.rs"] },
    Home { krate: "signal_hook", homes: &["cli/console/signals.rs"] },
    Home { krate: "simple_logger", homes: &["cli/console/logging.rs"] },
    Home { krate: "thread_priority", homes: &["base/thread.rs"] },
    Home { krate: "tokio", homes: &["net/http/http2/io.rs", "store/postgres/tls.rs"] },
    Home { krate: "tokio_rustls", homes: &["store/postgres/tls.rs"] },
    Home { krate: "tungstenite", homes: &["net/link/"] },
    Home {
        krate: "ureq",
        homes: &[
            "protocol/worker/db_buffers.rs",
            "protocol/worker/db_client.rs",
            "protocol/worker/db_transport.rs",
            "cli/console/client.rs",
            "api/cluster/",
            "net/https.rs",
            "net/lookup.rs",
        ],
    },
];

/// The rule for a place, given as segments below `src/`: a room within a room has one of its own.
fn rule_for(segments: &[&str]) -> Option<&'static Rule> {
    let named = |name: &str| RULES.iter().find(|rule| rule.who == name);
    let inner = segments.get(..2).and_then(|two| named(&two.join("/")));
    inner.or_else(|| segments.first().and_then(|first| named(first)))
}

/// The segments of a file's module below `src/`.
fn module(path: &str) -> Vec<&str> {
    path.trim_start_matches("src/")
        .trim_end_matches(".rs")
        .trim_end_matches("/mod")
        .split('/')
        .collect()
}

/// The rule of the room that a path leads to, if it leads to one of ours.
fn target(source: &Source, path: &CodePath) -> Option<&'static Rule> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    let supers = segments.iter().take_while(|segment| **segment == "super").count();
    if segments[0] == "crate" || (segments[0] == "mesophyll" && source.path == "src/main.rs") {
        return rule_for(&segments[1..]);
    }
    let here = module(&source.path);
    // Deeper in the file, such as in its tests, `super` is the file itself.
    let outer = here.len().checked_sub(supers).filter(|_| supers > 0)?;
    rule_for(&[&here[..outer], &segments[supers..]].concat())
}

fn problems_of_imports(source: &Source) -> Vec<String> {
    let Some(rule) = rule_for(&module(&source.path)) else {
        return vec![format!(
            "{}: this room has no import rule; enter it in tests/tidy/imports.rs",
            source.path
        )];
    };
    let is_allowed = |other: &Rule| {
        let may_use = |name: &&str| *name == other.who || *name == "*";
        other.who == rule.who || COMMON.contains(&other.who) || rule.may_use.iter().any(may_use)
    };
    paths(&source.product)
        .iter()
        .filter_map(|path| Some((path, target(source, path)?)))
        .filter(|(_, other)| !is_allowed(other))
        .map(|(path, other)| {
            let may = [COMMON, rule.may_use].concat().join(", ");
            let Rule { who, why, .. } = rule;
            format!(
                "{}:{}: {who} uses {}, but {why}; it may use {may}",
                source.path, path.line, other.who
            )
        })
        .collect()
}

/// Whether a file is this one, or in this folder.
fn is_at_home(source: &Source, at: &str) -> bool {
    let below = source.path.trim_start_matches("src/");
    below == at || (at.is_empty() || at.ends_with('/')) && below.starts_with(at)
}

fn problems_of_homes(source: &Source) -> Vec<String> {
    // A module of the same name as a crate, such as `store::redb`, declared here.
    let shadowed = |name: &str| source.product.contains(&format!("mod {name};"));
    paths(&source.product)
        .iter()
        .filter_map(|path| Some((path, HOMES.iter().find(|home| home.krate == path.segments[0])?)))
        .filter(|(_, home)| !shadowed(home.krate))
        .filter(|(_, home)| !home.homes.iter().any(|at| is_at_home(source, at)))
        .map(|(path, home)| {
            let (krate, homes) = (home.krate, home.homes.join(", "));
            format!(
                "{}:{}: {krate} is used outside its home; only these may: {homes}",
                source.path, path.line
            )
        })
        .collect()
}

/// The names of Cargo.toml's direct dependencies.
fn dependencies() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    let mut names = Vec::new();
    for table in ["[dependencies]", "[target.'cfg(target_os = \"linux\")'.dependencies]"] {
        let lines = manifest.lines().skip_while(|line| *line != table).skip(1);
        let lines = lines.take_while(|line| !line.starts_with('['));
        names.extend(lines.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())));
    }
    names.sort();
    names
}

#[test]
fn folders_import_only_what_lies_below_them() {
    let problems: Vec<String> = read_all("src").iter().flat_map(problems_of_imports).collect();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_permission_is_used() {
    let sources = read_all("src");
    let imports = |rule: &Rule, name: &str| {
        let of_rule = |source: &&Source| {
            rule_for(&module(&source.path)).is_some_and(|found| found.who == rule.who)
        };
        sources.iter().filter(of_rule).any(|source| {
            let paths = paths(&source.product);
            paths.iter().any(|path| target(source, path).is_some_and(|other| other.who == name))
        })
    };
    let granted = RULES.iter().flat_map(|rule| rule.may_use.iter().map(move |name| (rule, *name)));
    let idle = granted.filter(|(rule, name)| *name != "*" && !imports(rule, name));
    assert_none(idle.map(|(rule, name)| format!("{} may use {name}, and does not", rule.who)));
    let names_it = |home: &Home, at: &str| {
        sources
            .iter()
            .filter(|source| is_at_home(source, at))
            .any(|source| paths(&source.product).iter().any(|path| path.segments[0] == home.krate))
    };
    let homes = HOMES.iter().flat_map(|home| home.homes.iter().map(move |at| (home, *at)));
    let idle = homes.filter(|(home, at)| !names_it(home, at));
    assert_none(idle.map(|(home, at)| format!("{at} may name {}, and does not", home.krate)));
}

#[test]
fn rules_name_only_what_stands_above_them() {
    for (place, rule) in RULES.iter().enumerate() {
        for may in rule.may_use.iter().filter(|may| **may != "*" && rule.who != "main") {
            assert!(
                RULES[..place].iter().any(|above| above.who == *may),
                "{} may use {may}: a cycle?",
                rule.who
            );
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
    let reasons = fs::read_to_string(root().join("docs/dependencies.md"))
        .expect("docs/dependencies.md is there");
    let names = dependencies();
    let in_code: Vec<String> = names.iter().map(|name| name.replace('-', "_")).collect();
    assert_eq!(in_code, homes, "Cargo.toml's dependencies and HOMES differ");
    for name in names {
        assert!(
            reasons.contains(&format!("`{name}`")),
            "docs/dependencies.md does not say why we depend on {name}"
        );
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
    let wrong = source(
        "src/wire/json/mod.rs",
        "use crate::{base, store::Store}; use super::super::net::link::Link;",
    );
    assert_eq!(problems_of_imports(&wrong).len(), 2);
    let right = source(
        "src/wire/json/mod.rs",
        "use super::reader::Reader; use crate::wire::data::TenantId;",
    );
    assert!(problems_of_imports(&right).is_empty());
    assert_eq!(
        problems_of_homes(&source("src/wire/json/mod.rs", "fn f() { rmp_serde::to_vec(&1) }"))
            .len(),
        1
    );
    assert!(
        problems_of_homes(&source("src/wire/pack/codec.rs", "use rmp_serde::to_vec;")).is_empty()
    );
    assert_eq!(problems_of_homes(&source("src/cli/x.rs", "use ureq::{Agent, Error};")).len(), 2);
}
