//! The agent's side of a segment whose other side is hostile.
//!
//! 1. `scribbler`: a process writes lies while the agent works. Nothing panics, nothing takes long, nothing is longer than it may
//!    be, and another application's calls are answered meanwhile.
//! 2. `arbitrary`: whatever stands in a segment, each operation of the agent, the supervisor and an instance comes back.
//! 3. `nonsense`: what no honest process can have written is told as what it is.
//! 4. `memory`: the segment cannot be taken away, and holes in it are zeros.
//!
//! The long form, `make soak`, runs when `SANDBAR_SOAK` is set.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test ends when it finds what should not be"
)]

#[path = "../cast/application.rs"]
mod application;
mod arbitrary;
#[path = "../cast/chart.rs"]
mod chart;
mod lies;
mod mapping;
mod memory;
mod nonsense;
#[path = "../cast/process.rs"]
mod process;
#[path = "../cast/random.rs"]
mod random;
mod scribbler;

use sandbar_bus::Geometry;

/// Small, so that lies meet; with a largest payload that does not fill the pages of its buffer.
const GEOMETRY: Geometry = Geometry {
    functions: 2,
    targets: 1,
    slots: 4,
    queue_capacity: 8,
    payload_bytes_max: 300_000,
    assured: [2, 1, 0, 0],
    common: [10, 1, 2, 2],
};

fn is_long() -> bool {
    std::env::var_os("SANDBAR_SOAK").is_some() || std::env::var_os("SANDBAR_SOAK_MESSAGES").is_some()
}
