//! The native function that the bench calls: it answers with a copy of its event, whatever function it is the worker of.
//!
//! Of the event "when" it makes one that holds the time; of that, whoever is next logs how long ago it was, by the id of the call.
//!
//! Started as `claims-functions forks COUNT` it is its own floor: the same program, without a sandbox, forks that many processes one after
//! another, which end at once. It prints the nanoseconds of all together.
#![allow(clippy::print_stdout, reason = "the floor prints what it measured")]
#![allow(unsafe_code, reason = "fork, its child's end and the clock have no safe wrappers")]

use std::convert::Infallible;
use std::time::Instant;

use sandbar_function::Context;

fn echo(event: &[u8], context: &Context<'_>) -> Result<Vec<u8>, Infallible> {
    if event == b"when" {
        return Ok(format!("when {}", now_ns()).into_bytes());
    }
    if let Some(then) = event.strip_prefix(b"when ") {
        let late = std::str::from_utf8(then).ok().and_then(|then| now_ns().checked_sub(then.parse().ok()?));
        context.log(format_args!("late {:x} {}", context.call_id(), late.map_or(-1, i128::from)));
    }
    Ok(event.to_vec())
}

/// Of the clock that all processes share.
fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is ours to be written.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)).unwrap_or(0)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("forks") {
        sandbar_function::serve(echo)
    }
    let count: u32 = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let began = Instant::now();
    (0..count).for_each(|_| fork_exit_wait());
    println!("{}", began.elapsed().as_nanos());
}

/// By the system call, as a worker forks.
fn fork_exit_wait() {
    // SAFETY: the process has one thread; the child makes one system call.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if pid == 0 {
        // SAFETY: the child has nothing to leave behind.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
}
