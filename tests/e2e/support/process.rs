//! What the kernel says of processes.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The namespaces that a sandbox has of its own.
pub(crate) const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// A process, told from all others that will ever have its id by when it started.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    started: u64,
}

/// What a sandbox's process is, by its user id in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Supervisor,
    Worker,
    Instance,
    /// An interpreter from which workers are forked.
    Template,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Option<Self> {
        let (_, started) = stat(pid)?;
        Some(Self { pid, started })
    }

    /// Whether it is still there. A zombie is: somebody failed to reap it.
    pub(crate) fn exists(&self) -> bool {
        Self::new(self.pid).as_ref() == Some(self)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        assert!(self.exists(), "{self:?} is gone");
        kill(Pid::from_raw(self.pid.cast_signed()), signal).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// A field of its status, such as `CapEff`, without the white space around.
    pub(crate) fn status(&self, field: &str) -> Option<String> {
        let status = fs::read_to_string(self.path("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    /// Its user ids: real, effective, saved, file system.
    pub(crate) fn users(&self) -> Option<Vec<u32>> {
        self.status("Uid")?.split_whitespace().map(|id| id.parse().ok()).collect()
    }

    /// Its process id as it sees it itself.
    pub(crate) fn inner_pid(&self) -> Option<u32> {
        self.status("NSpid")?.split_whitespace().last()?.parse().ok()
    }

    /// Which namespace of this kind it is in.
    pub(crate) fn namespace(&self, kind: &str) -> Option<String> {
        Some(fs::read_link(self.path("ns").join(kind)).ok()?.to_str()?.to_owned())
    }

    /// All of [`NAMESPACES`], in that order.
    pub(crate) fn namespaces(&self) -> Option<Vec<String>> {
        NAMESPACES.iter().map(|kind| self.namespace(kind)).collect()
    }

    /// A variable of the environment it started with.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let environment = fs::read(self.path("environ")).ok()?;
        let mut variables =
            environment.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
        Some(variables.find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))?.to_owned())
    }

    /// Number of open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(self.path("fd")).map_or(0, Iterator::count)
    }

    /// Memory that is resident, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status("VmRSS").and_then(|size| size.strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn parent(&self) -> Option<u32> {
        Some(stat(self.pid)?.0)
    }

    /// Its threads' ids.
    pub(crate) fn threads(&self) -> Vec<u32> {
        let entries = fs::read_dir(self.path("task")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

/// Parent, and start in ticks since boot.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold any character.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// All processes of the machine.
pub(crate) fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::new).collect()
}

/// The children of a process.
pub(crate) fn children(pid: u32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent() == Some(pid)).collect()
}

/// A process's children, their children, and so on.
pub(crate) fn descendants(pid: u32) -> Vec<Process> {
    let all: Vec<(Process, Option<u32>)> =
        all().into_iter().map(|process| (process.clone(), process.parent())).collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        let children = all.iter().filter(|(_, of)| *of == Some(parent)).map(|(process, _)| process);
        for child in children {
            parents.push(child.pid);
            found.push(child.clone());
        }
    }
    found
}

/// The processes of a sandbox by the id of its first one, with what they are.
pub(crate) fn of_sandbox(first: u32) -> Vec<(Process, Role)> {
    of_sandbox_if_there(first).expect("the sandbox's first process is there")
}

/// Likewise; `None` if the first one is gone.
pub(crate) fn of_sandbox_if_there(first: u32) -> Option<Vec<(Process, Role)>> {
    let supervisor = Process::new(first)?;
    let base = supervisor.users()?[0];
    let mut processes = vec![(supervisor, Role::Supervisor)];
    for process in children(first) {
        let Some(users) = process.users() else { continue };
        let role = match users[0].checked_sub(base) {
            Some(999) => Role::Template,
            Some(1000..2000) => Role::Worker,
            Some(_) => Role::Instance,
            // It has not taken its own identity yet.
            None => continue,
        };
        processes.push((process, role));
    }
    Some(processes)
}
