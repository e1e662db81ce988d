//! The commands about masters, against one that is in no cluster.

use crate::support::binary::{Master, run};

#[test]
fn commands_about_masters_say_that_there_is_no_cluster() {
    let master = Master::start(&["--workers", "1"]);
    let masters = master.command(&["masters"]);
    masters.expect(0, "the master knows no others");
    assert!(masters.stdout.is_empty(), "{masters:?}");
    let masters = master.command(&["masters", "--json"]);
    masters.expect(0, "");
    assert_eq!(masters.stdout, ["[]"]);
    for command in [&["route", "guild:1"][..], &["drain"], &["undrain", "host-2"]] {
        master.command(command).expect(1, "NotFound (404): this master is in no cluster");
    }
}

#[test]
fn commands_about_masters_check_their_words() {
    for (command, says) in [
        (&["route"][..], "route takes a tenant"),
        (&["route", "role:1"], "role:1"),
        (&["masters", "x"], "x"),
        (&["drain", "a/b"], "drain takes a master's name"),
        (&["undrain", "a", "b"], "undrain takes a master's name"),
    ] {
        run(command).expect(2, says);
    }
}
