//! The master under stress: its folder, its store, its workers behind a proxy each, and what Linux
//! says of it.
//!
//! The master is the real binary and starts its workers itself. So that they come through proxies
//! all the same, it runs from a link to the binary, whose place a script takes once it runs: the
//! script starts the same binary with another `--master`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mesophyll::api::token::{Secret, mint};
use rustix::process::Signal;
use serde_json::Value;

use super::chaos::Chaos;
use super::clock::pause_until;
use super::process::{children_of, eventually, is_gone, signal, workers_of};
use super::{DEADLINE, Plan};

const SECRET: &str = "a secret of the stress, 32 bytes or more";

/// How soon a master that is idle has let go of what it had for its peers: idle connections last a
/// minute.
const QUIET: Duration = Duration::from_secs(90);

pub(crate) struct Site {
    pub(crate) master: u32,
    pub(crate) proxies: Vec<Chaos>,
    pub(crate) database: Option<Database>,
    workers: usize,
    api: SocketAddr,
    token: String,
    process: Child,
    folder: PathBuf,
}

impl Site {
    /// Starts everything; returns when each worker is ready, behind its proxy.
    pub(crate) fn start(plan: &Plan) -> Self {
        let folder = std::env::temp_dir().join(format!("mesophyll-stress-{}", std::process::id()));
        fs::create_dir(&folder).expect("a new folder");
        let link = folder.join("mesophyll");
        if fs::hard_link(&plan.binary, &link).is_err() {
            fs::copy(&plan.binary, &link).expect("room for a copy");
        }
        let database = plan.is_postgres.then(|| Database::new(&plan.binary));
        let store = match &database {
            Some(database) => database.url.clone(),
            None => format!("redb:{}", folder.join("store.redb").display()),
        };
        let log = fs::File::create(folder.join("master.log")).expect("a log");
        let templates = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/templates");
        let mut command = Command::new(&link);
        command.args([
            "master",
            "--listen",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
            "--default-events",
            "*",
        ]);
        command.args([
            "--templates",
            templates,
            "--workers",
            &plan.workers.to_string(),
            "--store",
            &store,
        ]);
        // Silence is noticed after six seconds. Tenants are in flight at many kills, none of which
        // is their doing.
        command.args(["--heartbeat-interval", "2s", "--quarantine-after", "1024", "--log", "info"]);
        command.args(["--recycle-events", "2000"]);
        command.env("MESOPHYLL_API_SECRET", SECRET).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().expect("the binary starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a ready line");
        let ready: Value = serde_json::from_str(&line).expect("a ready line");
        let address =
            |of: &str| ready[of].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let listen: SocketAddr = address("listen");
        let proxies: Vec<Chaos> =
            (0..plan.workers).map(|id| Chaos::start(listen, plan.seed + id as u64)).collect();
        put_script(&link, &plan.binary, &proxies);
        let secret = Secret::new(SECRET.as_bytes().to_vec()).expect("long enough");
        let token = format!("Internal {}", mint(&secret, 7, u64::MAX / 2));
        let (master, api, workers) = (process.id(), address("api"), plan.workers);
        let site = Self { master, proxies, database, workers, api, token, process, folder };
        site.move_behind_proxies();
        site
    }

    /// Ends each worker that was started before the script was there.
    fn move_behind_proxies(&self) {
        self.wait_ready();
        for pid in workers_of(self.master).into_values() {
            signal(pid, Signal::KILL);
            eventually("the worker is reaped", || is_gone(pid).then_some(()));
        }
        self.wait_ready();
    }

    fn wait_ready(&self) {
        eventually("every worker is ready", || self.is_ready().then_some(()));
    }

    fn is_ready(&self) -> bool {
        self.agent()
            .get(format!("http://{}/readyz", self.api))
            .call()
            .is_ok_and(|answer| answer.status() == 200)
    }

    /// The worker's process.
    pub(crate) fn pid_of(&self, worker: usize) -> Option<u32> {
        workers_of(self.master).get(&worker).copied()
    }

    pub(crate) fn agent(&self) -> ureq::Agent {
        let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
        config.timeout_global(Some(DEADLINE)).build().into()
    }

