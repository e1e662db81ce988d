//! The routes to tenants' data and standing, over real sockets and a store in memory: what they
//! answer, and each refusal.

use serde_json::{Value, json};

use super::*;
use crate::base::limits::{API_DB_BODY_MAX_BYTES, SOURCE_MAX_BYTES};
use crate::store::Standing;
use crate::wire::data::EncodedJson;

pub(super) fn empty_db() -> Arc<DbState> {
    let db = DbState::new(Arc::new(MemoryStore::new()), DbOptions::default());
    Arc::new(db.expect("a store in memory"))
}

impl Fixture {
    /// Asks as user 42; the answer's status and its body as JSON, null if there is none.
    fn call(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let answer = self.ask(method, target, &authorization(), body.as_bytes());
        let json = if answer.body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&answer.body).expect("JSON")
        };
        (answer.status, json)
    }

    pub(super) fn post(&self, target: &str, body: impl ToString) -> (u16, Value) {
        self.call("POST", target, &body.to_string())
    }

    #[track_caller]
    pub(super) fn refused(
        &self,
        method: &str,
        target: &str,
        body: &str,
        status: u16,
        code: &str,
    ) -> String {
        expect_error(
            &self.ask(method, target, &authorization(), body.as_bytes()),
            status,
            code,
            false,
        )
    }
}

pub(super) const KV: &str = "/i/kv/guild/123";
pub(super) const STATE: &str = "/i/tenant-state/guild/123";
pub(super) const SHOP: &str = "/i/global-kv";

