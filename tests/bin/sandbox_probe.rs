//! Stands for a worker that was taken over: goes into the sandbox as a worker does, then does what
//! an attacker would, and prints how each attempt ended.
//!
//! Arguments: how it reaches its master (`broker`, `tcp:PORT` or `unix:PATH`), the master's pid, a
//! folder with `templates/main.luau`, `store` and the Unix socket `postgres`, a TCP port of another
//! service, the name of an abstract socket; and, to die of it, the attack to make last.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;

use attack::{call, libc};
use mesophyll::sandbox::{Plan, Reach, confine};
use mesophyll::wire::data::SandboxMode;

/// Prints how an attempt ended.
macro_rules! tell {
    ($what:expr, $result:expr) => {{
        let how = match $result {
            Ok(_) => "succeeded".to_owned(),
            Err(number) => name(number),
        };
        say(&format!("{}: {how}", $what))?
    }};
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [reach, master, folder, port, abstract_name, rest @ ..] = &arguments[..] else {
        return Err("REACH PID FOLDER PORT ABSTRACT [ATTACK]".into());
    };
    let folder = Path::new(folder);
    let templates = folder.join("templates");
    let reach = match reach.split_once(':') {
        Some(("tcp", port)) => Reach::Tcp(port.parse()?),
        Some(("unix", path)) => Reach::Unix(path.into()),
        _ => Reach::Broker,
    };
    let mode = SandboxMode::Prefer;
    let confined =
        confine(Plan { mode, templates: Some(&templates), reach: reach.clone(), memory: None })?;
    // One that is there before the filters must be under them too.
    let (go_tx, go_rx) = crossbeam_channel::bounded::<()>(0);
    let early = std::thread::spawn(move || {
        let _ = go_rx.recv();
        call(libc::SYS_getpgid, [0; 6])
    });
    let (sandbox, missing) = confined.seal()?;
    say(&format!("sandbox: {}{}", sandbox.summary(), missing.concat()))?;
    drop(go_tx);
    tell!("getpgid of an earlier thread", early.join().map_err(|_| "it panicked")?);
    goes_on(&templates, &reach)?;
    files(folder, master)?;
    processes(master.parse()?)?;
    network(folder, port.parse()?, abstract_name)?;
    if let [fatal] = rest {
        die(fatal, master.parse()?)?;
    }
    Ok(())
}

/// What a worker needs.
fn goes_on(templates: &Path, reach: &Reach) -> Result<(), Box<dyn Error>> {
    tell!("read a template", number(fs::read(templates.join("main.luau"))));
    tell!("list the templates", number(fs::read_dir(templates)));
    tell!("read own status", number(fs::read("/proc/self/status")));
    tell!("list own descriptors", number(fs::read_dir("/proc/self/fd")));
    let thread = std::thread::Builder::new().spawn(|| 1);
    tell!("start a thread", number(thread.map(std::thread::JoinHandle::join)));
    match reach {
        Reach::Broker => {}
        Reach::Tcp(port) => {
            tell!("connect to the master", number(TcpStream::connect(("127.0.0.1", *port))))
        }
        Reach::Unix(path) => tell!("connect to the master", number(UnixStream::connect(path))),
    }
    Ok(())
}

fn files(folder: &Path, master: &str) -> Result<(), Box<dyn Error>> {
    let write = |path: &Path| OpenOptions::new().write(true).open(path);
    tell!("open /etc/passwd", number(File::open("/etc/passwd")));
    for way in ["root", "cwd", "../1/root"] {
        let file = format!("/proc/self/{way}/etc/passwd");
        tell!(format!("open by {way}"), number(File::open(file)));
    }
    tell!("open the store", number(File::open(folder.join("store"))));
    tell!("write the store", number(write(&folder.join("store"))));
    tell!("open /proc/MASTER/environ", number(File::open(format!("/proc/{master}/environ"))));
    tell!("open /proc/MASTER/fd", number(fs::read_dir(format!("/proc/{master}/fd"))));
    tell!("write /proc/MASTER/mem", number(write(Path::new(&format!("/proc/{master}/mem")))));
    tell!("write a template", number(fs::write(folder.join("templates/main.luau"), "x")));
    tell!("make a file", number(File::create(folder.join("new"))));
    tell!("make a link", number(std::os::unix::fs::symlink("/etc", folder.join("templates/e"))));
    tell!("remove a file", number(fs::remove_file(folder.join("store"))));
    Ok(())
}

