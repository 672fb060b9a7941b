//! The kernel files of each controller, on v1 and on v2.

use std::io;
use std::time::Duration;

use super::group::Group;
use super::mounts::{Controller, Tree, Version};
use super::{CgroupError, CgroupLimits};

/// The period in which a quota of processor time is counted: the kernel's default.
const CPU_PERIOD: Duration = Duration::from_millis(100);

/// The least quota that the kernel takes.
const CPU_QUOTA_MIN: Duration = Duration::from_millis(1);

/// Sets the limits of all controllers that the tree has.
pub(super) fn limit_all(group: &Group, tree: &Tree, limits: &CgroupLimits) -> Result<(), CgroupError> {
    tree.controllers.iter().try_for_each(|&controller| limit(group, tree.version, controller, limits))
}

/// Sets what the controller limits.
pub(super) fn limit(
    group: &Group,
    version: Version,
    controller: Controller,
    limits: &CgroupLimits,
) -> Result<(), CgroupError> {
    match controller {
        Controller::Memory => limits.memory_bytes.map_or(Ok(()), |bytes| match version {
            Version::V1 => memory_v1(group, bytes),
            Version::V2 => memory_v2(group, bytes),
        }),
        Controller::Pids => {
            limits.processes.map_or(Ok(()), |processes| group.write("pids.max", &processes.to_string()))
        }
        Controller::Cpu => limits.cpus.map_or(Ok(()), |cpus| cpu(group, version, cpus)),
        Controller::Freezer => Ok(()),
    }
}

fn cpu(group: &Group, version: Version, cpus: f64) -> Result<(), CgroupError> {
    let (quota, period) = (cpu_quota(cpus).as_micros(), CPU_PERIOD.as_micros());
    match version {
        Version::V1 => {
            group.write("cpu.cfs_period_us", &period.to_string())?;
            group.write("cpu.cfs_quota_us", &quota.to_string())
        }
        Version::V2 => group.write("cpu.max", &format!("{quota} {period}")),
    }
}

/// Of what a sandbox may use in memory, buffers of its TCP sockets may use this share besides, on v1. On v2 they are memory like any other.
const TCP_SHARE: u64 = 4;

/// `memory.memsw` counts memory and swap together and may not be less than the limit of memory, which therefore is
/// written first: a new group has neither.
fn memory_v1(group: &Group, bytes: u64) -> Result<(), CgroupError> {
    group.write("memory.limit_in_bytes", &bytes.to_string())?;
    optional(group.write("memory.kmem.tcp.limit_in_bytes", &(bytes / TCP_SHARE).to_string()))?;
    match group.write("memory.memsw.limit_in_bytes", &bytes.to_string()) {
        // Without accounting of swap the next best is to keep the group's memory out of swap.
        Err(error) if is_absent(&error) => optional(group.write("memory.swappiness", "0")),
        written => written,
    }
}

fn memory_v2(group: &Group, bytes: u64) -> Result<(), CgroupError> {
    group.write("memory.max", &bytes.to_string())?;
    optional(group.write("memory.swap.max", "0"))
}

fn optional(written: Result<(), CgroupError>) -> Result<(), CgroupError> {
    match written {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    }
}

fn is_absent(error: &CgroupError) -> bool {
    matches!(error, CgroupError::Write { source, .. } if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported))
}

fn cpu_quota(cpus: f64) -> Duration {
    Duration::try_from_secs_f64(cpus * CPU_PERIOD.as_secs_f64()).unwrap_or(CPU_QUOTA_MIN).max(CPU_QUOTA_MIN)
}

/// v2: lets the groups below this one have the controllers.
pub(super) fn hand_down(group: &Group, controllers: &[Controller]) -> Result<(), CgroupError> {
    let handed_down = group.read("cgroup.subtree_control")?;
    let missing: Vec<_> = controllers
        .iter()
        .map(|controller| controller.name())
        .filter(|name| !handed_down.split_ascii_whitespace().any(|found| found == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let written = group.write("cgroup.subtree_control", &missing.join(" "));
    if let Err(CgroupError::Write { source, .. }) = &written
        && source.raw_os_error() == Some(libc::EBUSY)
    {
        return Err(CgroupError::HoldsProcesses { path: group.path().to_owned() });
    }
    written
}

/// v1: where `cpuset` is mounted together with a controller that is used, a new group takes no process before it has
/// been told its processors and memory nodes; it gets those of the group above.
pub(super) fn inherit_cpuset(parent: &Group, child: &Group) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.has(file) && child.read(file)?.trim().is_empty() {
            child.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

/// The file to which a process of one thread writes `0` to enter the group. For a thread that moves itself the kernel does not halt every
/// fork and exit on the host, for which it waits several milliseconds; that way is barred on v2.
pub(super) fn entry(version: Version) -> &'static str {
    match version {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.procs",
    }
}

/// The file whose key `oom_kill` counts the processes that were killed for want of memory.
pub(super) fn oom_events(version: Version) -> &'static str {
    match version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    }
}

/// The file with the memory in use, in bytes.
pub(super) fn memory_usage(version: Version) -> &'static str {
    match version {
        Version::V1 => "memory.usage_in_bytes",
        Version::V2 => "memory.current",
    }
}

#[cfg(test)]
mod tests;
