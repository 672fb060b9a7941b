//! System calls that must not exist.

use std::ffi::c_long;

use crate::tried::{Attacks, Tried, call, in_child};

pub(crate) const ATTACKS: Attacks = &[
    ("mounts", |tried| all_absent(tried, MOUNTS)),
    ("handles", |tried| all_absent(tried, HANDLES)),
    ("namespaces", namespaces),
    ("tracing", |tried| all_absent(tried, TRACING)),
    ("doors", |tried| all_absent(tried, DOORS)),
    ("machine", |tried| all_absent(tried, MACHINE)),
    ("ipc", |tried| all_absent(tried, IPC)),
    ("unknown-numbers", unknown_numbers),
    ("other-tables", other_tables),
    ("other-architecture", other_architecture),
    ("sockets", sockets),
];

type Calls = &'static [(&'static str, c_long)];

const MOUNTS: Calls = &[
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("fsopen", libc::SYS_fsopen),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fspick", libc::SYS_fspick),
    ("move_mount", libc::SYS_move_mount),
    ("open_tree", libc::SYS_open_tree),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("statmount", 457),
    ("listmount", 458),
    ("open_tree_attr", 467),
    ("swapon", libc::SYS_swapon),
    ("swapoff", libc::SYS_swapoff),
    ("quotactl", libc::SYS_quotactl),
    ("quotactl_fd", libc::SYS_quotactl_fd),
];
const HANDLES: Calls = &[
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("fanotify_mark", libc::SYS_fanotify_mark),
    ("mknodat", libc::SYS_mknodat),
    ("lookup_dcookie", libc::SYS_lookup_dcookie),
    ("setxattr", libc::SYS_setxattr),
    ("lsetxattr", libc::SYS_lsetxattr),
    ("fsetxattr", libc::SYS_fsetxattr),
    ("removexattr", libc::SYS_removexattr),
];
const TRACING: Calls = &[
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("process_madvise", libc::SYS_process_madvise),
    ("process_mrelease", libc::SYS_process_mrelease),
    ("kcmp", libc::SYS_kcmp),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("move_pages", libc::SYS_move_pages),
    ("migrate_pages", libc::SYS_migrate_pages),
    ("get_mempolicy", libc::SYS_get_mempolicy),
    ("ioprio_set", libc::SYS_ioprio_set),
];
const DOORS: Calls = &[
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_setup", libc::SYS_io_setup),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("keyctl", libc::SYS_keyctl),
    ("memfd_secret", libc::SYS_memfd_secret),
    ("mbind", libc::SYS_mbind),
    ("set_mempolicy", libc::SYS_set_mempolicy),
    ("remap_file_pages", libc::SYS_remap_file_pages),
    ("vmsplice", libc::SYS_vmsplice),
    ("lsm_set_self_attr", 460),
    ("map_shadow_stack", 453),
    #[cfg(target_arch = "x86_64")]
    ("modify_ldt", libc::SYS_modify_ldt),
];
const MACHINE: Calls = &[
    ("reboot", libc::SYS_reboot),
    ("kexec_load", libc::SYS_kexec_load),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("sethostname", libc::SYS_sethostname),
    ("setdomainname", libc::SYS_setdomainname),
    ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime),
    ("adjtimex", libc::SYS_adjtimex),
    ("clock_adjtime", libc::SYS_clock_adjtime),
    ("acct", libc::SYS_acct),
    ("syslog", libc::SYS_syslog),
    ("vhangup", libc::SYS_vhangup),
    ("sync", libc::SYS_sync),
    ("syncfs", libc::SYS_syncfs),
    ("nfsservctl", libc::SYS_nfsservctl),
    #[cfg(target_arch = "x86_64")]
    ("kexec_file_load", libc::SYS_kexec_file_load),
    #[cfg(target_arch = "x86_64")]
    ("iopl", libc::SYS_iopl),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", libc::SYS_ioperm),
    #[cfg(target_arch = "x86_64")]
    ("sysfs", libc::SYS_sysfs),
    #[cfg(target_arch = "x86_64")]
    ("uselib", libc::SYS_uselib),
];
const IPC: Calls = &[
    ("shmget", libc::SYS_shmget),
    ("shmat", libc::SYS_shmat),
    ("semget", libc::SYS_semget),
    ("semop", libc::SYS_semop),
    ("msgget", libc::SYS_msgget),
    ("msgsnd", libc::SYS_msgsnd),
    ("mq_open", libc::SYS_mq_open),
    ("mq_unlink", libc::SYS_mq_unlink),
];

