//! The memory of worker processes, bounded by control groups (cgroup v2) where this process was
//! given some of its own, such as by `Delegate=` of a systemd unit.
//!
//! A group with processes of its own may not have groups below it that are bounded, so the master
//! moves into one beside those of its workers. Where there is none, a worker bounds itself with
//! `RLIMIT_DATA`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the system has its groups.
const MOUNT: &str = "/sys/fs/cgroup";

/// The groups of a master's workers.
#[derive(Debug)]
pub struct MemoryGroups {
    own: PathBuf,
    max_bytes: u64,
}

impl MemoryGroups {
    /// Groups in which each worker has so much memory; nothing if this process was given none.
    pub fn delegated(max_bytes: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        // The line of version 2; those of version 1 have numbers.
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
        // In the root nothing is delegated.
        let groups = Self { own: Path::new(MOUNT).join(&own), max_bytes };
        (!own.is_empty() && groups.prepare(std::process::id()).is_ok()).then_some(groups)
    }

    /// Moves the master out of the way, and lets the groups below be bounded.
    fn prepare(&self, master: u32) -> io::Result<()> {
        let controllers = fs::read_to_string(self.own.join("cgroup.controllers"))?;
        if !controllers.split_whitespace().any(|controller| controller == "memory") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let beside = self.own.join("master");
        make(&beside)?;
        fs::write(beside.join("cgroup.procs"), master.to_string())?;
        // Equal shares of the processor as well, where that is delegated too.
        let _ = fs::write(self.own.join("cgroup.subtree_control"), "+cpu");
        fs::write(self.own.join("cgroup.subtree_control"), "+memory")
    }

    /// Puts a worker's process into the worker's group. What it took before stays the master's: a
    /// process that has just begun.
    ///
    /// # Errors
    /// The group is not to be had: the worker would be without its bound.
    pub(super) fn enter(&self, worker_id: usize, pid: u32) -> io::Result<()> {
        let group = self.own.join(format!("worker-{worker_id}"));
        make(&group)?;
        fs::write(group.join("memory.max"), self.max_bytes.to_string())?;
        // Memory that is swapped out is memory as well; not each kernel has swap.
        let _ = fs::write(group.join("memory.swap.max"), "0");
        fs::write(group.join("cgroup.procs"), pid.to_string())
    }
}

/// Makes a group, unless an earlier process has.
fn make(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a group; the kernel's files are plain ones here.
    struct Double(PathBuf);

    impl Double {
        fn new(controllers: &str) -> Self {
            let name = format!("mesophyll-group-{:016x}", crate::base::random::u64());
            let own = std::env::temp_dir().join(name);
            fs::create_dir(&own).expect("a folder");
            fs::write(own.join("cgroup.controllers"), controllers).expect("a file");
            Self(own)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).expect(name)
        }
    }

    impl Drop for Double {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn workers_get_groups_beside_the_masters() {
        let double = Double::new("cpuset cpu io memory pids\n");
        let groups = MemoryGroups { own: double.0.clone(), max_bytes: 1 << 30 };
        groups.prepare(7).expect("a group with memory");
        assert_eq!(double.read("master/cgroup.procs"), "7");
        assert_eq!(double.read("cgroup.subtree_control"), "+memory");
        for pid in [8, 9] {
            groups.enter(0, pid).expect("a group");
            assert_eq!(double.read("worker-0/cgroup.procs"), pid.to_string());
        }
        assert_eq!(double.read("worker-0/memory.max"), (1_u64 << 30).to_string());
    }

    #[test]
    fn a_group_without_memory_is_left_as_it_is() {
        let double = Double::new("cpu pids\n");
        let groups = MemoryGroups { own: double.0.clone(), max_bytes: 1 << 30 };
        groups.prepare(7).expect_err("nothing to bound memory with");
        assert_eq!(fs::read_dir(&double.0).expect("a folder").count(), 1);
    }
}
