//! What a worker may do to its link: garbage, too much, nothing, the same twice. The worker is
//! somebody else's (external), so that nothing but the link can end it.

use std::collections::BTreeSet;
use std::time::Duration;

use mesophyll::wire::data::TenantId;
use serde_json::Value;

use super::scene::{Outcome, Scene, guild_on};
use crate::support::binary::{post, token};
use crate::support::process::eventually;

const SOON: Duration = Duration::from_secs(2);

fn kinds(outcomes: &[Outcome]) -> BTreeSet<&str> {
    outcomes.iter().map(|(kind, _)| kind.as_str()).collect()
}

/// Checks that each of them has one of these kinds.
fn expect_kinds(outcomes: &[Outcome], allowed: &[&str]) {
    assert!(kinds(outcomes).iter().all(|kind| allowed.contains(kind)), "{outcomes:?}");
}

#[test]
fn a_worker_that_sends_garbage_loses_its_link() {
    let scene = Scene::start("garbage");
    let outcomes = scene.meanwhile(|| {
        scene.wait_fault("garbage: round 20 closed with 1007");
        let outcomes = scene.dispatch_many(20, "1", SOON);
        scene.wait_fault("garbage: round 100 closed with 1007");
        outcomes
    });
    expect_kinds(&outcomes, &["OutcomeUnknown", "NoWorker", "Deadline"]);
    scene.expect_calm(64, 60, "messages that do not decode");
}

