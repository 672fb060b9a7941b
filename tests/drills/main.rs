//! Drills: what is killed, stopped or frozen at the worst moments leaves nothing behind, and what is to come back comes back.
//!
//! | module | what it shows |
//! |---|---|
//! | [`kills`] | hundreds of kills at random moments, under load: supervisors, workers, instances, launches, clients, the agent |
//! | [`accepted`] | kills of the agent while calls come in that nobody waits for: each that was accepted is made |
//! | [`orders`] | deaths in awkward orders: while the other is stopped, while all is frozen, twice, during a start |
//! | [`many`] | hundreds of sandboxes side by side, and the host as it was when they are gone |
//! | [`stage`] | the host that is drilled, its load, a neighbour that must not notice, and what is not ours |
//! | [`load`] | callers that must be answered |
//! | [`census`] | what a host takes of the system |
//!
//! The short forms are a part of the tests; `SANDBAR_SOAK=1` runs the long ones. The moments come from a seed, which is printed, and
//! taken from `SANDBAR_DRILL_SEED` if that is set.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail loudly, and what they print is for people"
)]

mod accepted;
mod census;
mod kills;
mod load;
mod many;
mod orders;
#[path = "../../bus/tests/cast/random.rs"]
mod random;
mod stage;
#[allow(dead_code, reason = "shared with the end-to-end tests, which need more of it")]
#[path = "../e2e/support.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Each drill has the machine to itself.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the long forms are to be run.
fn is_soak() -> bool {
    std::env::var_os("SANDBAR_SOAK").is_some()
}

/// What the moments are drawn from.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let seed = std::env::var("SANDBAR_DRILL_SEED").map_or(now.into(), |seed| seed.parse().unwrap());
    println!("SANDBAR_DRILL_SEED={seed}");
    seed
}
