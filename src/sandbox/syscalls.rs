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

/// Calls with any arguments: what a worker was seen to make, and what the same libraries make at
/// other moments.
const PLAIN: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setpriority,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Those that only an old architecture has.
#[cfg(target_arch = "x86_64")]
const PLAIN_OLD: &[c_long] = &[libc::SYS_access, libc::SYS_poll, libc::SYS_readlink];
#[cfg(not(target_arch = "x86_64"))]
const PLAIN_OLD: &[c_long] = &[libc::SYS_faccessat];

/// Calls that no defect of ours makes: a thread that makes one is run by an attacker.
const NEVER: &[c_long] = &[
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// `prctl` to name anonymous memory, as the C library does; libc has no constant of that name.
const PR_SET_VMA: i32 = 0x5356_4d41;

/// The bits of a socket's type, without its flags.
const SOCKET_TYPE: i32 = 0xf;

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
    allow(libc::SYS_socketpair, any_of(0, &[libc::AF_UNIX])?)?;
    let families: &[i32] = match reach {
        Reach::Broker => return Ok(calls),
        Reach::Tcp(_) => &[libc::AF_INET, libc::AF_INET6],
        Reach::Unix(_) => &[libc::AF_UNIX],
    };
    let stream = |family: &i32| -> Built<Vec<Condition>> {
        Ok(vec![equal(0, *family)?, masked(1, SOCKET_TYPE, libc::SOCK_STREAM)?])
    };
    allow(libc::SYS_socket, families.iter().map(stream).collect::<Result<_, _>>()?)?;
    allow(libc::SYS_connect, Vec::new())?;
    Ok(calls)
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
