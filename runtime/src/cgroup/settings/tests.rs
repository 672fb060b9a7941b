//! Against plain files, so that both interfaces are tested on every machine.

use std::fs;
use std::sync::Arc;

use super::{hand_down, inherit_cpuset, limit};
use crate::cgroup::group::Group;
use crate::cgroup::mounts::{Controller, Tree, Version};
use crate::cgroup::{Cgroup, CgroupLimits, Member};

const LIMITS: CgroupLimits = CgroupLimits { memory_bytes: Some(32 << 20), processes: Some(10), cpus: Some(0.5) };

/// A group of plain files, empty at first.
fn plain_group(files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        fs::write(dir.path().join(file), text).unwrap();
    }
    let group = Group::open(dir.path()).unwrap();
    (dir, group)
}

#[test]
fn v2_limits_are_written_as_its_files_want_them() {
    let (_dir, group) = plain_group(&[
        ("memory.max", "max"),
        ("memory.swap.max", "max"),
        ("pids.max", "max"),
        ("cpu.max", "max 100000"),
    ]);
    for controller in [Controller::Memory, Controller::Pids, Controller::Cpu] {
        limit(&group, Version::V2, controller, &LIMITS).unwrap();
    }
    let written = ["memory.max", "memory.swap.max", "pids.max", "cpu.max"].map(|file| group.read(file).unwrap());
    assert_eq!(written, ["33554432", "0", "10", "50000 100000"]);
}

#[test]
fn absent_accounting_of_swap_is_no_error_but_an_absent_limit_is() {
    let (_dir, group) = plain_group(&[("memory.max", "max")]);
    limit(&group, Version::V2, Controller::Memory, &LIMITS).unwrap();
    let (_dir, group) = plain_group(&[("memory.limit_in_bytes", ""), ("memory.swappiness", "60")]);
    limit(&group, Version::V1, Controller::Memory, &LIMITS).unwrap();
    assert_eq!(group.read("memory.swappiness").unwrap(), "0");
    let refused = limit(&group, Version::V2, Controller::Memory, &LIMITS).unwrap_err();
    assert!(refused.to_string().contains("memory.max"), "{refused}");
}

#[test]
fn the_smallest_quota_is_what_the_kernel_takes() {
    let (_dir, group) = plain_group(&[("cpu.max", "")]);
    limit(&group, Version::V2, Controller::Cpu, &CgroupLimits { cpus: Some(0.0001), ..LIMITS }).unwrap();
    assert_eq!(group.read("cpu.max").unwrap(), "1000 100000");
}

#[test]
fn v2_controllers_are_handed_down_once() {
    let (_dir, group) = plain_group(&[("cgroup.subtree_control", "cpuset memory\n")]);
    hand_down(&group, &[Controller::Memory, Controller::Pids, Controller::Cpu]).unwrap();
    assert_eq!(group.read("cgroup.subtree_control").unwrap(), "+pids +cpu");
    let (_dir, group) = plain_group(&[("cgroup.subtree_control", "cpu memory pids\n")]);
    hand_down(&group, &[Controller::Memory, Controller::Pids, Controller::Cpu]).unwrap();
    assert_eq!(group.read("cgroup.subtree_control").unwrap(), "cpu memory pids\n", "nothing is written");
}

#[test]
fn v2_usage_and_events_are_read() {
    let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
    let (_dir, group) = plain_group(&[("memory.events", events), ("memory.current", "4096\n"), ("pids.current", "x")]);
    let base = Group::open(group.path()).unwrap();
    let tree = Tree { version: Version::V2, controllers: vec![Controller::Memory, Controller::Pids], base };
    let members = vec![Member { tree: Arc::new(tree), group }];
    let cgroup = Cgroup { members, ..Cgroup::empty("h", "s") };
    assert_eq!(cgroup.oom_kills().unwrap(), 2);
    assert_eq!(cgroup.memory_bytes().unwrap(), 4096);
    assert!(cgroup.processes().unwrap_err().to_string().ends_with("pids.current holds no number"));
}

#[test]
fn a_cpuset_that_is_mounted_along_is_inherited() {
    let (_parent_dir, parent) = plain_group(&[("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")]);
    let (_dir, child) = plain_group(&[("cpuset.cpus", "\n"), ("cpuset.mems", "1\n")]);
    inherit_cpuset(&parent, &child).unwrap();
    assert_eq!(
        (child.read("cpuset.cpus").unwrap(), child.read("cpuset.mems").unwrap()),
        ("0-1".to_owned(), "1\n".to_owned())
    );
}
