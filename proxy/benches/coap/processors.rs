//! Who runs where: servers on one processor, the load on another, so that each server has one to itself and none takes the load's. Not
//! pinned, two threads of tokio's take turns at serving, with the load as the third on two processors, and what is measured is how the
//! scheduler shares them out (`benches/results/coap.md`).

use std::process::{Child, Command};
use std::sync::LazyLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The processors this process had when it began.
static PROCESSORS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor).unwrap()).collect()
});

/// Starts a server on the first processor, and goes on on the second, if there is one.
pub(crate) fn start_apart(command: &mut Command) -> Child {
    let [server, load, ..] = PROCESSORS[..] else {
        println!("SKIPPED: one processor only: the server and the load share it");
        return command.spawn().unwrap();
    };
    // A process inherits where it may run.
    pin(server);
    let child = command.spawn().unwrap();
    pin(load);
    child
}

fn pin(processor: usize) {
    let mut only = CpuSet::new();
    only.set(processor).unwrap();
    sched_setaffinity(Pid::from_raw(0), &only).unwrap();
}
