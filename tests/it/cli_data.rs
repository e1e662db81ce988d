//! The commands for tenants' data, as an operator types them, against a running master: what they
//! print, what they change, and what they say when something is wrong.

use serde_json::{Value, json};

use crate::support::binary::{Finished, Master, Running, mesophyll, token, write};
use crate::support::process::own_port;

/// The one line of a command that succeeded.
#[track_caller]
fn line(finished: &Finished) -> &str {
    finished.expect(0, "");
    assert_eq!(finished.stdout.len(), 1, "{finished:?}");
    &finished.stdout[0]
}

/// Checks that a command succeeded and had nothing to say.
#[track_caller]
fn quiet(finished: &Finished) {
    finished.expect(0, "");
    assert_eq!(finished.stdout, Vec::<String>::new(), "{finished:?}");
}

#[test]
fn a_script_runs_in_the_vm_of_its_tenant() {
    let master = Master::start(&[]);
    let folder = master.folder.path().to_owned();
    let file = write(
        &folder,
        "sum.luau",
        "local ctx = ...\nreturn ctx:event().data.a + ctx:event().data.b\n",
    );
    let file = file.to_str().expect("a plain path");
    assert_eq!(line(&master.command(&["run-script", "guild:1", file, r#"{"a": 1, "b": 2}"#])), "3");
    let with_json =
        master.command(&["run-script", "guild:1", file, r#"{"a": 1, "b": 2}"#, "--json"]);
    assert_eq!(line(&with_json), "3", "asking for JSON is no mistake where there is nothing else");
    let script = "local ctx = ...\nctx.KV:set('n', 5, {'s'})\nreturn {id = ctx.tenant.id, author = ctx:event().author}";
    let result: Value =
        serde_json::from_str(line(&master.command_on(&["run-script", "user:9", "-"], script)))
            .expect("JSON");
    assert_eq!(result["author"], json!("7"));
    assert_eq!(line(&master.command(&["kv", "get", "user:9", "n", "--scope", "s"])), "5");
    // Errors have the script's name and line.
    // What a script says cannot command the terminal.
    let rude = master.command_on(&["run-script", "guild:1", "-"], r#"error("\27[2J\194\155x")"#);
    rude.expect(1, "ScriptError (422): stdin:1: ");
    assert!(!rude.stderr.contains(['\u{1b}', '\u{9b}']), "{rude:?}");
    let rude = master.command_on(&["run-script", "guild:1", "-"], r#"return "\27[2J\194\155x""#);
    assert_eq!(line(&rude), r#""\u001b[2J\u009bx""#);
    let broken = write(&folder, "broken.luau", "\n\nlocal = 1\n");
    let broken = broken.to_str().expect("a plain path");
    master
        .command(&["run-script", "guild:1", broken])
        .expect(1, "ScriptError (422): broken.luau:3:");
    master
        .command_on(&["run-script", "guild:1", "-", "--name", "mine"], "error('no')")
        .expect(1, "mine:1: no");
    master.command(&["run-script", "guild:1", "/nowhere.luau"]).expect(3, "/nowhere.luau: ");
    let large = write(&folder, "large.luau", " ".repeat(192 * 1024 + 1));
    let large = large.to_str().expect("a plain path");
    master.command(&["run-script", "guild:1", large]).expect(3, "larger than 196608 bytes");
    master.command(&["run-script", "guild:1", file, "{"]).expect(2, "DATA is not JSON");
    master
        .command_on(&["run-script", "guild:1", "-", "--deadline", "200ms"], "task.wait(20)")
        .expect(1, "Deadline (504)");
}

#[test]
fn dropping_a_tenant_ends_its_events_and_keeps_its_data() {
    let master = Master::start(&[]);
    master.wait_ready();
    assert_eq!(master.dispatch("guild/1", "COUNT", "null"), (200, json!(1)));
    assert_eq!(master.dispatch("guild/1", "CALLS", "null"), (200, json!(1)));
    assert_eq!(master.dispatch("guild/1", "CALLS", "null"), (200, json!(2)));
    std::thread::scope(|scope| {
        let running = scope
            .spawn(|| master.dispatch("guild/1", "WAIT", r#"{"mark":"dropped","seconds":25}"#));
        master.running.wait_stderr("waiting dropped");
        quiet(&master.command(&["drop-tenant", "guild:1"]));
        let (status, body) = running.join().expect("an answer");
        assert!(status >= 400, "{status} {body}");
    });
    assert_eq!(master.dispatch("guild/1", "CALLS", "null"), (200, json!(1)), "a new VM");
    assert_eq!(
        line(&master.command(&["dispatch", "guild:1", "COUNT", "--json"])),
        "2",
        "the data stayed"
    );
    quiet(&master.command(&["drop-tenant", "guild:1", "--json"]));
}

#[test]
fn subscriptions_change_what_a_running_tenant_hears_at_once() {
    for mode in ["process-pool", "thread-pool"] {
        let master = Master::start(&["--default-events", "ECHO,COUNT", "--mode", mode]);
        master.wait_ready();
        let hears = |name: &str| master.dispatch("guild/1", name, "[1]").1 != Value::Null;
        assert!(hears("ECHO") && hears("COUNT") && !hears("BYTES"), "{mode}");
        let said = master.command(&["tenant", "subscribe", "guild:1", "BYTES"]);
        assert_eq!(line(&said), "guild:1 is subscribed to BYTES, COUNT, ECHO");
        assert!(hears("ECHO") && hears("BYTES"), "{mode}");
        let said = master.command(&["tenant", "unsubscribe", "guild:1", "ECHO", "COUNT"]);
        assert_eq!(line(&said), "guild:1 is subscribed to BYTES");
        assert!(!hears("ECHO") && hears("BYTES"), "{mode}");
        master
            .command(&["tenant", "unsubscribe", "guild:1", "NONE"])
            .expect(0, "it was not subscribed to NONE");
        master
            .command(&["tenant", "subscribe", "guild:1"])
            .expect(2, "tenant takes show TENANT | subscribe");
    }
}

#[test]
fn a_tenant_is_shown_and_banned() {
    let master = Master::start(&[]);
    master.wait_ready();
    assert_eq!(master.dispatch("user/5", "COUNT", "null"), (200, json!(1)));
    let shown = master.command(&["tenant", "show", "user:5"]);
    shown.expect(0, "");
    for says in [
        "tenant     user:5",
        "standing   good",
        "events     * (by default: it has no state)",
        "template   the templates directory's",
        "records    1 of 10000",
    ] {
        assert!(shown.stdout.iter().any(|line| line == says), "{says:?} is not in {shown:?}");
    }
    assert_eq!(line(&master.command(&["tenant", "ban", "user:5"])), "user:5 is banned");
    let (status, body) = master.dispatch("user/5", "ECHO", "1");
    assert_eq!((status, &body["code"]), (403, &json!("Banned")));
    master.command_on(&["run-script", "user:5", "-"], "return 1").expect(1, "Banned (403)");
    let shown: Value =
        serde_json::from_str(line(&master.command(&["tenant", "show", "user:5", "--json"])))
            .expect("JSON");
    assert_eq!((&shown["banned"], &shown["usage"]["records"]), (&json!(true), &json!(1)));
    assert_eq!(line(&master.command(&["tenant", "unban", "user:5"])), "user:5 is in good standing");
    assert_eq!(master.dispatch("user/5", "ECHO", "1"), (200, json!(1)));
    master
        .command(&["tenant", "show", "role:5"])
        .expect(2, "\"role:5\": a tenant is written guild:ID or user:ID");
}

#[test]
fn a_tenant_gets_a_template_of_its_own_once_it_compiles() {
    let master = Master::start(&[]);
    master.wait_ready();
    let source = "-- mine: \"ü\"\nreturn function(ctx)\n\treturn 'own ' .. ctx:event().name\nend\n";
    let file = write(master.folder.path(), "own.luau", source);
    let file = file.to_str().expect("a plain path");
    master
        .command(&["template", "show", "guild:1"])
        .expect(1, "guild:1 has no template of its own");
    quiet(&master.command(&["template", "set", "guild:1", file]));
    assert_eq!(master.dispatch("guild/1", "HELLO", "null"), (200, json!("own HELLO")));
    assert_eq!(master.dispatch("guild/2", "HELLO", "null"), (200, json!("guild HELLO")));
    let shown = master.command(&["template", "show", "guild:1"]);
    assert_eq!(shown.stdout.join("\n") + "\n", source);
    // What does not compile changes nothing.
    let broken = master.command_on(
        &["template", "set", "guild:1", "-"],
        "return function(ctx)\n  return (\nend\n",
    );
    broken.expect(1, "stdin:3: ");
    broken.expect(1, "nothing was changed");
    let large = " ".repeat(192 * 1024 + 1);
    master
        .command_on(&["template", "set", "guild:1", "-"], &large)
        .expect(3, "stdin: it is larger than");
    let largest = format!("return 1{}", " ".repeat(192 * 1024 - 8));
    quiet(&master.command_on(&["template", "set", "guild:3", "-"], &largest));
    assert_eq!(master.command(&["template", "show", "guild:1"]).stdout.join("\n") + "\n", source);
    let shown = master.command(&["tenant", "show", "guild:1"]);
    assert!(shown.stdout.iter().any(|line| line == "template   its own"), "{shown:?}");
    // Several modules, of which one is required late.
    let game = master.folder.path().join("game");
    std::fs::create_dir_all(game.join("lib")).expect("a folder");
    let main = "return function() return require('lib/words').hello end\n";
    write(&game, "main.luau", main);
    write(&game, "main.test.luau", "no module");
    write(&game.join("lib"), "words.luau", "return { hello = 'modules' }");
    let game = game.to_str().expect("a plain path");
    quiet(&master.command(&["template", "set", "guild:1", game]));
    assert_eq!(master.dispatch("guild/1", "HELLO", "null"), (200, json!("modules")));
    let shown = master.command(&["template", "show", "guild:1", "main"]);
    assert_eq!(shown.stdout.join("\n") + "\n", main);
    let all = master.command(&["template", "show", "guild:1"]).stdout;
    assert!(all.contains(&"-- lib/words.luau".to_owned()), "{all:?}");
    master
        .command(&["template", "show", "guild:1", "none"])
        .expect(1, "guild:1 has no module none of its own");
    let history = master.command(&["template", "history", "guild:1"]).stdout;
    let columns = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = history.iter().map(columns).collect();
    assert_eq!(rows[0], ["VERSION", "UNTIL", "MODULES", "BYTES"]);
    assert_eq!((&*rows[1][0], &*rows[1][2]), ("1", "1"), "{history:?}");
    assert_eq!((&*rows[2][0], &*rows[2][1], &*rows[2][2]), ("2", "now", "2"), "{history:?}");
    quiet(&master.command(&["template", "rollback", "guild:1"]));
    assert_eq!(master.dispatch("guild/1", "HELLO", "null"), (200, json!("own HELLO")));
    // Names that nothing could require, and a broken module, change nothing.
    let folder = std::path::Path::new(game);
    write(folder, "a:b.luau", "return 1");
    let refused = master.command(&["template", "set", "guild:1", game]);
    refused.expect(1, "\"a:b\" is not the name of a module");
    std::fs::remove_file(folder.join("a:b.luau")).expect("removed");
    write(folder, "broken.luau", "return (");
    master.command(&["template", "set", "guild:1", game]).expect(1, "broken.luau:1: ");
    std::fs::remove_file(folder.join("main.luau")).expect("removed");
    std::fs::remove_file(folder.join("broken.luau")).expect("removed");
    master.command(&["template", "set", "guild:1", game]).expect(1, "there is no main.luau in it");
    assert_eq!(master.dispatch("guild/1", "HELLO", "null"), (200, json!("own HELLO")));
    quiet(&master.command(&["template", "clear", "guild:1"]));
    quiet(&master.command(&["drop-tenant", "guild:1"]));
    assert_eq!(master.dispatch("guild/1", "HELLO", "null"), (200, json!("guild HELLO")));
}

#[test]
fn records_are_read_and_changed_from_the_terminal() {
    let master = Master::start(&["--workers", "1"]);
    let kv = |args: &[&str]| master.command(&[&["kv"], args].concat());
    quiet(&kv(&[
        "set",
        "guild:1",
        "greeting",
        r#"{"text":"hi \u001b[2J"}"#,
        "--scope",
        "b",
        "--scope",
        "a",
    ]));
    quiet(&master.command_on(&["kv", "set", "guild:1", "big", "-", "--scope", "a"], "[1,\n2,3]"));
    assert_eq!(line(&kv(&["get", "guild:1", "big", "--scope", "a"])), "[1,2,3]");
    let record: Value = serde_json::from_str(line(&kv(&[
        "get", "guild:1", "greeting", "--scope", "a", "--scope", "b", "--json",
    ])))
    .expect("JSON");
    assert_eq!((&record["key"], &record["scopes"]), (&json!("greeting"), &json!(["a", "b"])));
    kv(&["get", "guild:1", "greeting", "--scope", "a"])
        .expect(1, "there is no such record; `kv find` shows");
    let found = kv(&["find", "guild:1", "%", "--scope", "a"]);
    found.expect(0, "");
    assert_eq!(found.stdout.len(), 3, "{found:?}");
    assert!(found.stdout[0].starts_with("KEY       SCOPES  UPDATED"), "{found:?}");
    assert!(found.stdout[2].starts_with("greeting  a,b"), "{found:?}");
    assert!(!found.stdout.join("").contains('\u{1b}'), "no escape reaches the terminal");
    let found: Value =
        serde_json::from_str(line(&kv(&["find", "guild:1", "GREET%", "--json"]))).expect("JSON");
    assert_eq!(found.as_array().map(Vec::len), Some(1));
    kv(&["find", "guild:1", "nothing%"]).expect(0, "no record matches");
    quiet(&kv(&["set", "guild:2", "negative", "-5", "--scope", "a"]));
    assert_eq!(line(&kv(&["get", "guild:2", "negative", "--scope", "a"])), "-5");
    assert_eq!(kv(&["scopes", "guild:1"]).stdout, ["a", "b"]);
    quiet(&kv(&["delete", "guild:1", "big", "--scope", "a"]));
    kv(&["get", "guild:1", "big", "--scope", "a"]).expect(1, "there is no such record");
    for (args, code, says) in [
        (&["get", "guild:1", "k"][..], 2, "--scope is missing"),
        (&["set", "guild:1", "k", "hello", "--scope", "s"], 2, "a text needs its quotes"),
        (&["set", "guild:1", "k"], 2, "kv takes get TENANT KEY"),
        (&["find", "guild:1", "\\"], 1, "Refused (422): a pattern must not end"),
        (&["set", "guild:1", "", "1", "--scope", "s"], 1, "Refused (422): a key has"),
        (&["scopes", "guild"], 2, "\"guild\": a tenant is written"),
    ] {
        kv(args).expect(code, says);
    }
}

#[test]
fn the_shop_is_looked_after_from_the_terminal() {
    let master = Master::start(&["--workers", "1"]);
    let shop = |args: &[&str]| master.command(&[&["global-kv"], args].concat());
    let entry = r#"{"scope":"tags","key":"our.tag","version":1,"short":"ours","data":{"x":[1]}}"#;
    quiet(&master.command_on(&["global-kv", "create", "-"], entry));
    master.command_on(&["global-kv", "create", "-"], entry).expect(1, "Conflict (409)");
    let listed = shop(&["list", "--review-state", "pending"]);
    assert_eq!(listed.stdout.len(), 2, "{listed:?}");
    assert!(
        listed.stdout[1].starts_with("tags   our.tag  1        staff:7  pending  -"),
        "{listed:?}"
    );
    quiet(&shop(&["review", "tags", "our.tag", "1", "approved"]));
    quiet(&shop(&["price", "tags", "our.tag", "1", "500"]));
    quiet(&shop(&["purchase", "guild:1", "tags", "our.tag", "1"]));
    let read = "local ctx = ...\nreturn ctx.GlobalKV:get('our.tag', 1, 'tags').data.type";
    assert_eq!(line(&master.command_on(&["run-script", "guild:1", "-"], read)), "\"Value\"");
    assert_eq!(
        line(&master.command_on(&["run-script", "guild:2", "-"], read)),
        "\"PurchaseRequired\""
    );
    let got: Value =
        serde_json::from_str(line(&shop(&["get", "tags", "our.tag", "1"]))).expect("JSON");
    assert_eq!(
        (&got["price"], &got["data"], &got["review_state"]),
        (&json!(500), &json!({"x": [1]}), &json!("approved"))
    );
    quiet(&shop(&["price", "tags", "our.tag", "1", "none"]));
    quiet(&shop(&["delete", "tags", "our.tag", "1"]));
    shop(&["list"]).expect(0, "no entry matches");
    shop(&["delete", "tags", "our.tag", "1"]).expect(1, "NotFound (404)");
    shop(&["get", "tags", "our.tag", "one"]).expect(2, "VERSION is a whole number");
    shop(&["price", "tags", "our.tag", "1", "much"]).expect(2, "PRICE is a whole number or none");
    master.command_on(&["global-kv", "create", "-"], "[]").expect(3, "it is not a JSON object");
}

#[test]
fn a_token_that_is_not_good_is_told_and_never_shown() {
    let master = Master::start(&["--workers", "1"]);
    let with = |token: &str| {
        let mut command = mesophyll(&["kv", "scopes", "guild:1"]);
        command
            .env("MESOPHYLL_INTERNAL_TOKEN", token)
            .env("MESOPHYLL_API", master.api().to_string());
        let finished = Running::start(command).wait();
        assert!(token.is_empty() || !finished.stderr.contains(token), "{finished:?}");
        finished
    };
    with("7.99999999999.abcdef").expect(
        1,
        "InvalidToken (401): the token is not valid; mesophyll token --user ID mints one",
    );
    with("").expect(3, "that is no token");
    with("a\nb").expect(3, "that is no token");
    with(&token(7)).expect(0, "");
    let file = write(master.folder.path(), "token", format!("{}\n", token(7)));
    let args = ["kv", "scopes", "guild:1", "--token-file", file.to_str().expect("a plain path")];
    quiet(&master.command(&args));
}

#[test]
fn a_closed_stdout_ends_a_command_quietly() {
    let master = Master::start(&["--workers", "1"]);
    for number in 0..30 {
        let key = format!("k{number}");
        let value = format!("\"{}\"", "x".repeat(10_000));
        quiet(&master.command_on(&["kv", "set", "guild:1", &key, "-", "--scope", "s"], &value));
    }
    let mut command = std::process::Command::new("sh");
    let find = format!(
        "'{}' kv find guild:1 --json | head -c 1; exit $?",
        env!("CARGO_BIN_EXE_mesophyll")
    );
    command
        .args(["-c", &find])
        .env("MESOPHYLL_INTERNAL_TOKEN", token(7))
        .env("MESOPHYLL_API", master.api().to_string());
    let finished = Running::start(command).wait();
    finished.expect(0, "");
    assert_eq!((finished.stdout, finished.stderr), (vec!["[".to_owned()], String::new()));
}

#[test]
fn nobody_at_the_address_is_said_with_the_flag_that_says_where() {
    let address = format!("127.0.0.1:{}", own_port());
    let master = Master::start_at(&address, &["--workers", "1"]);
    assert_eq!(master.api().to_string(), address);
    master.stop().0.expect(0, "");
    for args in [
        &["run-script", "guild:1", "/dev/null"][..],
        &["drop-tenant", "guild:1"],
        &["tenant", "show", "guild:1"],
        &["template", "clear", "guild:1"],
        &["kv", "scopes", "guild:1"],
        &["global-kv", "list"],
    ] {
        let mut command = mesophyll(args);
        command.env("MESOPHYLL_INTERNAL_TOKEN", token(7)).env("MESOPHYLL_API", &address);
        let finished = Running::start(command).wait();
        finished.expect(1, &format!("no answer from http://{address}"));
        finished.expect(1, "--api says where");
    }
}
