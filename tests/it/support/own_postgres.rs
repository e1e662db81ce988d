//! A PostgreSQL server of a test's own, gone with it; also one that speaks TLS.

use std::collections::BTreeSet;
#[cfg(feature = "postgres-tls")]
use std::fs::{self, Permissions};
#[cfg(feature = "postgres-tls")]
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
#[cfg(feature = "postgres-tls")]
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mesophyll::store::StoreUrl;

use super::TempDir;
use super::process::own_port;
use super::skip::skipped;

/// A cluster in a folder of its own.
pub(crate) struct Cluster {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
    settings: String,
}

/// Over TCP with TLS only; the role `worker` with a certificate of that name.
#[cfg(feature = "postgres-tls")]
const SECURE_RULES: &str = "local all all trust
hostssl all worker 127.0.0.1/32 cert
hostssl all all 127.0.0.1/32 trust
";

impl Cluster {
    /// A running one; none if this machine cannot.
    pub(crate) fn start_new(test: &str) -> Option<Self> {
        Self::start_with(test, "")
    }

    /// A running one with these settings.
    pub(crate) fn start_with(test: &str, settings: &str) -> Option<Self> {
        let cluster = Self::new(test, settings)?;
        cluster.start();
        Some(cluster)
    }

    /// A running one that takes connections over TLS, and over its Unix socket, and no others.
    #[cfg(feature = "postgres-tls")]
    pub(crate) fn start_secure(test: &str) -> Option<Self> {
        let mut cluster = Self::new(test, "-c ssl=on")?;
        for (setting, file) in [
            ("ssl_cert_file", "server.pem"),
            ("ssl_key_file", "server.key"),
            ("ssl_ca_file", "ca.pem"),
        ] {
            let path = cluster.folder.path().join(file);
            cluster.settings.push_str(&format!(" -c {setting}={}", path.display()));
        }
        cluster.put("ca.pem", &certificate_file("authority.pem"));
        cluster.put("data/pg_hba.conf", SECURE_RULES);
        cluster.use_certificate("master");
        cluster.start();
        Some(cluster)
    }

    /// A secure one that tests share which run at once.
    #[cfg(feature = "postgres-tls")]
    pub(crate) fn shared_secure(test: &str) -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = match shared.upgrade() {
            Some(cluster) => cluster,
            None => Arc::new(Self::start_secure(test)?),
        };
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// What it shows from its next start on.
    #[cfg(feature = "postgres-tls")]
    pub(crate) fn use_certificate(&self, name: &str) {
        for kind in ["pem", "key"] {
            self.put(&format!("server.{kind}"), &certificate_file(&format!("{name}.{kind}")));
        }
    }

    /// Writes a file that belongs to the server alone.
    #[cfg(feature = "postgres-tls")]
    fn put(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
        assert!(!is_root() || run(Command::new("chown").arg("postgres").arg(path)));
    }

    fn new(test: &str, settings: &str) -> Option<Self> {
        let Some(programs) = programs() else {
            skipped(test, "it needs the programs of a PostgreSQL server: install postgresql");
            return None;
        };
        let folder = TempDir::new();
        // It stops and comes back to it.
        let settings = settings.to_owned();
        let cluster = Self { programs, folder, port: own_port(), settings };
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
        Some(cluster)
    }

    pub(crate) fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    pub(crate) fn start(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 {}",
            self.port,
            self.folder.path().display(),
            self.settings
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

#[cfg(feature = "postgres-tls")]
impl Cluster {
    /// Over TCP, as this role, with these parameters.
    pub(crate) fn url_with(&self, role: &str, host: &str, parameters: &str) -> StoreUrl {
        let port = self.port;
        StoreUrl::Postgres(format!("postgres://{role}@{host}:{port}/postgres?{parameters}"))
    }

    /// Over its Unix socket.
    pub(crate) fn local_url(&self, database: &str) -> String {
        let (folder, port) = (self.folder.path().display(), self.port);
        format!("postgres:///{database}?host={folder}&port={port}&user=postgres")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// The text of a file of certificates.
#[cfg(feature = "postgres-tls")]
fn certificate_file(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
    fs::read_to_string(format!("{folder}/{name}")).expect("read")
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
