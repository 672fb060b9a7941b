//! What the application bus costs, beside floors and peers, in one run.
//!
//! ```text
//!   plan ── rounds ──▶ round_trip ─▶ two processes ─▶ bus │ floor::{futex, eventfd, pipe, unix_socket} │ iceoryx │ nats
//!     │                flow ───────▶ n : m processes ─▶ bus │ floor::{futex, pipe}
//!     │                copying ────▶ two processes ─▶ bus │ bare copies
//!     │                idle ───────▶ bus
//!     ▼
//!   report, goals
//! ```
//!
//! Every slice forks its processes, which block while they wait; the bench itself sleeps. Waits have bounds: a wake-up that is
//! lost ends the bench with an error. Ratios hold where the times do not, as all measurements share each moment's noise.
//!
//! It does not measure sandboxes, workers or forks: see `benches/hop.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, and ends at any error"
)]

mod arguments;
mod bus;
mod copying;
mod floor;
mod flow;
mod goals;
mod iceoryx;
mod idle;
mod nats;
mod pinning;
mod plan;
mod process;
mod report;
mod round_trip;
mod shared;

use clap::Parser;

fn main() {
    let arguments = arguments::Arguments::parse();
    let rounds = arguments.rounds();
    let home = iceoryx::Home::new();
    let mut measured = plan::Measured::default();
    if arguments.only == Some(arguments::Part::Peers) {
        measured.peers(&home);
        println!("{}", report::peers(&measured));
        return;
    }
    println!("{rounds} rounds on {} processors", pinning::processors().len());
    for _round in 0..rounds {
        measured.round(&home, &arguments);
    }
    report::report(&measured, rounds, idle::after_trickle(), idle::after_bursts());
}
