//! What a host could leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::process::{self, Process};

/// Directories outside the state where a careless program leaves things.
const SHARED_DIRECTORIES: [&str; 4] = ["/dev/shm", "/run", "/var/lib", "/var/run"];

/// Everything in the system that bears a host's mark, one line each.
pub(crate) fn of_host(host_name: &str, state: &Path) -> Vec<String> {
    let mut found: Vec<String> =
        cgroups(host_name).into_iter().map(|path| format!("cgroup {}", path.display())).collect();
    found.extend(processes(host_name, state).into_iter().map(|process| format!("process {process:?}")));
    found.extend(mounts(state).into_iter().map(|mount| format!("mount {mount}")));
    found
}

/// The host's control groups: its own and those below.
pub(crate) fn cgroups(host_name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [_, directory, "cgroup" | "cgroup2", ..] = fields[..] {
            find_groups(Path::new(directory), host_name, false, &mut found);
        }
    }
    found
}

fn find_groups(directory: &Path, host_name: &str, ours: bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let ours = ours || entry.file_name() == host_name;
            if ours {
                found.push(entry.path());
            }
            find_groups(&entry.path(), host_name, ours, found);
        }
    }
}

/// Processes in the host's control groups, or whose program is one of the state's.
pub(crate) fn processes(host_name: &str, state: &Path) -> Vec<Process> {
    let is_ours = |process: &Process| {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
        let program = fs::read_link(format!("/proc/{}/exe", process.pid)).unwrap_or_default();
        groups.split(['/', '\n']).any(|group| group == host_name) || program.starts_with(state)
    };
    process::all().into_iter().filter(is_ours).collect()
}

/// Mounts of the host's own namespace that have to do with the state.
pub(crate) fn mounts(state: &Path) -> Vec<String> {
    let state = state.to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(state)).map(str::to_owned).collect()
}

/// What bears the name of the project in directories that all programs share.
pub(crate) fn in_shared_directories() -> BTreeSet<PathBuf> {
    let entries =
        SHARED_DIRECTORIES.iter().flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten());
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().contains("sandbar"));
    ours.map(|entry| entry.path()).collect()
}
