//! A battery of hostile functions: each does its worst from inside a sandbox, and the host is looked at while it does and after.
//!
//! A *probe* is one attack, written in Python, shell or Rust, and a row of a table here: what it is called, what it is run by, and
//! how its call must end. Whether it held is not left to what the probe says. After each, what the kernel tells of the host and of
//! the sandbox must be what it told before: processes, mounts, control groups, temporary files, the agent's descriptors and memory, the
//! state directory. And while it runs, a function beside it and another application must answer in time.
//!
//! | module | what the probes of a group go for |
//! |---|---|
//! | [`files`] | files of the host, of the system, of others, and what a call may leave behind |
//! | [`kernel`] | system calls, privileges, namespaces, the network |
//! | [`exhaustion`] | processes, memory, buffers, descriptors, processor time, logs |
//! | [`life`] | staying alive, dying oddly, taking others along |
//! | [`replies`] | answers and log lines that are none, or too many |
//! | [`bus`] | the application's message memory, and descriptors that are shared |
//! | [`zygote`] | the worker that calls are forked from, and code that is hostile when it is loaded |
//!
//! Probes refuse to run anywhere but in a sandbox: they would hurt whoever ran them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail loudly, and what they print is for people"
)]

mod battery;
mod bus;
mod exhaustion;
mod files;
mod kernel;
mod life;
mod neighbours;
mod probe;
mod replies;
mod surroundings;
mod zygote;

#[allow(dead_code, reason = "what the tests in `tests/e2e` stand on; not all of it is wanted here")]
#[path = "../e2e/support.rs"]
mod support;
