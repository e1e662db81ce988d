//! What a process in the sandbox can still do, attempt by attempt.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::{as_ordinary_user, open_folder};
use crate::support::TempDir;
use crate::support::binary::example;

/// What a worker needs goes on.
const GOES_ON: [&str; 5] = [
    "read a template",
    "list the templates",
    "read own status",
    "list own descriptors",
    "start a thread",
];

/// Refused with `ENOSYS` whatever the kernel's Landlock: the calls are not on the list, or not with
/// these arguments.
const NO_SUCH_CALL: [&str; 27] = [
    "getpgid of an earlier thread",
    "write a template",
    "make a file",
    "make a link",
    "remove a file",
    "kill(MASTER, 0)",
    "tgkill(MASTER)",
    "sched_setscheduler(MASTER)",
    "setpriority(MASTER)",
    "setpriority of a user",
    "pidfd_open(MASTER)",
    "clone a process",
    "clone3",
    "spawn a program",
    "mmap executable",
    "mprotect executable",
    "memfd_create",
    "lift a limit",
    "prctl(PR_SET_DUMPABLE)",
    "seccomp",
    "netlink",
    "UDP",
    "vsock",
    "listen",
    "filter a socket",
    "datagram by path",
    "MPTCP to another port",
];

/// Files of others, opened for reading: the business of Landlock.
const FILES: [&str; 7] = [
    "open /etc/passwd",
    "open by root",
    "open by cwd",
    "open by ../1/root",
    "open the store",
    "open /proc/MASTER/environ",
    "open /proc/MASTER/fd",
];

/// The same for writing: seccomp refuses it before Landlock is asked.
const WRITES: [&str; 2] = ["write the store", "write /proc/MASTER/mem"];

/// The calls of which the process dies.
const FATAL: [&str; 18] = [
    "add_key",
    "bpf",
    "execve",
    "execveat",
    "finit_module",
    "init_module",
    "io_uring_setup",
    "kexec_load",
    "keyctl",
    "mount",
    "open_by_handle_at",
    "perf_event_open",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "setns",
    "unshare",
    "userfaultfd",
];

/// What an attacker would like to reach, and a probe to send after it.
struct Scene {
    folder: TempDir,
    service: TcpListener,
    abstract_name: String,
    _sockets: [UnixListener; 3],
    _log: UnixDatagram,
}

impl Scene {
    fn new() -> Self {
        let folder = open_folder(&[&example("sandbox_probe"), &example("without_calls")]);
        let path = folder.path();
        fs::create_dir(path.join("templates")).expect("a folder");
        fs::write(path.join("templates/main.luau"), "return 1").expect("a file");
        fs::write(path.join("store"), "secret").expect("a file");
        let abstract_name = path.to_str().expect("text").replace('/', "-");
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
        let sockets = [
            UnixListener::bind(path.join("postgres")).expect("a socket"),
            UnixListener::bind(path.join("master")).expect("a socket"),
            UnixListener::bind_addr(&address).expect("a socket"),
        ];
        let service = TcpListener::bind("127.0.0.1:0").expect("a port");
        let log = UnixDatagram::bind(path.join("log")).expect("a socket");
        Self { folder, service, abstract_name, _sockets: sockets, _log: log }
    }

    /// A probe that reaches its master so, on a kernel that lacks these calls.
    fn probe(&self, reach: &str, lacking: Option<&str>) -> Command {
        let path = self.folder.path();
        let program = path.join("sandbox_probe");
        let mut command = match lacking {
            None => Command::new(program),
            Some(lacking) => {
                let mut command = Command::new(path.join("without_calls"));
                command.arg(lacking).arg(program);
                command
            }
        };
        let port = self.service.local_addr().expect("bound").port().to_string();
        command.arg(reach).arg(std::process::id().to_string()).arg(path).arg(port);
        command.arg(&self.abstract_name).current_dir("/");
        command
    }

    /// How each attempt ended.
    fn attempts(&self, mut probe: Command) -> BTreeMap<String, String> {
        let output = probe.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        pairs.map(|(what, how)| (what.to_owned(), how.to_owned())).collect()
    }
}

/// That all of these attempts ended so.
fn all(attempts: &BTreeMap<String, String>, names: &[&str], how: &[&str]) {
    for name in names {
        let ended = attempts.get(*name).unwrap_or_else(|| panic!("{name} is not among them"));
        assert!(how.contains(&ended.as_str()), "{name}: {ended}, and not {how:?}");
    }
}

