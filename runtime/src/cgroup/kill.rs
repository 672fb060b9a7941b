//! Killing every process of a group, those included which fork while they are killed.
//!
//! With `cgroup.kill` (v2, Linux 5.14) the kernel does it. Elsewhere the group is frozen, so that nothing in it forks,
//! everything in it is sent SIGKILL, and it is thawed: on v1 a frozen process dies only once thawed. So are the groups in it,
//! which stay frozen by themselves if whoever froze them was killed before it thawed them. Without a freezer, processes are
//! killed in rounds, which ends because the limit of processes stops what forks faster.

use std::collections::BTreeSet;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::CgroupError;
use super::group::Group;

/// How long processes may take to die.
pub(super) const TIME_MAX: Duration = Duration::from_secs(5);

/// How long a group may take to freeze; a process that waits in the kernel for a disk delays it.
const FREEZE_TIME_MAX: Duration = Duration::from_millis(200);

const PAUSE_FIRST: Duration = Duration::from_micros(250);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Kills the processes of all the groups of one sandbox and waits for their end; returns how many there were.
pub(super) fn all(groups: &[&Group]) -> Result<usize, CgroupError> {
    let deadline = Instant::now() + TIME_MAX;
    let mut pause = PAUSE_FIRST;
    let mut seen = BTreeSet::new();
    loop {
        let living = living(groups)?;
        if living.is_empty() {
            return Ok(seen.len());
        }
        if Instant::now() > deadline {
            let path = groups.first().map(|group| group.path().to_owned()).unwrap_or_default();
            return Err(CgroupError::StillRunning { path, processes: living.len() });
        }
        seen.extend(living);
        round(groups)?;
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn living(groups: &[&Group]) -> Result<BTreeSet<i32>, CgroupError> {
    let mut ids = BTreeSet::new();
    for group in groups {
        ids.extend(group.process_ids_below()?);
    }
    Ok(ids)
}

fn round(groups: &[&Group]) -> Result<(), CgroupError> {
    for group in groups.iter().filter(|group| group.has("cgroup.kill")) {
        group.write("cgroup.kill", "1")?;
    }
    // On a hybrid host a process may have got into the groups of v1 alone, so that the rest of the round is for all.
    for group in groups {
        freeze(group);
    }
    let frozen = living(groups);
    for &id in frozen.iter().flatten() {
        signal(id);
    }
    for group in groups {
        thaw(group);
    }
    frozen.map(|_| ())
}

/// A frozen process cannot end, so that its id cannot pass to another process before the signal is sent.
fn signal(id: i32) {
    // Zero stands for a process that this pid namespace does not show, but means our own process group to kill(2).
    if id > 1 && id.unsigned_abs() != process::id() {
        // One that is gone already is what was wanted; one that may not be signalled is noticed at the deadline.
        if let Err(error) = kill(Pid::from_raw(id), Signal::SIGKILL) {
            tracing::debug!(pid = id, %error, "a process could not be killed");
        }
    }
}

/// Freezes the group if it can be frozen, and waits for it, though not for long: freezing only helps.
fn freeze(group: &Group) {
    let Some((file, value, done)) = freezer(group) else {
        return;
    };
    if group.write(file, value).is_err() {
        return;
    }
    let deadline = Instant::now() + FREEZE_TIME_MAX;
    let mut pause = PAUSE_FIRST;
    while !done(group) && Instant::now() < deadline {
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

type Done = fn(&Group) -> bool;

/// The file that freezes the group, the value that does it, and how to see that it is done.
fn freezer(group: &Group) -> Option<(&'static str, &'static str, Done)> {
    let frozen_v1: Done = |group| group.read("freezer.state").is_ok_and(|state| state.trim() == "FROZEN");
    let frozen_v2: Done = |group| group.read_key("cgroup.events", "frozen").is_ok_and(|frozen| frozen == 1);
    if group.has("freezer.state") {
        Some(("freezer.state", "FROZEN", frozen_v1))
    } else if group.has("cgroup.freeze") && !group.has("cgroup.kill") {
        Some(("cgroup.freeze", "1", frozen_v2))
    } else {
        None
    }
}

fn thaw(group: &Group) {
    if let Err(error) = group.with_all_below(&|group| thaw_one(group)) {
        tracing::warn!(%error, "a control group could not be thawed");
    }
}

fn thaw_one(group: &Group) -> Result<(), CgroupError> {
    match freezer(group) {
        Some((file @ "freezer.state", ..)) => group.write(file, "THAWED"),
        Some((file, ..)) => group.write(file, "0"),
        None => Ok(()),
    }
}
