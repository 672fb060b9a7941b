//! Staying alive, and dying oddly.

use std::time::Duration;

use crate::tried::{Attacks, Errno, Tried, call, exit, fork, stay};

pub(crate) const ATTACKS: Attacks = &[
    ("vfork-and-stay", vfork_and_stay),
    ("leader-ends", leader_ends),
    ("leave-siblings", leave_siblings),
    ("steer-the-supervisor", steer_the_supervisor),
    ("exit-at-once", |_| exit(0)),
    ("exit-with-a-code", |_| exit(42)),
    ("become-another-program", become_another_program),
    ("trap-itself", trap_itself),
];

/// Dies by a signal, whatever the process does with it by default.
pub(crate) fn die_by(signal: i32) -> Result<String, String> {
    // SAFETY: the default disposition runs no code.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    let own = call(libc::SYS_getpid, &[]).map_or(0, |pid| usize::try_from(pid).unwrap_or(0));
    call(libc::SYS_kill, &[own, signal.cast_unsigned() as usize]).map_err(|errno| errno.to_string())?;
    std::thread::sleep(Duration::from_secs(20));
    Ok("it lives".to_owned())
}

/// A parent that waits for its vfork(2) to end cannot be woken by anything but its death.
fn vfork_and_stay(_tried: &mut Tried<'_>) {
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD).cast_unsigned() as usize;
    // Both sides run on one stack; the parent's side never goes on.
    let _child = call(libc::SYS_clone, &[flags]);
    stay()
}

/// The thread that the process is known by ends, another goes on.
fn leader_ends(_tried: &mut Tried<'_>) {
    let other = std::thread::Builder::new().stack_size(64 << 10).spawn(|| stay());
    if other.is_ok() {
        let _never = call(libc::SYS_exit, &[0]);
    }
}

/// Children of the supervisor, as the instance itself is one.
fn leave_siblings(tried: &mut Tried<'_>) {
    let flags = (libc::CLONE_PARENT | libc::SIGCHLD).cast_unsigned() as usize;
    for _ in 0..6 {
        if call(libc::SYS_clone, &[flags]) == Ok(0) {
            stay_deaf();
        }
        tried.check("a sibling", true);
    }
}

/// Stays with all signals blocked that can be.
fn stay_deaf() -> ! {
    let blocked = u64::MAX;
    let _blocked = call(libc::SYS_rt_sigprocmask, &[0, std::ptr::from_ref(&blocked) as usize, 0, 8]);
    stay()
}

/// Children that go on trying to slow the supervisor down: it may take their user for a moment when it looks after them.
fn steer_the_supervisor(tried: &mut Tried<'_>) {
    for _ in 0..3 {
        if fork() != 0 {
            tried.check("a child", true);
            continue;
        }
        let (none, one) = (0_i32, 1_u64);
        let limit = [0_u64, 0];
        let (none, one, limit) =
            (std::ptr::from_ref(&none) as usize, std::ptr::from_ref(&one) as usize, limit.as_ptr() as usize);
        loop {
            let _nice = call(libc::SYS_setpriority, &[0, 1, 19]);
            let _idle = call(libc::SYS_sched_setscheduler, &[1, 5, none]);
            let _moved = call(libc::SYS_sched_setaffinity, &[1, 8, one]);
            let _limited = call(libc::SYS_prlimit64, &[1, libc::RLIMIT_NOFILE as usize, limit, 0]);
            let _stopped = call(libc::SYS_kill, &[1, libc::SIGSTOP.cast_unsigned() as usize]);
        }
    }
}

fn become_another_program(tried: &mut Tried<'_>) {
    let arguments = [c"/bin/sleep".as_ptr(), c"60".as_ptr(), std::ptr::null()];
    let none = [std::ptr::null::<libc::c_char>()];
    let result = call(libc::SYS_execve, &[arguments[0] as usize, arguments.as_ptr() as usize, none.as_ptr() as usize]);
    tried.check(format_args!("no program: {result:?}"), false);
}

/// A filter of the process's own, under which nothing ends well.
fn trap_itself(tried: &mut Tried<'_>) {
    let refuse_all = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | 1 }];
    let program = libc::sock_fprog { len: 1, filter: refuse_all.as_ptr().cast_mut() };
    let at = std::ptr::from_ref(&program) as usize;
    let result: Result<_, Errno> = call(libc::SYS_seccomp, &[1, 0, at]);
    tried.check(format_args!("no filter: {result:?}"), false);
}