/// The Landlock ABI of this kernel, on which the expectations depend: what the probe says.
fn abi(attempts: &BTreeMap<String, String>) -> u32 {
    let sandbox = &attempts["sandbox"];
    match sandbox.strip_prefix("files ") {
        Some(abi) => abi.parse().expect("a number"),
        None if sandbox == "full" => 6,
        None => 0,
    }
}

#[test]
fn a_worker_behind_the_broker_reaches_nothing() {
    let scene = Scene::new();
    let attempts = scene.attempts(scene.probe("broker", None));
    all(&attempts, &GOES_ON, &["succeeded"]);
    all(&attempts, &NO_SUCH_CALL, &["ENOSYS"]);
    all(&attempts, &WRITES, &["ENOSYS"]);
    if abi(&attempts) > 0 {
        all(&attempts, &FILES, &["EACCES"]);
    }
    let network =
        ["TCP to another port", "TCP by a message", "Unix socket by path", "abstract Unix socket"];
    all(&attempts, &network, &["ENOSYS"]);
}

#[test]
fn a_worker_with_tcp_reaches_its_masters_port_only() {
    let scene = Scene::new();
    let master = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = master.local_addr().expect("bound").port();
    let attempts = scene.attempts(scene.probe(&format!("tcp:{port}"), None));
    all(&attempts, &GOES_ON, &["succeeded"]);
    all(&attempts, &["connect to the master"], &["succeeded"]);
    all(&attempts, &NO_SUCH_CALL, &["ENOSYS"]);
    all(&attempts, &["Unix socket by path", "abstract Unix socket"], &["ENOSYS"]);
    // Before ABI 4 Landlock knows no ports.
    let other = if abi(&attempts) >= 4 { "EACCES" } else { "succeeded" };
    all(&attempts, &["TCP to another port"], &[other]);
    all(&attempts, &["TCP by a message"], &["ENOSYS"]);
}

#[test]
fn a_worker_with_a_unix_socket_reaches_no_port() {
    let scene = Scene::new();
    let path = scene.folder.path().join("master");
    let attempts = scene.attempts(scene.probe(&format!("unix:{}", path.display()), None));
    all(&attempts, &GOES_ON, &["succeeded"]);
    all(&attempts, &["connect to the master"], &["succeeded"]);
    all(&attempts, &NO_SUCH_CALL, &["ENOSYS"]);
    all(&attempts, &["TCP to another port", "TCP by a message"], &["ENOSYS"]);
    let other = if abi(&attempts) >= 6 { "EPERM" } else { "succeeded" };
    all(&attempts, &["abstract Unix socket"], &[other]);
}

#[test]
fn without_landlock_seccomp_alone_ends_all_but_reading() {
    let scene = Scene::new();
    let attempts = scene.attempts(scene.probe("broker", Some("landlock")));
    assert!(attempts["sandbox"].starts_with("syscallsLandlock: the kernel has none"));
    all(&attempts, &GOES_ON, &["succeeded"]);
    all(&attempts, &NO_SUCH_CALL, &["ENOSYS"]);
    all(&attempts, &WRITES, &["ENOSYS"]);
    let network =
        ["TCP to another port", "TCP by a message", "Unix socket by path", "abstract Unix socket"];
    all(&attempts, &network, &["ENOSYS"]);
    all(&attempts, &["open /etc/passwd", "open the store"], &["succeeded"]);
}

#[test]
fn an_ordinary_user_is_confined_as_root_is() {
    let scene = Scene::new();
    let mut probe = scene.probe("broker", None);
    as_ordinary_user(&mut probe);
    let attempts = scene.attempts(probe);
    all(&attempts, &GOES_ON, &["succeeded"]);
    all(&attempts, &NO_SUCH_CALL, &["ENOSYS"]);
    all(&attempts, &WRITES, &["ENOSYS"]);
    if abi(&attempts) > 0 {
        all(&attempts, &FILES, &["EACCES"]);
    }
}

#[test]
fn a_call_that_only_an_attacker_makes_is_the_end() {
    let scene = Scene::new();
    for lacking in [None, Some("landlock")] {
        for attack in FATAL {
            let output = scene.probe("broker", lacking).arg(attack).output().expect("it runs");
            let signal = output.status.signal();
            assert_eq!(signal, Some(rustix::process::Signal::SYS.as_raw()), "{attack}: {output:?}");
        }
    }
}
