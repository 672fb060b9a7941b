//! What is claimed of Sandbar, each claim beside its floor or a peer in the same run, in turns: ratios hold where times do not.
//!
//! `cargo bench --bench claims -- [--quick] [PART …]`; the parts are those of [`PARTS`]. Loads come from `sandbar bench`, for us and for peers
//! alike. Needs root, `target/release/claims-functions`, and, for its part, `target/bench-wasm/release/wasm-server` (`make bench` builds
//! them). Prints a table, and writes `target/bench/claims.json` and `claims.md`. A goal that is missed is told, and fails nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a bench prints, and ends at any error")]

mod calls;
mod chains;
mod cold;
mod floors;
mod memory;
mod overload;
mod python;
mod report;
mod stage;

use report::Claim;
use stage::Scale;

/// A part of the bench, by its name: the claims that it looks at.
type Part = (&'static str, fn(Scale) -> Vec<Claim>);

const PARTS: [Part; 7] = [
    ("chain", chains::measure),
    ("call", calls::measure),
    ("throughput", calls::measure_throughput),
    ("python", python::measure),
    ("cold", cold::measure),
    ("overload", overload::measure),
    ("memory", memory::measure),
];

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: sandboxes are made by root");
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name: &str| arguments.iter().any(|argument| argument == name);
    let scale = if asked("--quick") { Scale::Quick } else { Scale::Whole };
    let some_are_named = PARTS.iter().any(|(name, _)| asked(name));
    let mut claims = Vec::new();
    for (name, measure) in PARTS.iter().filter(|(name, _)| !some_are_named || asked(name)) {
        println!("{name}");
        for claim in measure(scale) {
            println!("  {claim}");
            claims.push(claim);
        }
    }
    report::write(&claims);
}
