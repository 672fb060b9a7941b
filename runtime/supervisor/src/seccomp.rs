//! The system calls that processes of a sandbox may make. Everything else does not exist for them (`ENOSYS`), so that
//! libraries fall back as they do on an older kernel.

mod program;

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpOp};

use crate::identity::WORKER_ID_BASE;
use program::{Rule, TooLong, Verdicts};

/// Why a filter could not be made or installed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The filter cannot be expressed.
    #[error("the filter of system calls cannot be made")]
    TooLong(#[from] TooLong),
    /// The kernel refused it.
    #[error("the filter of system calls cannot be installed")]
    Install(#[from] seccompiler::Error),
}

/// Allowed whatever their arguments.
#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    // Files
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_openat, libc::SYS_openat2,
    libc::SYS_close, libc::SYS_close_range, libc::SYS_lseek, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx,
    libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_readlinkat,
    libc::SYS_getdents64, libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_mkdirat, libc::SYS_unlinkat,
    libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_fchmod, libc::SYS_fchmodat,
    libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_ftruncate, libc::SYS_truncate, libc::SYS_fallocate, libc::SYS_fsync,
    libc::SYS_fdatasync, libc::SYS_sync_file_range, libc::SYS_utimensat, libc::SYS_umask, libc::SYS_fcntl, libc::SYS_flock,
    libc::SYS_dup, libc::SYS_dup3, libc::SYS_pipe2, libc::SYS_sendfile, libc::SYS_splice, libc::SYS_tee,
    libc::SYS_copy_file_range, libc::SYS_fadvise64, libc::SYS_readahead, libc::SYS_getxattr, libc::SYS_lgetxattr,
    libc::SYS_fgetxattr, libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr, libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch,
    // Waiting
    libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_signalfd4, libc::SYS_timerfd_create, libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime, libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_futex, libc::SYS_futex_waitv,
    libc::SYS_restart_syscall,
    // Memory
    libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk, libc::SYS_msync,
    libc::SYS_mincore, libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_munlock, libc::SYS_mlockall, libc::SYS_munlockall,
    libc::SYS_memfd_create, libc::SYS_membarrier, libc::SYS_pkey_alloc, libc::SYS_pkey_free, libc::SYS_pkey_mprotect,
    // Processes
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_wait4, libc::SYS_waitid,
    libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid,
    libc::SYS_getpgid, libc::SYS_setpgid, libc::SYS_getsid, libc::SYS_setsid, libc::SYS_prctl, libc::SYS_set_tid_address,
    libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq, libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal,
    libc::SYS_prlimit64, libc::SYS_getrusage, libc::SYS_times, libc::SYS_capget, libc::SYS_capset,
    // Identity: what may be changed, and by whom, is for the capabilities and for the worker's own filter
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid, libc::SYS_getresgid,
    libc::SYS_getgroups, libc::SYS_setresuid, libc::SYS_setresgid,
    // What a process may take from itself
    libc::SYS_seccomp, libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self,
    // Signals
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sigaltstack,
    // Sockets, of the families below
    libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg,
    libc::SYS_recvmmsg, libc::SYS_shutdown, libc::SYS_setsockopt, libc::SYS_getsockopt,
    // Time, chance, and the machine
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday, libc::SYS_getitimer, libc::SYS_setitimer,
    libc::SYS_timer_create, libc::SYS_timer_settime, libc::SYS_timer_gettime, libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete, libc::SYS_getrandom, libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler,
    libc::SYS_sched_setscheduler, libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min, libc::SYS_getcpu,
    libc::SYS_getpriority, libc::SYS_setpriority,
];

/// The older calls that only x86-64 has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink,
    libc::SYS_getdents, libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename, libc::SYS_link,
    libc::SYS_symlink, libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes,
    libc::SYS_futimesat, libc::SYS_dup2, libc::SYS_pipe, libc::SYS_poll, libc::SYS_select, libc::SYS_epoll_create,
    libc::SYS_epoll_wait, libc::SYS_eventfd, libc::SYS_signalfd, libc::SYS_inotify_init, libc::SYS_pause, libc::SYS_alarm,
    libc::SYS_time, libc::SYS_getpgrp, libc::SYS_arch_prctl, libc::SYS_fork, libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Address families a socket may have. `AF_VSOCK`, for one, knows no network namespaces.
const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Flags of clone(2) that make namespaces.
const NEW_NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | CLONE_NEWTIME;
const CLONE_NEWTIME: i32 = 0x80;

/// Requests to terminals; the kernel takes the lower half of the argument alone.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

