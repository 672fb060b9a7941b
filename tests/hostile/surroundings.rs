//! What a probe must not change: the host around a sandbox, and the sandbox around a call. All of it is read from the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::probe::Harm;
use crate::support::host::Host;
use crate::support::process::{self, Process};
use crate::support::remains;

/// How long what a call leaves behind may take to be gone.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);
/// The time-out of hostile functions: who lies about its deadline in the message memory is cut off by that.
const LONGEST_CALL: Duration = Duration::from_secs(8);
/// Descriptors that the agent may have open more than before: connections that were not closed yet, a log that was opened.
const DESCRIPTORS_MORE: usize = 8;
/// Memory that the agent may hold more than before, in KiB: buffers of calls and of logs.
const RESIDENT_KIB_MORE: u64 = 64 << 10;
/// What an application's log may take on the disk.
const LOG_BYTES_MAX: u64 = (8 << 20) + (64 << 10);
/// Instances that may stand ready more than before: a worker makes more while messages wait.
const INSTANCES_MORE: usize = 8;
/// What a process in the kernel is that has ended and has not been reaped.
const ZOMBIE: &str = "Z";

/// Settings of the kernel that a root without a sandbox around it could change.
const SETTINGS: [&str; 5] = [
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/overcommit_memory",
];

/// The host, but for what runs on it.
#[derive(Debug, PartialEq, Eq)]
struct Outside {
    mounts: String,
    groups: Vec<PathBuf>,
    shared: BTreeSet<PathBuf>,
    settings: Vec<String>,
    accounts: Vec<Option<(u64, i64)>>,
    state: BTreeMap<PathBuf, (u64, u32, i64)>,
}

/// A sandbox's processes and mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inside {
    supervisor: Process,
    /// The supervisor's and the workers' places in the scheduler, and how ready the kernel is to kill them.
    standing: Vec<(Process, Vec<String>)>,
    instances: usize,
    /// Processes that are none of the above.
    strays: Vec<String>,
    mounts: String,
}

/// How things were before a probe.
#[derive(Debug)]
pub(crate) struct Surroundings<'h> {
    host: &'h Host,
    application: String,
    outside: Outside,
    inside: Inside,
    descriptors: usize,
    resident_kib: u64,
}

impl Outside {
    fn look(host: &Host) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let file = |path: &str| fs::metadata(path).ok().map(|file| (file.len(), file.mtime()));
        // A sandbox that is made again has groups of its own, with the next number at their end.
        let unnumbered =
            |path: PathBuf| PathBuf::from(path.to_string_lossy().trim_end_matches(|c: char| c.is_ascii_digit()));
        let mut groups: Vec<PathBuf> = remains::cgroups(&host.name()).into_iter().map(unnumbered).collect();
        groups.sort();
        let mut state = BTreeMap::new();
        list(&host.state(), &mut state);
        Self {
            mounts: read("/proc/self/mountinfo"),
            groups,
            shared: remains::in_shared_directories(),
            settings: SETTINGS.map(read).into(),
            accounts: ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/ld.so.preload"].map(file).into(),
            state,
        }
    }

    fn differences(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, same: bool, now: String, before: String| {
            if !same {
                found.push(format!("the host's {what} changed: {now}, before: {before}"));
            }
        };
        let show = |value: &dyn std::fmt::Debug| format!("{value:?}");
        compare("mounts", self.mounts == before.mounts, show(&self.mounts), show(&before.mounts));
        compare("control groups", self.groups == before.groups, show(&self.groups), show(&before.groups));
        compare("shared directories", self.shared == before.shared, show(&self.shared), show(&before.shared));
        compare("settings", self.settings == before.settings, show(&self.settings), show(&before.settings));
        compare("accounts", self.accounts == before.accounts, show(&self.accounts), show(&before.accounts));
        compare("state directory", self.state == before.state, show(&self.state), show(&before.state));
        found
    }
}

/// Every file below a directory, logs aside: its size, mode and time of change.
fn list(directory: &Path, found: &mut BTreeMap<PathBuf, (u64, u32, i64)>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, Ok(file)) = (entry.path(), entry.metadata()) else { continue };
        if is_log(&path) {
            continue;
        }
        if file.is_dir() {
            found.insert(path.clone(), (0, file.mode(), 0));
            list(&path, found);
        } else {
            found.insert(path, (file.len(), file.mode(), file.mtime_nsec()));
        }
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log" || extension == "1")
}

/// Bytes of all logs below a directory.
fn log_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?))).map(|(path, file)| match file
        .is_dir()
    {
        true => log_bytes(&path),
        false if is_log(&path) => file.len(),
        false => 0,
    });
    bytes.sum()
}

/// Fields of a process's `stat` that follow its name.
fn stat(process: &Process) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Priority, niceness and policy, and the score by which the kernel chooses whom to kill.
fn standing(process: &Process) -> Option<Vec<String>> {
    let fields = stat(process)?;
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", process.pid)).ok()?;
    let mut standing: Vec<String> = [15, 16, 38].iter().map(|field| fields[*field].clone()).collect();
    standing.push(score.trim().to_owned());
    standing.push(process.status("Cpus_allowed")?);
    Some(standing)
}

