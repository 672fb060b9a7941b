//! What of the system a host takes up, as the kernel tells it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::stage::Host;

/// As the bus names its segments.
const SEGMENT: &str = "memfd:sandbar-bus";
const MIB: f64 = 1024.0;

/// MiB of the agent alone, each page shared out among the processes that have it.
pub(crate) fn agent(host: &Host) -> f64 {
    pss(host.pid()) / MIB
}

/// MiB of the agent and all processes of all sandboxes.
pub(crate) fn whole(host: &Host) -> f64 {
    tree(host.pid())
}

/// MiB of a process and all that descend from it.
pub(crate) fn tree(pid: u32) -> f64 {
    descendants(pid).into_iter().chain([pid]).map(pss).sum::<f64>() / MIB
}

/// MiB of all processes of the only application's sandbox, with what the agent has of its segment.
pub(crate) fn sandbox(host: &Host) -> f64 {
    (descendants(host.pid()).into_iter().map(pss).sum::<f64>() + segments_pss(host.pid())) / MIB
}

/// What a host has of what it gives to sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) processes: usize,
    /// Below the host's own, which stay as long as it does.
    pub(crate) groups: usize,
    /// Mapped by the agent, or open there.
    pub(crate) segments: usize,
}

impl Census {
    pub(crate) fn of(host: &Host) -> Self {
        let maps = fs::read_to_string(format!("/proc/{}/maps", host.pid())).unwrap();
        let open = fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap();
        // One may be closed meanwhile.
        let open = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        let open = open.filter(|target| target.to_string_lossy().contains(SEGMENT));
        let segments = maps.lines().filter(|line| line.contains(SEGMENT)).count() + open.count();
        Self { processes: descendants(host.pid()).len(), groups: groups(&host.name()).len(), segments }
    }

    /// How much more there is than there was.
    pub(crate) fn beyond(self, before: Self) -> usize {
        let more = [self.processes, self.groups, self.segments].into_iter().zip([
            before.processes,
            before.groups,
            before.segments,
        ]);
        more.map(|(now, before)| now.saturating_sub(before)).sum()
    }
}

/// A process's children, theirs, and so on. One that ends meanwhile may be missing.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(pid) = open.pop() {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children: Vec<u32> = children.split_ascii_whitespace().map(|child| child.parse().unwrap()).collect();
            found.extend(&children);
            open.extend(children);
        }
    }
    found
}

/// KiB of a process; none of one that is gone.
///
/// # Panics
/// When the kernel does not say.
fn pss(pid: u32) -> f64 {
    read(pid, "smaps_rollup").map_or(0.0, |rollup| {
        let pss = rollup.lines().find_map(|line| kib(line, "Pss:"));
        // Of a process that has ended and was not waited for, it has no lines.
        pss.or_else(|| has_ended(pid).then_some(0.0)).unwrap_or_else(|| panic!("no Pss of process {pid}: {rollup}"))
    })
}

/// KiB that a process has of segments.
fn segments_pss(pid: u32) -> f64 {
    let mut inside = false;
    let maps = read(pid, "smaps").unwrap_or_else(|| panic!("process {pid} is gone"));
    let of_segments = maps.lines().filter_map(|line| {
        // The first line of a mapping begins with its addresses.
        if line.split(' ').next().is_some_and(|first| first.contains('-')) {
            inside = line.contains(SEGMENT);
        }
        kib(line, "Pss:").filter(|_| inside)
    });
    of_segments.sum()
}

fn kib(line: &str, name: &str) -> Option<f64> {
    line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok()
}

/// `None` of a process that is gone.
fn read(pid: u32, file: &str) -> Option<String> {
    match fs::read_to_string(format!("/proc/{pid}/{file}")) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => None,
        Err(error) => panic!("{file} of process {pid} cannot be read: {error}"),
    }
}

fn has_ended(pid: u32) -> bool {
    let Some(stat) = read(pid, "stat") else { return true };
    // The name, in brackets, may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Control groups below the host's own, of any depth.
fn groups(host: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut found = Vec::new();
    for line in mounts.lines() {
        if let [_, directory, "cgroup" | "cgroup2", ..] = line.split(' ').collect::<Vec<_>>()[..] {
            find_groups(Path::new(directory), host, false, &mut found);
        }
    }
    found
}

fn find_groups(directory: &Path, host: &str, inside: bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if inside {
                found.push(entry.path());
            }
            find_groups(&entry.path(), host, inside || entry.file_name() == host, found);
        }
    }
}