    /// One dispatch: status and body.
    pub(crate) fn dispatch(
        &self,
        agent: &ureq::Agent,
        tenant: u64,
        name: &str,
        data: &Value,
        deadline: Duration,
    ) -> Result<(u16, Value), String> {
        let path = format!("/i/dispatch-event/guild/{tenant}?deadline_ms={}", deadline.as_millis());
        let body = serde_json::json!({ "name": name, "data": data }).to_string();
        let request =
            agent.post(format!("http://{}{path}", self.api)).header("Authorization", &self.token);
        let mut response = request.send(&body).map_err(|error| error.to_string())?;
        let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
        let value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        Ok((response.status().as_u16(), value))
    }

    /// A tenant's counter as it is in the store.
    pub(crate) fn stored_count(&self, tenant: u64) -> u64 {
        let ask =
            || self.dispatch(&self.agent(), tenant, "COUNT", &Value::Null, Duration::from_secs(10));
        let counted =
            eventually("a last count", || ask().ok().filter(|(status, _)| *status == 200));
        // It counted itself.
        counted.1.as_u64().unwrap_or(0) - 1
    }

    /// Waits until all is ready again; says what is not.
    pub(crate) fn wait_recovered(&self) -> Vec<String> {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            if self.is_ready() && workers_of(self.master).len() == self.workers {
                return Vec::new();
            }
            pause_until(Instant::now() + Duration::from_millis(50));
        }
        let answer = self.agent().get(format!("http://{}/readyz?verbose", self.api)).call();
        let text = answer.ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
        vec![format!("not ready {DEADLINE:?} after the end of it all: {text:?}")]
    }

    /// What the master has, once it has let go of what it can or the time is up.
    pub(crate) fn wait_quiet(&self, before: &Facts) -> Facts {
        let until = Instant::now() + QUIET;
        loop {
            let now = self.facts();
            if now.is_within(before) || Instant::now() >= until {
                return now;
            }
            pause_until(Instant::now() + Duration::from_millis(500));
        }
    }

    pub(crate) fn facts(&self) -> Facts {
        Facts::of(self.master)
    }

    /// Stops the master as an operator would; says what is wrong with its end.
    pub(crate) fn stop(mut self) -> Vec<String> {
        let workers = workers_of(self.master);
        signal(self.master, Signal::TERM);
        let status = self.process.wait().expect("a child of ours");
        let mut wrong = Vec::new();
        if status.code() != Some(0) {
            wrong.push(format!("the master ended with {status}"));
        }
        wrong.extend(
            workers
                .values()
                .filter(|pid| !is_gone(**pid))
                .map(|pid| format!("worker {pid} was left behind")),
        );
        let log = fs::read_to_string(self.folder.join("master.log")).unwrap_or_default();
        wrong.extend(log.lines().filter(|line| line.contains("panicked")).map(str::to_owned));
        let said = |text: &str| log.matches(text).count();
        println!(
            "the master's log has {} lines; rolling restarts: {} begun, {} done, {} stopped by what else happened",
            log.lines().count(),
            said("rolling restart of "),
            said("the rolling restart is done"),
            said("the rolling restart stops here")
        );
        if wrong.is_empty() {
            let _ = fs::remove_dir_all(&self.folder);
        } else {
            println!("its folder is left: {}", self.folder.display());
        }
        wrong
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nothing to a master that was stopped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Puts a script in the binary's place that starts a worker with its proxy as the master.
fn put_script(place: &Path, binary: &Path, proxies: &[Chaos]) {
    let cases: String = proxies
        .iter()
        .enumerate()
        .map(|(id, proxy)| format!("    {id}) proxy={} ;;\n", proxy.address()))
        .collect();
    let script = format!(
        "#!/bin/sh\nfor word do\n  shift\n  if [ \"$last\" = --id ]; then case $word in\n{cases}  esac; fi\n  \
         if [ \"$last\" = --master ]; then word=$proxy; fi\n  set -- \"$@\" \"$word\"\n  last=$word\ndone\nexec '{}' \"$@\"\n",
        binary.display()
    );
    let new = place.with_extension("new");
    fs::write(&new, script).expect("a script");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::rename(&new, place).expect("it takes the binary's place");
}

/// What Linux says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    threads: BTreeMap<String, usize>,
    fds: usize,
    children: usize,
    zombies: usize,
    resident_kib: u64,
}

