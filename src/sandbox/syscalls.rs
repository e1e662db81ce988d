//! System calls, by two seccomp filters on all threads.
//!
//! The first ends the process for a call that only an attacker makes; the second, which forbids
//! that a third is installed, answers `ENOSYS` to everything that is not on a list. `ENOSYS` and
//! not `EPERM`, nor the end of the process: a C library or a Rust that begins to use a new call
//! falls back to an older one, as on an older kernel. tests/it/sandbox/trace.rs fails when a worker
//! makes a call outside the list.

use std::collections::BTreeMap;
use std::error::Error;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, apply_filter_all_threads,
};

use super::Reach;

/// System calls by their names.
macro_rules! calls {
    ($($name:ident)*) => {
        &[$(libc::$name),*]
    };
}

/// Calls with any arguments: what a worker was seen to make, and what the same libraries make at
/// other moments.
const PLAIN: &[c_long] = calls! {
    SYS_brk SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_dup SYS_exit
    SYS_exit_group SYS_fstat SYS_futex SYS_getcwd SYS_getdents64 SYS_geteuid SYS_getpeername
    SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getrusage SYS_getsockname
    SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_lseek SYS_madvise SYS_membarrier
    SYS_mremap SYS_munmap SYS_nanosleep SYS_newfstatat SYS_ppoll SYS_pread64 SYS_read
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmsg SYS_restart_syscall SYS_rseq
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sched_getaffinity SYS_sched_yield
    SYS_set_robust_list SYS_shutdown SYS_sigaltstack SYS_statx SYS_write SYS_writev
};

/// Those that only an old architecture has.
#[cfg(target_arch = "x86_64")]
const PLAIN_OLD: &[c_long] = calls! { SYS_access SYS_poll SYS_readlink };
#[cfg(not(target_arch = "x86_64"))]
const PLAIN_OLD: &[c_long] = calls! { SYS_faccessat };

/// Calls that no defect of ours makes: a thread that makes one is run by an attacker.
const NEVER: &[c_long] = calls! {
    SYS_add_key SYS_bpf SYS_execve SYS_execveat SYS_finit_module SYS_init_module
    SYS_io_uring_setup SYS_kexec_load SYS_keyctl SYS_mount SYS_open_by_handle_at
    SYS_perf_event_open SYS_process_vm_readv SYS_process_vm_writev SYS_ptrace SYS_setns
    SYS_unshare SYS_userfaultfd
};

/// `prctl` to name anonymous memory, as the C library does; libc has no constant of that name.
const PR_SET_VMA: i32 = 0x5356_4d41;

/// Timeouts of a socket with 64 bits on each architecture; libc names only those of its own choice.
const SO_RCVTIMEO_NEW: i32 = 66;
const SO_SNDTIMEO_NEW: i32 = 67;

/// A process, or a thread, for `setpriority`.
const PRIO_PROCESS: i32 = 0;

/// The bits of a socket's type, without its flags.
const SOCKET_TYPE: i32 = 0xf;

/// How a message may be sent.
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_MORE;

/// The protocols of a TCP socket. Landlock restricts the ports of no other, and some of them reach
/// the same services (`IPPROTO_MPTCP`).
const TCP: [i32; 2] = [0, libc::IPPROTO_TCP];

type Built<T> = Result<T, Box<dyn Error>>;
type Calls = BTreeMap<c_long, Vec<SeccompRule>>;

/// Puts all threads of this process under both filters.
///
/// # Errors
/// The kernel, or this architecture, has none of it.
pub(super) fn filter(reach: &Reach) -> Result<(), String> {
    let both = || -> Built<()> {
        let never = NEVER.iter().map(|call| (*call, Vec::new())).collect();
        install(never, SeccompAction::Allow, SeccompAction::KillProcess)?;
        install(allowed(reach)?, SeccompAction::Errno(libc::ENOSYS as u32), SeccompAction::Allow)
    };
    both().map_err(|error| format!("seccomp: {error}"))
}

fn install(calls: Calls, others: SeccompAction, these: SeccompAction) -> Built<()> {
    let filter = SeccompFilter::new(calls, others, these, std::env::consts::ARCH.try_into()?)?;
    Ok(apply_filter_all_threads(&BpfProgram::try_from(filter)?)?)
}

