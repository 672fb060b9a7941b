//! Probes that go for the application's message memory, and for descriptors that its processes and the agent share. What they write
//! there may end their own sandbox; it must not reach another, nor the agent.

use crate::battery::{Group, run_group};
use crate::probe::{Harm, Probe, Told, native, python};

const fn scribbles(probe: Probe) -> Probe {
    probe.within_ms(1200).told(Told::Any).harms(Harm::Scribbles)
}

const PROBES: &[Probe] = &[
    native("resize"),
    native("change-flags"),
    native("flood-the-trace"),
    native("ring-bells").cut_off_after_ms(800),
    native("grab-messages").failed("exited with status 3").harms(Harm::Starves),
    native("forge-messages").told(Told::Any).harms(Harm::Scribbles),
    native("outlive-the-deadline").cut_off_after_ms(700).harms(Harm::Scribbles),
    native("hide-its-process").cut_off_after_ms(700),
    native("hide-and-outlive").cut_off_after_ms(700),
    python("wrong-descriptors"),
    scribbles(python("overwrite-by-address")),
    scribbles(python("overwrite-by-file")),
    scribbles(native("scribble-noise")),
    scribbles(native("scribble-ones")),
    scribbles(native("scribble-zeros")),
    scribbles(native("shift-words")),
    scribbles(native("punch-holes")),
    scribbles(native("remove-pages")),
    scribbles(native("fill-the-event")),
    scribbles(native("shut-the-trace")),
];

#[test]
fn whatever_is_written_to_shared_memory_stays_in_the_application() {
    run_group(&Group { name: "bus", probes: PROBES });
}
