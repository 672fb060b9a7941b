//! Which processor a process runs on.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Where the processes of a measurement run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Placement {
    /// All on one core: each hand-over is a switch of processes.
    OneCore,
    /// One process on each of two cores: each hand-over wakes the other core.
    TwoCores,
    /// Wherever the system puts them.
    AllCores,
}

impl Placement {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OneCore => "one core",
            Self::TwoCores => "two cores",
            Self::AllCores => "all cores",
        }
    }

    /// Whether this host has the processors for it.
    pub(crate) fn is_possible(self) -> bool {
        self != Self::TwoCores || processors().len() >= 2
    }

    /// The processor of the process with this number in its measurement; `None` for any.
    pub(crate) fn processor(self, process: usize) -> Option<usize> {
        let processors = processors();
        match self {
            Self::OneCore => processors.first().copied(),
            Self::TwoCores => processors.get(process % 2).copied(),
            Self::AllCores => None,
        }
    }
}

/// The processors that this process may run on.
pub(crate) fn processors() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|processor| set.is_set(*processor).unwrap_or(false)).collect()
}

/// Keeps the calling process on one processor.
pub(crate) fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}
