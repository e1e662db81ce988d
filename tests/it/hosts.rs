//! Host processes at a real master: what templates call, and what becomes of it when the process is
//! slow, dies, answers twice, answers garbage or floods.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use mesophyll::api::token::{Secret, mint_serving};
use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, WebSocket};

use crate::support::binary::{Master, Running, SECRET, get, get_with, post, token};
use crate::support::process::eventually;
use crate::support::skip::skipped;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers what the host process does, or the kind of the error.
const TEMPLATE: &str = "return function(ctx)
    local ok, result = pcall(ctx.Host.call, ctx.Host, 'discord.send', ctx:event().data)
    return if ok then { ok = result } else { error = result }
end";

/// A host process.
struct Program {
    socket: WebSocket<TcpStream>,
}

fn connect(master: &Master, authorization: &str) -> Result<WebSocket<TcpStream>, Error> {
    let socket = TcpStream::connect(master.api()).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut request =
        format!("ws://{}/i/host", master.api()).into_client_request().expect("a request");
    let header = format!("Internal {authorization}").parse().expect("a header");
    request.headers_mut().insert("Authorization", header);
    match tungstenite::client::client(request, socket) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

fn serving(user: u64, names: &[&str]) -> String {
    let secret = Secret::new(SECRET.as_bytes()).expect("long enough");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    mint_serving(&secret, user, &names, u64::from(u32::MAX))
}

impl Program {
    fn open(master: &Master, user: u64, names: &[&str]) -> Self {
        Self { socket: connect(master, &serving(user, names)).expect("a WebSocket") }
    }

    /// One that serves these names.
    fn serve(master: &Master, user: u64, names: &[&str], credits: u32) -> Self {
        let mut program = Self::open(master, user, names);
        program.say(&json!({"serve": names, "credits": credits}));
        assert_eq!(program.next(), Ok(json!({"ok": true})));
        program
    }

    fn say(&mut self, line: &Value) {
        self.say_text(&line.to_string());
    }

    fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("sent");
    }

    /// The next line, or the code with which the connection is closed.
    fn next(&mut self) -> Result<Value, u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).expect("JSON")),
                Ok(Message::Close(frame)) => return Err(frame.expect("a code").code.into()),
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next call: its number, and what it is called with.
    fn call(&mut self) -> (u64, Value) {
        let call = self.next().expect("a call");
        assert_eq!((&call["tenant"], &call["name"]), (&json!("guild:1"), &json!("discord.send")));
        assert!(call["deadline_ms"].as_u64() > Some(1000), "{call}");
        (call["id"].as_u64().expect("a number"), call["args"].clone())
    }
}

fn started(args: &[&str]) -> Master {
    let master = Master::start(&[&["--workers", "1"], args].concat());
    master.wait_ready();
    let body = json!({"op": "set", "key": "main", "scopes": ["template"], "value": TEMPLATE});
    let set = post(master.api(), "/i/kv/guild/1", &token(7), &body.to_string());
    assert_eq!(set.0, 204, "{set:?}");
    master
}

/// What the tenant's event answers.
fn dispatched(master: &Master, data: &str) -> Value {
    let (status, answer) = master.dispatch("guild/1", "E", data);
    assert_eq!(status, 200, "{answer}");
    answer
}

