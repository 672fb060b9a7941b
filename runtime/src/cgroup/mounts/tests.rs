use std::fs;
use std::path::{Path, PathBuf};

use super::{Controller, Version, leave_delegated_group, locate, mount, mounts};
use crate::cgroup::DetectError;

/// A directory tree that looks like control group mounts, and the mountinfo text that leads to it.
struct Host {
    dir: tempfile::TempDir,
    mountinfo: String,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), mountinfo: "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn mount(mut self, name: &str, root: &str, kind: &str, options: &str) -> Self {
        let point = self.path().join(name);
        fs::create_dir_all(&point).unwrap();
        fs::write(point.join("cgroup.procs"), "").unwrap();
        let shown = point.display();
        self.mountinfo += &format!("31 23 0:28 {root} {shown} rw,nosuid shared:5 - {kind} {kind} {options}\n");
        self
    }

    fn controllers(self, group: &str, controllers: &str) -> Self {
        let group = self.path().join(group);
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("cgroup.procs"), "").unwrap();
        fs::write(group.join("cgroup.controllers"), controllers).unwrap();
        self
    }

    /// Version, controllers and base (relative to the host's directory) of each tree.
    fn located(&self, own: &str) -> Vec<(Version, Vec<Controller>, String)> {
        let trees = locate(&self.mountinfo, own, "").unwrap();
        let base = |path: &Path| path.strip_prefix(self.dir.path()).unwrap().display().to_string();
        trees.into_iter().map(|tree| (tree.version, tree.controllers, base(tree.base.path()))).collect()
    }
}

#[test]
fn v1_controllers_that_are_mounted_together_share_a_tree() {
    let host = Host::new()
        .mount("memory", "/", "cgroup", "rw,memory")
        .mount("cpu,cpuacct", "/", "cgroup", "rw,cpu,cpuacct")
        .mount("pids", "/", "cgroup", "rw,pids,freezer")
        .mount("systemd", "/", "cgroup", "rw,name=systemd");
    assert_eq!(
        host.located("4:memory:/a\n0::/\n"),
        [
            (Version::V1, vec![Controller::Memory], "memory".to_owned()),
            (Version::V1, vec![Controller::Pids, Controller::Freezer], "pids".to_owned()),
            (Version::V1, vec![Controller::Cpu], "cpu,cpuacct".to_owned()),
        ]
    );
}

#[test]
fn v2_is_one_tree_at_the_root_of_its_mount() {
    let host = Host::new().mount("", "/", "cgroup2", "rw,nsdelegate").controllers("", "cpuset cpu io memory pids\n");
    let all = vec![Controller::Memory, Controller::Pids, Controller::Cpu];
    assert_eq!(host.located("0::/user.slice/session-1.scope\n"), [(Version::V2, all, String::new())]);
}

#[test]
fn a_hybrid_host_is_taken_apart_by_controller_not_by_mount() {
    let host = Host::new()
        .mount("memory", "/", "cgroup", "rw,memory")
        .mount("unified", "/", "cgroup2", "rw")
        .controllers("unified", "cpu pids\n");
    assert_eq!(
        host.located("0::/\n"),
        [
            (Version::V1, vec![Controller::Memory], "memory".to_owned()),
            (Version::V2, vec![Controller::Pids, Controller::Cpu], "unified".to_owned()),
        ]
    );
    let nothing_on_v2 = Host::new()
        .mount("all", "/", "cgroup", "rw,memory,pids,cpu")
        .mount("unified", "/", "cgroup2", "rw")
        .controllers("unified", "hugetlb\n");
    let all = vec![Controller::Memory, Controller::Pids, Controller::Cpu];
    assert_eq!(nothing_on_v2.located("0::/\n"), [(Version::V1, all, "all".to_owned())]);
}

#[test]
fn a_delegated_subtree_is_used_if_the_agent_has_a_group_of_its_own_in_it() {
    let host = || {
        Host::new()
            .mount("", "/", "cgroup2", "rw")
            .controllers("", "cpu memory pids")
            .controllers("system.slice/sandbar.service", "cpu memory pids")
    };
    assert_eq!(host().located("0::/system.slice/sandbar.service/agent\n")[0].2, "system.slice/sandbar.service");
    assert_eq!(
        host().located("0::/system.slice/sandbar.service\n")[0].2,
        "",
        "without a subgroup nothing was delegated"
    );
    assert_eq!(host().located("0::/../../elsewhere/agent\n")[0].2, "", "a path above the mount's root leads nowhere");
    let bound = Host::new()
        .mount("", "/docker/1", "cgroup2", "rw")
        .controllers("", "cpu memory pids")
        .controllers("x", "cpu memory pids");
    assert_eq!(bound.located("0::/docker/1/x/agent\n")[0].2, "x", "paths are relative to the mount's root");
}

