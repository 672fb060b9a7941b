//! A process may be killed at any instruction.
//!
//! ```text
//!   scenario: before ─▶ traced process, stopped after k instructions ─▶ others act, or not ─▶ killed, and swept ─▶ check::all
//!                       k = 0, 1, 2 … its exit                                             └▶ goes on to its end ─▶ check::all
//! ```
//!
//! Each stop has a segment of its own and a process of its own, which is stopped there and killed there. What is traced is what
//! the compiler made of the bus for this test (see the profile in the workspace's manifest): another compiler, other
//! instructions.
//!
//! With `SANDBAR_SOAK` set every stop is tried in all variants, is reached by single steps alone where nothing is swept, and
//! the sweep is traced after every state of the segment that a process may leave.
//!
//! What it does not show: what several processors may see of each other's writes out of order, as there is one that acts at a time
//! (the models in loom do); two who are killed in the midst of their work, but for a sweep of a dead one; the kernel's part of a
//! process's end; a kill within what the kernel maps into a process to read the clock, which writes nothing (see `trace`).
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test that forks, says what it found, and ends when it is not what it should be"
)]

#[cfg(target_arch = "x86_64")]
mod check;
#[cfg(target_arch = "x86_64")]
mod cover;
#[cfg(target_arch = "x86_64")]
mod scenario;
#[cfg(target_arch = "x86_64")]
mod sweeps;
#[cfg(target_arch = "x86_64")]
mod trace;
#[cfg(target_arch = "x86_64")]
mod world;

use std::io::Write;

const NAME: &str = "a_process_may_be_killed_at_any_instruction";

/// Says, past the test harness, that the test did not run. Where all must run, that is a failure.
fn skipped(reason: &str) {
    assert!(std::env::var_os("SANDBAR_TESTS_MUST_RUN").is_none(), "cannot run: {reason}");
    std::io::stderr().write_all(format!("SKIPPED {NAME}: {reason}\n").as_bytes()).unwrap();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_process_may_be_killed_at_any_instruction() {
    match trace::refusal() {
        Some(reason) => skipped(&reason),
        None => cover::all(NAME, std::env::var_os("SANDBAR_SOAK").is_some()),
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[test]
fn a_process_may_be_killed_at_any_instruction() {
    // Where an atomic operation is a pair of exclusive load and store, each step between the two makes the store fail.
    skipped("single steps go through atomic operations on x86-64 only");
}
