//! Guilds that `/i/guilds-exist` knows by their VM alone: with real workers of each kind, and with
//! workers that do not answer.

use rustix::process::Signal;
use serde_json::Value;

use mesophyll::wire::data::TenantId;
use mesophyll::wire::data::sharding::worker_for;

use crate::support::binary::{Master, Running, TEMPLATES, get_with, mesophyll, post, token};
use crate::support::process::{eventually, is_gone, is_stopped, signal, workers_of};

/// The number of a guild that lives on this worker of two; another one for each `nth`.
fn guild(worker: usize, nth: usize) -> u64 {
    let on_worker =
        (1u64..).map(|n| n << 22).filter(|id| worker_for(TenantId::Guild(*id), 2) == worker);
    on_worker.clone().nth(nth).expect("guilds without end")
}

fn exist(master: &Master, guilds: &[u64]) -> Vec<u64> {
    let (status, body) = post(master.api(), "/i/guilds-exist", &token(7), &format!("{guilds:?}"));
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    answer.as_array().expect("a list").iter().map(|known| known.as_u64().expect("0 or 1")).collect()
}

/// Runs the guild's template, which stores nothing.
fn run(master: &Master, guild: u64) {
    assert_eq!(master.dispatch(&format!("guild/{guild}"), "ECHO", "1").0, 200);
}

fn drop_tenant(master: &Master, guild: u64) {
    assert_eq!(post(master.api(), &format!("/i/drop-tenant/guild/{guild}"), &token(7), "").0, 204);
}

fn a_vm_makes_a_guild_known(master: &Master) {
    let guilds = [guild(0, 0), guild(1, 0), guild(0, 1), guild(1, 1)];
    assert_eq!(exist(master, &guilds), [0, 0, 0, 0]);
    run(master, guilds[0]);
    run(master, guilds[3]);
    assert_eq!(exist(master, &guilds), [1, 0, 0, 1]);
    drop_tenant(master, guilds[0]);
    assert_eq!(exist(master, &guilds), [0, 0, 0, 1]);
    // A record of another one counts as before, and so does a guild that is asked for twice.
    assert_eq!(master.dispatch(&format!("guild/{}", guilds[1]), "COUNT", "1").0, 200);
    drop_tenant(master, guilds[1]);
    assert_eq!(exist(master, &[guilds[1], guilds[3], guilds[3], guilds[0]]), [1, 1, 1, 0]);
    // More than go into one query.
    let many: Vec<u64> = (0..10_000).map(|n| (n << 22) + 1).chain([guilds[3]]).collect();
    let known = exist(master, &many);
    assert_eq!((known.len(), known.iter().sum::<u64>(), known.last()), (10_001, 1, Some(&1)));
}

#[test]
fn with_worker_processes() {
    let master = Master::start(&[]);
    master.wait_ready();
    a_vm_makes_a_guild_known(&master);
    master.stop().0.expect(0, "");
}

#[test]
fn with_worker_threads() {
    let master = Master::start(&["--mode", "thread-pool"]);
    master.wait_ready();
    a_vm_makes_a_guild_known(&master);
    master.stop().0.expect(0, "");
}

#[test]
fn with_workers_that_somebody_else_starts() {
    let folder = crate::support::TempDir::new();
    let tokens = folder.path().join("tokens.json").display().to_string();
    let master = Master::start(&["--external-workers", "--worker-tokens", &tokens]);
    let text = std::fs::read_to_string(&tokens).expect("the master wrote it");
    let tokens: Value = serde_json::from_str(&text).expect("JSON");
    let address = master.listen().to_string();
    let workers: Vec<_> = ["0", "1"]
        .into_iter()
        .map(|id| {
            let args = [
                "worker",
                "--id",
                id,
                "--workers",
                "2",
                "--master",
                &address,
                "--lifeline",
                "stdin",
            ];
            let mut worker = mesophyll(
                &[&args[..], &["--templates", TEMPLATES, "--default-events", "*"]].concat(),
            );
            worker.env("MESOPHYLL_CLIENT_TOKEN", tokens[id].as_str().expect("a token"));
            Running::start_open(worker)
        })
        .collect();
    master.wait_ready();
    a_vm_makes_a_guild_known(&master);
    drop(workers);
    master.stop().0.expect(0, "");
}

#[test]
fn a_stopped_worker_hides_only_its_own_vms() {
    let master = Master::start(&[]);
    master.wait_ready();
    let guilds = [guild(0, 0), guild(1, 0)];
    guilds.iter().for_each(|guild| run(&master, *guild));
    assert_eq!(exist(&master, &guilds), [1, 1]);
    let worker = workers_of(master.pid())[&0];
    signal(worker, Signal::STOP);
    eventually("it is stopped", || is_stopped(worker).then_some(()));
    assert_eq!(exist(&master, &guilds), [0, 1]);
    // It is given up when it has been silent for fifteen seconds, which is far beyond the deadline
    // of a query.
    let workers: Value =
        serde_json::from_str(&get_with(master.api(), "/i/workers", &token(7)).1).expect("JSON");
    assert_eq!(
        (&workers[0]["state"], is_stopped(worker)),
        (&Value::from("ready"), true),
        "{workers}"
    );
    signal(worker, Signal::CONT);
    eventually("it answers again", || (exist(&master, &guilds) == [1, 1]).then_some(()));
    // One that is gone is not asked.
    signal(worker, Signal::KILL);
    eventually("it is gone", || is_gone(worker).then_some(()));
    assert_eq!(exist(&master, &guilds)[1], 1);
    master.stop().0.expect(0, "");
}