fn all_absent(tried: &mut Tried<'_>, calls: Calls) {
    for (name, number) in calls {
        tried.absent(name, *number, &[]);
    }
}

/// Flags of clone(2) and unshare(2) that make a namespace.
const NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    0x80,
];

fn namespaces(tried: &mut Tried<'_>) {
    for flag in NAMESPACES.map(|flag| flag.cast_unsigned() as usize) {
        tried.absent(format_args!("unshare({flag:#x})"), libc::SYS_unshare, &[flag]);
        let vfork = libc::SIGCHLD.cast_unsigned() as usize;
        tried.absent(format_args!("clone({flag:#x})"), libc::SYS_clone, &[flag | vfork]);
        // The upper half of the register is not the kernel's flags, nor may it hide them.
        tried.absent(format_args!("clone({flag:#x}, above)"), libc::SYS_clone, &[flag | vfork | 1 << 40]);
        tried.absent(format_args!("setns({flag:#x})"), libc::SYS_setns, &[0, flag]);
    }
    let arguments = [0_u64; 11];
    tried.absent("clone3", libc::SYS_clone3, &[arguments.as_ptr() as usize, size_of_val(&arguments)]);
}

fn unknown_numbers(tried: &mut Tried<'_>) {
    for number in (470..700).chain([1_000, 4_096, 65_535, 0x3FFF_FFFF, c_long::from(i32::MAX), c_long::from(i32::MIN)])
    {
        tried.absent(number, number, &[]);
    }
}

/// Numbers of x32, which shares x86-64's entry.
#[cfg(target_arch = "x86_64")]
fn other_tables(tried: &mut Tried<'_>) {
    const X32: c_long = 0x4000_0000;
    for number in (0..470).chain(512..548) {
        tried.absent(format_args!("x32 {number}"), X32 | number, &[usize::MAX; 6]);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn other_tables(tried: &mut Tried<'_>) {
    tried.absent("there is no other table", 0x4000_0000, &[]);
}

/// The calls of 32-bit programs, which a filter by number would take for others: the process that tries is killed.
#[cfg(target_arch = "x86_64")]
fn other_architecture(tried: &mut Tried<'_>) {
    for number in [20_u32, 11, 21, 26, 120, 192] {
        let status = in_child(|| {
            // SAFETY: the call is not made; if it were, its arguments are null.
            unsafe {
                std::arch::asm!(
                    "push rbx", "xor ebx, ebx", "int 0x80", "pop rbx",
                    inout("eax") number => _, inout("ecx") 0 => _, inout("edx") 0 => _, inout("esi") 0 => _, inout("edi") 0 => _,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                );
            }
        });
        tried.check(
            format_args!("int 0x80, {number}: {status:#x}"),
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS,
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn other_architecture(tried: &mut Tried<'_>) {
    let status = in_child(|| {});
    tried.check("there is no other entry", libc::WIFEXITED(status));
}

fn sockets(tried: &mut Tried<'_>) {
    let allowed = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    for family in (0..64).filter(|family| !allowed.contains(family)) {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET] {
            let arguments = [family, kind, 0].map(|it| it.cast_unsigned() as usize);
            tried.absent(format_args!("a socket of family {family}, kind {kind}"), libc::SYS_socket, &arguments);
            let pair = [0_i32; 2];
            let [family, kind, _] = arguments;
            tried.absent("a pair", libc::SYS_socketpair, &[family, kind, 0, pair.as_ptr() as usize]);
        }
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [libc::IPPROTO_RAW, libc::IPPROTO_ICMP, libc::IPPROTO_TCP] {
            let arguments = [family, libc::SOCK_RAW, protocol].map(|it| it.cast_unsigned() as usize);
            tried.refused(format_args!("a raw socket of family {family}"), libc::SYS_socket, &arguments);
        }
        let packet = [family, 10, 0].map(|it| it.cast_unsigned() as usize);
        let result = call(libc::SYS_socket, &packet);
        tried.check(format_args!("SOCK_PACKET: {result:?}"), result.is_err());
    }
}
