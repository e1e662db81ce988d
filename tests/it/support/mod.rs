//! What the integration tests share: folders of their own, random numbers that repeat, databases
//! behind every door.

pub(crate) mod binary;
#[cfg(feature = "luau")]
pub(crate) mod browser;
#[cfg(feature = "luau")]
pub(crate) mod chaos;
#[cfg(all(feature = "postgres", feature = "luau"))]
pub(crate) mod cluster;
#[cfg(feature = "worker")]
pub(crate) mod db;
#[cfg(all(feature = "postgres", feature = "worker"))]
pub(crate) mod own_postgres;
#[cfg(all(feature = "postgres", feature = "worker"))]
pub(crate) mod postgres;
pub(crate) mod process;
#[cfg(feature = "worker")]
mod random;
#[cfg(any(feature = "luau", all(feature = "postgres", feature = "worker")))]
pub(crate) mod skip;
#[cfg(feature = "worker")]
pub(crate) mod stand_in;

#[cfg(feature = "worker")]
pub(crate) use random::Random;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a test waits for something that must happen. Far longer than it takes, so that only a
/// hang meets it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A folder of a test's own, gone with it.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        // Not by the process's number: one that was killed has left its folders behind.
        let path = std::env::temp_dir()
            .join(format!("mesophyll-it-{:016x}", mesophyll::base::random::u64()));
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
