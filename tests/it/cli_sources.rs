//! Where options come from: flags, variables, and what each command takes from neither.

use std::net::TcpListener;

use crate::support::TempDir;
use crate::support::binary::{Finished, Master, Running, TEMPLATES, mesophyll, token};

const EVENT: &str = r#"{"tenant":"guild:1","name":"ECHO","data":1}"#;

/// Runs a command in a folder, with these variables.
fn run_in(folder: &TempDir, args: &[&str], variables: &[(&str, &str)], input: &str) -> Finished {
    let mut command = mesophyll(args);
    command.envs(variables.iter().copied()).current_dir(folder.path());
    Running::start_on(command, input).wait()
}

#[test]
fn a_switch_as_a_variable_that_is_no_word_of_one_is_wrong_usage() {
    let folder = TempDir::new();
    let look = ["master", "--print-config", "--templates", TEMPLATES];
    let reload = |word: &str| run_in(&folder, &look, &[("MESOPHYLL_RELOAD", word)], "");
    for (word, shown) in [("no", "off"), ("OFF", "off"), ("0", "off"), ("Yes", "on"), ("on", "on"), ("1", "on")] {
        let looked = reload(word);
        looked.expect(0, "");
        let row = looked.stdout.iter().find(|line| line.starts_with("--reload ")).expect("a row");
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["--reload", shown, "environment", "MESOPHYLL_RELOAD"], "{word}");
    }
    for word in ["", "maybe", "2"] {
        reload(word).expect(2, "MESOPHYLL_RELOAD is true or false");
    }
    let sources = [("MESOPHYLL_TRUSTED_SOURCE", "10.0.0.0/8,,")];
    run_in(&folder, &look, &sources, "").expect(3, "MESOPHYLL_TRUSTED_SOURCE is a list with commas");
    let in_flight = [("MESOPHYLL_IN_FLIGHT", "0")];
    run_in(&folder, &["replay", "-"], &in_flight, "").expect(3, "MESOPHYLL_IN_FLIGHT is a number from 1");
}

#[test]
fn a_replay_takes_no_place_from_the_variables_of_a_master() {
    let folder = TempDir::new();
    let master = Master::start(&["--workers", "1"]);
    let (listen, api) = (master.listen().to_string(), master.api().to_string());
    // The address of a master that runs, and its file.
    let variables = [("MESOPHYLL_API", &*api), ("MESOPHYLL_LISTEN", &*listen), ("MESOPHYLL_STORE", "redb:live.redb")];
    let replay = ["replay", "-", "--workers", "1", "--templates", TEMPLATES];
    let replayed = run_in(&folder, &replay, &variables, EVENT);
    replayed.expect(0, "this replay writes to memory: (gone at the end); MESOPHYLL_LISTEN, MESOPHYLL_API, ");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "no store was made");
    // Its flags do count.
    let flags = ["--store", "redb:own.redb", "--api", "127.0.0.1:0"];
    let replayed = run_in(&folder, &[&replay[..], &flags].concat(), &[], EVENT);
    replayed.expect(0, "this replay writes to redb:own.redb; its internal API: 127.0.0.1:");
    assert!(folder.path().join("own.redb").exists());
    let taken = run_in(&folder, &[&replay[..], &["--api", &api]].concat(), &variables, EVENT);
    taken.expect(3, &api);
}

#[test]
fn a_client_finds_its_master_by_a_variable_of_its_own_first() {
    let folder = TempDir::new();
    let master = Master::start(&["--mode", "thread-pool"]);
    let api = master.api().to_string();
    // Bound and never accepted from: not where the client may go.
    let other = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let token = token(7);
    let workers = |variables: &[(&str, &str)], flags: &[&str]| {
        let variables = [variables, &[("MESOPHYLL_INTERNAL_TOKEN", &*token)]].concat();
        run_in(&folder, &[&["workers"], flags].concat(), &variables, "")
    };
    workers(&[("MESOPHYLL_MASTER_API", &api), ("MESOPHYLL_API", &other)], &[]).expect(0, "");
    workers(&[("MESOPHYLL_API", &api)], &[]).expect(0, "");
    workers(&[("MESOPHYLL_MASTER_API", &other)], &["--api", &api]).expect(0, "");
    let url = format!("http://{api}/");
    workers(&[("MESOPHYLL_MASTER_API", &url)], &[]).expect(0, "");
    for (address, rule) in [("off", "is an address such as"), ("localhost", "is an address such as")]
        .into_iter()
        .chain([("https://a:1", "is HOST:PORT or http:"), ("tls:a:1", "is HOST:PORT or http:")])
        .chain([("http://a:1/i", "is an address such as"), ("http://u:p@a:1", "is an address such as")])
    {
        workers(&[("MESOPHYLL_MASTER_API", address)], &[]).expect(3, &format!("MESOPHYLL_MASTER_API {rule}"));
        workers(&[], &["--api", address]).expect(2, &format!("--api {rule}"));
    }
}

#[test]
fn an_address_to_listen_at_may_be_written_as_a_url() {
    let folder = TempDir::new();
    let shown = |option: &str, value: &str| run_in(&folder, &["master", "--print-config", option, value], &[], "");
    for option in ["--listen", "--api"] {
        let looked = shown(option, "http://127.0.0.1:29451/");
        looked.expect(0, "");
        assert!(looked.stdout.iter().any(|line| line.starts_with(option) && line.contains(" 127.0.0.1:29451 ")));
        shown(option, "tls:127.0.0.1:29451").expect(2, "as there is no TLS here");
    }
    let place = ["worker", "--print-config", "--id", "0", "--workers", "1", "--master"];
    let worker = |master: &str| run_in(&folder, &[&place[..], &[master]].concat(), &[], "");
    let looked = worker("http://10.0.0.1:7450");
    assert!(looked.stdout.iter().any(|line| line.contains(" 10.0.0.1:7450 ")), "{looked:?}");
    worker("https://10.0.0.1:7450").expect(2, "--master is HOST:PORT");
}
