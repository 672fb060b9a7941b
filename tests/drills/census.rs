//! What a host takes of the system, and what is nobody's any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::host::Host;
use crate::support::process::{self, Process, Role};
use crate::support::{remains, until_within};

/// How long a host may take to be as before.
pub(crate) const REST_MAX: Duration = Duration::from_secs(20);

/// For a host to be started with: how many instances stand ready depends on the calls of before. Soon after the last there are none.
pub(crate) const SOON_AT_REST: [&str; 2] = ["--rest-ready", "2s"];

/// What a host takes while nothing is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) processes: usize,
    pub(crate) descriptors: usize,
    pub(crate) groups: usize,
}

pub(crate) fn taken(host: &Host) -> Taken {
    let agent = host.agent();
    Taken {
        processes: process::descendants(agent.pid).len(),
        descriptors: agent.descriptors(),
        groups: remains::cgroups(&host.name()).len(),
    }
}

/// Waits until no instance stands ready any more, which has to be soon ([`SOON_AT_REST`]), and tells what the host takes then.
#[track_caller]
pub(crate) fn taken_at_rest(host: &Host) -> Taken {
    until_within(REST_MAX, "no instance stands ready", || {
        let running = host.applications().into_iter().filter_map(|it| u32::try_from(it["pid"].as_u64()?).ok());
        let sandboxes: Option<Vec<_>> = running.map(process::of_sandbox_if_there).collect();
        let mut roles = sandboxes?.into_iter().flatten().map(|(_, role)| role);
        (!roles.any(|role| role == Role::Instance)).then_some(())
    });
    taken(host)
}

/// Waits until the host takes no more than it did at rest.
#[track_caller]
pub(crate) fn assert_no_more_than(before: Taken, host: &Host) {
    let mut now = before;
    let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until_within(REST_MAX, "the host is as before", || {
            now = taken(host);
            let same = now.processes <= before.processes
                && now.descriptors <= before.descriptors
                && now.groups == before.groups;
            same.then_some(())
        });
    }));
    assert!(settled.is_ok(), "before: {before:?}, now: {now:?}\n{}", host.agent_log());
}

/// The host's files are those of the applications that it has, and nothing half made.
#[track_caller]
pub(crate) fn assert_files(host: &Host, applications: &BTreeSet<String>) {
    let state = host.state();
    let expected = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let top = expected(&["applications", "host", "images", "inside", "lock", "logs", "notes", "root"]);
    // Versions that were replaced are deleted once their calls are over.
    until_within(REST_MAX, "only deployed applications have files", || {
        (names(&state.join("applications")) == *applications).then_some(())
    });
    assert_eq!(names(&state), top);
    assert_eq!(names(&state.join("inside")), expected(&["libsandbar_function.so", "worker.py"]));
    for empty in ["images", "root"] {
        assert_eq!(names(&state.join(empty)), BTreeSet::new(), "{empty}");
    }
    let logs = names(&state.join("logs"));
    let known = |log: &String| log.split_once(".log").is_some_and(|(name, _)| applications.contains(name));
    assert!(logs.iter().all(known), "logs of what is not deployed: {logs:?}");
    let beside = names(host.folder());
    assert!(!beside.iter().any(|name| name.starts_with(".sandbar-") && name != ".sandbar-notes"), "{beside:?}");
}

/// The directories in a directory, which need not be there.
pub(crate) fn directories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

pub(crate) fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Whether a process is more than a zombie, which is for the system's first process to reap, in its own time.
pub(crate) fn lives(process: &Process) -> bool {
    process.exists() && process.status("State").is_some_and(|state| !state.starts_with('Z'))
}

/// All processes of a host whose agent was killed are dead, and their mounts with them.
#[track_caller]
pub(crate) fn assert_dead(host: &Host, descendants: &[Process]) {
    // A loaded machine of two processors; what is shown is that nobody has to do anything for it.
    until_within(Duration::from_secs(5), "the processes of the killed agent are gone", || {
        let left = remains::processes(&host.name(), &host.state());
        (!descendants.iter().chain(&left).any(lives)).then_some(())
    });
    assert_eq!(remains::mounts(&host.state()), Vec::<String>::new());
}

/// First processes of process id namespaces whose agent is gone, and launches that nobody waits for. Those of others on this
/// machine may be seen for the moment that they take to end.
#[track_caller]
pub(crate) fn assert_no_orphans() {
    until_within(REST_MAX, "no sandbox is without an agent", || {
        let ours = Process::new(std::process::id()).unwrap().namespace("pid");
        let is_orphan = |process: &Process| {
            if !lives(process) {
                return false;
            }
            let program = fs::read_link(format!("/proc/{}/exe", process.pid)).unwrap_or_default();
            let of_ours = program.to_string_lossy().starts_with("/memfd:sandbar-supervisor");
            let elsewhere = process.namespace("pid") != ours && process.inner_pid() == Some(1);
            process.parent() == Some(1) && (of_ours || elsewhere)
        };
        (!process::all().iter().any(is_orphan)).then_some(())
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" nsfs "), "a namespace is kept by a mount: {mounts}");
}
