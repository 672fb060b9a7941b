//! Privileges that an instance must not get: users, capabilities, limits, a better place in the scheduler, and what prctl(2) offers.

use crate::tried::{Attacks, Tried, call, is_refused};

pub(crate) const ATTACKS: Attacks = &[
    ("identities", identities),
    ("capabilities", capabilities),
    ("process-controls", process_controls),
    ("limits", limits),
    ("scheduling", scheduling),
    ("signals", signals),
    ("terminal", terminal),
];

const SAME: usize = u32::MAX as usize;

fn user() -> usize {
    call(libc::SYS_getuid, &[]).map_or(0, |user| user.cast_unsigned().try_into().unwrap_or(0))
}

fn identities(tried: &mut Tried<'_>) {
    let own = user();
    let others = (0..10).chain(990..1040).chain(1999..2200).chain([
        65_533,
        65_534,
        65_535,
        65_536,
        100_000,
        u32::MAX as usize - 1,
    ]);
    for other in others.filter(|other| *other != own) {
        for ids in [[other, other, other], [other, SAME, SAME], [SAME, other, SAME], [SAME, SAME, other]] {
            for number in [libc::SYS_setresuid, libc::SYS_setresgid] {
                let result = call(number, &ids);
                let refused = is_refused(&result) || result.is_err_and(|errno| errno.0 == libc::EINVAL);
                tried.check(format_args!("call {number} {ids:?}: {result:?}"), refused);
            }
        }
    }
    for (name, number) in [
        ("setuid", libc::SYS_setuid),
        ("setgid", libc::SYS_setgid),
        ("setreuid", libc::SYS_setreuid),
        ("setregid", libc::SYS_setregid),
        ("setfsuid", libc::SYS_setfsuid),
        ("setfsgid", libc::SYS_setfsgid),
        ("setgroups", libc::SYS_setgroups),
    ] {
        tried.absent(name, number, &[0, 0, 0]);
    }
    let mut ids = [0_u32; 3];
    let at: Vec<usize> = ids.iter_mut().map(|id| std::ptr::from_mut(id) as usize).collect();
    let asked = call(libc::SYS_getresuid, &at);
    tried.check(format_args!("is {ids:?} now: {asked:?}"), ids.iter().all(|id| *id as usize == own));
}

fn capabilities(tried: &mut Tried<'_>) {
    let header: [u32; 2] = [0x2008_0522, 0];
    let sets = [0_u32; 6];
    let get = call(libc::SYS_capget, &[header.as_ptr() as usize, sets.as_ptr() as usize]);
    tried.check(format_args!("has {sets:?}: {get:?}"), sets == [0; 6]);
    for bit in 0..41 {
        let (word, bit) = (usize::from(bit >= 32), 1_u32 << (bit % 32));
        for set in 0..3 {
            let mut wanted = [0_u32; 6];
            wanted[word * 3 + set] = bit;
            let what = format!("capability {bit:#x} of word {word} in set {set}");
            tried.refused(what, libc::SYS_capset, &[header.as_ptr() as usize, wanted.as_ptr() as usize]);
        }
    }
    const PR_CAP_AMBIENT: usize = 47;
    const PR_CAP_AMBIENT_RAISE: usize = 2;
    for capability in 0..41 {
        tried.refused("an ambient capability", libc::SYS_prctl, &[PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability]);
        let bounding = call(libc::SYS_prctl, &[libc::PR_CAPBSET_READ.cast_unsigned() as usize, capability]);
        tried.check(format_args!("capability {capability} is in the bounding set"), bounding == Ok(0));
    }
}

fn process_controls(tried: &mut Tried<'_>) {
    let control = |option: i32, arguments: [usize; 4]| {
        let [second, third, fourth, fifth] = arguments;
        call(libc::SYS_prctl, &[option.cast_unsigned() as usize, second, third, fourth, fifth])
    };
    for (what, option, arguments) in [
        ("new privileges again", libc::PR_SET_NO_NEW_PRIVS, [0; 4]),
        ("no filter", libc::PR_SET_SECCOMP, [0; 4]),
        ("root's special rights", libc::PR_SET_SECUREBITS, [0; 4]),
        ("another memory map", libc::PR_SET_MM, [1, 0x1000, 0, 0]),
        ("a dump as root", libc::PR_SET_DUMPABLE, [2, 0, 0, 0]),
    ] {
        let result = control(option, arguments);
        tried.check(format_args!("{what}: {result:?}"), result.is_err());
    }
    // These it may have; they must not help it.
    let _kept = control(libc::PR_SET_KEEPCAPS, [1, 0, 0, 0]);
    let _reaper = control(libc::PR_SET_CHILD_SUBREAPER, [1, 0, 0, 0]);
    let _named = control(libc::PR_SET_NAME, [c"sandbar-super".as_ptr() as usize, 0, 0, 0]);
    tried.check("the filter is in force", control(libc::PR_GET_SECCOMP, [0; 4]) == Ok(2));
    tried.check("privileges are closed", control(libc::PR_GET_NO_NEW_PRIVS, [0; 4]) == Ok(1));
    for persona in [0x0004_0000, 0x0040_0000, 0x0400_0000, 8] {
        tried.absent(format_args!("personality {persona:#x}"), libc::SYS_personality, &[persona]);
    }
}

