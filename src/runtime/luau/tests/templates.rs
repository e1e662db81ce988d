//! The built-in templates, on the recorded events of examples/.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::support::*;
use crate::dispatch::Job;
use crate::runtime::luau::{LuauConfig, LuauLimits};
use crate::wire::data::TenantId;

const EVENTS: &str = include_str!("../../../../examples/events.ndjson");

fn built_in() -> World {
    World::with_config(LuauConfig { executors: 2, ..LuauConfig::default() })
}

fn submit(world: &World, line: &str) -> (TenantId, Pending) {
    let line: Value = serde_json::from_str(line).expect("a line of JSON");
    let tenant = line["tenant"].as_str().expect("a tenant").parse().expect("a tenant");
    let mut event = event(line["name"].as_str().expect("a name"), &line["data"].to_string());
    event.author = line["author"].as_str().map(str::to_owned);
    (tenant, world.submit(tenant, Job::Dispatch(event)))
}

fn answer(pending: &Pending) -> Value {
    serde_json::from_str(&pending.text().expect("the built-in templates succeed")).expect("JSON")
}

fn ask(world: &World, name: &str, data: &Value) -> Value {
    answer(&world.submit_event(TENANT, name, &data.to_string()))
}

fn say(world: &World, who: &str, content: &str) -> Value {
    ask(
        world,
        "MESSAGE_CREATE",
        &json!({ "content": content, "author": { "id": who, "username": format!("user-{who}") } }),
    )
}

#[test]
fn every_recorded_event_gets_an_answer_that_names_it() {
    let world = built_in();
    for line in EVENTS.lines() {
        let (_, pending) = submit(&world, line);
        let answer = answer(&pending);
        let name = serde_json::from_str::<Value>(line).expect("JSON")["name"].clone();
        assert_eq!(answer["event"], name, "{answer}");
    }
}

#[test]
fn answers_do_not_depend_on_how_many_events_are_under_way() {
    let one_by_one = {
        let world = built_in();
        EVENTS.lines().map(|line| answer(&submit(&world, line).1)).collect::<Vec<_>>()
    };
    for slice in [LuauLimits::default().slice, std::time::Duration::from_micros(50)] {
        let limits = LuauLimits { slice, ..LuauLimits::default() };
        let world =
            World::with_config(LuauConfig { executors: 2, limits, ..LuauConfig::default() });
        let at_once: Vec<_> = EVENTS.lines().map(|line| submit(&world, line)).collect();
        let mut by_tenant: HashMap<TenantId, usize> = HashMap::new();
        for ((tenant, pending), expected) in at_once.iter().zip(&one_by_one) {
            let number = by_tenant.entry(*tenant).or_default();
            *number += 1;
            assert_eq!(&answer(pending), expected, "event {number} of {tenant}");
        }
    }
}

#[test]
fn messages_are_counted_by_author_and_commands_are_answered() {
    let world = built_in();
    assert_eq!(
        say(&world, "1", "hello"),
        json!({ "event": "MESSAGE_CREATE", "author": "user-1", "messages": 1 })
    );
    assert_eq!(say(&world, "2", "hi")["messages"], 1);
    assert_eq!(say(&world, "2", "!count")["reply"], "you have written 2 messages");
    assert_eq!(say(&world, "1", "!top")["reply"], "1. user-1: 2, 2. user-2: 2");
    assert_eq!(say(&world, "2", "!stats")["reply"], "5 messages by 2 authors, 0 joined, 0 left");
    assert_eq!(
        say(&world, "1", "!help")["reply"],
        "commands: !count !help !joins !reactions !stats !top"
    );
    assert_eq!(say(&world, "1", "!help top")["reply"], "!top says who writes most");
    assert_eq!(say(&world, "1", "!nonsense")["reply"], "there is no command !nonsense; try !help");
    assert_eq!(say(&world, "1", "! not one").get("reply"), None);
    let slash = ask(&world, "INTERACTION_CREATE", &json!({ "data": { "name": "stats" } }));
    assert_eq!(slash["reply"], "9 messages by 2 authors, 0 joined, 0 left");
    let bot = json!({ "content": "beep", "author": { "id": "9", "username": "bot", "bot": true } });
    assert_eq!(ask(&world, "MESSAGE_CREATE", &bot)["ignored"], "a bot wrote it");
}