fn error_of(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_template_calls_a_program_of_the_owner_s() {
    for args in [&[][..], &["--mode", "thread-pool"]] {
        let master = started(args);
        let refused = dispatched(&master, "null");
        assert!(error_of(&refused).starts_with("not_allowed: "), "{refused}");
        master.command(&["host", "allow", "guild:1", "discord.send"]).expect(0, "");
        assert_eq!(master.command(&["host", "show", "guild:1"]).stdout, ["discord.send"]);
        let refused = dispatched(&master, "null");
        assert!(error_of(&refused).starts_with("no_host: "), "{refused}");
        let mut program = Program::serve(&master, 7, &["discord.send"], 4);
        std::thread::scope(|scope| {
            let event = scope.spawn(|| dispatched(&master, r#"{"text":"hé","to":[1,null]}"#));
            let (id, args) = program.call();
            assert_eq!(args, json!({"text": "hé", "to": [1, null]}));
            program.say(&json!({"id": id, "ok": {"message": "9", "at": null}}));
            let answer = event.join().expect("answered");
            assert_eq!(answer, json!({"ok": {"message": "9", "at": null}}));
            let event = scope.spawn(|| dispatched(&master, "1"));
            let (id, _) = program.call();
            program.say(&json!({"id": id, "error": "no such channel"}));
            assert_eq!(error_of(&event.join().expect("answered")), "failed: no such channel");
        });
        master.command(&["host", "disallow", "guild:1", "discord.send"]).expect(0, "");
        let refused = dispatched(&master, "null");
        assert!(error_of(&refused).starts_with("not_allowed: "), "{refused}");
        let metrics = get(master.api(), "/metrics").1;
        assert!(
            metrics.contains("mesophyll_host_calls_total{outcome=\"answered\"} 1"),
            "{metrics}"
        );
        master.stop().0.expect(0, "");
        let goodbye = program.next().expect("a goodbye");
        assert!(goodbye["goodbye"]["reason"].is_string(), "{goodbye}");
        assert_eq!(program.next(), Err(1001));
    }
}

#[test]
fn one_that_dies_in_the_middle_leaves_its_call_unknown() {
    let master = started(&["--host-allow", "discord.send"]);
    let mut program = Program::serve(&master, 7, &["discord.send"], 4);
    std::thread::scope(|scope| {
        let event = scope.spawn(|| dispatched(&master, "1"));
        program.call();
        drop(program);
        let answer = event.join().expect("answered");
        assert!(error_of(&answer).starts_with("outcome_unknown: "), "{answer}");
    });
    let refused = dispatched(&master, "null");
    assert!(error_of(&refused).starts_with("no_host: "), "{refused}");
    // Another one serves at once.
    let mut program = Program::serve(&master, 7, &["discord.send"], 4);
    std::thread::scope(|scope| {
        let event = scope.spawn(|| dispatched(&master, "1"));
        let (id, _) = program.call();
        program.say(&json!({"id": id, "ok": 2}));
        assert_eq!(event.join().expect("answered"), json!({"ok": 2}));
    });
    master.stop().0.expect(0, "");
}

#[test]
fn garbage_and_floods_of_one_harm_no_other() {
    let master = started(&["--host-allow", "discord.send"]);
    let mut good = Program::serve(&master, 7, &["discord.send"], 4);
    // None of these gets anywhere.
    assert!(connect(&master, &token(7)).is_err(), "a plain token");
    let (status, _) = get_with(master.api(), "/i/workers", &serving(7, &["discord.send"]));
    assert_eq!(status, 401, "it is good for nothing else");
    for (user, names, wants, code) in [
        (8, &["discord.send"][..], json!({"serve": ["discord.send"], "credits": 1}), 4003),
        (7, &["other"], json!({"serve": ["discord.send"], "credits": 1}), 4003),
        (7, &["discord.send"], json!({"serve": ["discord.send"], "credits": 0}), 1008),
        (7, &["discord.send"], json!(7), 1008),
    ] {
        let mut program = Program::open(&master, user, names);
        program.say(&wants);
        assert!(program.next().expect("why")["error"]["message"].is_string());
        assert_eq!(program.next(), Err(code), "{wants}");
    }
    let mut binary = Program::open(&master, 7, &["discord.send"]);
    binary.socket.send(Message::binary(vec![1, 2, 3])).expect("sent");
    assert_eq!(binary.next(), Err(1003));
    // Lines that cannot be read, and answers that no call waits for.
    for (line, count, code) in [("{", 17, 1007), (r#"{"id": 123456, "ok": 1}"#, 65, 1008)] {
        let mut program = Program::serve(&master, 7, &["discord.send"], 1);
        (0..count).for_each(|_| program.say_text(line));
        let closed = loop {
            match program.socket.read() {
                Ok(Message::Close(frame)) => break frame.map(|frame| u16::from(frame.code)),
                Ok(_) => {}
                Err(error) => panic!("{line}: {error}"),
            }
        };
        assert_eq!(closed, Some(code), "{line}");
    }
    std::thread::scope(|scope| {
        let event = scope.spawn(|| dispatched(&master, "1"));
        let (id, _) = good.call();
        // Twice, and then it goes on.
        good.say(&json!({"id": id, "ok": 3}));
        good.say(&json!({"id": id, "ok": 4}));
        assert_eq!(event.join().expect("answered"), json!({"ok": 3}));
        let event = scope.spawn(|| dispatched(&master, "2"));
        let (id, args) = good.call();
        assert_eq!(args, json!(2));
        good.say(&json!({"id": id, "ok": "x".repeat(300 * 1024)}));
        let answer = event.join().expect("answered");
        assert!(error_of(&answer).starts_with("failed: the answer has more than"), "{answer}");
    });
    master.stop().0.expect(0, "");
}

#[test]
fn a_slow_one_holds_up_nobody_else() {
    let master = started(&["--host-allow", "discord.send"]);
    let mut program = Program::serve(&master, 7, &["discord.send"], 64);
    std::thread::scope(|scope| {
        // As many as a tenant may have under way, which are more than there are threads for
        // calls to the database.
        let events: Vec<_> = (0..16)
            .map(|number: u32| {
                scope.spawn({
                    let master = &master;
                    move || dispatched(master, &number.to_string())
                })
            })
            .collect();
        let calls: Vec<_> = (0..16).map(|_| program.call()).collect();
        let one_more = dispatched(&master, "17");
        assert!(error_of(&one_more).starts_with("busy: "), "{one_more}");
        // All of them wait; others' calls to the database do not, and its own do not either.
        let script =
            json!({"name": "s", "code": "local ctx = ... return ctx.KV:find('%', { 's' })"});
        let own = post(master.api(), "/i/run-script/guild/1", &token(7), &script.to_string());
        assert_eq!(own, (200, "[]".to_owned()));
        let since = Instant::now();
        let set = json!({"op": "set", "key": "main", "scopes": ["template"],
            "value": "return function(ctx) return ctx.KV:get('k', { 's' }) == nil end"});
        let set = post(master.api(), "/i/kv/guild/2", &token(7), &set.to_string());
        assert_eq!(set.0, 204);
        assert_eq!(master.dispatch("guild/2", "E", "null"), (200, json!(true)));
        assert!(events.iter().all(|event| !event.is_finished()), "{:?}", since.elapsed());
        for (id, args) in calls {
            program.say(&json!({"id": id, "ok": args}));
        }
        let mut answers: Vec<_> = events
            .into_iter()
            .map(|event| event.join().expect("answered")["ok"].as_u64().expect("a number"))
            .collect();
        answers.sort_unstable();
        assert_eq!(answers, (0..16).collect::<Vec<_>>());
    });
    eventually("nothing is left under way", || {
        let metrics = get(master.api(), "/metrics").1;
        metrics.contains("mesophyll_host_calls_total{outcome=\"answered\"} 16").then_some(())
    });
    master.stop().0.expect(0, "");
}

/// Stands in for Discord: answers requests, one a connection, and notes them.
fn stand_in_for_discord() -> (String, std::sync::mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (seen_tx, seen_rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut is_first = true;
        for socket in listener.incoming() {
            let mut reader = BufReader::new(socket.expect("a connection"));
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_ascii_lowercase());
            }
            let length = lines.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
            reader.read_exact(&mut body).expect("a body");
            let what = lines[0].trim_end_matches(" http/1.1").to_owned();
            let (status, answer) = match what.as_str() {
                "get /channels/9" => (200, r#"{"guild_id": "1"}"#),
                "get /channels/8" => (200, r#"{"guild_id": "2"}"#),
                "post /channels/9/messages" if is_first => {
                    is_first = false;
                    (429, r#"{"retry_after": 0.1}"#)
                }
                "post /channels/9/messages" => (200, r#"{"id": "77"}"#),
                "patch /guilds/1/members/7" => (200, "{}"),
                _ => (404, r#"{"message": "Unknown"}"#),
            };
            let text = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                answer.len()
            );
            reader.get_mut().write_all(text.as_bytes()).expect("answered");
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            if seen_tx.send((what, body)).is_err() {
                return;
            }
        }
    });
    (format!("http://{address}"), seen_rx)
}

#[test]
fn the_example_of_a_host_process_sends_and_mutes() {
    let Some(python) = std::env::var_os("MESOPHYLL_TEST_PYTHON") else {
        let why = "set MESOPHYLL_TEST_PYTHON to a Python that has the package websockets";
        return skipped("the_example_of_a_host_process_sends_and_mutes", why);
    };
    let names = ["discord.send", "discord.mute"];
    let master = started(&["--host-allow", "discord.send", "--host-allow", "discord.mute"]);
    let template = "return function(ctx)
        local ok, result = pcall(ctx.Host.call, ctx.Host, ctx:event().name, ctx:event().data)
        return if ok then { ok = result } else result
    end";
    let body = json!({"op": "set", "key": "main", "scopes": ["template"], "value": template});
    assert_eq!(post(master.api(), "/i/kv/guild/1", &token(7), &body.to_string()).0, 204);
    let (discord, seen_rx) = stand_in_for_discord();
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/host_discord.py"))
        .env("MESOPHYLL_API", format!("ws://{}", master.api()))
        .env("MESOPHYLL_HOST_TOKEN", serving(7, &names))
        .env("DISCORD_API", discord);
    let program = Running::start(command);
    program.wait_stdout("serving discord.send, discord.mute");
    let call = |name: &str, args: Value| {
        let (status, answer) = master.dispatch("guild/1", name, &args.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let sent = call("discord.send", json!({"channel": "9", "text": "hello"}));
    assert_eq!(sent, json!({"ok": "77"}));
    let muted = call("discord.mute", json!({"user": "7", "seconds": 60}));
    assert_eq!(muted, json!({}), "nothing");
    for (args, why) in [
        (json!({"channel": "8", "text": "hello"}), "failed: this channel is not of your guild"),
        (json!({"channel": "5", "text": "hello"}), "failed: Discord says 404: Unknown"),
        (json!({"channel": 9, "text": "hello"}), "failed: channel is an id, a text of digits"),
    ] {
        assert_eq!(call("discord.send", args), json!(why));
    }
    let seen: Vec<_> = std::iter::from_fn(|| seen_rx.try_recv().ok()).collect();
    let asked: Vec<_> = seen.iter().map(|(what, _)| what.as_str()).collect();
    let send = "post /channels/9/messages";
    let expected = [
        "get /channels/9",
        send,
        send,
        "patch /guilds/1/members/7",
        "get /channels/8",
        "get /channels/5",
    ];
    assert_eq!(asked, expected, "asked again after 429, and nothing else");
    assert_eq!(seen[2].1["content"], "hello");
    assert_eq!(seen[2].1["allowed_mentions"], json!({"parse": ["users"]}));
    program.signal(Signal::TERM);
    master.stop().0.expect(0, "");
}