fn limits(tried: &mut Tried<'_>) {
    // Resource, and the most that may be allowed.
    let wanted = [
        ("core files", libc::RLIMIT_CORE, 0),
        ("descriptors", libc::RLIMIT_NOFILE, 1024),
        ("message queues", libc::RLIMIT_MSGQUEUE, 0),
        ("real-time priority", libc::RLIMIT_RTPRIO, 0),
        ("niceness", libc::RLIMIT_NICE, 0),
        ("locked memory", libc::RLIMIT_MEMLOCK, 64 << 10),
        ("stack", libc::RLIMIT_STACK, 8 << 20),
        ("processes", libc::RLIMIT_NPROC, 1 << 20),
        ("file size", libc::RLIMIT_FSIZE, 128 << 20),
        ("queued signals", libc::RLIMIT_SIGPENDING, 1 << 20),
    ];
    for (what, resource, most) in wanted {
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let at = std::ptr::from_ref(&limit) as usize;
        let asked = call(libc::SYS_prlimit64, &[0, resource as usize, 0, at]);
        tried.check(format_args!("{what}: {} ({asked:?})", limit.rlim_max), limit.rlim_max <= most);
        let more =
            libc::rlimit { rlim_cur: limit.rlim_max.saturating_add(1), rlim_max: limit.rlim_max.saturating_add(1) };
        let at = std::ptr::from_ref(&more) as usize;
        tried.refused(format_args!("more {what}"), libc::SYS_prlimit64, &[0, resource as usize, at, 0]);
        for pid in 1..40 {
            if call(libc::SYS_getpid, &[]) != Ok(pid) {
                let pid = pid.cast_unsigned().try_into().unwrap_or(1);
                tried.refused(format_args!("{what} of {pid}"), libc::SYS_prlimit64, &[pid, resource as usize, at, 0]);
            }
        }
    }
}

fn scheduling(tried: &mut Tried<'_>) {
    let priority = 1_i32;
    let at = std::ptr::from_ref(&priority) as usize;
    for policy in [libc::SCHED_FIFO, libc::SCHED_RR, 6] {
        let result = call(libc::SYS_sched_setscheduler, &[0, policy.cast_unsigned() as usize, at]);
        tried.check(format_args!("policy {policy}: {result:?}"), result.is_err());
    }
    tried.absent("sched_setattr", libc::SYS_sched_setattr, &[0, at, 0]);
    let nicer = (-20_isize).cast_unsigned();
    tried.refused("nice -20", libc::SYS_setpriority, &[0, 0, nicer]);
    tried.refused("nice -1", libc::SYS_setpriority, &[0, 0, (-1_isize).cast_unsigned()]);
    let (none, idle) = (0_i32, libc::SCHED_IDLE.cast_unsigned() as usize);
    let own = call(libc::SYS_getpid, &[]).unwrap_or(0);
    for pid in (1..60).filter(|pid| *pid != own).map(|pid: i64| usize::try_from(pid).unwrap_or(1)) {
        tried.refused(format_args!("{pid} made nice"), libc::SYS_setpriority, &[0, pid, 19]);
        tried.refused(
            format_args!("{pid} made idle"),
            libc::SYS_sched_setscheduler,
            &[pid, idle, std::ptr::from_ref(&none) as usize],
        );
        let one = 1_u64;
        tried.refused(
            format_args!("{pid} moved"),
            libc::SYS_sched_setaffinity,
            &[pid, 8, std::ptr::from_ref(&one) as usize],
        );
    }
    for other in [1000, 1001, 2000, 2001, 2002, 2003].into_iter().filter(|other| *other != user()) {
        tried.refused(format_args!("user {other} made nice"), libc::SYS_setpriority, &[2, other, 19]);
    }
}

fn signals(tried: &mut Tried<'_>) {
    let own = call(libc::SYS_getpid, &[]).unwrap_or(0);
    for pid in (1..400).filter(|pid| *pid != own).map(|pid: i64| usize::try_from(pid).unwrap_or(1)) {
        for signal in [0, libc::SIGKILL, libc::SIGSTOP, libc::SIGCONT, libc::SIGUSR1]
            .map(|signal| signal.cast_unsigned() as usize)
        {
            tried.refused(format_args!("signal {signal} to {pid}"), libc::SYS_kill, &[pid, signal]);
            tried.refused(format_args!("signal {signal} to thread {pid}"), libc::SYS_tkill, &[pid, signal]);
        }
        if let Ok(fd) = call(libc::SYS_pidfd_open, &[pid]) {
            let fd = usize::try_from(fd).unwrap_or(0);
            tried.refused(format_args!("a signal to a descriptor of {pid}"), libc::SYS_pidfd_send_signal, &[fd, 9]);
            // It would be closed in the end; there may be more of them than descriptors.
            let _closed = call(libc::SYS_close, &[fd]);
        }
    }
}

fn terminal(tried: &mut Tried<'_>) {
    let byte = [b'x'];
    for fd in 0..6 {
        for (name, request) in [("TIOCSTI", libc::TIOCSTI), ("TIOCLINUX", libc::TIOCLINUX)] {
            let request = usize::try_from(request).unwrap_or(0);
            tried.absent(format_args!("{name} on {fd}"), libc::SYS_ioctl, &[fd, request, byte.as_ptr() as usize]);
            // The kernel looks at the lower half alone.
            tried.absent(
                format_args!("{name} on {fd}, above"),
                libc::SYS_ioctl,
                &[fd, request | 1 << 32, byte.as_ptr() as usize],
            );
        }
    }
}