fn processes(master: usize) -> Result<(), Box<dyn Error>> {
    let fork = libc::SIGCHLD as usize;
    tell!("kill(MASTER, 0)", call(libc::SYS_kill, [master, 0, 0, 0, 0, 0]));
    tell!("tgkill(MASTER)", call(libc::SYS_tgkill, [master, master, 0, 0, 0, 0]));
    // Neither needs a right to make another process of the same user slower.
    let priority = [0_i32];
    let other = [master, libc::SCHED_OTHER as usize, priority.as_ptr() as usize, 0, 0, 0];
    tell!("sched_setscheduler(MASTER)", call(libc::SYS_sched_setscheduler, other));
    tell!("setpriority(MASTER)", call(libc::SYS_setpriority, [0, master, 0, 0, 0, 0]));
    tell!("setpriority of a user", call(libc::SYS_setpriority, [2, 54321, 0, 0, 0, 0]));
    tell!("pidfd_open(MASTER)", call(libc::SYS_pidfd_open, [master, 0, 0, 0, 0, 0]));
    tell!("clone a process", call(libc::SYS_clone, [fork, 0, 0, 0, 0, 0]));
    tell!("clone3", call(libc::SYS_clone3, [0; 6]));
    #[cfg(target_arch = "x86_64")]
    {
        tell!("fork", call(libc::SYS_fork, [0; 6]));
        tell!("vfork", call(libc::SYS_vfork, [0; 6]));
    }
    tell!("spawn a program", number(Command::new("/bin/true").spawn()));
    let executable = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as usize;
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    tell!("mmap executable", call(libc::SYS_mmap, [0, 4096, executable, anonymous, usize::MAX, 0]));
    let page = call(libc::SYS_mmap, [0, 4096, 1, anonymous, usize::MAX, 0]).unwrap_or(0) as usize;
    tell!("mprotect executable", call(libc::SYS_mprotect, [page, 4096, executable, 0, 0, 0]));
    tell!("memfd_create", call(libc::SYS_memfd_create, [page, 0, 0, 0, 0, 0]));
    tell!("lift a limit", call(libc::SYS_prlimit64, [0, 7, page, 0, 0, 0]));
    tell!("prctl(PR_SET_DUMPABLE)", call(libc::SYS_prctl, [4, 1, 0, 0, 0, 0]));
    tell!("seccomp", call(libc::SYS_seccomp, [1, 0, page, 0, 0, 0]));
    Ok(())
}

fn network(folder: &Path, port: u16, abstract_name: &str) -> Result<(), Box<dyn Error>> {
    let socket = |family: i32, kind: i32| {
        call(libc::SYS_socket, [family as usize, kind as usize, 0, 0, 0, 0])
    };
    tell!("netlink", socket(libc::AF_NETLINK, libc::SOCK_RAW));
    tell!("UDP", socket(libc::AF_INET, libc::SOCK_DGRAM));
    tell!("vsock", socket(libc::AF_VSOCK, libc::SOCK_STREAM));
    tell!("TCP to another port", number(TcpStream::connect(("127.0.0.1", port))));
    tell!("listen", number(TcpListener::bind("127.0.0.1:0")));
    tell!("Unix socket by path", number(UnixStream::connect(folder.join("postgres"))));
    let address = SocketAddr::from_abstract_name(abstract_name)?;
    tell!("abstract Unix socket", number(UnixStream::connect_addr(&address)));
    let (socket, _) = UnixStream::pair()?;
    let (socket, level) = (socket.as_raw_fd() as usize, libc::SOL_SOCKET as usize);
    let filter = [socket, level, libc::SO_ATTACH_FILTER as usize, 0, 0, 0];
    tell!("filter a socket", call(libc::SYS_setsockopt, filter));
    // Ways around `connect`: a datagram goes to the path that it is addressed to, also on a socket
    // that has a peer; a message may open a TCP connection; another protocol may fall back to TCP.
    let datagrams = UnixDatagram::pair().map(|(socket, _)| socket);
    let datagrams = datagrams.and_then(|socket| socket.send_to(b"x", folder.join("log")));
    tell!("datagram by path", number(datagrams));
    tell!("TCP by a message", fast_open(port));
    tell!("MPTCP to another port", mptcp(port));
    Ok(())
}