#[allow(unsafe_code, reason = "extended attributes have no wrapper")]
fn mark_delegated(group: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(group.as_os_str().as_bytes()).unwrap();
    // SAFETY: both names end with a zero and the value is one byte long; all of it outlives the call.
    unsafe { libc::setxattr(path.as_ptr(), c"user.delegate".as_ptr(), c"1".as_ptr().cast(), 1, 0) == 0 }
}

#[test]
fn a_group_that_is_delegated_to_this_process_is_left_for_one_below_it() {
    let host = Host::new()
        .mount("", "/", "cgroup2", "rw")
        .controllers("service", "cpu memory pids")
        .controllers("service/agent", "");
    let group = host.path().join("service");
    fs::write(group.join("memory.max"), "max").unwrap();
    let moved = || {
        leave_delegated_group(&host.mountinfo, "0::/service\n").unwrap();
        fs::read_to_string(group.join("agent/cgroup.procs")).unwrap()
    };
    assert_eq!(moved(), "", "nobody has delegated it");
    if !mark_delegated(&group) {
        eprintln!("SKIPPED: no extended attributes in {}", group.display());
        return;
    }
    assert_eq!(moved(), std::process::id().to_string());
    fs::remove_file(group.join("memory.max")).unwrap();
    fs::write(group.join("agent/cgroup.procs"), "").unwrap();
    assert_eq!(moved(), "", "what has no controllers is of no use");
}

#[test]
fn a_missing_controller_is_an_error_that_says_what_to_do() {
    let host = Host::new().mount("", "/", "cgroup2", "rw").controllers("", "cpu pids");
    let error = locate(&host.mountinfo, "0::/\n", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t70\t0\n")
        .unwrap_err();
    assert!(matches!(error, DetectError::SwitchedOff { controller: Controller::Memory }), "{error}");
    assert!(error.to_string().contains("cgroup_enable=memory"));
    let error = locate(&host.mountinfo, "0::/\n", "memory\t0\t70\t1\n").unwrap_err();
    assert!(matches!(error, DetectError::NotMounted { controller: Controller::Memory }), "{error}");
    assert!(locate("", "", "").is_err());
    let read_only = Host::new().mount("", "/", "cgroup2", "ro").controllers("", "cpu pids memory");
    let error = locate(&read_only.mountinfo, "0::/\n", "").unwrap_err();
    assert!(matches!(error, DetectError::ReadOnly { .. }), "{error}");
}

#[test]
fn a_mount_that_another_covers_is_not_used() {
    let text = "1 0 0:1 / /c rw - cgroup cgroup rw,memory\n2 0 0:2 / /c rw - cgroup2 cgroup2 rw\n";
    assert_eq!(mounts(text).iter().map(|mount| mount.version).collect::<Vec<_>>(), [Version::V2]);
    let host = Host::new().mount("", "/", "cgroup2", "rw").controllers("", "cpu pids memory");
    fs::remove_file(host.path().join("cgroup.procs")).unwrap();
    assert!(locate(&host.mountinfo, "0::/\n", "").is_err(), "a directory without kernel files is no control group");
}

#[test]
fn lines_of_mountinfo_are_taken_apart_and_others_passed_over() {
    let line = r"31 23 0:28 /a\040b /sys/fs/c\134d\040e ro,noexec shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct";
    let mount = mount(line).unwrap();
    assert_eq!((mount.root.to_str(), mount.point.to_str()), (Some("/a b"), Some(r"/sys/fs/c\d e")));
    assert!(mount.read_only && mount.controllers.contains(&"cpuacct".to_owned()));
    for line in ["", " - ", "1 2 3 4 5 6 7", "1 2 3 4 - cgroup cgroup rw", "a - b - c", "1 2 3 / /x rw - cgroup"] {
        assert!(super::mount(line).is_none(), "{line:?}");
    }
}
