//! `mesophyll test` as an author of templates has it: what passes, what fails and how that is told,
//! and that a test sees the same each time.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::TempDir;
use crate::support::binary::{Finished, Running, mesophyll, run};

/// A directory of templates with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("in a folder")).expect("make the folder");
        fs::write(path, text).expect("write the file");
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn run_tests(folder: &TempDir, args: &[&str]) -> Finished {
    run(&[&["test", text(folder.path())], args].concat())
}

/// Runs tests that must all pass.
#[track_caller]
fn assert_passes(main: &str, tests: &str) {
    let folder = directory(&[("main.luau", main), ("a.test.luau", tests)]);
    let finished = run_tests(&folder, &[]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
}

const ECHO: &str = "return function(ctx)
    local event = ctx:event()
    print('got', event.name)
    if event.name == 'Fail' then error('on purpose') end
    return event.data
end";

#[test]
fn the_tests_of_the_examples_pass() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/templates");
    for example in fs::read_dir(examples).expect("the examples") {
        let path = example.expect("an example").path();
        let finished = run(&["test", text(&path)]);
        assert_eq!(finished.code(), 0, "{finished:#?}");
        run(&["check", "--templates", text(&path)]).expect(0, "");
    }
}

#[test]
fn examples_of_a_document_are_tests() {
    let finished = run(&["test", concat!(env!("CARGO_MANIFEST_DIR"), "/docs/templates.md")]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
    let folder = directory(&[(
        "notes.md",
        "text\n\n```luau\nreturn function() return 1 end\n-- E {} answers 2\n```\n",
    )]);
    let finished = run_tests(&folder, &[]);
    assert_eq!(finished.code(), 1, "{finished:?}");
    assert!(finished.stdout.iter().any(|line| line.ends_with("notes.md:5: expected 2, got 1")));
}

#[test]
fn a_failure_has_its_place_values_and_output() {
    let folder = directory(&[
        ("main.luau", ECHO),
        (
            "sub/a.test.luau",
            "test('passes', function(t)\n\tt:expect(t:dispatch('E', { 1, 2 })):equals({ 1, 2 })\nend)\n\
             test('differs', function(t)\n\tprint('here')\n\tt:expect(t:dispatch('E', { a = 1 })):equals({ a = 2 })\nend)\n\
             test('raises', function(t)\n\tt:dispatch('Fail')\nend)\n",
        ),
    ]);
    let junit = folder.path().join("out.xml");
    let finished = run_tests(&folder, &["--junit", text(&junit)]);
    assert_eq!(finished.code(), 1, "{finished:?}");
    let shown = finished.stdout.join("\n");
    let expected = "sub/a.test.luau\n  ok   passes\n       | guild:1: got\\tE\n  FAIL differs\n       \
                    sub/a.test.luau:6: expected {\"a\":2}, got {\"a\":1}\n       | here\n       \
                    | guild:1: got\\tE\n  FAIL raises\n       \
                    sub/a.test.luau:9: main.luau:4: on purpose\n         in main.luau:4";
    assert!(shown.starts_with(expected), "{shown}");
    assert!(shown.contains("2 of 3 tests failed"), "{shown}");
    let xml = fs::read_to_string(junit).expect("it is written");
    assert!(
        xml.contains("<testsuite name=\"sub/a.test.luau\" tests=\"3\" failures=\"2\""),
        "{xml}"
    );
    assert!(xml.contains("expected {&quot;a&quot;:2}, got {&quot;a&quot;:1}"), "{xml}");

    let finished = run_tests(&folder, &["--json"]);
    assert_eq!(finished.code(), 1, "{finished:?}");
    let [all] = &finished.json()[..] else { panic!("one document: {finished:?}") };
    assert_eq!((&all["passed"], &all["failed"]), (&json!(1), &json!(2)));
    let differs = &all["tests"][1];
    assert_eq!((&differs["line"], &differs["ok"]), (&json!(4), &json!(false)));
    let error = json!({
        "line": 6, "message": "expected {\"a\":2}, got {\"a\":1}",
        "expected": "{\"a\":2}", "actual": "{\"a\":1}",
    });
    assert_eq!(differs["error"], error);
    assert_eq!(differs["output"], json!(["here", "guild:1: got\\tE"]));
    assert_eq!(all["tests"][0]["error"], Value::Null);
}

#[test]
fn a_test_that_exceeds_a_limit_fails_alone() {
    let folder = directory(&[
        ("main.luau", ECHO),
        (
            "a.test.luau",
            "test('eats', function()\n\tlocal all = {}\n\
             \twhile true do table.insert(all, string.rep('x', 1000) .. #all) end\nend)\n\
             test('waits', function(t)\n\tt:run_script('coroutine.yield()')\nend)\n\
             test('sleeps', function()\n\ttask.wait(1)\nend)\n\
             test('is well', function(t)\n\tt:expect(t:dispatch('E', 1)):equals(1)\nend)\n",
        ),
        ("b.test.luau", "local x = = 1"),
        ("c.test.luau", "return 1"),
    ]);
    let finished = run_tests(&folder, &["--json"]);
    assert_eq!(finished.code(), 1, "{finished:?}");
    let tests = finished.json()[0]["tests"].clone();
    let message = |number: usize| tests[number]["error"]["message"].as_str().unwrap_or_default();
    let line = |number: usize| &tests[number]["error"]["line"];
    assert!(message(0).starts_with("budget exceeded: more than 64 MiB"), "{tests:#}");
    assert!(message(1).starts_with("budget exceeded: more than 30 s of wall time"), "{tests:#}");
    assert!(message(2).contains("t:advance(seconds) moves the clock"), "{tests:#}");
    assert_eq!((line(0), line(1), line(2)), (&json!(1), &json!(6), &json!(9)));
    assert_eq!(tests[3]["ok"], json!(true), "{tests:#}");
    assert!(message(4).starts_with("Expected identifier"), "{tests:#}");
    assert_eq!(message(5), "there is no test in it", "{tests:#}");
}

#[test]
fn each_test_has_a_world_and_a_clock_of_its_own() {
    assert_passes(
        "return function(ctx)
            local event = ctx:event()
            if event.name == 'Later' then
                task.delay(25, ctx.KV.set, ctx.KV, 'late', timestamp.now(), { 's' })
            elseif event.name == 'Wait' then
                return task.wait(event.data)
            end
            return ctx.KV:update('n', { 's' }, function(n) return (n or 0) + 1 end)
        end",
        "local began = '2026-01-01T00:00:00Z'
        for round = 1, 2 do
            test(`round {round}`, function(t)
                t:expect(tostring(t:now())):equals(began)
                t:expect(t:dispatch('Count')):equals(1)
                t:expect(t:dispatch('Count')):equals(2)
                t:expect(t:as('user:1'):dispatch('Count')):equals(1)
                t:advance(3600)
                t:expect(timestamp.now()):equals(t:now())
                t:dispatch('Count')
                local record = t.KV:getrecord('n', { 's' })
                t:expect((record.last_updated_at - record.created_at).seconds):equals(3600)
                t:expect(t:dispatch('Wait', 29)):equals(29)
                t:dispatch('Later')
                t:advance(24.5)
                t:expect(t.KV:get('late', { 's' })):equals(nil)
                t:advance(0.5)
                t:expect(t.KV:get('late', { 's' })):equals(timestamp.from(t:now().unix - 25))
            end)
        end",
    );
}

#[test]
fn a_test_reaches_all_that_a_template_does() {
    assert_passes(
        "return function(ctx)
            local event = ctx:event()
            if event.name == 'Send' then
                ctx.Messages:send(event.data, 'hello', { n = 1 })
            elseif event.name == 'TenantMessage' then
                ctx.Feed:publish('got', event.data.from)
            elseif event.name == 'Only' then
                ctx.Runtime:settenantstate({ events = { 'Only' } })
            end
            return event.author
        end",
        "test('messages', function(t)
            local other = t:as('user:2')
            t:expect(function() t:dispatch('Send', 'user:2') end):fails('not_allowed')
            other.Messages:allow({ from = 'guild:1', topics = { '' } })
            t:dispatch('Send', 'user:2')
            t:expect(other:published()):equals({ { topic = 'got', data = 'guild:1' } })
            t:expect(other:published()):equals({})
        end)
        test('authors, subscriptions and values', function(t)
            t:expect(t:dispatch('E', nil, '7')):equals('7')
            t:dispatch('Only', nil, '7')
            t:expect(t:dispatch('E', nil, '7')):equals(nil)
            t:expect(t.Runtime:gettenantstate().events):equals({ 'Only' })
            t.KV:set('k', { at = t:now(), big = integer.parse('9007199254740993'), nothing = null }, { 's' })
            t:expect(1):differs(2)
            local kept = t.KV:get('k', { 's' })
            t:expect(kept):equals({ at = t:now(), big = integer.parse('9007199254740993'), nothing = null })
            t:expect(t.KV:list_scopes()):equals({ 's' })
            t:expect({ 1, { a = 2, b = 3 } }):contains({ a = 2, b = 3 })
            t:expect({ a = 2, b = 3 }):contains({ a = 2 })
        end)",
    );
}