/// The address of a port of this host, as the kernel takes it.
fn loopback(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let family = (libc::AF_INET as u16).to_ne_bytes();
    [&family[..], &[high, low, 127, 0, 0, 1], &[0; 8]].concat()
}

fn fast_open(port: u16) -> Result<i64, i32> {
    let (family, kind) = (libc::AF_INET as usize, libc::SOCK_STREAM as usize);
    let socket = call(libc::SYS_socket, [family, kind, 0, 0, 0, 0])? as usize;
    let (address, byte) = (loopback(port), [0_u8]);
    let (at, flags) = (address.as_ptr() as usize, libc::MSG_FASTOPEN as usize);
    call(libc::SYS_sendto, [socket, byte.as_ptr() as usize, 1, flags, at, address.len()])
}

fn mptcp(port: u16) -> Result<i64, i32> {
    let (family, kind) = (libc::AF_INET as usize, libc::SOCK_STREAM as usize);
    let protocol = libc::IPPROTO_MPTCP as usize;
    let socket = call(libc::SYS_socket, [family, kind, protocol, 0, 0, 0])? as usize;
    let address = loopback(port);
    call(libc::SYS_connect, [socket, address.as_ptr() as usize, address.len(), 0, 0, 0])
}

/// Attacks of which the process is to die.
fn die(attack: &str, master: usize) -> Result<(), Box<dyn Error>> {
    let number = match attack {
        "add_key" => libc::SYS_add_key,
        "bpf" => libc::SYS_bpf,
        "execve" => libc::SYS_execve,
        "execveat" => libc::SYS_execveat,
        "finit_module" => libc::SYS_finit_module,
        "init_module" => libc::SYS_init_module,
        "io_uring_setup" => libc::SYS_io_uring_setup,
        "kexec_load" => libc::SYS_kexec_load,
        "keyctl" => libc::SYS_keyctl,
        "mount" => libc::SYS_mount,
        "open_by_handle_at" => libc::SYS_open_by_handle_at,
        "perf_event_open" => libc::SYS_perf_event_open,
        "process_vm_readv" => libc::SYS_process_vm_readv,
        "process_vm_writev" => libc::SYS_process_vm_writev,
        "ptrace" => libc::SYS_ptrace,
        "setns" => libc::SYS_setns,
        "unshare" => libc::SYS_unshare,
        "userfaultfd" => libc::SYS_userfaultfd,
        other => return Err(format!("no attack {other}").into()),
    };
    let arguments = if attack == "ptrace" { [16, master, 0, 0, 0, 0] } else { [0; 6] };
    tell!(attack, call(number, arguments));
    Ok(())
}

fn number<T>(result: io::Result<T>) -> Result<T, i32> {
    result.map_err(|error| error.raw_os_error().unwrap_or(0))
}

fn name(number: i32) -> String {
    match number {
        libc::EACCES => "EACCES".to_owned(),
        libc::EPERM => "EPERM".to_owned(),
        libc::ENOSYS => "ENOSYS".to_owned(),
        other => format!("error {other}"),
    }
}

/// Writes a line at once: the process may die of what comes next.
fn say(line: &str) -> io::Result<()> {
    use std::io::Write;
    writeln!(io::stdout(), "{line}")
}
