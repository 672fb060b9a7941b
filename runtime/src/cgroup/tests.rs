//! Against this machine's kernel, as root.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::group::Group;
use super::hierarchy::Swept;
use super::mounts::{Controller, Tree, Version};
use super::{Cgroup, CgroupError, CgroupLimits, Hierarchy, Member};

const LIMITS: CgroupLimits = CgroupLimits { memory_bytes: Some(32 << 20), processes: Some(10), cpus: Some(0.5) };

/// A host name of this test's own, whose groups are gone when the test ends, however it ends.
struct Host {
    name: String,
    hierarchy: Hierarchy,
}

impl Host {
    fn new(test: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: control groups can only be made by root");
            return None;
        }
        match Hierarchy::detect() {
            Ok(hierarchy) => Some(Self::on(test, hierarchy)),
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                None
            }
        }
    }

    /// The cgroup2 mount alone, even if no controller is on it: groups, killing and removing work all the same.
    fn on_bare_v2(test: &str) -> Option<Self> {
        let mount = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .map(Path::new)
            .into_iter()
            .find(|path| path.join("cgroup.controllers").exists());
        let Some(mount) = mount.filter(|_| nix::unistd::geteuid().is_root()) else {
            eprintln!("SKIPPED: not root, or no cgroup2 is mounted");
            return None;
        };
        let tree = Tree { version: Version::V2, controllers: Vec::new(), base: Group::open(mount).unwrap() };
        Some(Self::on(test, Hierarchy { trees: vec![Arc::new(tree)] }))
    }

    fn on(test: &str, hierarchy: Hierarchy) -> Self {
        Self { name: format!("sandbar-test-{test}-{}", std::process::id()), hierarchy }
    }

    fn make(&self, name: &str) -> Cgroup {
        self.hierarchy.make(&self.name, name, &LIMITS).unwrap()
    }

    /// The directories of the host's group in every tree.
    fn directories(&self) -> Vec<PathBuf> {
        self.hierarchy.trees.iter().map(|tree| tree.base.path().join(&self.name)).collect()
    }

    fn is_gone(&self) -> bool {
        self.directories().iter().all(|path| !path.exists())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.hierarchy.sweep(&self.name).unwrap();
    }
}

/// A shell that waits for a line before it does anything, as a sandbox waits until it is under its limits.
struct Held(Child);