#[test]
fn mistakes_in_tests_are_told_to_their_authors() {
    let mistakes = [
        ("t.dispatch('E')", "call it with a colon: t:dispatch(…)"),
        ("t:expect(1).equals(1)", "call it with a colon: t:expect(…):equals(…)"),
        ("t:expect(t:dispatch('E')):fails('x')", "fails needs a function that makes the call"),
        ("t:dispatch('E', {}, 7)", "the author is a user's id, which is a text"),
        ("t:advance('5')", "the clock moves by seconds, which are a number"),
        ("t:put_entry({ key = 'a' })", "missing field `scope`"),
        ("t:dispatch('Add')", "main.luau:7: an interval was expected, such as interval.from(60)"),
        ("t:dispatch('From')", "main.luau:9: a number was expected, not string"),
        ("t:dispatch('Member')", "main.luau:11: attempt to get an unknown field 'nope'"),
    ];
    let tests: String =
        mistakes.iter().map(|(code, _)| format!("test('x', function(t) {code} end)\n")).collect();
    let main = "return function(ctx)\n\
                \tlocal name = ctx:event().name\n\
                \tif name == 'E' then\n\
                \t\tprint(ctx:event().data, {})\n\
                \t\treturn nil\n\
                \telseif name == 'Add' then\n\
                \t\treturn timestamp.now() + 5\n\
                \telseif name == 'From' then\n\
                \t\treturn timestamp.from('x')\n\
                \tend\n\
                \treturn timestamp.now().nope\n\
                end\n\
                -- E {\"a\": [1, null]} answers null\n\
                -- E [] answers null\n";
    let folder = directory(&[("main.luau", main), ("a.test.luau", &tests)]);
    let finished = run_tests(&folder, &["--json"]);
    let outcomes = finished.json()[0]["tests"].clone();
    for (number, (code, expected)) in mistakes.iter().enumerate() {
        let message = outcomes[number]["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(expected), "{code}: {message}");
        assert!(!message.contains(" at line ") && !message.contains("mlua"), "{message}");
        assert_eq!(outcomes[number]["line"], json!(number + 1), "{code}");
    }
    let claims = &outcomes[mistakes.len()];
    assert_eq!(claims["name"], "what its comments say of 2 answers");
    let printed = ["guild:1: {\"a\":[1,null]}\\t{}", "guild:1: []\\t{}"];
    assert_eq!(claims["output"], json!(printed), "tables are shown");
}

#[test]
fn fixtures_are_files_of_json_inside_the_directory() {
    let tests = "local function fails(t, name, text)
            t:expect(function() t:fixture(name) end):fails(text)
        end
        test('fixtures', function(t)
            t:expect(t:fixture('one')):equals({ a = null })
            t:expect(t:fixture('fixtures/one.json')):equals({ a = null })
            t:expect(t:fixture('many')):equals({ 1, { 2 } })
            fails(t, 'none', 'there is no fixture sub/none, sub/none.json')
            fails(t, 'bad', 'sub/bad.ndjson:2: expected')
            fails(t, '../../outside', 'outside of the directory')
            fails(t, 'link', 'outside of the directory')
        end)";
    let folder = TempDir::new();
    let root = folder.path().join("templates");
    for (name, text) in [
        ("sub/a.test.luau", tests),
        ("sub/fixtures/one.json", "{\"a\": null}\n"),
        ("sub/many.ndjson", "1\n\n[2]\n"),
        ("sub/bad.ndjson", "1\nx\n"),
        ("../outside.json", "1"),
    ] {
        fs::create_dir_all(root.join(name).parent().expect("in a folder")).expect("make it");
        fs::write(root.join(name), text).expect("write the file");
    }
    let outside = folder.path().join("outside.json");
    std::os::unix::fs::symlink(outside, root.join("sub/link.json")).expect("link");
    let finished = run(&["test", text(&root)]);
    assert_eq!(finished.code(), 0, "{finished:#?}");
}

#[test]
fn without_tests_or_a_directory_there_is_nothing_to_do() {
    let folder = directory(&[("main.luau", "-- It answers nothing\nreturn print")]);
    run_tests(&folder, &[]).expect(2, "nothing to test");
    run(&["test"]).expect(2, "test takes one DIR");
    run(&["test", text(&folder.path().join("none"))]).expect(3, "No such file");
    let passing = directory(&[("a.test.luau", "test('x', function() end)")]);
    run_tests(&passing, &["--junit", "/nowhere/at/all"]).expect(3, "--junit /nowhere/at/all");
}

#[test]
fn files_of_tests_are_no_modules() {
    let folder = directory(&[
        ("main.luau", "return function() return pcall(require, 'x.test') end"),
        ("x.test.luau", "test('it', function(t)\n\tt:expect(t:dispatch('E')):equals(false)\nend)"),
    ]);
    run_tests(&folder, &[]).expect(0, "");
    let check = || run(&["check", "--templates", text(folder.path())]);
    check().expect(0, "");
    fs::write(folder.path().join("x.test.luau"), "tset('it', require('./y'))").expect("write");
    let found = [
        "x.test.luau:1:1: unknown global 'tset'; did you mean 'test'?",
        "x.test.luau:1:20: cannot require \"./y\": there is no such module",
    ];
    assert_eq!(check().stdout, found);
}

#[test]
fn a_directory_that_init_made_passes_its_tests() {
    let folder = TempDir::new();
    let made = folder.path().join("new/templates");
    let said = run(&["init", text(&made)]);
    said.expect(0, "");
    assert!(said.stdout.iter().any(|line| line.contains("mesophyll test")), "{said:?}");
    let passed = run(&["test", text(&made)]);
    passed.expect(0, "");
    assert!(passed.stdout.iter().any(|line| line.starts_with("3 tests passed")), "{passed:?}");
    run(&["check", "--templates", text(&made)]).expect(0, "");
    // The documents show the same settings.
    let docs = include_str!("../../docs/templates.md");
    for settings in [".luaurc", ".vscode/settings.json"] {
        let settings = fs::read_to_string(made.join(settings)).expect("it is made");
        assert!(docs.contains(&settings), "{settings}");
    }
    fs::remove_file(made.join("main.luau")).expect("remove");
    run(&["init", text(&made)]).expect(3, "main.test.luau is there already; nothing was made");
    assert!(!made.join("main.luau").exists());
    run(&["init"]).expect(2, "init takes one DIR");
}

#[test]
fn a_watch_runs_again_when_a_file_changes() {
    let passing = "test('it', function(t)\n\tt:expect(t:fixture('a')):equals(1)\nend)";
    let folder = directory(&[("a.json", "1"), ("a.test.luau", passing)]);
    let watching = Running::start(mesophyll(&["test", text(folder.path()), "--watch"]));
    watching.wait_stdout("1 test passed");
    fs::write(folder.path().join("a.json"), "2 ").expect("write");
    watching.wait_stdout("a.test.luau:2: expected 1, got 2");
    fs::remove_file(folder.path().join("a.test.luau")).expect("remove");
    watching.wait_stderr("nothing to test");
    watching.signal(Signal::INT);
    assert_eq!(watching.wait().code(), 0);
}
