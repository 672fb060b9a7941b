//! What the application bus is meant to reach, and whether it did.

use crate::idle::Memory;
use crate::pinning::Placement;
use crate::plan::{AMOUNTS, Channel, Way};
use crate::report::Figures;

/// A goal and what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) goal: f64,
    pub(crate) measured: f64,
    /// Whether more is better.
    pub(crate) at_least: bool,
}

impl Goal {
    /// `None` when it was not measured.
    pub(crate) fn met(&self) -> Option<bool> {
        let met = if self.at_least { self.measured >= self.goal } else { self.measured <= self.goal };
        (!self.measured.is_nan()).then_some(met)
    }
}

const IDLE_BYTES_MAX: f64 = 262_144.0;

/// All goals.
pub(crate) fn goals(figures: &Figures, trickle: Memory, bursts: Memory) -> Vec<Goal> {
    let small = AMOUNTS[0].payload_bytes;
    let round_trip = |way: Way| figures.round_trip_p50(Placement::OneCore, small, way);
    let bus = round_trip(Way::Bus);
    let copies = figures.copies(Placement::OneCore);
    let most = |what, goal, measured| Goal { what, goal, measured, at_least: false };
    let least = |what, goal, measured| Goal { what, goal, measured, at_least: true };
    vec![
        most("round trip of 64 B on one core, times the futex floor", 1.5, bus / round_trip(Way::Futex)),
        most("round trip of 64 B on one core, times iceoryx2's event", 0.5, bus / round_trip(Way::IceoryxEvent)),
        least(
            "messages a second, 8 producers to 8 consumers, all cores",
            1e6,
            figures.stream(Placement::AllCores, crate::flow::SHAPES[3], Channel::Bus),
        ),
        least("1 MiB through the bus on one core, times as many bare copies", 0.8, copies.bus / copies.copies),
        most("idle segment after a trickle of all sizes, in bytes", IDLE_BYTES_MAX, trickle.idle as f64),
        most("idle segment after bursts of all sizes, in bytes", IDLE_BYTES_MAX, bursts.idle as f64),
    ]
}