#[test]
fn who_comes_and_goes_is_logged() {
    let world = built_in();
    for (name, user) in
        [("GUILD_MEMBER_ADD", "ann"), ("GUILD_MEMBER_ADD", "bob"), ("GUILD_MEMBER_REMOVE", "ann")]
    {
        ask(&world, name, &json!({ "user": { "username": user } }));
    }
    assert_eq!(say(&world, "1", "!joins")["reply"], "+ann, +bob, -ann");
    let left = ask(&world, "GUILD_MEMBER_REMOVE", &json!({ "user": { "username": "bob" } }));
    assert_eq!(
        left,
        json!({ "event": "GUILD_MEMBER_REMOVE", "user": "bob", "joined": 2, "left": 2 })
    );
}

#[test]
fn reactions_are_tallied() {
    let world = built_in();
    let react = |name: &str, emoji: Value| ask(&world, name, &json!({ "emoji": emoji }));
    let thumb = json!({ "id": null, "name": "👍" });
    assert_eq!(react("MESSAGE_REACTION_ADD", thumb.clone())["count"], 1);
    assert_eq!(react("MESSAGE_REACTION_ADD", thumb.clone())["count"], 2);
    assert_eq!(
        react("MESSAGE_REACTION_ADD", json!({ "id": "7", "name": "own" }))["emoji"],
        "own:7"
    );
    assert_eq!(react("MESSAGE_REACTION_REMOVE", thumb)["count"], 1);
    assert_eq!(react("MESSAGE_REACTION_REMOVE", json!({ "id": null, "name": "?" }))["count"], 0);
    assert_eq!(say(&world, "1", "!reactions")["reply"], "own:7 1, 👍 1");
}

#[test]
fn settings_are_kept() {
    let world = built_in();
    assert_eq!(ask(&world, "WebGetSettings", &json!({}))["settings"], json!({}));
    let set = ask(&world, "WebExecuteSetting", &json!({ "setting": "theme", "value": "dark" }));
    assert_eq!(set["settings"], json!({ "theme": "dark" }));
    assert_eq!(ask(&world, "WebGetSettings", &json!({}))["settings"], json!({ "theme": "dark" }));
}

#[test]
fn any_other_event_is_described() {
    let world = built_in();
    let seen = ask(&world, "CHANNEL_CREATE", &json!({ "name": "general", "type": 0 }));
    assert_eq!(
        seen,
        json!({ "event": "CHANNEL_CREATE", "saw": "name general", "fields": ["name", "type"] })
    );
    assert_eq!(ask(&world, "ODD", &json!(null)), json!({ "event": "ODD", "saw": "nothing" }));
    assert_eq!(ask(&world, "ODD", &json!(7)), json!({ "event": "ODD", "saw": "number" }));
    assert_eq!(ask(&world, "MESSAGE_CREATE", &json!({}))["fields"], json!({}));
}

#[test]
fn a_guild_of_thousands_of_members_is_counted() {
    let world = built_in();
    let members: Vec<_> = (0..11_000)
        .map(|number| {
            json!({
                "user": {
                    "id": (244_567_637_332_328_449_u64 + number).to_string(), "username": format!("user-{number}"),
                    "avatar": "a_1cf79b0055927be3bb5b865862b545a8", "discriminator": "0", "bot": number % 10 == 0,
                    "global_name": null, "public_flags": 64,
                },
                "roles": ["244567637332328449", "244567637332328450", "244567637332328451"],
                "joined_at": "2018-11-23T09:45:22.389000+00:00", "deaf": false, "mute": false, "nick": null,
                "premium_since": null, "pending": false, "flags": 0, "communication_disabled_until": null,
                "avatar": null, "banner": null, "avatar_decoration_data": null, "unusual_dm_activity_until": null,
            })
        })
        .collect();
    let data =
        json!({ "name": "large", "member_count": 9001, "members": members, "channels": [{}, {}] })
            .to_string();
    assert!(data.len() > 5 * 1024 * 1024, "{} bytes", data.len());
    let event = event("GUILD_CREATE", &data);
    for _ in 0..3 {
        let answer = answer(&world.submit(TENANT, Job::Dispatch(event.clone())));
        assert_eq!(
            answer,
            json!({ "event": "GUILD_CREATE", "guild": "large", "members": 11_000, "bots": 1100, "member_count": 9001, "channels": 2 })
        );
    }
}