/// Every route with a token, by a call that it answers.
pub(super) const CALLS: &[(&str, &str, &str)] = &[
    ("POST", "/i/message/guild/123", r#"{"topic":"t"}"#),
    ("POST", "/i/run-script/guild/123", r#"{"name":"X","code":""}"#),
    ("POST", "/i/drop-tenant/guild/123", ""),
    ("GET", "/i/tenant/guild/123", ""),
    ("GET", STATE, ""),
    ("PUT", STATE, r#"{"events":[]}"#),
    ("POST", "/i/ban/guild/123", r#"{"banned":false}"#),
    ("POST", KV, r#"{"op":"list_scopes"}"#),
    ("POST", SHOP, r#"{"op":"list"}"#),
    ("POST", "/i/purchase/guild/123", r#"{"scope":"s","key":"abc","version":1}"#),
    ("POST", "/i/guilds-exist", "[]"),
    ("GET", "/i/threads-count", ""),
];

#[test]
fn every_route_wants_a_token_that_is_good() {
    let fixture = serve(config());
    for (method, target, body) in CALLS {
        let ask = |header: &str| fixture.ask(method, target, header, body.as_bytes());
        expect_error(&ask(""), 401, "NoAuthToken", false);
        let expired = expect_error(
            &ask(&format!("Authorization: Internal {}\r\n", token(42, -1))),
            401,
            "InvalidToken",
            false,
        );
        assert!(expired.contains("expired"), "{expired}");
        expect_error(&ask("Authorization: Internal 1.2.3\r\n"), 401, "InvalidToken", false);
        let wrong = if *method == "POST" { "GET" } else { "DELETE" };
        expect_error(&fixture.ask(wrong, target, "", b""), 405, "MethodNotAllowed", false);
    }
    assert!(fixture.seen_rx.is_empty(), "nothing got through");
}

#[test]
fn every_route_of_a_tenant_refuses_what_is_none() {
    let fixture = serve(config());
    for (method, target, body) in
        CALLS.iter().filter(|(_, target, _)| target.contains("/guild/123"))
    {
        for tenant in [
            "/role/1",
            "/guild/x",
            "/user/18446744073709551615",
            "/user/99999999999999999999",
            "/guild/+1",
            "/guild/%20",
        ] {
            fixture.refused(method, &target.replace("/guild/123", tenant), body, 400, "BadRequest");
        }
        fixture.refused(method, &format!("{target}?verbose"), body, 400, "BadRequest");
        fixture.refused(method, &format!("{target}/more"), body, 404, "NotFound");
    }
}

#[test]
fn bodies_that_are_not_what_they_should_be_are_refused() {
    let fixture = serve(config());
    let deep = format!(r#"{{"op":"list","scope":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    for (method, target, body) in CALLS.iter().filter(|(_, _, body)| body.starts_with('{')) {
        for wrong in [
            "",
            "null",
            "[]",
            "{",
            "{}}",
            "\"x\"",
            "{\"a\":1}",
            "\u{feff}{}",
            "{\"op\":1}",
            "{'op':'get'}",
            &deep,
        ] {
            fixture.refused(method, target, wrong, 400, "BadRequest");
        }
        let more = format!("{},\"extra\":1}}", &body[..body.len() - 1]);
        assert!(
            fixture.refused(method, target, &more, 400, "BadRequest").contains("\"extra\""),
            "{target}"
        );
        let first = body[1..].split_once(':').expect("a member").0;
        let twice = format!("{{{first}:null,{}", &body[1..]);
        assert!(
            fixture.refused(method, target, &twice, 400, "BadRequest").contains("repeated"),
            "{target}"
        );
        let mut client = fixture.connect();
        client.send(
            format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{}\r\n", authorization()).as_bytes(),
        );
        if *method == "POST" {
            expect_error(&client.answer(), 411, "BadRequest", false);
        }
        let limit =
            if target.contains("run-script") { API_BODY_MAX_BYTES } else { API_DB_BODY_MAX_BYTES };
        let mut client = fixture.connect();
        client.send(head(method, target, &authorization(), limit + 1).as_bytes());
        expect_error(&client.answer(), 413, "TooLarge", false);
    }
    for (method, target, _) in
        CALLS.iter().filter(|(_, target, body)| body.is_empty() && target.contains("guild"))
    {
        assert!(
            fixture.refused(method, target, "{\"a\":1}", 400, "BadRequest").contains("no body"),
            "{target}"
        );
    }
}

#[test]
fn a_script_goes_to_its_tenant_with_its_code_author_and_data() {
    let fixture = serve(config());
    let body = json!({"name": "VALUE", "code": "return ...", "data": {"a": [1, null]}});
    let answer = fixture.post("/i/run-script/user/7?deadline_ms=9000", &body);
    assert_eq!(answer, (200, json!({"n": -1, "b": {"$buffer": "AQI="}})));
    let (tenant, event) = fixture.seen();
    assert_eq!(
        (tenant, event.name.as_str(), event.author.as_deref()),
        (TenantId::User(7), "VALUE", Some("42"))
    );
    let EventData::Json(data) = event.data else { panic!("plain JSON") };
    assert_eq!(json::json_from_encoded(&data).expect("JSON"), r#"{"a":[1,null]}"#);
    let job = fixture.pool.last_job.lock().expect("a lock").take();
    assert!(
        matches!(job, Some(Job::RunScript { name, code, .. }) if name == "VALUE" && code == "return ...")
    );
    for (name, status, code, sent) in [
        ("SCRIPT", 422, "ScriptError", true),
        ("BUSY", 503, "Busy", false),
        ("NO_WORKER", 503, "NoWorker", false),
        ("OUTCOME_UNKNOWN", 502, "OutcomeUnknown", true),
        ("BANNED", 403, "Banned", false),
        ("DEADLINE", 504, "Deadline", false),
    ] {
        let body = json!({"name": name, "code": ""}).to_string();
        let answer = fixture.ask("POST", "/i/run-script/user/7", &authorization(), body.as_bytes());
        expect_error(&answer, status, code, sent);
    }
    let script = |code: usize| json!({"name": "X", "code": " ".repeat(code)}).to_string();
    assert_eq!(fixture.post("/i/run-script/user/7", script(SOURCE_MAX_BYTES)).0, 200);
    fixture.refused("POST", "/i/run-script/user/7", &script(SOURCE_MAX_BYTES + 1), 413, "TooLarge");
    fixture.refused("POST", "/i/run-script/user/7", r#"{"name":"X"}"#, 400, "BadRequest");
    fixture.refused("POST", "/i/run-script/user/7", r#"{"code":""}"#, 400, "BadRequest");
}

#[test]
fn a_tenant_is_dropped_and_whoever_cannot_be_is_told() {
    let fixture = serve(config());
    assert_eq!(fixture.post("/i/drop-tenant/guild/5", ""), (204, Value::Null));
    assert_eq!(fixture.seen().0, TenantId::Guild(5));
    fixture.refused("POST", "/i/drop-tenant/user/404", "", 503, "NoWorker");
    let mut client = fixture.connect();
    client.send(
        format!("POST /i/drop-tenant/guild/6 HTTP/1.1\r\nHost: x\r\n{}\r\n", authorization())
            .as_bytes(),
    );
    assert_eq!(client.answer().status, 204, "no body needs no length");
}

#[test]
fn a_state_reads_back_and_is_told_to_who_listens() {
    let fixture = serve(config());
    let (told_tx, told_rx) = unbounded();
    fixture.db.on_tenant_state(Box::new(move |tenant, state| {
        drop(told_tx.send((tenant, state.clone())))
    }));
    fixture.refused("GET", STATE, "", 404, "NotFound");
    let body =
        json!({"events": ["B", "A", "A"], "data": {"z": 1, "a": [null, 18446744073709551615_u64]}});
    assert_eq!(fixture.call("PUT", STATE, &body.to_string()), (204, Value::Null));
    let state =
        json!({"events": ["A", "B"], "data": {"a": [null, 18446744073709551615_u64], "z": 1}});
    assert_eq!(fixture.call("GET", STATE, ""), (200, state));
    let (tenant, told) = told_rx.recv_timeout(PATIENCE).expect("the listener is told");
    assert_eq!((tenant, told.events.len()), (TenantId::Guild(123), 2));
    assert_eq!(fixture.call("PUT", STATE, r#"{"events":[]}"#).0, 204);
    assert_eq!(fixture.call("GET", STATE, "").1, json!({"events": [], "data": null}));
    for (body, status, code) in [
        (r#"{"events":"A"}"#.to_owned(), 400, "BadRequest"),
        (r#"{"data":1}"#.to_owned(), 400, "BadRequest"),
        (r#"{"events":[1]}"#.to_owned(), 400, "BadRequest"),
        (r#"{"events":[],"data":tru}"#.to_owned(), 400, "BadRequest"),
        (r#"{"events":["\u0000"]}"#.to_owned(), 422, "Refused"),
        (json!({"events": vec!["E".repeat(513)]}).to_string(), 422, "Refused"),
        (
            json!({"events": (0..1025).map(|n| n.to_string()).collect::<Vec<_>>()}).to_string(),
            422,
            "Refused",
        ),
        (json!({"events": vec!["A"; 1025]}).to_string(), 422, "Refused"),
        (json!({"events": [], "data": "x".repeat(300 * 1024)}).to_string(), 422, "Refused"),
        (format!(r#"{{"events":[],"data":{}{}}}"#, "[".repeat(40), "]".repeat(40)), 422, "Refused"),
    ] {
        fixture.refused("PUT", STATE, &body, status, code);
    }
    assert_eq!(
        fixture.call("GET", STATE, "").1["events"],
        json!([]),
        "what is refused changes nothing"
    );
}

#[test]
fn records_are_set_read_found_and_deleted_by_staff() {
    let fixture = serve(config());
    let record = |key: &str, scopes: Value, value: Value| json!({"op": "set", "key": key, "scopes": scopes, "value": value});
    let value = json!({"n": 1, "b": {"$buffer": "AQI="}, "t": {"$timestamp": "2024-02-29T12:34:56.123Z"},
        "f": 1.5, "m": {"$map": [[1, "one"]]}, "nan": null, "u": 18446744073709551615_u64});
    assert_eq!(
        fixture.post(KV, record("k", json!(["b", "a", "a"]), value.clone())),
        (204, Value::Null)
    );
    let (status, got) = fixture.post(KV, json!({"op": "get", "key": "k", "scopes": ["a", "b"]}));
    assert_eq!(
        (status, &got["value"], &got["key"], &got["scopes"]),
        (200, &value, &json!("k"), &json!(["a", "b"]))
    );
    let fields: Vec<&String> = got.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["created_at", "id", "key", "last_updated_at", "scopes", "value"]);
    assert!(got["created_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{got}");
    assert_eq!(
        fixture.post(KV, json!({"op": "get", "key": "k", "scopes": ["a"]})),
        (200, Value::Null)
    );
    // What is closed to scripts.
    for scope in ["template", "#err"] {
        assert_eq!(fixture.post(KV, record("main", json!([scope]), json!("return 1"))).0, 204);
    }
    assert_eq!(
        fixture.post(KV, json!({"op": "list_scopes"})),
        (200, json!(["#err", "a", "b", "template"]))
    );
    let keys = |found: &Value| -> Vec<String> {
        found
            .as_array()
            .expect("a list")
            .iter()
            .map(|record| record["key"].as_str().expect("a key").to_owned())
            .collect()
    };
    let (_, found) =
        fixture.post(KV, json!({"op": "find", "pattern": "%", "scopes": ["template"]}));
    assert_eq!(keys(&found), ["main"]);
    let (_, found) = fixture.post(KV, json!({"op": "find", "pattern": "%"}));
    assert_eq!(keys(&found), ["k", "main", "main"]);
    assert_eq!(
        fixture.post("/i/kv/user/123", json!({"op": "find", "pattern": "%", "scopes": []})),
        (200, json!([]))
    );
    for _ in 0..2 {
        assert_eq!(
            fixture.post(KV, json!({"op": "delete", "key": "k", "scopes": ["b", "a"]})),
            (204, Value::Null)
        );
    }
    assert_eq!(
        fixture.post(KV, json!({"op": "get", "key": "k", "scopes": ["a", "b"]})),
        (200, Value::Null)
    );
}

#[test]
fn what_a_record_may_not_be_is_refused() {
    let fixture = serve(config());
    for (body, status, code) in [
        (json!({"op": "gte", "key": "k", "scopes": []}), 400, "BadRequest"),
        (json!({"op": "get", "scopes": ["s"]}), 400, "BadRequest"),
        (json!({"op": "get", "key": "k"}), 400, "BadRequest"),
        (json!({"op": "get", "key": 1, "scopes": ["s"]}), 400, "BadRequest"),
        (json!({"op": "get", "key": "k", "scopes": "s"}), 400, "BadRequest"),
        (json!({"op": "list_scopes", "key": "k"}), 400, "BadRequest"),
        (json!({"op": "get", "key": "k", "scopes": vec!["s"; 16_385]}), 400, "BadRequest"),
        (json!({"op": "set", "key": "k", "scopes": ["s"]}), 400, "BadRequest"),
        (
            json!({"op": "set", "key": "k", "scopes": ["s"], "value": {"$unknown": 1}}),
            400,
            "BadRequest",
        ),
        (
            json!({"op": "set", "key": "k", "scopes": ["s"], "value": {"$timezone": "Mars/Phobos"}}),
            400,
            "BadRequest",
        ),
        (
            json!({"op": "set", "key": "k", "scopes": ["s"], "value": {"$float": "nan"}}),
            422,
            "Refused",
        ),
        (json!({"op": "set", "key": "k", "scopes": ["s"], "value": "\0"}), 422, "Refused"),
        (
            json!({"op": "set", "key": "k", "scopes": ["s"], "value": "x".repeat(300 * 1024)}),
            422,
            "Refused",
        ),
        (json!({"op": "set", "key": "", "scopes": ["s"], "value": 1}), 422, "Refused"),
        (json!({"op": "set", "key": "k".repeat(513), "scopes": ["s"], "value": 1}), 422, "Refused"),
        (json!({"op": "set", "key": "k", "scopes": [], "value": 1}), 422, "Refused"),
        (
            json!({"op": "set", "key": "k", "scopes": (0..11).map(|n| n.to_string()).collect::<Vec<_>>(), "value": 1}),
            422,
            "Refused",
        ),
        (json!({"op": "find", "pattern": "a\\"}), 422, "Refused"),
    ] {
        fixture.refused("POST", KV, &body.to_string(), status, code);
    }
    for value in ["1e999", "01", "NaN", "\"\\ud800\"", "[1,]", &"[".repeat(100_000), "-", "1.e5"] {
        let body = format!(r#"{{"op":"set","key":"k","scopes":["s"],"value":{value}}}"#);
        let (status, _) = fixture.post(KV, &body);
        assert!(status == 400 || status == 422, "{status} {}", &value[..value.len().min(20)]);
    }
    let deep = format!(
        r#"{{"op":"set","key":"k","scopes":["s"],"value":{}{}}}"#,
        "[".repeat(40),
        "]".repeat(40)
    );
    fixture.refused("POST", KV, &deep, 422, "Refused");
    assert_eq!(
        fixture.post(KV, json!({"op": "list_scopes"})),
        (200, json!([])),
        "nothing of it was set"
    );
}

#[test]
fn a_long_list_is_sent_in_pieces_within_a_budget() {
    let fixture = serve(config());
    for number in 0..40 {
        let value = "x".repeat(10_000);
        let set =
            json!({"op": "set", "key": format!("k{number:02}"), "scopes": ["s"], "value": value});
        assert_eq!(fixture.post(KV, set).0, 204);
    }
    let find = json!({"op": "find", "pattern": "%"}).to_string();
    let answer = fixture.ask("POST", KV, &authorization(), find.as_bytes());
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    let found: Vec<Value> = serde_json::from_slice(&answer.body).expect("JSON");
    let keys: Vec<&str> = found.iter().filter_map(|record| record["key"].as_str()).collect();
    assert_eq!(keys, (0..40).map(|number| format!("k{number:02}")).collect::<Vec<_>>());
    let fixture = serve(ApiConfig { answers_max_bytes: 80_000, ..config() });
    fixture.refused("POST", KV, &find, 503, "Busy");
    assert_eq!(fixture.post(KV, json!({"op": "get", "key": "k", "scopes": ["s"]})).0, 200);
    let large = fixture.dispatch(GUILD, r#"{"name":"LARGE"}"#);
    expect_error(&large, 503, "Busy", true);
    assert_eq!(large.header("retry-after"), None, "it is not to be done again");
    assert_eq!(fixture.dispatch(GUILD, r#"{"name":"X"}"#).status, 200);
}

#[test]
fn a_ban_is_kept_shown_and_ends_what_runs() {
    let fixture = serve(config());
    let ban = |banned: bool| fixture.post("/i/ban/guild/123", json!({"banned": banned}));
    assert_eq!(ban(true), (204, Value::Null));
    assert_eq!(fixture.seen().0, TenantId::Guild(123));
    assert_eq!(*fixture.pool.last_job.lock().expect("a lock"), Some(Job::DropTenant));
    assert_eq!(fixture.db.standing(TenantId::Guild(123)), Standing::Banned);
    assert_eq!(fixture.call("GET", "/i/tenant/guild/123", "").1["banned"], json!(true));
    assert_eq!(ban(false).0, 204);
    assert_eq!(fixture.call("GET", "/i/tenant/guild/123", "").1["banned"], json!(false));
    assert!(fixture.seen_rx.is_empty(), "lifting a ban ends nothing");
    for body in [r#"{"banned":1}"#, r#"{"banned":"true"}"#, r#"{"banned":null}"#] {
        fixture.refused("POST", "/i/ban/guild/123", body, 400, "BadRequest");
    }
}

#[test]
fn a_ban_is_answered_when_what_ran_has_ended() {
    let fixture = serve(config());
    for (user, status, code) in [(504, 504, "Deadline"), (429, 503, "Busy")] {
        let target = format!("/i/ban/user/{user}");
        let answer = fixture.ask("POST", &target, &authorization(), br#"{"banned":true}"#);
        expect_error(&answer, status, code, true);
        assert_eq!(fixture.db.standing(TenantId::User(user)), Standing::Banned, "it is stored");
    }
    assert_eq!(
        fixture.post("/i/ban/user/404", json!({"banned": true})).0,
        204,
        "where no worker is, nothing runs"
    );
}

#[test]
fn a_tenant_is_shown_with_all_that_it_has() {
    let fixture = serve(ApiConfig { default_events: vec!["A".to_owned()], ..config() });
    let shown = fixture.call("GET", "/i/tenant/user/9", "");
    assert_eq!(
        shown,
        (
            200,
            json!({"tenant": "user:9", "banned": false, "quarantined": false, "state": null, "default_events": ["A"], "template": false,
                "usage": {"records": 0, "bytes": 0}, "quota": {"records": 10_000, "bytes": 67_108_864}})
        )
    );
    assert_eq!(
        fixture.call("PUT", "/i/tenant-state/user/9", r#"{"events":["A"],"data":1}"#).0,
        204
    );
    let set = json!({"op": "set", "key": "main", "scopes": ["template"], "value": "return 1"});
    assert_eq!(fixture.post("/i/kv/user/9", set).0, 204);
    let (_, shown) = fixture.call("GET", "/i/tenant/user/9", "");
    assert_eq!(
        (&shown["state"], &shown["template"]),
        (&json!({"events": ["A"], "data": 1}), &json!(true))
    );
    assert_eq!(shown["usage"]["records"], json!(1));
}

#[test]
fn an_answer_and_its_dispatch_have_one_request_name() {
    let fixture = serve(config());
    let body = br#"{"name":"E","data":null}"#;
    let name_of = |headers: &str, method: &str, target: &str, body: &[u8]| {
        let answer = fixture.ask(method, target, headers, body);
        answer.header("x-request-id").unwrap_or_else(|| panic!("{target}: {answer:?}")).to_owned()
    };
    let request_id =
        || fixture.pool.last_request_id.lock().expect("a lock").expect("submitted").to_string();
    let name = name_of(&authorization(), "POST", "/i/dispatch-event/1", body);
    assert_eq!(name, request_id());
    let chosen = format!("{}X-Request-Id: trace-1\r\n", authorization());
    assert_eq!(name_of(&chosen, "POST", "/i/dispatch-event/1", body), "trace-1");
    assert_ne!(request_id(), name);
    for (method, target) in
        [("GET", "/livez"), ("GET", "/nowhere"), ("POST", "/livez"), ("GET", "/i/workers")]
    {
        assert_eq!(
            name_of("X-Request-Id: trace-2\r\n", method, target, b""),
            "trace-2",
            "{method} {target}"
        );
        assert_eq!(
            name_of("X-Request-Id: a b\r\n", method, target, b"").len(),
            16,
            "{method} {target}"
        );
    }
}

#[test]
fn a_log_level_is_one_of_six_words() {
    let fixture = serve(config());
    let (status, shown) = fixture.call("GET", "/i/log-level", "");
    assert_eq!((status, shown["level"].is_string()), (200, true));
    // The same again: other tests of this process share the level.
    assert_eq!(fixture.call("PUT", "/i/log-level", &shown.to_string()).0, 204);
    for body in [
        "",
        "{}",
        r#"{"level":"loud"}"#,
        r#"{"level":3}"#,
        r#"{"level":"info","worker":1}"#,
        r#""info""#,
    ] {
        assert_eq!(fixture.call("PUT", "/i/log-level", body).0, 400, "{body}");
    }
    assert_eq!(
        fixture.call("PUT", "/i/log-level", &format!(r#"{{"level":"{}"}}"#, "x".repeat(2000))).0,
        413
    );
    assert_eq!(fixture.call("POST", "/i/log-level", r#"{"level":"info"}"#).0, 405);
    assert_eq!(fixture.ask("PUT", "/i/log-level", "", br#"{"level":"info"}"#).status, 401);
    assert_eq!(fixture.call("GET", "/i/log-level", "").1, shown);
}

#[test]
fn guilds_exist_that_have_a_state_or_a_record() {
    let fixture = serve(config());
    let state = crate::wire::data::TenantState {
        events: ["A".to_owned()].into(),
        data: EncodedJson::null(),
    };
    fixture.db.set_tenant_state(TenantId::Guild(1), &state).expect("set");
    fixture.db.set_tenant_state(TenantId::User(3), &state).expect("set");
    assert_eq!(
        fixture
            .post("/i/kv/guild/2", json!({"op": "set", "key": "k", "scopes": ["s"], "value": 1}))
            .0,
        204
    );
    fixture.db.set_standing(TenantId::Guild(4), Standing::Banned).expect("banned");
    let answer = fixture
        .post("/i/guilds-exist", json!(["1", 2.0, 3, "4", 1, "18446744073709551614", "007"]));
    assert_eq!(answer, (200, json!([1, 1, 0, 0, 1, 0, 0])));
    assert_eq!(fixture.post("/i/guilds-exist", "[]"), (200, json!([])));
    for body in [
        "",
        "{}",
        "[null]",
        "[-1]",
        "[1.5]",
        r#"["x"]"#,
        r#"[""]"#,
        "[18446744073709551615]",
        "[1e-3]",
        "[[]]",
        "[1",
    ] {
        fixture.refused("POST", "/i/guilds-exist", body, 400, "BadRequest");
    }
    assert_eq!(fixture.call("GET", "/i/threads-count", ""), (200, json!(1)));
}
