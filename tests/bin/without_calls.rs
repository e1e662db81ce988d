//! A kernel without Landlock, or without seccomp: runs a program for which these calls are not
//! there. Arguments: `landlock` or `seccomp` or both with a comma, the program, its arguments.

use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

use attack::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, program, rest @ ..] = &arguments[..] else {
        return Err("WHAT PROGRAM [ARGUMENT…]".into());
    };
    let mut calls = BTreeMap::new();
    for call in what.split(',') {
        match call {
            "landlock" => calls.insert(libc::SYS_landlock_create_ruleset, Vec::new()),
            "seccomp" => calls.insert(libc::SYS_seccomp, Vec::new()),
            other => return Err(format!("neither landlock nor seccomp: {other}").into()),
        };
    }
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, missing, arch)?;
    apply_filter(&BpfProgram::try_from(filter)?)?;
    Err(Command::new(program).args(rest).exec().into())
}
