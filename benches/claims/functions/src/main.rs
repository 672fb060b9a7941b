//! The native function that the bench calls: it answers with a copy of its event, whatever function it is the worker of.
//!
//! Of the event "when" it makes one that holds the time; of that, whoever is next logs how long ago it was, by the id of the call.
//!
//! Started as `claims-functions forks COUNT` it is its own floor: the same program, without a sandbox, forks that many processes one after
//! another, which end at once. It prints the nanoseconds of all together. As `claims-functions once`, and as a program of CGI, it is what peers
//! start for each call: it answers on its standard output with what it is sent on its standard input.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "the floor prints what it measured, and a peer's program what failed"
)]
#![allow(unsafe_code, reason = "fork, its child's end and the clock have no safe wrappers")]

use std::convert::Infallible;
use std::io::{self, Read, Write};
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
    let done = match arguments.next().as_deref() {
        Some("forks") => {
            forks(arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1000));
            Ok(())
        }
        Some("once") => answer(b"", u64::MAX),
        // So much is sent, and no end of it.
        _ => match std::env::var("CONTENT_LENGTH").map(|length| length.parse()) {
            Ok(length) => answer(b"Content-Type: application/octet-stream\r\n\r\n", length.unwrap_or(0)),
            Err(_) => sandbar_function::serve(echo),
        },
    };
    if let Err(error) = done {
        eprintln!("claims-functions: {error}");
        std::process::exit(1);
    }
}

fn forks(count: u32) {
    let began = Instant::now();
    (0..count).for_each(|_| fork_exit_wait());
    println!("{}", began.elapsed().as_nanos());
}

/// Answers with what comes in, of so many bytes at most, in one piece.
fn answer(head: &[u8], bytes_max: u64) -> io::Result<()> {
    let mut answer = head.to_vec();
    io::stdin().take(bytes_max).read_to_end(&mut answer)?;
    let mut output = io::stdout();
    output.write_all(&answer)?;
    output.flush()
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
