//! Probes that go for the kernel: system calls that must not exist, privileges, the network.

use crate::battery::{Group, run_group};
use crate::probe::{Probe, native, python, shell};

const PROBES: &[Probe] = &[
    native("namespaces"),
    native("tracing"),
    native("doors"),
    native("machine"),
    native("ipc"),
    native("unknown-numbers"),
    native("other-tables"),
    native("other-architecture"),
    native("sockets"),
    native("identities"),
    native("capabilities"),
    native("process-controls"),
    native("limits"),
    native("scheduling"),
    native("signals"),
    native("terminal"),
    python("network"),
    python("host-sockets"),
    python("control-groups"),
    python("programs-in-memory"),
    shell("shell-privileges"),
    shell("shell-machine"),
];

#[test]
fn the_kernel_gives_nothing_that_a_function_does_not_need() {
    run_group(&Group { name: "kernel", probes: PROBES });
}