#[test]
fn a_worker_that_lies_about_senders_reaches_nobody() {
    let scene = Scene::start("lies-about-senders");
    // Worker 0 has both: the receiver allows what the sender would send itself.
    let (from, to) = (TenantId::Guild(2 << 22), "guild/16777216");
    let rules = format!(
        r##"{{"op":"set","key":"allowed","scopes":["#messages"],"value":{{"{from}":[""]}}}}"##
    );
    let kv = |body: &str| post(scene.master.api(), &format!("/i/kv/{to}"), &token(7), body);
    assert_eq!(kv(&rules).0, 204);
    scene.meanwhile(|| scene.wait_fault("lies: round 20 closed with 1002"));
    // What the master does know of reaches it: it is there, and subscribed.
    let staff =
        post(scene.master.api(), &format!("/i/message/{to}"), &token(7), r#"{"topic":"t"}"#);
    assert_eq!(staff.0, 202);
    let got = eventually("the message of staff is kept", || {
        let (status, body) = kv(r#"{"op":"find","pattern":"message:%","scopes":["test"]}"#);
        (status == 200 && body != "[]").then_some(body)
    });
    let got: Vec<Value> = serde_json::from_str(&got).expect("JSON");
    let senders: Vec<_> = got.iter().map(|record| record["key"].clone()).collect();
    assert_eq!(senders, ["message:staff"]);
    scene.expect_calm(64, 120, "which is not its tenant");
}

#[test]
fn messages_too_large_are_cut_off_before_taking_memory() {
    let scene = Scene::start("oversized");
    let outcomes = scene.meanwhile(|| {
        scene.wait_fault("oversized: round 1 closed with");
        let outcomes = scene.dispatch_many(10, "1", SOON);
        scene.wait_fault("oversized: round 20 closed with");
        outcomes
    });
    expect_kinds(&outcomes, &["OutcomeUnknown", "NoWorker", "Deadline"]);
    // One message of the largest size, read into a buffer that doubles, beside what the allocator
    // keeps of the one before: 55 to 136 MiB in twenty runs. Ten of them kept would be 320.
    scene.expect_calm(192, 60, "closed with code 1009");
}

#[test]
fn large_unasked_answers_take_one_message_of_memory() {
    let scene = Scene::start("huge-answers");
    scene.meanwhile(|| {
        let answered = scene.dispatch("FIRST", "1", Duration::from_secs(60));
        assert_eq!(answered.0, "ok", "{answered:?}");
        wait_flood(&scene, 200 << 20);
    });
    scene.expect_calm(128, 20, "");
}

/// Waits until a flood has sent so many bytes.
fn wait_flood(scene: &Scene, bytes: u64) {
    loop {
        let line = scene.wait_fault("flood: ");
        let sent: u64 =
            line.split(' ').nth(1).and_then(|number| number.parse().ok()).expect("a number");
        if sent >= bytes {
            return;
        }
    }
}

#[test]
fn messages_of_unknown_kinds_are_counted_and_skipped() {
    let scene = Scene::start("unknown");
    let outcomes = scene.meanwhile(|| {
        wait_flood(&scene, 1 << 20);
        let outcomes = scene.dispatch_many(10, "1", Duration::from_secs(60));
        wait_flood(&scene, 16 << 20);
        outcomes
    });
    expect_kinds(&outcomes, &["ok"]);
    // Once at each power of two.
    scene.expect_calm(64, 40, "messages of unknown kinds");
}

#[test]
fn only_answers_to_requests_are_taken() {
    let scene = Scene::start("unasked");
    let outcomes = scene.meanwhile(|| {
        wait_flood(&scene, 1 << 20);
        let outcomes = scene.dispatch_many(10, "1", Duration::from_secs(60));
        wait_flood(&scene, 16 << 20);
        outcomes
    });
    for (at, (kind, value)) in outcomes.iter().enumerate() {
        assert_eq!(kind, "ok", "{value}");
        assert!(
            value.as_str().is_some_and(|text| text.starts_with(&format!("EVENT_{at} of "))),
            "{value}"
        );
    }
    scene.expect_calm(64, 20, "");
}

#[test]
fn of_several_answers_the_first_one_counts() {
    let scene = Scene::start("twice");
    let outcomes = scene.meanwhile(|| {
        let outcomes = scene.dispatch_many(20, "1", Duration::from_secs(60));
        scene.wait_fault("three times");
        outcomes
    });
    for (at, (kind, value)) in outcomes.iter().enumerate() {
        assert_eq!(kind, "ok", "{value}");
        assert!(
            value.as_str().is_some_and(|text| text.starts_with(&format!("EVENT_{at} of "))),
            "{value}"
        );
    }
    scene.expect_calm(64, 20, "");
}

#[test]
fn two_links_that_fight_for_one_worker_are_told_of_once() {
    let scene = Scene::start("two-connections");
    let outcomes = scene.meanwhile(|| {
        scene.wait_fault("two connections: round 10 closed with 4001");
        let outcomes = scene.dispatch_many(20, "1", SOON);
        scene.wait_fault("two connections: round 200 closed with 4001");
        outcomes
    });
    expect_kinds(&outcomes, &["OutcomeUnknown", "NoWorker", "Deadline"]);
    scene.expect_calm(64, 60, "two peers fight for this id");
    let log = scene.master.running.stderr_so_far();
    assert_eq!(log.matches("two peers fight").count(), 1, "{log}");
}

#[test]
fn a_worker_that_reads_nothing_loses_its_link() {
    let scene = Scene::start("never-reads");
    let large = format!("\"{}\"", "x".repeat(4 << 20));
    let outcomes = scene.meanwhile(|| {
        scene.wait_fault("reading nothing");
        eventually("it is ready", || {
            (scene.dispatch("FIRST", "1", SOON).0 == "Deadline").then_some(())
        });
        let mut outcomes = Vec::new();
        // Twelve times 4 MiB at once, until they have been refused for want of room.
        while !kinds(&outcomes).contains("Busy") {
            outcomes = scene.dispatch_many(24, &large, SOON);
        }
        scene.wait_fault("cut off while reading nothing");
        outcomes
    });
    expect_kinds(&outcomes, &["Busy", "Deadline", "OutcomeUnknown"]);
    // The link's queue (64 MiB), and the events of 24 callers in several forms.
    scene.expect_calm(768, 60, "did not read for too long");
}

#[test]
fn a_worker_that_never_writes_is_cut_off_after_three_heartbeats() {
    let scene = Scene::with_heartbeats("never-writes", "1s");
    let outcome = scene.meanwhile(|| {
        scene.wait_fault("wrote nothing; waiting for the end");
        let outcome = scene.dispatch("EVENT", "1", SOON);
        scene.wait_fault("wrote nothing; cut off");
        outcome
    });
    expect_kinds(&[outcome], &["NoWorker"]);
    scene.expect_calm(64, 20, "no heartbeat for");
}

/// A worker that was ready and is then as good as silent.
fn expect_cut_off(fault: &str, begun: &str, ended: &str) {
    // The dispatches have six seconds to reach it before it is cut off.
    let scene = Scene::with_heartbeats(fault, "2s");
    let outcomes = scene.meanwhile(|| {
        scene.wait_fault(begun);
        let outcomes = scene.dispatch_many(5, "1", Duration::from_secs(30));
        scene.wait_fault(ended);
        outcomes
    });
    // Which of them found the link depends on when they came.
    expect_kinds(&outcomes, &["OutcomeUnknown", "NoWorker"]);
    assert!(kinds(&outcomes).contains("OutcomeUnknown"), "{outcomes:?}");
    scene.expect_calm(64, 20, "no heartbeat for");
}

#[test]
fn a_worker_that_dribbles_is_cut_off_although_bytes_keep_coming() {
    expect_cut_off("dribbles", "dribbling", "cut off after");
}

#[test]
fn half_a_frame_and_then_nothing_is_a_silent_worker() {
    expect_cut_off("half-a-frame", "half a frame; waiting", "half a frame; cut off");
}

#[test]
fn a_worker_never_ready_gets_nothing_and_is_cut_off() {
    let scene = Scene::with_heartbeats("never-ready", "1s");
    let outcome = scene.meanwhile(|| {
        scene.wait_fault("never ready: round 1");
        let outcome = scene.dispatch("EVENT", "1", SOON);
        scene.wait_fault("never ready: round 5");
        outcome
    });
    expect_kinds(&[outcome], &["NoWorker"]);
    scene.expect_calm(64, 40, "no heartbeat for");
}

#[test]
fn events_for_a_worker_that_is_ready_late_wait_for_it() {
    let scene = Scene::start("ready-late");
    let outcomes = scene.meanwhile(|| {
        scene.wait_fault("not ready yet");
        scene.dispatch_many(20, "1", Duration::from_secs(60))
    });
    expect_kinds(&outcomes, &["ok"]);
    scene.expect_calm(64, 20, "");
}

#[test]
fn close_frames_of_every_kind_end_a_link_and_nothing_else() {
    let scene = Scene::start("odd-closes");
    let answered = scene.meanwhile(|| {
        scene.wait_fault("closed with [3, 232], answered 1000");
        // 5000 is no code, and a close of 202 bytes no control frame.
        scene.wait_fault("closed with [19, 136], answered 1002");
        scene.wait_fault("closed with [3, 232, 120, 120], answered 1002");
        scene.dispatch("EVENT", "1", Duration::from_secs(60))
    });
    assert_eq!(answered.0, "ok", "{answered:?}");
    scene.expect_calm(64, 40, "");
}

#[test]
fn what_a_worker_died_with_has_an_unknown_outcome_each() {
    let scene = Scene::start("dies-with-answers-unsent");
    let outcomes = scene.meanwhile(|| {
        scene.wait_fault("serving");
        // Long enough that all have left or wait before the first one gives up.
        let outcomes = scene.dispatch_many(8, "1", Duration::from_secs(10));
        scene.wait_fault("dying with 5 answers unsent");
        outcomes
    });
    let count = |wanted| outcomes.iter().filter(|(kind, _)| kind == wanted).count();
    // Those that came after its death wait for the next one, in vain.
    assert!(count("OutcomeUnknown") >= 5, "{outcomes:?}");
    assert_eq!(count("OutcomeUnknown") + count("NoWorker"), 8, "{outcomes:?}");
    let text = outcomes.iter().find(|(kind, _)| kind == "OutcomeUnknown").map(|(_, text)| text);
    assert!(
        text.and_then(Value::as_str).is_some_and(|text| text.contains("went away")),
        "{outcomes:?}"
    );
    scene.expect_calm(64, 20, "");
}

#[test]
fn a_worker_silent_on_its_vms_holds_up_no_dispatch() {
    let scene = Scene::start("ignores-questions");
    scene.meanwhile(|| {
        assert_eq!(scene.dispatch("FIRST", "1", Duration::from_secs(60)).0, "ok");
        let ids = [guild_on(0), guild_on(1)].map(|guild| guild.replace("guild/", "\""));
        let body = format!("[{}\",{}\"]", ids[0], ids[1]);
        for _ in 0..3 {
            // The good worker has a VM of the one; what the other would say is not known.
            let answer = post(scene.master.api(), "/i/guilds-exist", &token(7), &body);
            assert_eq!(answer, (200, "[1,0]".to_owned()));
            scene.wait_fault("asked about 1 tenants");
            assert_eq!(scene.dispatch("AFTER", "1", Duration::from_secs(60)).0, "ok");
        }
    });
    scene.expect_calm(64, 20, "");
}
