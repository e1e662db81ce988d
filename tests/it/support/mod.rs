//! What the integration tests share: folders of their own, random numbers that repeat, databases behind every door.

#[cfg(feature = "luau")]
pub(crate) mod binary;
#[cfg(feature = "luau")]
pub(crate) mod browser;
#[cfg(feature = "luau")]
pub(crate) mod chaos;
pub(crate) mod db;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub(crate) mod process;
mod random;
#[cfg(any(feature = "luau", feature = "postgres"))]
pub(crate) mod skip;
pub(crate) mod stand_in;

pub(crate) use random::Random;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a test waits for something that must happen. Far longer than it takes, so that only a hang meets it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A folder of a test's own, gone with it.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mesophyll-it-{}-{number}", std::process::id()));
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