/// Confines this process, and all that come from it, to the calls above.
///
/// # Errors
/// When the kernel does not take the filter.
pub fn confine() -> Result<(), FilterError> {
    Ok(seccompiler::apply_filter(&sandbox_filter()?)?)
}

/// The program that [`confine`] gives the kernel.
///
/// # Errors
/// When it cannot be made.
pub fn sandbox_filter() -> Result<BpfProgram, FilterError> {
    compile(&sandbox_rules(), SeccompAction::Errno(libc::ENOSYS.cast_unsigned()), SeccompAction::Allow)
}

fn sandbox_rules() -> BTreeMap<c_long, Vec<Rule>> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut rules: BTreeMap<c_long, Vec<Rule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|number| (*number, Vec::new())).collect();
    let new_namespaces = MaskedEq(u64::from(NEW_NAMESPACES.cast_unsigned()));
    rules.insert(libc::SYS_clone, vec![vec![(0, new_namespaces, 0)]]);
    let families = FAMILIES.map(|family| vec![(0, Eq, family.cast_unsigned())]);
    rules.insert(libc::SYS_socket, families.into());
    rules.insert(libc::SYS_socketpair, vec![vec![(0, Eq, libc::AF_UNIX.cast_unsigned())]]);
    // A terminal's input can be forged with these two.
    rules.insert(libc::SYS_ioctl, vec![vec![(1, Ne, TIOCSTI), (1, Ne, TIOCLINUX)]]);
    // Asking which personality one has is harmless, another one switches address randomisation off.
    rules.insert(libc::SYS_personality, vec![vec![(0, Eq, 0xFFFF_FFFF)], vec![(0, Eq, 0)]]);
    rules
}

/// Lets a worker change its user and group to those of instances alone, although it has the capability to take any.
///
/// # Errors
/// When the kernel does not take the filter.
pub fn confine_worker() -> Result<(), FilterError> {
    Ok(seccompiler::apply_filter(&worker_filter()?)?)
}

/// The program that [`confine_worker`] gives the kernel.
///
/// # Errors
/// When it cannot be made.
pub fn worker_filter() -> Result<BpfProgram, FilterError> {
    compile(&worker_rules(), SeccompAction::Allow, SeccompAction::Errno(libc::EPERM.cast_unsigned()))
}

/// Lets a template change its user and group to those of workers, and what is forked from it to those of instances. Workers enter
/// [`worker_filter`] besides.
///
/// # Errors
/// When the kernel does not take the filter.
pub fn confine_template() -> Result<(), FilterError> {
    let rules = rules_of_users(WORKER_ID_BASE);
    let filter = compile(&rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM.cast_unsigned()))?;
    Ok(seccompiler::apply_filter(&filter)?)
}

/// A filter as the kernel takes it, for a process that is to enter it by itself.
#[must_use]
pub fn as_bytes(program: &BpfProgram) -> Vec<u8> {
    let bytes = program.iter().flat_map(|instruction| {
        let [code, code_too] = instruction.code.to_ne_bytes();
        let [k0, k1, k2, k3] = instruction.k.to_ne_bytes();
        [code, code_too, instruction.jt, instruction.jf, k0, k1, k2, k3]
    });
    bytes.collect()
}

/// What a worker may not.
fn worker_rules() -> BTreeMap<c_long, Vec<Rule>> {
    rules_of_users(sandbar_function::process::INSTANCE_UID_BASE)
}

/// Changes to users below this one, or above those of instances.
fn rules_of_users(lowest: u32) -> BTreeMap<c_long, Vec<Rule>> {
    // What runs as a slot's user is found when that slot is looked after; what ran as anybody else would not be.
    let instances = sandbar_function::process::INSTANCE_UID_BASE;
    let highest = instances + u32::try_from(sandbar_bus::layout::SLOTS_MAX - 1).unwrap_or(0);
    let beyond = |argument| [vec![(argument, SeccompCmpOp::Lt, lowest)], vec![(argument, SeccompCmpOp::Gt, highest)]];
    let beyond: Vec<Rule> = (0..3).flat_map(beyond).collect();
    [libc::SYS_setresuid, libc::SYS_setresgid].map(|call| (call, beyond.clone())).into()
}

fn compile(
    rules: &BTreeMap<c_long, Vec<Rule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    Ok(program::program(rules, Verdicts { matched: matched.into(), otherwise: otherwise.into() })?)
}

