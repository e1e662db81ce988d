//! A PostgreSQL server of a test's own, gone with it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use mesophyll::store::StoreUrl;

use super::TempDir;
use super::process::own_port;
use super::skip::skipped;

/// A cluster in a folder of its own.
pub(crate) struct Cluster {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Cluster {
    /// A running one; none if this machine cannot.
    pub(crate) fn start_new(test: &str) -> Option<Self> {
        let Some(programs) = programs() else {
            skipped(test, "it needs the programs of a PostgreSQL server: install postgresql");
            return None;
        };
        let folder = TempDir::new();
        // It stops and comes back to it.
        let cluster = Self { programs, folder, port: own_port() };
        // The server refuses to run as root.
        if is_root() && !run(Command::new("chown").arg("postgres").arg(cluster.folder.path())) {
            skipped(test, "it runs as root, and there is no user postgres to run a server as");
            return None;
        }
        let data = cluster.data();
        assert!(cluster.run(
            "initdb",
            &["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        ));
        cluster.start();
        Some(cluster)
    }

    pub(crate) fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    pub(crate) fn start(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1",
            self.port,
            self.folder.path().display()
        );
        let log = self.folder.path().join("log").display().to_string();
        assert!(
            self.run("pg_ctl", &["start", "-w", "-D", &self.data(), "-l", &log, "-o", &options]),
            "the server starts"
        );
    }

    pub(crate) fn stop(&self, mode: &str) {
        assert!(
            self.run("pg_ctl", &["stop", "-w", "-D", &self.data(), "-m", mode]),
            "the server stops"
        );
    }

    fn run(&self, program: &str, args: &[&str]) -> bool {
        let path = self.programs.join(program);
        let mut command = if is_root() { Command::new("runuser") } else { Command::new(&path) };
        if is_root() {
            command.args(["-u", "postgres", "--"]).arg(&path);
        }
        run(command.args(args).current_dir("/"))
    }

    pub(crate) fn url(&self) -> StoreUrl {
        StoreUrl::Postgres(format!("postgres://postgres@127.0.0.1:{}/postgres", self.port))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run("pg_ctl", &["stop", "-w", "-D", &self.data(), "-m", "immediate"]);
    }
}

fn run(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where initdb and pg_ctl are: of the newest version that Debian installed, or in the path.
fn programs() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian: BTreeSet<PathBuf> = installed.map(|version| version.path().join("bin")).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_them =
        |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file();
    debian.into_iter().rev().chain(std::env::split_paths(&path)).find(has_them)
}