fn allowed(reach: &Reach) -> Built<Calls> {
    let plain = PLAIN.iter().chain(PLAIN_OLD).map(|call| (*call, Vec::new()));
    let mut calls: Calls = plain.collect();
    let mut allow = |call, when: Vec<Vec<Condition>>| -> Built<()> {
        let rules = when.into_iter().map(SeccompRule::new).collect::<Result<_, _>>()?;
        calls.insert(call, rules);
        Ok(())
    };
    // Threads, never processes. `clone3` is not on the list, as its flags are behind a pointer:
    // the C library takes `clone` then.
    allow(libc::SYS_clone, vec![vec![masked(0, libc::CLONE_THREAD, libc::CLONE_THREAD)?]])?;
    // No memory that can be executed.
    allow(libc::SYS_mmap, vec![vec![masked(2, libc::PROT_EXEC, 0)?]])?;
    allow(libc::SYS_mprotect, vec![vec![masked(2, libc::PROT_EXEC, 0)?]])?;
    let opening = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_PATH;
    allow(libc::SYS_openat, vec![vec![masked(2, opening, libc::O_RDONLY)?]])?;
    // Names of threads and of memory.
    let names = [libc::PR_SET_NAME, libc::PR_GET_NAME, PR_SET_VMA];
    allow(libc::SYS_prctl, any_of(0, &names)?)?;
    let descriptors =
        [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC];
    allow(libc::SYS_fcntl, any_of(1, &descriptors)?)?;
    allow(libc::SYS_ioctl, any_of(1, &[libc::FIONBIO as i32])?)?;
    // Its own limits, to read them: the third argument would be new ones.
    let no_pointer = Condition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    allow(libc::SYS_prlimit64, vec![vec![equal(0, 0)?, no_pointer]])?;
    // To itself, for `abort`.
    let own = i32::try_from(std::process::id())?;
    allow(libc::SYS_tgkill, any_of(0, &[own])?)?;
    allow(libc::SYS_setsockopt, socket_options()?)?;
    // Of streams only: a datagram goes to any path that it is addressed to.
    let pair = vec![equal(0, libc::AF_UNIX)?, masked(1, SOCKET_TYPE, libc::SOCK_STREAM)?];
    allow(libc::SYS_socketpair, vec![pair])?;
    // To the peer of a connection only; not so that one is made by it (`MSG_FASTOPEN`), which
    // Landlock would not notice.
    let to_peer = Condition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    allow(libc::SYS_sendto, vec![vec![masked(3, !SEND_FLAGS, 0)?, to_peer]])?;
    allow(libc::SYS_sendmsg, vec![vec![masked(2, !SEND_FLAGS, 0)?]])?;
    // For threads that give way. Its own niceness only; of the policies, which go by the number of
    // a thread, the one that takes next to nothing from a thread of others.
    allow(libc::SYS_setpriority, vec![vec![equal(0, PRIO_PROCESS)?, equal(1, 0)?]])?;
    allow(libc::SYS_sched_setscheduler, any_of(1, &[libc::SCHED_BATCH])?)?;
    let families: &[i32] = match reach {
        Reach::Broker => return Ok(calls),
        Reach::Tcp(_) => &[libc::AF_INET, libc::AF_INET6],
        Reach::Unix(_) => &[libc::AF_UNIX],
    };
    let mut streams = Vec::new();
    for (family, protocol) in families.iter().flat_map(|family| TCP.map(|tcp| (*family, tcp))) {
        let stream = masked(1, SOCKET_TYPE, libc::SOCK_STREAM)?;
        streams.push(vec![equal(0, family)?, stream, equal(2, protocol)?]);
    }
    allow(libc::SYS_socket, streams)?;
    allow(libc::SYS_connect, Vec::new())?;
    Ok(calls)
}

/// Timeouts, and to send at once. Others run programs of the caller's (`SO_ATTACH_FILTER`) or, with
/// the rights of root, change the tables of the network.
fn socket_options() -> Built<Vec<Vec<Condition>>> {
    let of_sockets = [SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW, libc::SO_RCVTIMEO, libc::SO_SNDTIMEO];
    let mut options = vec![vec![equal(1, libc::IPPROTO_TCP)?, equal(2, libc::TCP_NODELAY)?]];
    for option in of_sockets {
        options.push(vec![equal(1, libc::SOL_SOCKET)?, equal(2, option)?]);
    }
    Ok(options)
}

/// The argument is one of these values.
fn any_of(argument: u8, values: &[i32]) -> Built<Vec<Vec<Condition>>> {
    values.iter().map(|value| Ok(vec![equal(argument, *value)?])).collect()
}

/// The argument is this value. Arguments of these calls have 32 bits.
fn equal(argument: u8, value: i32) -> Built<Condition> {
    Ok(Condition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, bits(value))?)
}

/// Of the argument, these bits have this value.
fn masked(argument: u8, mask: i32, value: i32) -> Built<Condition> {
    let masked = SeccompCmpOp::MaskedEq(bits(mask));
    Ok(Condition::new(argument, SeccompCmpArgLen::Dword, masked, bits(value))?)
}

/// The bits of an argument, without those of a sign.
fn bits(value: i32) -> u64 {
    u64::from(value as u32)
}
