//! PostgreSQL of the run's own: a server and a synchronous standby, in a folder that goes with
//! them.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postgres::{Client, NoTls};

use super::super::process::eventually;

pub(crate) struct Server {
    programs: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
}

impl Server {
    /// An empty server; `None` if PostgreSQL's own programs are not on this machine.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        let programs = programs()?;
        let server = Self { programs, folder: folder.join("first"), address: free_address() };
        server.run("initdb", &["-D", "FOLDER", "-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        let settings = "max_connections = 200\nwal_level = replica\nmax_wal_senders = 4\n";
        server.configure(settings);
        server.go_on();
        Some(server)
    }

    /// A copy that every commit waits for from now on.
    pub(crate) fn standby(&self) -> Self {
        let standby = Self {
            programs: self.programs.clone(),
            folder: self.folder.with_file_name("second"),
            address: free_address(),
        };
        let port = self.address.port().to_string();
        standby.run(
            "pg_basebackup",
            &["-D", "FOLDER", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-R"],
        );
        standby.configure("");
        standby.go_on();
        for sql in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
            self.connect("postgres").batch_execute(sql).expect("a setting");
        }
        eventually("the standby is synchronous", || {
            let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            let row = self.connect("postgres").query_one(sql, &[]).ok()?;
            (row.get::<_, i64>(0) == 1).then_some(())
        });
        standby
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as a lost machine does.
    pub(crate) fn kill(&self) {
        self.run("pg_ctl", &["stop", "-D", "FOLDER", "-m", "immediate", "-w"]);
    }

    /// Starts it, for the first time or again.
    pub(crate) fn go_on(&self) {
        let log = self.folder.with_extension("log").display().to_string();
        self.run("pg_ctl", &["start", "-D", "FOLDER", "-l", &log, "-w"]);
    }

    /// Makes a standby the server.
    pub(crate) fn promote(&self) {
        self.run("pg_ctl", &["promote", "-D", "FOLDER", "-w"]);
    }

    pub(crate) fn connect(&self, database: &str) -> Client {
        self.try_connect(database).expect("a connection")
    }

    pub(crate) fn try_connect(&self, database: &str) -> Option<Client> {
        Client::connect(&format!("postgres://postgres@{}/{database}", self.address), NoTls).ok()
    }

    fn configure(&self, more: &str) {
        let path = self.folder.join("postgresql.conf");
        let text = fs::read_to_string(&path).expect("its configuration");
        let own = format!(
            "{text}\n{more}port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n",
            self.address.port()
        );
        fs::write(&path, own).expect("its configuration");
    }

    /// Runs one of PostgreSQL's programs; it refuses to be run by root.
    fn run(&self, program: &str, arguments: &[&str]) {
        let folder = self.folder.display().to_string();
        let program = self.programs.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        command.args(arguments.iter().map(|word| if *word == "FOLDER" { &folder } else { *word }));
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "{program:?} {arguments:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.folder.join("postmaster.pid").exists() {
            self.kill();
        }
    }
}

/// Where PostgreSQL's own programs are; distributions keep them out of `PATH`.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.flatten().map(|one| one.path().join("bin")).find(|path| path.join("initdb").exists())
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}
