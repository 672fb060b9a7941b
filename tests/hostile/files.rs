//! Probes that go for files: of the host, of the system, of others; and what a call may leave behind.

use crate::battery::{Group, run_group};
use crate::probe::{Harm, Probe, native, python, shell};

const PROBES: &[Probe] = &[
    python("write-everywhere"),
    python("read-secrets"),
    python("processes"),
    python("set-user-bit"),
    python("devices"),
    python("links"),
    python("leaked-directories"),
    python("settings"),
    python("own-process"),
    python("extended-attributes"),
    python("sparse"),
    python("leave-files"),
    python("race-the-cleaner"),
    python("fill").harms(Harm::Starves),
    python("fill-inodes").harms(Harm::Starves),
    python("deep-directories").cut_off_after_ms(2500).harms(Harm::Starves),
    shell("shell-writes"),
    shell("shell-reads"),
    shell("shell-mounts"),
    native("mounts"),
    native("handles"),
];

#[test]
fn files_are_out_of_reach_and_none_outlives_its_call() {
    run_group(&Group { name: "files", probes: PROBES });
}