impl Facts {
    fn of(pid: u32) -> Self {
        let mut threads: BTreeMap<String, usize> = BTreeMap::new();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        for task in tasks.filter_map(Result::ok) {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            // Connections have numbers; all of a server are of one kind.
            let kind = name.trim().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
            *threads.entry(kind).or_default() += 1;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
        let all: Vec<u32> = all_children(pid);
        let running = children_of(pid).len();
        Self {
            threads,
            fds: fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count(),
            children: running,
            zombies: all.len() - running.min(all.len()),
            resident_kib: resident.trim().trim_end_matches(" kB").parse().expect("a number"),
        }
    }

    fn thread_count(&self) -> usize {
        self.threads.values().sum()
    }

    /// Whether there is no more of anything that is counted; memory has a check of its own.
    fn is_within(&self, before: &Facts) -> bool {
        // A connection to PostgreSQL is made when it is wanted first, and is a socket and what its
        // private runtime needs.
        let fds_max = before.fds + 4 * before.threads.get("store-pg-").copied().unwrap_or(0);
        self.thread_count() <= before.thread_count()
            && self.fds <= fds_max
            && self.children == before.children
    }

    /// What has grown.
    pub(crate) fn check(before: &Facts, warm: &Facts, after: &Facts) -> Vec<String> {
        let mut wrong = Vec::new();
        if !after.is_within(before) || after.zombies > 0 {
            wrong.push(format!("something was left in the master: {before:?}, then {after:?}"));
        }
        // The allocator keeps what it once needed; a leak would be many times as much in so many
        // calls.
        if after.resident_kib > warm.resident_kib * 3 / 2 + 64 * 1024 {
            wrong.push(format!(
                "memory grew: {} KiB, then {} KiB",
                warm.resident_kib, after.resident_kib
            ));
        }
        wrong
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} threads, {} descriptors, {} workers, {} zombies, {} MiB",
            self.thread_count(),
            self.fds,
            self.children,
            self.zombies,
            self.resident_kib / 1024
        )
    }
}

/// The children of a process, those that wait to be reaped too.
fn all_children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).expect("it runs");
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// A database of the run's own on the tests' PostgreSQL server.
pub(crate) struct Database {
    server: String,
    name: String,
    pub(crate) url: String,
}

#[cfg(feature = "postgres")]
impl Database {
    fn new(binary: &Path) -> Self {
        let server = std::env::var("MESOPHYLL_TEST_POSTGRES_URL")
            .expect("STRESS_STORE=postgres needs a server");
        let name = format!("mesophyll_stress_{}", std::process::id());
        on(&server, &format!("CREATE DATABASE {name}"));
        let url = format!("{}/{name}", server.trim_end_matches('/'));
        let migrated = Command::new(binary)
            .args(["migrate", "--store", &url])
            .status()
            .expect("the binary starts");
        assert!(migrated.success(), "no tables");
        Self { server, name, url }
    }

    /// Locks the records for so long.
    pub(crate) fn stall(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        on(
            &self.url,
            &format!(
                "BEGIN; LOCK TABLE tenant_kv IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({seconds}); COMMIT"
            ),
        );
    }
}

#[cfg(feature = "postgres")]
impl Drop for Database {
    fn drop(&mut self) {
        on(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

#[cfg(feature = "postgres")]
fn on(url: &str, sql: &str) {
    postgres::Client::connect(url, postgres::NoTls)
        .expect("a connection")
        .batch_execute(sql)
        .expect("valid SQL");
}

#[cfg(not(feature = "postgres"))]
impl Database {
    fn new(_: &Path) -> Self {
        panic!("STRESS_STORE=postgres needs the feature postgres")
    }

    /// There is none to stall.
    pub(crate) fn stall(&self, _: Duration) {
        unreachable!("{} {} {}", self.server, self.name, self.url)
    }
}
