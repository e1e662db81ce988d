//! The shop's staff, strange requests, backups, the API's description, and a store that is away.

use serde_json::{Value, json};

use super::data::{CALLS, KV, SHOP, STATE};
use super::*;
use crate::store::backup::{FrameReader, Totals};

#[test]
fn staff_publishes_reviews_prices_and_removes_entries() {
    let fixture = serve(config());
    let entry = |op: &str, more: Value| {
        let mut body = json!({"op": op, "scope": "tags", "key": "my.tag", "version": 1});
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        body
    };
    let made = entry(
        "create",
        json!({"short": "one line", "data": {"x": [1]}, "public_metadata": {"m": 1}, "long": "more"}),
    );
    assert_eq!(fixture.post(SHOP, &made), (204, Value::Null));
    fixture.refused("POST", SHOP, &made.to_string(), 409, "Conflict");
    let (_, got) = fixture.post(SHOP, entry("get", json!({})));
    let owner = (&got["owner_type"], &got["owner_id"], &got["review_state"], &got["price"]);
    assert_eq!(owner, (&json!("staff"), &json!("42"), &json!("pending"), &Value::Null));
    assert_eq!(
        (&got["data"], &got["long"], &got["public_metadata"]),
        (&json!({"x": [1]}), &json!("more"), &json!({"m": 1}))
    );
    let listed = |filter: Value| {
        let mut body = json!({"op": "list"});
        body.as_object_mut()
            .expect("an object")
            .extend(filter.as_object().expect("an object").clone());
        fixture.post(SHOP, body).1.as_array().expect("a list").len()
    };
    assert_eq!(
        (
            listed(json!({})),
            listed(json!({"review_state": "pending"})),
            listed(json!({"review_state": "approved"}))
        ),
        (1, 1, 0)
    );
    assert_eq!(
        (listed(json!({"scope": "other"})), listed(json!({"scope": "tags", "pattern": "MY%"}))),
        (0, 1)
    );
    assert_eq!(fixture.post(SHOP, entry("review", json!({"review_state": "approved"}))).0, 204);
    assert_eq!(fixture.post(SHOP, entry("price", json!({"price": 500}))).0, 204);
    let (_, got) = fixture.post(SHOP, entry("get", json!({})));
    assert_eq!((&got["review_state"], &got["price"]), (&json!("approved"), &json!(500)));
    let bought = json!({"scope": "tags", "key": "my.tag", "version": 1});
    assert_eq!(fixture.post("/i/purchase/guild/5", &bought), (204, Value::Null));
    let at = crate::store::global::GlobalAddress {
        scope: "tags".to_owned(),
        key: "my.tag".to_owned(),
        version: 1,
    };
    let read =
        fixture.db.global_get(Some(TenantId::Guild(5)), &at).expect("read").expect("approved");
    assert!(matches!(read.data, crate::wire::data::GlobalKvData::Value { .. }), "it is paid for");
    assert_eq!(fixture.post(SHOP, entry("price", json!({"price": null}))).0, 204);
    assert_eq!(fixture.post(SHOP, entry("delete", json!({}))), (204, Value::Null));
    for (body, status, code) in [
        (entry("delete", json!({})), 404, "NotFound"),
        (entry("get", json!({})), 404, "NotFound"),
        (entry("review", json!({"review_state": "approved"})), 404, "NotFound"),
        (entry("review", json!({"review_state": ""})), 422, "Refused"),
        (entry("review", json!({})), 400, "BadRequest"),
        (entry("price", json!({})), 400, "BadRequest"),
        (entry("price", json!({"price": -1})), 422, "Refused"),
        (entry("price", json!({"price": 1.5})), 400, "BadRequest"),
        (entry("price", json!({"price": u64::MAX})), 400, "BadRequest"),
        (entry("get", json!({"version": 2_147_483_648_u64})), 400, "BadRequest"),
        (entry("get", json!({"key": "a"})), 422, "Refused"),
        (entry("sell", json!({})), 400, "BadRequest"),
        (json!({"op": "list", "pattern": "\\"}), 422, "Refused"),
        (json!({"op": "list", "version": 1}), 400, "BadRequest"),
    ] {
        fixture.refused("POST", SHOP, &body.to_string(), status, code);
    }
    fixture.refused("POST", "/i/purchase/guild/5", &bought.to_string(), 404, "NotFound");
}