#[cfg(test)]
mod tests {
    use super::program::tests::{Call, assert_means, run};
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const NOT_PERMITTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    /// One of each kind that a rule asks for, on either half of an argument.
    const VALUES: [u64; 16] = [
        0,
        1,
        2,
        10,
        0x28,
        1999,
        2000,
        2255,
        2256,
        0x5412,
        0x541C,
        0x1_0000_5412,
        0x1001_1000,
        0x2000_0000,
        0xFFFF_FFFF,
        u64::MAX,
    ];

    #[test]
    fn each_call_has_the_verdict_that_the_lists_say() {
        assert_means(&sandbox_rules(), Verdicts { matched: ALLOW, otherwise: NO_SUCH_CALL }, 0..1024, &VALUES);
        assert_means(&worker_rules(), Verdicts { matched: NOT_PERMITTED, otherwise: ALLOW }, 0..1024, &VALUES);
        let template = rules_of_users(WORKER_ID_BASE);
        assert_means(&template, Verdicts { matched: NOT_PERMITTED, otherwise: ALLOW }, 0..1024, &VALUES);
        let program = sandbox_filter().unwrap();
        for number in 0..1024u32 {
            let listed = ALLOWED.iter().chain(ALLOWED_HERE).any(|call| *call == c_long::from(number));
            let verdict = run(&program, &Call::here(number, [0; 6])).0;
            let with_rules = [libc::SYS_clone, libc::SYS_ioctl, libc::SYS_personality].contains(&c_long::from(number));
            assert_eq!(verdict == ALLOW, listed || with_rules, "system call {number}: {verdict:#x}");
        }
    }

    #[test]
    fn the_rules_on_arguments_are_those_that_are_meant() {
        let verdict = |call: c_long, arguments: [u64; 2]| {
            let [first, second] = arguments;
            let call = Call::here(u32::try_from(call).unwrap(), [first, second, 0, 0, 0, 0]);
            run(&sandbox_filter().unwrap(), &call).0
        };
        for family in 0..64 {
            let allowed = FAMILIES.contains(&family);
            assert_eq!(verdict(libc::SYS_socket, [family as u64, 1]) == ALLOW, allowed, "family {family}");
            let unix = family == libc::AF_UNIX;
            assert_eq!(verdict(libc::SYS_socketpair, [family as u64, 1]) == ALLOW, unix, "family {family}");
        }
        for bit in 0..32 {
            let flag = 1u64 << bit;
            let makes_namespace = flag & u64::from(NEW_NAMESPACES.cast_unsigned()) != 0;
            assert_eq!(verdict(libc::SYS_clone, [flag | 17, 0]) == ALLOW, !makes_namespace, "clone flag {flag:#x}");
        }
        assert_eq!((u64::from(TIOCSTI), u64::from(TIOCLINUX)), (libc::TIOCSTI, libc::TIOCLINUX));
        for request in [TIOCSTI, TIOCLINUX].map(u64::from) {
            assert_eq!(verdict(libc::SYS_ioctl, [0, request]), NO_SUCH_CALL, "request {request:#x}");
        }
        assert_eq!(verdict(libc::SYS_ioctl, [0, u64::from(TIOCSTI) | 1 << 32]), NO_SUCH_CALL);
        assert_eq!(verdict(libc::SYS_ioctl, [0, u64::from(TIOCSTI) + 1]), ALLOW);
        assert_eq!(verdict(libc::SYS_personality, [0x0040_0000, 0]), NO_SUCH_CALL);
    }

    #[test]
    fn no_number_of_x32_matches() {
        let program = sandbox_filter().unwrap();
        for number in (0..1024).map(|number| number | 0x4000_0000).chain([0x8000_0000, u32::MAX]) {
            assert_eq!(run(&program, &Call::here(number, [0; 6])).0, NO_SUCH_CALL, "system call {number:#x}");
        }
    }

    /// The kernel runs a new filter for every number there is.
    #[test]
    fn a_verdict_takes_few_steps() {
        let program = sandbox_filter().unwrap();
        let steps = |number| run(&program, &Call::here(number, [0; 6])).1;
        let most = (0..512).map(steps).max().unwrap();
        assert!(most <= 24, "a call takes {most} instructions of {}", program.len());
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for call in ALLOWED.iter().chain(ALLOWED_HERE) {
            assert!(seen.insert(call), "system call {call}");
        }
    }

    #[test]
    fn what_a_sandbox_must_never_do_is_not_listed() {
        let never = [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_name_to_handle_at,
            libc::SYS_open_by_handle_at,
            libc::SYS_fsopen,
            libc::SYS_move_mount,
            libc::SYS_memfd_secret,
            libc::SYS_mknodat,
        ];
        for call in never {
            assert!(!ALLOWED.contains(&call) && !ALLOWED_HERE.contains(&call), "system call {call}");
        }
    }
}