/// Whether a process sleeps on its bell, as an instance does that stands ready.
fn waits_for_a_call(process: &Process) -> bool {
    let call = fs::read_to_string(format!("/proc/{}/syscall", process.pid)).unwrap_or_default();
    call.split(' ').next() == Some(&nix::libc::SYS_futex.to_string())
}

impl Inside {
    /// `None` while the sandbox is not there.
    fn look(host: &Host, application: &str) -> Option<Self> {
        let supervisor = host.first_process(application);
        let (namespace, base) = (supervisor.namespace("pid")?, *supervisor.users()?.first()?);
        let inside = process::all().into_iter().filter(|process| process.namespace("pid").as_ref() == Some(&namespace));
        let mut looked = Self {
            standing: vec![(supervisor.clone(), standing(&supervisor)?)],
            instances: 0,
            strays: Vec::new(),
            mounts: fs::read_to_string(format!("/proc/{}/mountinfo", supervisor.pid)).ok()?,
            supervisor,
        };
        let mut users = BTreeSet::new();
        for process in inside.filter(|process| *process != looked.supervisor) {
            let (Some(ids), Some(fields)) = (process.users(), stat(&process)) else { continue };
            let user = ids[0].wrapping_sub(base);
            let is_child = process.parent() == Some(looked.supervisor.pid);
            match user {
                1000..2000 if is_child => looked.standing.push((process.clone(), standing(&process)?)),
                2000..65_536 if is_child && users.insert(user) && waits_for_a_call(&process) => looked.instances += 1,
                _ => looked.strays.push(format!("{process:?} of user {user}, state {}", fields[0])),
            }
        }
        // A zombie has left its namespace's directory in /proc: it is found by its parent.
        for process in process::children(looked.supervisor.pid) {
            if stat(&process).is_some_and(|fields| fields[0] == ZOMBIE) {
                looked.strays.push(format!("{process:?} is dead and was not reaped"));
            }
        }
        Some(looked)
    }

    /// What is not as it was; a sandbox or a worker that was made anew has processes of its own.
    fn differences(&self, before: &Self, harm: Harm) -> Vec<String> {
        let mut found = self.strays.clone();
        if self.instances > before.instances + INSTANCES_MORE {
            found.push(format!("{} instances, before: {}", self.instances, before.instances));
        }
        if self.supervisor == before.supervisor || harm != Harm::Scribbles {
            let all_back = harm == Harm::Exhausts && self.standing.len() == before.standing.len();
            if self.standing != before.standing && !all_back {
                found.push(format!("supervisor and workers are {:?}, before: {:?}", self.standing, before.standing));
            }
            if self.mounts != before.mounts {
                found.push(format!("the sandbox's mounts changed: {}", self.mounts));
            }
        } else if self.standing.len() != before.standing.len() {
            found.push(format!("the new sandbox has {:?}", self.standing));
        }
        found
    }
}

impl<'h> Surroundings<'h> {
    /// Looks at the host and at an application's sandbox, once they are at rest.
    pub(crate) fn look(host: &'h Host, application: &str) -> Self {
        let begin = Instant::now();
        let mut inside = Inside::look(host, application);
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let again = Inside::look(host, application);
            match (&inside, again) {
                (Some(once), Some(again)) if *once == again && once.strays.is_empty() => break,
                (_, again) => inside = again,
            }
            assert!(begin.elapsed() < SETTLED_WITHIN * 2, "{application} does not come to rest: {inside:?}");
        }
        let agent = host.agent();
        Self {
            host,
            application: application.to_owned(),
            outside: Outside::look(host),
            inside: inside.unwrap(),
            descriptors: agent.descriptors(),
            resident_kib: agent.resident_kib(),
        }
    }

    /// Waits until all is as it was, but for what may be made anew after such a probe; what is not, if it does not become so.
    pub(crate) fn differences(&mut self, harm: Harm) -> Vec<String> {
        let begin = Instant::now();
        loop {
            let (found, inside) = self.differences_now(harm);
            let within = if harm == Harm::Scribbles { SETTLED_WITHIN + LONGEST_CALL } else { SETTLED_WITHIN };
            if found.is_empty() || begin.elapsed() > within {
                // What follows is compared with how things are now: one fault is told once.
                if let Some(inside) = inside {
                    self.inside = Inside { strays: Vec::new(), ..inside };
                }
                return found;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn differences_now(&self, harm: Harm) -> (Vec<String>, Option<Inside>) {
        let mut found = Outside::look(self.host).differences(&self.outside);
        let agent = self.host.agent();
        let (descriptors, resident_kib) = (agent.descriptors(), agent.resident_kib());
        if descriptors > self.descriptors + DESCRIPTORS_MORE {
            found.push(format!("the agent has {descriptors} descriptors, before: {}", self.descriptors));
        }
        if resident_kib > self.resident_kib + RESIDENT_KIB_MORE {
            found.push(format!("the agent holds {resident_kib} KiB, before: {}", self.resident_kib));
        }
        let logs = log_bytes(&self.host.state());
        // This application and its neighbour each have one.
        if logs > 2 * LOG_BYTES_MAX {
            found.push(format!("logs take {logs} bytes"));
        }
        let inside = Inside::look(self.host, &self.application);
        match &inside {
            Some(inside) => found.extend(inside.differences(&self.inside, harm)),
            None => found.push("the sandbox is not there".to_owned()),
        }
        (found, inside)
    }
}