#[test]
fn requests_that_are_strange_are_answered_for_what_they_are() {
    let fixture = serve(config());
    let get = r#"{"op":"get","key":"k","scopes":["s"]}"#;
    // A path is decoded before it is looked at, once, and says one thing.
    for (target, status) in [
        ("/i/kv/guild/007", 200),
        ("/i/kv/gu%69ld/%37", 200),
        ("/i/kv/guild/7?", 200),
        ("/i/kv/guild/%2531", 400),
        ("/i/kv/guild/1%2f2", 400),
        ("/i/kv/guild/1/../2", 400),
        ("/i/kv//guild/1", 400),
        ("/i/kv/guild/1;x", 400),
        ("/i/kv/guild/%00", 400),
        ("/i/kv/guild/%ff", 400),
        ("http://x/i/kv/guild/1", 200),
        ("ftp://x/i/kv/guild/1", 400),
        ("/i/kv/guild/1/", 404),
    ] {
        assert_eq!(fixture.post(target, get).0, status, "{target}");
    }
    // What a body is said to be does not matter; what it is does.
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
    {
        let header = format!("{}Content-Type: {kind}\r\n", authorization());
        assert_eq!(fixture.ask("POST", KV, &header, get.as_bytes()).status, 200, "{kind}");
    }
    for body in [
        format!("\u{feff}{get}"),
        format!("{get}\0"),
        get.repeat(2),
        format!("/* x */{get}"),
        get.replace('"', "'"),
    ] {
        fixture.refused("POST", KV, &body, 400, "BadRequest");
    }
    let not_text = fixture.ask(
        "POST",
        KV,
        &authorization(),
        b"{\"op\":\"get\",\"key\":\"\xff\",\"scopes\":[\"s\"]}",
    );
    expect_error(&not_text, 400, "BadRequest", false);
    let members: Vec<String> = (0..10_000).map(|number| format!("\"a{number}\":1")).collect();
    fixture.refused("POST", KV, &format!("{{{}}}", members.join(",")), 400, "BadRequest");
    for bracket in ["[", "{\"a\":"] {
        let deep = bracket.repeat(50_000);
        for body in [
            format!(r#"{{"op":"set","scopes":["s"],"key":"k","value":{deep}"#),
            format!(r#"{{"op":"set","scopes":["s"],"value":1,"key":{deep}1}}"#),
            format!(r#"{{"op":"get","key":"k","scopes":{deep}"#),
        ] {
            fixture.refused("POST", KV, &body, 400, "BadRequest");
        }
        fixture.refused("POST", "/i/guilds-exist", &format!("[{deep}"), 400, "BadRequest");
        fixture.refused(
            "PUT",
            STATE,
            &format!(r#"{{"events":[],"data":{deep}"#),
            400,
            "BadRequest",
        );
    }
    for (method, status) in
        [("HEAD", 200), ("OPTIONS", 405), ("TRACE", 405), ("get", 405), ("PATCH", 405)]
    {
        assert_eq!(
            fixture.ask(method, "/i/tenant/guild/1", &authorization(), b"").status,
            status,
            "{method}"
        );
    }
    // Several requests in one piece are answered one after the other.
    let mut client = fixture.connect();
    let ask = |method: &str, target: &str, body: &str| {
        head(method, target, &authorization(), body.len()) + body
    };
    let all =
        [ask("POST", KV, get), ask("POST", "/nowhere", "x"), ask("GET", "/i/threads-count", "")]
            .concat();
    client.send(all.as_bytes());
    let statuses = [client.answer().status, client.answer().status, client.answer().status];
    assert_eq!(statuses, [200, 404, 200]);
}

#[test]
fn a_backup_is_streamed_and_the_next_one_may_follow() {
    let fixture = serve(config());
    for number in 0..100 {
        let set = json!({"op": "set", "key": format!("k{number}"), "scopes": ["s"], "value": "x".repeat(2000)});
        assert_eq!(fixture.post(KV, set).0, 204);
    }
    assert_eq!(fixture.post("/i/ban/user/5", json!({"banned": true})).0, 204);
    for _ in 0..2 {
        let answer = fixture.ask("GET", "/i/store-backup", &authorization(), b"");
        assert_eq!((answer.status, answer.header("transfer-encoding")), (200, Some("chunked")));
        let mut frames = FrameReader::new(&answer.body[..]);
        while frames.next().expect("a whole backup").is_some() {}
        assert_eq!(
            frames.seen(),
            Totals { states: 1, records: 100, entries: 0, purchases: 0, timers: 0 }
        );
    }
    // A caller that has begun one and does not read it holds up the next one only.
    let large = json!({"op": "set", "key": "large", "scopes": ["s"], "value": "x".repeat(250_000)})
        .to_string();
    for tenant in 0..80 {
        assert_eq!(fixture.post(&format!("/i/kv/guild/{tenant}"), &large).0, 204);
    }
    // Not before: a caller that is silent for so long is closed.
    let mut stalled = fixture.connect();
    stalled.send(head("GET", "/i/store-backup", &authorization(), 0).as_bytes());
    assert!(stalled.head().starts_with("HTTP/1.1 200"));
    fixture.refused("GET", "/i/store-backup", "", 503, "Busy");
    assert_eq!(fixture.post(KV, json!({"op": "list_scopes"})).0, 200);
    drop(stalled);
    let deadline = Instant::now() + PATIENCE;
    while fixture.ask("GET", "/i/store-backup", &authorization(), b"").status != 200 {
        assert!(Instant::now() < deadline, "its turn never ends");
    }
}

#[test]
fn the_api_describes_itself_to_anyone() {
    let fixture = serve(config());
    let answer = fixture.ask("GET", "/openapi.json", "", b"");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let description: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(description["openapi"], json!("3.1.0"));
    let kv = &description["paths"]["/i/kv/{tenant_type}/{tenant_id}"]["post"];
    assert_eq!(kv["security"], json!([{"internalToken": []}]));
    assert!(kv["responses"]["422"].is_object() && kv["requestBody"].is_object(), "{kv}");
}

#[test]
fn a_store_that_is_away_is_unavailable() {
    let fixture = serve(config());
    fixture.db.close();
    for (method, target, body) in CALLS.iter().filter(|(_, target, _)| {
        ["run-", "drop-", "threads", "message"].iter().all(|word| !target.contains(word))
    }) {
        if *method == "GET" && *target == STATE {
            // From memory: it is known without the store.
            fixture.refused(method, target, body, 404, "NotFound");
            continue;
        }
        fixture.refused(method, target, body, 503, "Unavailable");
    }
}
