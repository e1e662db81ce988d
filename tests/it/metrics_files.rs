//! What is packaged for whoever watches: the alert rules and the dashboard name only figures that
//! there are, each alert has its section in the documentation, and Prometheus' own `promtool` is
//! content with all of it.
//!
//! `MESOPHYLL_TEST_PROMTOOL` names that program; without it two tests are skipped, which they say.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::binary::{Master, get};
use crate::support::skip::skipped;

const DOCS: &str = include_str!("../../docs/operations.md");
const ALERTS: &str = include_str!("../../packaging/prometheus-alerts.yml");
const DASHBOARD: &str = include_str!("../../packaging/grafana-dashboard.json");

/// What docs/operations.md names: a unit test compares that with what is exposed.
fn documented() -> BTreeSet<&'static str> {
    let rows = DOCS.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split('`').next());
    names.filter(|name| name.starts_with("mesophyll_") || name.starts_with("process_")).collect()
}

/// Every word of a text that looks like a family or one of a histogram's series.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    words.filter(|word| word.starts_with("mesophyll_") || word.starts_with("process_")).collect()
}

#[track_caller]
fn expect_only_documented(text: &str) {
    let documented = documented();
    assert!(documented.len() > 40, "{documented:?}");
    for name in named(text) {
        let family = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        assert!(documented.contains(name) || documented.contains(family), "there is no {name}");
    }
}

/// The values of a key in a YAML file with one key a line, such as the rules.
fn values<'t>(text: &'t str, key: &'t str) -> impl Iterator<Item = &'t str> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(move |line| line.strip_prefix(key)?.strip_prefix(": "))
}

#[test]
fn alerts_and_dashboard_name_only_figures_that_there_are() {
    assert!(named(ALERTS).len() > 20 && named(DASHBOARD).len() > 30);
    expect_only_documented(ALERTS);
    expect_only_documented(DASHBOARD);
    expect_only_documented(include_str!("../data/alerts.yml"));
}

#[test]
fn alerts_and_their_sections_belong_together() {
    let alerts: Vec<&str> = values(ALERTS, "alert").collect();
    assert!(alerts.len() > 20 && alerts.iter().collect::<BTreeSet<_>>().len() == alerts.len());
    for rule in ALERTS.split("- alert: ").skip(1) {
        let name = rule.lines().next().expect("a name");
        for key in ["summary", "description"] {
            let text = values(rule, key).next().unwrap_or_default();
            assert!(text.len() > 20, "{name} has no {key}");
        }
        assert!(rule.contains("labels: {severity: "), "{name}");
        let runbook = format!("\"docs/operations.md#{}\"", name.to_lowercase());
        assert_eq!(values(rule, "runbook").collect::<Vec<_>>(), [runbook.as_str()], "{name}");
    }
    let (_, sections) = DOCS.split_once("\n## Alerts\n").expect("a section");
    let sections = sections.split("\n## ").next().unwrap_or_default();
    let described: Vec<&str> =
        sections.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(described, alerts, "in the order of the rules");
    for section in sections.split("\n### ").skip(1) {
        let words = section.replace('\n', " ");
        assert!(words.contains(" Look: ") && words.contains(" Do: "), "{section}");
    }
}

#[test]
fn each_panel_asks_the_chosen_source_for_something() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("a list");
    let mut ids = BTreeSet::new();
    let mut rows = Vec::new();
    for panel in panels {
        assert!(
            ids.insert(panel["id"].as_u64().expect("a number")),
            "an id is there twice: {panel}"
        );
        let title = panel["title"].as_str().expect("a title");
        if panel["type"] == "row" {
            rows.push(title);
            continue;
        }
        let at = &panel["gridPos"];
        assert!(
            at["x"].as_u64().zip(at["w"].as_u64()).is_some_and(|(x, w)| w > 0 && x + w <= 24),
            "{title}"
        );
        let targets = panel["targets"].as_array().expect("a list");
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expr = target["expr"].as_str().expect("a query");
            assert!(!named(expr).is_empty() && expr.contains("$instance"), "{title}: {expr}");
        }
    }
    assert_eq!(
        rows,
        [
            "Overview",
            "Traffic",
            "Latency",
            "Workers",
            "Links",
            "Store",
            "VMs",
            "Templates",
            "Processes"
        ]
    );
}

/// Runs promtool in the repository's root; false if there is none, which was said then.
fn promtool(test: &str, args: &[&str], input: &str) -> bool {
    let Some(program) = std::env::var_os("MESOPHYLL_TEST_PROMTOOL") else {
        skipped(test, "set MESOPHYLL_TEST_PROMTOOL to Prometheus' promtool");
        return false;
    };
    let mut command = Command::new(program);
    command.args(args).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool starts");
    let mut stdin = child.stdin.take().expect("piped");
    // It reads all of it before it says anything.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "promtool {args:?}: {said}");
    if args[0] == "check" && args[1] == "metrics" {
        assert_eq!(said, "", "it has advice");
    }
    true
}

#[test]
fn promtool_finds_nothing_to_say_about_a_scrape() {
    let master = Master::start_in(crate::support::TempDir::new(), &[]);
    master.wait_ready();
    assert_eq!(master.dispatch("guild/1", "COUNT", "1").0, 200);
    assert_eq!(master.dispatch("guild/1", "FAIL", "1").0, 422);
    assert_eq!(master.dispatch_with("guild/1", "ECHO", "1", "?nowait").0, 202);
    let (_, text) = get(master.api(), "/metrics");
    assert!(text.contains("# TYPE mesophyll_dispatches_total counter"), "{text}");
    promtool("promtool_finds_nothing_to_say_about_a_scrape", &["check", "metrics"], &text);
    master.stop().0.expect(0, "");
}

#[test]
fn promtool_takes_the_alerts_and_they_fire_when_due() {
    let test = "promtool_takes_the_alerts_and_they_fire_when_due";
    if promtool(test, &["check", "rules", "packaging/prometheus-alerts.yml"], "") {
        promtool(test, &["test", "rules", "tests/data/alerts.yml"], "");
    }
}
