//! From one function to the next, beside what others use to hand a message to a process: iceoryx2's events and NATS. `benches/bus` measures
//! those, in rounds that take turns with our hops. Its processes stay and are used again; of ours each serves one call.

use std::process::Command;

use claims_report::{Claim, Goal, Rounds};
use serde::Deserialize;

use super::{Skipped, built};
use crate::chains;
use crate::running::output;
use crate::stage::{Host, Place, Scale};

/// A way, and microseconds.
#[derive(Debug, Default)]
pub(crate) struct HandOver {
    pub(crate) name: String,
    pub(crate) isolation: &'static str,
    pub(crate) p50_us: Rounds,
    pub(crate) p99_us: Rounds,
}

/// As `sandbar-bench-bus` prints it.
#[derive(Debug, Deserialize)]
struct RoundTrip {
    way: String,
    round_trip_p50_ns: f64,
    round_trip_p99_ns: f64,
}

/// Our hop, and round trips of the others; all on one processor.
pub(crate) fn measure(scale: Scale) -> Result<(HandOver, Vec<HandOver>), Skipped> {
    let bench = built("bench-bus/release/sandbar-bench-bus")?;
    let host = Host::start(Place::First, &[]);
    let mut hop = HandOver::new("Sandbar, a hop, one way".to_owned(), "process, forked ahead");
    let mut others: Vec<HandOver> = Vec::new();
    for _ in 0..scale.of(7, 3) {
        hop.add(chains::hop(&host, scale));
        // What it skips it tells on standard error.
        let mut command = Command::new(&bench);
        command.args(["--only", "peers"]);
        let output = output(command);
        let round_trips: Vec<RoundTrip> = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{} ({}): {error}", bench.display(), output.status))?;
        for RoundTrip { way, round_trip_p50_ns, round_trip_p99_ns } in round_trips {
            let name = format!("{way}, round trip");
            let known = others.iter().position(|other| other.name == name).unwrap_or_else(|| {
                others.push(HandOver::new(name, "none"));
                others.len() - 1
            });
            others[known].add((round_trip_p50_ns / 1e3, round_trip_p99_ns / 1e3));
        }
    }
    Ok((hop, others))
}

impl HandOver {
    fn new(name: String, isolation: &'static str) -> Self {
        Self { name, isolation, ..Self::default() }
    }

    fn add(&mut self, (p50_us, p99_us): (f64, f64)) {
        self.p50_us.push(p50_us);
        self.p99_us.push(p99_us);
    }
}

/// Our hop beside each of the others.
pub(crate) fn claims(hop: &HandOver, others: &[HandOver]) -> Vec<Claim> {
    let claim = |other: &HandOver| {
        let (ours, theirs) = (hop.p50_us.clone(), other.p50_us.clone());
        Claim::new("a hop, 64 bytes, one core, p50", "µs", ours, other.name.as_str(), theirs, Goal::None)
    };
    others.iter().map(claim).collect()
}