impl Held {
    fn new(script: &str) -> Self {
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap())
    }

    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// What it wrote to its standard output and error; ends with the process.
    fn output(mut self) -> String {
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.wait().unwrap();
        text
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn limits_are_set_and_a_process_is_under_them() {
    let Some(host) = Host::new("limits") else {
        return;
    };
    let cgroup = host.make("a");
    let read = |controller: Controller, file: &str| {
        cgroup.member_with(controller).unwrap().group.read(file).unwrap().trim().to_owned()
    };
    assert_eq!(read(Controller::Pids, "pids.max"), "10");
    match cgroup.member_with(Controller::Memory).unwrap().tree.version {
        Version::V1 => assert_eq!(read(Controller::Memory, "memory.limit_in_bytes"), (32 << 20).to_string()),
        Version::V2 => assert_eq!(read(Controller::Memory, "memory.max"), (32 << 20).to_string()),
    }
    match cgroup.member_with(Controller::Cpu).unwrap().tree.version {
        Version::V1 => assert_eq!(read(Controller::Cpu, "cpu.cfs_quota_us"), "50000"),
        Version::V2 => assert_eq!(read(Controller::Cpu, "cpu.max"), "50000 100000"),
    }
    let held = Held::new("true");
    cgroup.attach(held.pid()).unwrap();
    assert_eq!(cgroup.processes().unwrap(), 1);
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", held.pid())).unwrap();
    assert_eq!(groups.matches(&format!("/{}/a", host.name)).count(), cgroup.members.len(), "{groups}");
    assert!(Some(cgroup.memory_bytes().unwrap()) < LIMITS.memory_bytes);
}

#[test]
fn a_process_that_is_admitted_is_in_all_groups_once_it_has_entered() {
    let Some(host) = Host::new("admit") else {
        return;
    };
    let cgroup = host.make("a");
    // Where the shell looks for the files, whose numbers this process has only when the shell runs already.
    let mut held = Held::new("read files; for file in $files; do echo 0 > $file; done; cat /proc/self/cgroup");
    let entries = cgroup.admit(held.pid()).unwrap();
    let files = entries.iter().map(|entry| format!("/proc/{}/fd/{}", std::process::id(), entry.as_raw_fd()));
    let files = files.collect::<Vec<_>>().join(" ");
    held.go();
    held.0.stdin.as_mut().unwrap().write_all(format!("{files}\n").as_bytes()).unwrap();
    let groups = held.output();
    assert_eq!(groups.matches(&format!("/{}/a\n", host.name)).count(), cgroup.members.len(), "{groups}");
}

#[test]
fn memory_over_the_limit_kills_and_is_counted() {
    let Some(host) = Host::new("memory") else {
        return;
    };
    let cgroup = host.make("a");
    let mut held = Held::new("tail /dev/zero; echo status $?");
    cgroup.attach(held.pid()).unwrap();
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    held.go();
    // 137 is what a shell says of a process that SIGKILL ended.
    assert!(held.output().contains("status 137"));
    assert!(cgroup.oom_kills().unwrap() >= 1);
}

#[test]
fn a_fork_over_the_limit_of_processes_is_refused() {
    let Some(host) = Host::new("pids") else {
        return;
    };
    let cgroup = host.make("a");
    let mut held = Held::new("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; echo never");
    cgroup.attach(held.pid()).unwrap();
    held.go();
    let pids = &cgroup.member_with(Controller::Pids).unwrap().group;
    wait_until("a refused fork", || pids.read_key("pids.events", "max").unwrap() > 0);
    assert!(cgroup.processes().unwrap() <= 10);
    // The shell ends when it is refused a child, and may do so before it is killed.
    assert!((9..=10).contains(&cgroup.kill_all().unwrap()));
    assert!(!held.output().contains("never"));
}

#[test]
fn processor_time_is_a_quota() {
    let Some(host) = Host::new("cpu") else { return };
    let limits = CgroupLimits { cpus: Some(0.1), ..LIMITS };
    let cgroup = host.hierarchy.make(&host.name, "a", &limits).unwrap();
    let mut held = Held::new("while :; do :; done");
    cgroup.attach(held.pid()).unwrap();
    held.go();
    std::thread::sleep(Duration::from_millis(1000));
    let stat = fs::read_to_string(format!("/proc/{}/stat", held.pid())).unwrap();
    let ticks: u64 = stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(11).unwrap().parse().unwrap();
    assert!((2..=30).contains(&ticks), "a tenth of a second is 10 ticks, found {ticks}");
}

#[test]
fn kill_all_reaches_descendants_that_left_their_session_and_those_that_fork() {
    for host in [Host::new("kill"), Host::on_bare_v2("kill2")].into_iter().flatten() {
        let cgroup = host.make("a");
        let mut held = Held::new(
            "setsid sleep 60 & (trap '' TERM HUP INT; while :; do sleep 0.01; done) & while :; do /bin/true; done",
        );
        cgroup.attach(held.pid()).unwrap();
        held.go();
        let group = &cgroup.members[0].group;
        wait_until("three processes", || group.process_ids_below().unwrap().len() >= 3);
        assert!(cgroup.kill_all().unwrap() >= 3);
        for member in &cgroup.members {
            assert!(member.group.process_ids_below().unwrap().is_empty());
        }
        assert_eq!(cgroup.kill_all().unwrap(), 0, "killing nobody is done at once");
        drop(held);
        let again = Held::new("sleep 60");
        cgroup.attach(again.pid()).unwrap();
        drop(again);
        cgroup.remove().unwrap();
    }
}

#[test]
fn a_frozen_sandbox_can_be_killed() {
    let Some(host) = Host::new("frozen") else {
        return;
    };
    let cgroup = host.make("a");
    let held = Held::new("true");
    cgroup.attach(held.pid()).unwrap();
    for Member { group, .. } in &cgroup.members {
        if group.has("freezer.state") {
            group.write("freezer.state", "FROZEN").unwrap();
        } else if group.has("cgroup.freeze") {
            group.write("cgroup.freeze", "1").unwrap();
        }
    }
    assert_eq!(cgroup.kill_all().unwrap(), 1);
}

#[test]
fn groups_in_a_sandbox_that_were_left_frozen_are_swept() {
    for host in [Host::new("thaw"), Host::on_bare_v2("thaw2")].into_iter().flatten() {
        let cgroup = host.make("a");
        let held = Held::new("true");
        let mut frozen = 0;
        for Member { group, .. } in &cgroup.members {
            let inner = group.child_or_new("inner").unwrap();
            inner.write("cgroup.procs", &held.pid().to_string()).unwrap();
            let file =
                [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")].into_iter().find(|(file, _)| inner.has(file));
            if let Some((file, value)) = file {
                inner.write(file, value).unwrap();
                frozen += 1;
            }
        }
        assert!(frozen > 0, "nothing here freezes");
        let swept = host.hierarchy.sweep(&host.name);
        // A process that is still frozen could never be waited for.
        for inner in cgroup.members.iter().filter_map(|member| member.group.child("inner").ok()?) {
            let _thawed = inner.write("freezer.state", "THAWED");
        }
        assert_eq!(swept.unwrap(), Swept { sandboxes: 1, processes: 1 });
        assert!(host.is_gone());
    }
}

#[test]
fn remove_kills_and_leaves_nothing_even_of_groups_inside() {
    for host in [Host::new("remove"), Host::on_bare_v2("remove2")].into_iter().flatten() {
        let cgroup = host.make("a");
        let held = Held::new("sleep 60");
        cgroup.attach(held.pid()).unwrap();
        for Member { group, .. } in &cgroup.members {
            group.child_or_new("inner").unwrap().child_or_new("innermost").unwrap();
        }
        let inner = cgroup.members[0].group.child("inner").unwrap().unwrap();
        inner.write("cgroup.procs", &held.pid().to_string()).unwrap();
        cgroup.remove().unwrap();
        assert!(host.directories().iter().all(|path| !path.join("a").exists()));
        assert!(host.hierarchy.remove_host(&host.name).unwrap());
        assert!(host.is_gone());
    }
}

#[test]
fn the_hosts_group_stays_while_it_holds_a_sandbox() {
    for host in [Host::new("stays"), Host::on_bare_v2("stays2")].into_iter().flatten() {
        let (first, second) = (host.make("a"), host.make("b"));
        first.remove().unwrap();
        assert!(!host.hierarchy.remove_host(&host.name).unwrap());
        second.remove().unwrap();
        assert!(host.hierarchy.remove_host(&host.name).unwrap());
        assert!(host.hierarchy.remove_host(&host.name).unwrap(), "what is gone is gone");
        assert!(host.is_gone());
    }
}

#[test]
fn a_group_in_use_is_refused_and_an_empty_one_made_anew() {
    for host in [Host::new("use"), Host::on_bare_v2("use2")].into_iter().flatten() {
        let first = host.make("a");
        let held = Held::new("sleep 60");
        first.attach(held.pid()).unwrap();
        let refused = host.hierarchy.make(&host.name, "a", &LIMITS).unwrap_err();
        assert!(matches!(refused, CgroupError::InUse { .. }), "{refused}");
        assert_eq!(first.members[0].group.process_ids_below().unwrap(), [held.pid().as_raw()], "it was not touched");
        drop(held);
        wait_until("an empty group", || first.members[0].group.process_ids_below().unwrap().is_empty());
        let second = host.make("a");
        let moved = Held::new("sleep 60");
        assert!(first.attach(moved.pid()).is_err(), "the first group is no more");
        second.attach(moved.pid()).unwrap();
        second.remove().unwrap();
    }
}

#[test]
fn sweep_ends_what_an_agent_left_and_touches_nothing_else() {
    for (host, other) in
        [(Host::new("sweep"), Host::new("other")), (Host::on_bare_v2("sweep2"), Host::on_bare_v2("other2"))]
    {
        let (Some(host), Some(other)) = (host, other) else {
            continue;
        };
        let (left, survivor) = (Held::new("sleep 60"), Held::new("sleep 60"));
        host.make("a").attach(left.pid()).unwrap();
        drop(host.make("b"));
        let others = other.make("a");
        others.attach(survivor.pid()).unwrap();
        // A sandbox that was half made has a group in some trees only.
        let first = &host.hierarchy.trees[0].base;
        first.child(&host.name).unwrap().unwrap().child_or_new("half").unwrap();
        assert_eq!(host.hierarchy.sweep(&host.name).unwrap(), Swept { sandboxes: 3, processes: 1 });
        assert!(host.is_gone());
        assert_eq!(others.members[0].group.process_ids_below().unwrap(), [survivor.pid().as_raw()]);
        assert_eq!(host.hierarchy.sweep(&host.name).unwrap(), Swept::default());
        others.remove().unwrap();
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let hierarchy = Hierarchy { trees: Vec::new() };
    for name in ["", ".", "..", "a/b", "/", "pids.max", "a\0", "é", &"x".repeat(256)] {
        let refused = hierarchy.make(name, "a", &LIMITS).unwrap_err();
        assert!(matches!(refused, CgroupError::Name { .. }), "{name:?}");
        assert!(hierarchy.make("a", name, &LIMITS).is_err());
        assert!(hierarchy.sweep(name).is_err() && hierarchy.remove_host(name).is_err());
    }
}

#[test]
fn a_refused_limit_leaves_nothing_and_names_file_and_value() {
    let Some(host) = Host::new("refused") else {
        return;
    };
    let limits = CgroupLimits { processes: Some(u32::MAX), ..LIMITS };
    let refused = host.hierarchy.make(&host.name, "a", &limits).unwrap_err().to_string();
    assert!(refused.contains("pids.max") && refused.contains("4294967295"), "{refused}");
    assert!(host.is_gone());
}

#[test]
fn attaching_a_process_that_is_gone_is_an_error() {
    let Some(host) = Host::new("gone") else {
        return;
    };
    let cgroup = host.make("a");
    let mut held = Held::new("true");
    let pid = held.pid();
    held.0.kill().unwrap();
    held.0.wait().unwrap();
    assert!(cgroup.attach(pid).unwrap_err().to_string().contains(&pid.to_string()));
}
