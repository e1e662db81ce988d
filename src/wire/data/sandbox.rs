//! How a worker's process is confined: the mode that was asked for, and what is in force.

use crate::base::labels::labels;

/// The Landlock ABI from which on signals and abstract sockets are restricted as well.
const ABI_WITH_SCOPES: u64 = 6;

labels! {
    /// Whether workers run in a sandbox (`--sandbox`).
    #[derive(Default, Hash)]
    SandboxMode {
        /// Only in one; without it the worker does not run.
        Require = "require",
        /// In what the kernel has of it.
        #[default]
        Prefer = "prefer",
        /// Without.
        Off = "off",
    }
}

/// What confines a worker's process, as its Ready tells the master.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sandbox {
    /// The mode that the worker was started with.
    pub mode: String,
    /// The Landlock ABI whose rules are enforced; 0: none is.
    pub landlock_abi: u64,
    /// `full`, `partial` or `none`: how much of what the worker's version knows is enforced.
    pub landlock_status: String,
    /// Whether both filters of system calls are installed.
    pub seccomp: bool,
}

impl Sandbox {
    /// Whether this is what `--sandbox require` asks for.
    pub fn is_whole(&self) -> bool {
        self.seccomp && self.landlock_abi > 0
    }

    /// The sandbox in a word or two, as `workers` and the API show it.
    pub fn summary(&self) -> String {
        match (self.seccomp, self.landlock_abi) {
            (false, _) => "none".to_owned(),
            (true, 0) => "syscalls".to_owned(),
            (true, abi) if abi < ABI_WITH_SCOPES => format!("files {abi}"),
            (true, _) => "full".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_named_by_what_is_in_force() {
        for (seccomp, landlock_abi, summary, is_whole) in [
            (true, 7, "full", true),
            (true, 6, "full", true),
            (true, 5, "files 5", true),
            (true, 1, "files 1", true),
            (true, 0, "syscalls", false),
            (false, 7, "none", false),
            (false, 0, "none", false),
        ] {
            let sandbox = Sandbox { seccomp, landlock_abi, ..Sandbox::default() };
            assert_eq!((sandbox.summary().as_str(), sandbox.is_whole()), (summary, is_whole));
        }
    }
}
