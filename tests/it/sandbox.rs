//! The sandbox of worker processes: what it ends, what it leaves, what is said of it.

mod attacks;
mod deaths;
mod modes;
#[cfg(feature = "luau")]
mod trace;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::support::TempDir;
use crate::support::binary::{Running, mesophyll};
use crate::support::skip::skipped;

/// `nobody`: a user without a home and without rights.
const ORDINARY_USER: u32 = 65534;

/// Whether this kernel can confine a worker as `--sandbox require` asks for; else says that the
/// test was skipped.
fn can_confine(test: &str) -> bool {
    let worker = ["worker", "--id", "0", "--workers", "1", "--master", "127.0.0.1:1"];
    let mut command =
        mesophyll(&[&worker[..], &["--sandbox", "require", "--check-config"]].concat());
    command.env("MESOPHYLL_CLIENT_TOKEN", "none");
    let checked = Running::start(command).wait();
    if checked.code() != 0 {
        skipped(test, &format!("this kernel cannot confine a worker: {}", checked.stderr));
    }
    checked.code() == 0
}

/// A folder that every user may enter, with copies of these programs that every user may run.
fn open_folder(programs: &[&Path]) -> TempDir {
    let folder = TempDir::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    for program in programs {
        let name = program.file_name().expect("a name");
        copy_program(program, &folder.path().join(name));
    }
    folder
}

/// Copies a program, in another process: what this one has open for writing, a process that another
/// test starts may hold a moment longer, and then it cannot be run.
fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().expect("cp");
    assert!(copied.success(), "{copied}");
}

/// Lets a command run as an ordinary user. Where the tests do, it does already.
fn as_ordinary_user(command: &mut Command) {
    if rustix::process::geteuid().is_root() {
        command.uid(ORDINARY_USER).gid(ORDINARY_USER);
    }
}
