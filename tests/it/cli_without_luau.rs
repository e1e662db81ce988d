//! A binary that was built without Luau says so instead of pretending. A master whose workers are
//! another program needs none: `cli_worker_program.rs`.

use crate::support::TempDir;
use crate::support::binary::run;

const STORE: [&str; 6] = ["--store", "memory:", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];

#[test]
fn commands_that_run_templates_refuse_to_start() {
    let threads = ["master", "--mode=thread-pool", "--worker-program", "/bin/true"];
    let threads = [&threads, &STORE[..]].concat();
    let worker = ["worker", "--id", "0", "--workers", "1", "--master", "127.0.0.1:1"];
    for args in [&threads[..], &["replay", "-"], &worker] {
        for check in [&[][..], &["--check-config"]] {
            let refused = run(&[args, check].concat());
            refused.expect(3, "built without Luau");
            assert!(refused.stdout.is_empty(), "{refused:?}");
        }
    }
    for args in [&["test", "."][..], &["init", "none"], &["types"]] {
        run(args).expect(3, "built without Luau");
    }
}

#[test]
fn a_master_without_a_worker_program_names_the_option() {
    for check in [&[][..], &["--check-config"]] {
        let refused = run(&[&["master"], &STORE[..], check].concat());
        refused.expect(3, "built without Luau");
        refused.expect(3, "--worker-program PATH");
        assert!(refused.stdout.is_empty(), "{refused:?}");
    }
}

#[test]
fn a_checked_configuration_with_a_worker_program_is_fine() {
    let folder = TempDir::new();
    let there = folder.path().to_str().expect("text");
    for workers in [&["--worker-program", "/bin/true"][..], &["--external-workers"]] {
        let args = [&["master", "--check-config"], &STORE[..], workers].concat();
        run(&[&args[..], &["--templates", there]].concat()).expect(0, "");
        let nowhere = run(&[&args[..], &["--templates", "/nowhere/at/all"]].concat());
        nowhere.expect(3, "there is no directory /nowhere/at/all");
    }
}
